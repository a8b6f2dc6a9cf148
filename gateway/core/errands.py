"""What Batch is asked for a submission beside submitting it: a look for its job, a termination, an update.

Owed durably, leased and settled like submissions, at a pace of their own: Batch counts these calls apart.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from typing import TYPE_CHECKING

from gateway.core.attempt import Answer, AnswerKind
from gateway.core.backoff import full_jitter_seconds
from gateway.core.errors import StoreUnavailableError
from gateway.core.job_search import JobSearch, is_unknown
from gateway.core.ports import ErrandEnd, ErrandReport, Wait
from gateway.core.reconcile import LOOK_AFTER_SECONDS, CallFailedError
from gateway.core.submission import Failure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.core.journal import Journal
    from gateway.core.ports import Errand, ErrandCalls, ErrandStore
    from gateway.core.reconcile import Candidate

POLL_SECONDS = 1.0
SETTLE_RETRY_SECONDS = 0.2
# Credentials and rights come back when a person has acted: asked again once a minute.
HELD_SECONDS = 60.0
MAX_NAMED = 10
# So often an errand is tried that Batch refuses, or denies us; some minutes with the pauses between.
MOST_TRIES = 8

CUT_SHORT = ErrandReport(verdict="later")
TOO_LONG = Answer(kind=AnswerKind.REFUSED, code="ErrandTimeout", message="Batch did not answer all of it in time.")
DEFAULT_REASON = "Canceled through the gateway."


class Errands:
    """Runs one upstream's errands, up to `concurrency` at a time."""

    def __init__(
        self,
        *,
        store: ErrandStore,
        batch: ErrandCalls,
        journal: Journal,
        concurrency: int,
        lease_seconds: float,
        chance: random.Random | None = None,
    ) -> None:
        self._store = store
        self._batch = batch
        self._search = JobSearch(batch=batch, owners=store)
        self._journal = journal
        self._lease_seconds = lease_seconds
        self._slots = asyncio.Semaphore(concurrency)
        self._chance = chance or random.SystemRandom()

    async def run(self, stop: asyncio.Event) -> None:
        """Until told to stop; then back when the errands in hand are settled."""
        async with asyncio.TaskGroup() as running:
            while not stop.is_set():
                await self._slots.acquire()
                got = Wait(seconds=0, reason="stopping") if stop.is_set() else await self._lease()
                if isinstance(got, Wait):
                    self._slots.release()
                    seconds = POLL_SECONDS if got.seconds is None else min(got.seconds, POLL_SECONDS)
                    with suppress(TimeoutError):
                        await asyncio.wait_for(stop.wait(), seconds)
                else:
                    running.create_task(self.run_one(got)).add_done_callback(lambda _: self._slots.release())

    async def run_one(self, errand: Errand) -> ErrandEnd:
        """One errand, from lease to settlement."""
        report = CUT_SHORT
        try:
            report = await self._report_in_time(errand)
            end = await self._settle(errand, report)
        except asyncio.CancelledError:  # the drain is over: its lease ends by itself, and another process asks again
            self._journal.tell_errand(errand, report, ErrandEnd(verdict="unsettled"))
            raise
        self._journal.tell_errand(errand, report, end)
        return end

    async def _report_in_time(self, errand: Errand) -> ErrandReport:
        try:
            async with asyncio.timeout(self._lease_seconds / 2):  # what runs longer, another process would do beside it
                return await self._report(errand)
        except TimeoutError:
            return self._failed(errand, TOO_LONG)

    async def _lease(self) -> Errand | Wait:
        try:
            return await self._store.lease()
        except StoreUnavailableError:
            return Wait(seconds=POLL_SECONDS, reason="store")  # the store's own watch tells of it

    async def _report(self, errand: Errand) -> ErrandReport:
        submission = errand.submission
        try:
            match errand.kind:
                case "look":
                    return await self._look(errand)
                case "terminate":
                    reason = submission.cancel.reason if submission.cancel else ""
                    await self._batch.terminate(submission.job_id or "", reason or DEFAULT_REASON)
                case "update":
                    await self._batch.update(submission.job_id or "", submission.priority)
        except CallFailedError as error:
            return self._failed(errand, error.answer)
        return ErrandReport(verdict="done")

    async def _look(self, errand: Errand) -> ErrandReport:
        looked = await self._search.look(errand.submission, errand.maybe_sent_since)
        if looked.own:
            return ErrandReport(verdict="found", job_id=looked.own.job_id, job_arn=looked.own.job_arn)
        if errand.looks + 1 < len(LOOK_AFTER_SECONDS):  # Batch lists late at times: another one may be on its way
            return ErrandReport(verdict="looked", delay_seconds=LOOK_AFTER_SECONDS[errand.looks + 1])
        failure = _verdict_of_looks(looked.possible, complete=looked.complete)
        return ErrandReport(verdict="unknown", failure=failure)

    def _failed(self, errand: Errand, answer: Answer) -> ErrandReport:
        """What follows from a call that failed. Outages, throttles and missing keys pass: these are waited for."""
        if errand.tries + 1 >= MOST_TRIES:
            if errand.kind == "look" and answer.kind in (AnswerKind.DENIED, AnswerKind.REFUSED):
                return ErrandReport(verdict="unknown", failure=answer.failure)
            if errand.kind != "look" and is_unknown(answer):  # a job that has just been made may not be known at once
                return ErrandReport(verdict="moot", failure=answer.failure)
        held = answer.kind in (AnswerKind.CREDENTIALS, AnswerKind.DENIED)
        delay = HELD_SECONDS if held else max(answer.wait_seconds, self._backoff_seconds(errand))
        return ErrandReport(verdict="later", delay_seconds=delay, failure=answer.failure)

    def _backoff_seconds(self, errand: Errand) -> float:
        return full_jitter_seconds(errand.tries + 1, self._chance)

    async def _settle(self, errand: Errand, report: ErrandReport) -> ErrandEnd:
        """Until the store has it; a lease that ends meanwhile makes another process ask again, which does no harm."""
        while True:
            with suppress(StoreUnavailableError):
                return await self._store.settle(errand, report)
            await asyncio.sleep(SETTLE_RETRY_SECONDS)


def _verdict_of_looks(possible: Sequence[Candidate], *, complete: bool) -> Failure:
    """For the person who must look now."""
    if not possible and complete:
        return Failure(
            code="JobNotFound",
            message="A call may have made a job, and no job of this name and queue was found in Batch.",
        )
    named = ", ".join(one.job_id for one in possible[:MAX_NAMED])
    more = f" and {len(possible) - MAX_NAMED} more" if len(possible) > MAX_NAMED else ""
    these = f" These may be it, by their name: {named}{more}." if possible else ""
    rest = "" if complete else " There are more jobs of this name than could be looked through."
    return Failure(code="JobNotCertain", message=f"A call may have made a job.{these}{rest}")
