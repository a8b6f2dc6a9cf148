"""What Batch tells of jobs and queues, asked once for many callers and within a budget for the whole fleet."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections import OrderedDict
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from gateway.core.attempt import AnswerKind
from gateway.core.errors import (
    TooManyReadsError,
    UpstreamDeniedError,
    UpstreamRefusedError,
    UpstreamUnavailableError,
)
from gateway.core.reconcile import CallFailedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from gateway.core.attempt import Answer
    from gateway.core.read_ports import OperationCalls, ReadBudget

FRESH_SECONDS = 1.0
# Who has an older answer to fall back on waits for a new one no longer than it would take at a quiet time.
PATIENCE_SECONDS = 1.0
# Who has none: long enough for a queue of two hundred reads, short enough for every client's own time-out.
LONG_PATIENCE_SECONDS = 8.0
# What is older is no answer any more: a list may have changed altogether.
OLDEST_SECONDS = 60.0
# Pages of lists have up to a hundred jobs of some 500 bytes.
MAX_KEPT = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Aged:
    """An answer of Batch's, and how many seconds ago it was asked for."""

    answer: dict[str, Any]
    seconds: float


class PacedCalls:
    """Calls of Batch one after another as the fleet's budget lets them.

    In two lines that have turns alike, each in the order in which was asked: one for jobs, one for lists and all else.
    `urgent` ones go before both: who asks for a page of a list can wait, an acceptance cannot.
    """

    def __init__(self, calls: OperationCalls, budget: ReadBudget) -> None:
        self._calls = calls
        self._budget = budget
        # One of each line asks the budget: hundreds would ask it again and again.
        self._turn, self._jobs_turn, self._urgent_turn = asyncio.Lock(), asyncio.Lock(), asyncio.Lock()
        self._urgent_waiting = 0
        self._none_urgent = asyncio.Event()
        self._none_urgent.set()

    @property
    def urgent(self) -> OperationCalls:
        return _UrgentCalls(self)

    async def slot(self, *, for_jobs: bool = False) -> None:
        """Back once a call may go. Raises StoreUnavailableError."""
        async with self._jobs_turn if for_jobs else self._turn:
            await self._lets_pass()
            while seconds := await self._budget.take():
                await asyncio.sleep(seconds)
                await self._lets_pass()

    async def urgent_slot(self) -> None:
        """As `slot`, before all that wait there. Who uses it must be bounded: nobody else has a turn meanwhile."""
        self._urgent_waiting += 1
        self._none_urgent.clear()
        try:
            async with self._urgent_turn:
                while seconds := await self._budget.take():  # noqa: ASYNC110 - what changes is in the store
                    await asyncio.sleep(seconds)
        finally:
            self._urgent_waiting -= 1
            if not self._urgent_waiting:
                self._none_urgent.set()

    async def call(self, operation: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Raises CallFailedError, StoreUnavailableError, and TooManyReadsError where no slot comes in time."""
        return await self._call_after(self.slot, operation, params)

    async def urgent_call(self, operation: str, params: Mapping[str, Any]) -> dict[str, Any]:
        return await self._call_after(self.urgent_slot, operation, params)

    async def at_once(self, operation: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """For who had its slot. Raises CallFailedError."""
        return await self._calls.call(operation, params)

    async def _lets_pass(self) -> None:
        while self._urgent_waiting:  # another may have come before this one wakes
            await self._none_urgent.wait()

    async def _call_after(
        self, slot: Callable[[], Awaitable[None]], operation: str, params: Mapping[str, Any]
    ) -> dict[str, Any]:
        try:
            async with asyncio.timeout(LONG_PATIENCE_SECONDS):
                await slot()
        except TimeoutError:
            raise TooManyReadsError from None
        return await self.at_once(operation, params)


@dataclass(frozen=True, slots=True)
class _UrgentCalls:
    paced: PacedCalls

    async def call(self, operation: str, params: Mapping[str, Any]) -> dict[str, Any]:
        return await self.paced.urgent_call(operation, params)


@dataclass(frozen=True, slots=True)
class _Kept:
    """An answer, and when Batch was asked for it."""

    answer: dict[str, Any]
    at: float


@dataclass(slots=True)
class _Flight:
    """A question on its way, and how many wait for the answer; without any it is dropped while it has no slot."""

    task: asyncio.Task[_Kept] = field(init=False)
    waiting: int = 0
    began: float | None = None

    async def wait(self, seconds: float) -> None:
        self.waiting += 1
        try:
            await asyncio.wait({self.task}, timeout=seconds)
        finally:
            self.waiting -= 1

    @property
    def abandoned(self) -> bool:
        return not self.waiting and self.began is None

    def is_boarded_by(self, since: float) -> bool:
        return self.began is None or self.began >= since


class Reads:
    """One upstream's reader: equal questions at the same time are one call, answers are kept a second.

    Where Batch or the budget cannot give a new answer, one of the last minute is given, with its age.
    """

    def __init__(self, calls: PacedCalls, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._calls = calls
        self._clock = clock
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        # The last of each question; one that began too early for somebody goes on beside it.
        self._flights: dict[str, _Flight] = {}
        self._tasks: set[asyncio.Task[_Kept]] = set()

    def now(self) -> float:
        """For `since`."""
        return self._clock()

    async def aged(self, operation: str, params: Mapping[str, Any], *, since: float = -math.inf) -> Aged:
        """As `read`, with the answer's age; never one that was asked for before `since`."""
        key = json.dumps([operation, params], sort_keys=True)
        kept = self._kept_answer(key, since)
        if kept is not None and self._clock() - kept.at < FRESH_SECONDS:
            return self._aged(kept)
        flight = self._flights.get(key)
        if flight is None or not flight.is_boarded_by(since):
            flight = self._begin(key, operation, params)
        try:
            await flight.wait(LONG_PATIENCE_SECONDS if kept is None else PATIENCE_SECONDS)
        finally:
            if flight.abandoned and self._flights.get(key) is flight:  # at once: nobody must board it any more
                del self._flights[key]
                flight.task.cancel()
        if flight.task.done() and not flight.task.cancelled():
            error = flight.task.exception()
            if error is None:
                return self._aged(flight.task.result())
            if kept is None or is_refusal(error):
                raise error
        if kept is None:
            raise TooManyReadsError
        return self._aged(kept)

    async def aclose(self) -> None:
        """Ends what is under way: nobody waits for it any more."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, key: str, operation: str, params: Mapping[str, Any]) -> _Flight:
        flight = self._flights[key] = _Flight()
        flight.task = asyncio.create_task(self._fly(flight, key, operation, params), name=f"read {operation}")
        self._tasks.add(flight.task)
        flight.task.add_done_callback(partial(self._landed, key, flight))
        return flight

    def _landed(self, key: str, flight: _Flight, task: asyncio.Task[_Kept]) -> None:
        self._tasks.discard(task)
        if self._flights.get(key) is flight:
            del self._flights[key]
        if not task.cancelled():
            task.exception()  # who still waits hears of it; else it is nothing to tell

    def _kept_answer(self, key: str, since: float) -> _Kept | None:
        kept = self._kept.get(key)
        if kept is None or kept.at < max(since, self._clock() - OLDEST_SECONDS):
            return None
        self._kept.move_to_end(key)
        return kept

    def _aged(self, kept: _Kept) -> Aged:
        return Aged(answer=kept.answer, seconds=self._clock() - kept.at)

    async def _fly(self, flight: _Flight, key: str, operation: str, params: Mapping[str, Any]) -> _Kept:
        await self._calls.slot()
        flight.began = began = self._clock()
        answer = _Kept(await self._calls.at_once(operation, params), began)
        before = self._kept.get(key)
        if before is None or before.at <= began:
            self._kept[key] = answer
            self._kept.move_to_end(key)
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
        return answer


def is_refusal(error: BaseException) -> bool:
    """Whether Batch says no for good: an older answer would hide that."""
    return isinstance(error, CallFailedError) and error.answer.kind is AnswerKind.REFUSED


@contextmanager
def upstream_errors() -> Iterator[None]:
    """What Batch or the way to it failed with, in words for callers."""
    try:
        yield
    except CallFailedError as error:
        raise _told(error.answer) from error


def _told(answer: Answer) -> Exception:
    match answer.kind:
        case AnswerKind.REFUSED:
            return UpstreamRefusedError(answer.message or "Batch refuses it.")
        case AnswerKind.DENIED:
            return UpstreamDeniedError("IAM does not let the gateway's own role ask Batch for this: " + answer.message)
        case AnswerKind.THROTTLED:
            return TooManyReadsError("Batch itself is throttling.", retry_after_seconds=max(1.0, answer.wait_seconds))
        case _:
            return UpstreamUnavailableError(
                f"Batch does not answer now ({answer.code}).", retry_after_seconds=max(1.0, answer.wait_seconds)
            )
