"""Lease, look for what an earlier call may have made, call, settle: the only way from the store to Batch."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gateway.core import attempt
from gateway.core.attempt import (
    CUT_OFF,
    GIVEN_BACK,
    LOOK_TIMED_OUT,
    UNCONFIRMED,
    Leased,
    PaceSignal,
    Report,
    Verdict,
    verdict_on,
    verdict_on_failed_look,
    verdict_on_look,
)
from gateway.core.errors import StoreUnavailableError
from gateway.core.ports import Wait
from gateway.core.reconcile import CallFailedError
from gateway.core.submission import Failure

if TYPE_CHECKING:
    from datetime import datetime

    from gateway.core.job_search import JobSearch, Looked
    from gateway.core.journal import Journal
    from gateway.core.ports import BatchCalls, ForwardStore, Settlement, Wakeup
    from gateway.core.submission import Submission

# The poll is the truth where a wake-up is lost; an unreachable store is asked again at the same beat.
POLL_SECONDS = 1.0
SETTLE_RETRY_SECONDS = 0.2
KEYS_REST_SECONDS = (10.0, 20.0, 40.0, 60.0)


class OwnKeys:
    """Whether AWS takes this process's keys and clock. One that it refuses leaves the submissions to the others.

    Else it would lease the first one whenever the upstream's hold ends, have it refused, and hold all others up again.
    """

    def __init__(self) -> None:
        self._refused = 0
        self._rest_until = 0.0

    @property
    def rest_seconds(self) -> float:
        """How long no lease is to be taken here."""
        return self._rest_until - time.monotonic()

    def hear(self, signal: PaceSignal) -> None:
        """What a call told."""
        if signal is PaceSignal.CREDENTIALS:
            rest = KEYS_REST_SECONDS[min(self._refused, len(KEYS_REST_SECONDS) - 1)]
            self._refused += 1
            self._rest_until = time.monotonic() + rest
        elif signal in (PaceSignal.ANSWERED, PaceSignal.THROTTLED, PaceSignal.DENIED):  # signed well enough for these
            self._refused = 0


class Forwarder:
    """Forwards one upstream's submissions, up to `concurrency` calls at a time.

    `lease_seconds` is what the store grants; a lease of which less than `call_timeout_seconds` is left is not used.
    """

    def __init__(
        self,
        *,
        store: ForwardStore,
        batch: BatchCalls,
        search: JobSearch,
        wakeup: Wakeup,
        journal: Journal,
        max_attempts: int,
        lease_seconds: float,
        call_timeout_seconds: float,
        concurrency: int,
        chance: random.Random | None = None,
    ) -> None:
        self._store = store
        self._batch = batch
        self._search = search
        self._wakeup = wakeup
        self._journal = journal
        self._max_attempts = max_attempts
        self._call_timeout_seconds = call_timeout_seconds
        self._usable_seconds = lease_seconds - call_timeout_seconds
        self._slots = asyncio.Semaphore(concurrency)
        self._own_keys = OwnKeys()
        self._rest_until = 0.0
        self._chance = chance or random.SystemRandom()

    async def run(self, stop: asyncio.Event) -> None:
        """Forward until told to stop; then no new lease, and back when the calls in flight are settled."""
        async with asyncio.TaskGroup() as calls:
            while not stop.is_set():
                await self._take_slot()
                since = time.monotonic()
                got = await self._lease(stop)
                if isinstance(got, Wait):
                    self._slots.release()
                    await self._rest(got, stop)
                else:
                    call = calls.create_task(self.forward(got, since=since, stopping=stop.is_set()))
                    call.add_done_callback(lambda _: self._slots.release())

    async def forward(self, leased: Leased, *, since: float, stopping: bool = False) -> Settlement:
        """One attempt, from lease to settlement; `since` is when the lease was asked for, by the local clock."""
        began = called = time.monotonic()
        report = CUT_OFF
        try:
            report = await self._attempt(leased, since, stopping=stopping)
            called = time.monotonic()
            self._hear(report)
            settlement = await self._settle(leased, report)
        except asyncio.CancelledError:  # the drain is over: the log is all that remembers
            self._journal.tell_unsettled(leased, report, call_seconds=called - began)
            raise
        self._journal.tell(leased, report, settlement, call_seconds=called - began)
        return settlement

    def _hear(self, report: Report) -> None:
        self._own_keys.hear(report.signal)
        if report is UNCONFIRMED:  # asked again at once, the store would say so again
            self._rest_until = time.monotonic() + POLL_SECONDS

    async def _take_slot(self) -> None:
        """Until fewer calls than allowed are in flight. Deadlines do not wait for that: they are met meanwhile."""
        while True:
            try:
                async with asyncio.timeout(POLL_SECONDS):
                    await self._slots.acquire()
            except TimeoutError:
                with suppress(StoreUnavailableError):
                    await self._reclaim()
            else:
                return

    async def _reclaim(self) -> None:
        self._journal.tell_expired((await self._store.reclaim()).expired)

    async def _lease(self, stop: asyncio.Event) -> Leased | Wait:
        if stop.is_set():
            return Wait(seconds=0, reason="stopping")
        rest = max(self._own_keys.rest_seconds, self._rest_until - time.monotonic())
        try:
            got = Wait(seconds=rest, reason="rest") if rest > 0 else await self._store.lease()
            if isinstance(got, Wait) and got.reason in ("due", "rest"):  # deadlines are met all the same
                await self._reclaim()
        except StoreUnavailableError:
            return Wait(seconds=POLL_SECONDS, reason="store")  # the store's own watch tells of it
        return got

    async def _rest(self, wait: Wait, stop: asyncio.Event) -> None:
        seconds = POLL_SECONDS if wait.seconds is None else min(wait.seconds, POLL_SECONDS)
        waits: set[asyncio.Future[Any]] = {asyncio.ensure_future(stop.wait())}
        if wait.reason in ("idle", "stopped"):
            waits.add(asyncio.ensure_future(self._wakeup.wait(seconds)))
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiter in waits:
                waiter.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def _attempt(self, leased: Leased, since: float, *, stopping: bool) -> Report:
        if stopping or self._is_used_up(since):
            return GIVEN_BACK
        try:
            await self._store.confirm(leased)
        except StoreUnavailableError:
            return UNCONFIRMED
        seen = await self._look_first(leased) if leased.maybe_sent else None
        if seen is not None:
            return seen
        if leased.tries >= self._max_attempts:  # leases that ended without an answer count, and nobody settled them
            failure = Failure(code="AttemptsExhausted", message=f"{leased.tries} tries ended without an answer.")
            verdict = Verdict.UNKNOWN if leased.maybe_sent else Verdict.REJECT
            return Report(verdict=verdict, outcome="exhausted", proved_none=True, failure=failure)
        return GIVEN_BACK if self._is_used_up(since) else await self._call(leased, since)

    async def _look_first(self, leased: Leased) -> Report | None:
        """None where Batch is to be called again: no job was found, or nobody can tell and the token has to do."""
        try:
            looked = await self._look(leased.submission, leased.maybe_sent_since)
        except CallFailedError as error:
            report = verdict_on_failed_look(error.answer, leased, self._chance)
            if report is None:
                self._journal.tell_blind(leased, error.answer)
            return report
        return verdict_on_look(looked, leased.submission)

    async def _look(self, submission: Submission, since: datetime) -> Looked:
        """Raises CallFailedError."""
        try:
            async with asyncio.timeout(self._call_timeout_seconds):
                return await self._search.look(submission, since)
        except TimeoutError:
            raise CallFailedError(LOOK_TIMED_OUT) from None

    async def _call(self, leased: Leased, since: float) -> Report:
        """Raises nothing: whatever it is, it must be settled."""
        report = verdict_on(await self._batch.submit(leased.submission.request), leased, self._chance)
        if report.verdict is Verdict.REJECT:
            # Batch refuses a token that it knows: a store that was restored, or failed over, may have forgotten a call.
            return await self._job_made(leased.submission, report, since) or report
        if report.charged and not report.proved_none and leased.tries + 1 >= self._max_attempts:
            await asyncio.sleep(attempt.LISTED_WITHIN_SECONDS)  # nobody looks before another try: there is none
            return await self._job_made(leased.submission, report, since) or report
        return report

    async def _job_made(self, submission: Submission, report: Report, since: float) -> Report | None:
        """That it is in Batch after all; None where that is not known, or the lease is used up."""
        if self._is_used_up(since):
            return None
        with suppress(CallFailedError):
            seen = verdict_on_look(await self._look(submission, submission.accepted_at), submission)
            if seen is not None and seen.verdict is Verdict.FORWARDED:
                return replace(seen, signal=report.signal)
        return None

    def _is_used_up(self, since: float) -> bool:
        """Whether a call begun now could outlive its lease: another process would call beside it."""
        return time.monotonic() - since > self._usable_seconds

    async def _settle(self, leased: Leased, report: Report) -> Settlement:
        """Until the store has it: an answer that is forgotten here would make the next call a repeat."""
        while True:
            with suppress(StoreUnavailableError):
                return await self._store.settle(leased, report)
            await asyncio.sleep(SETTLE_RETRY_SECONDS)
