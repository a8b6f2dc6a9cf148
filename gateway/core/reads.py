"""What Batch tells of jobs and queues, asked once for many callers and within a budget for the whole fleet."""

from __future__ import annotations

import asyncio
import json
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
    from collections.abc import Callable, Iterator, Mapping

    from gateway.core.attempt import Answer
    from gateway.core.ports import OperationCalls, ReadBudget

FRESH_SECONDS = 1.0
# Who has an older answer to fall back on waits for a new one no longer than it would take at a quiet time.
PATIENCE_SECONDS = 1.0
# Who has none: long enough for a queue of two hundred reads, short enough for every client's own time-out.
LONG_PATIENCE_SECONDS = 8.0
# Pages of lists have up to a hundred jobs of some 500 bytes.
MAX_KEPT = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Aged:
    """An answer of Batch's, and how many seconds ago it was asked for."""

    answer: dict[str, Any]
    seconds: float


class PacedCalls:
    """Calls of Batch one after another as the fleet's budget lets them, in the order in which they were asked for."""

    def __init__(self, calls: OperationCalls, budget: ReadBudget) -> None:
        self._calls = calls
        self._budget = budget
        self._turn = asyncio.Lock()  # one of a process asks the budget: hundreds would ask it again and again

    async def slot(self) -> None:
        """Back once a call may go. Raises StoreUnavailableError."""
        async with self._turn:
            while seconds := await self._budget.take():  # noqa: ASYNC110 - what changes is in the store
                await asyncio.sleep(seconds)

    async def call(self, operation: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Raises CallFailedError, StoreUnavailableError, and TooManyReadsError where no slot comes in time."""
        try:
            async with asyncio.timeout(LONG_PATIENCE_SECONDS):
                await self.slot()
        except TimeoutError:
            raise TooManyReadsError from None
        return await self.at_once(operation, params)

    async def at_once(self, operation: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """For who had its slot. Raises CallFailedError."""
        return await self._calls.call(operation, params)


@dataclass(slots=True)
class _Flight:
    """A question on its way, and how many wait for the answer; without any it is dropped while it has no slot."""

    task: asyncio.Task[None] = field(init=False)
    waiting: int = 0
    begun: bool = False

    async def wait(self, seconds: float) -> None:
        self.waiting += 1
        try:
            await asyncio.wait({self.task}, timeout=seconds)
        finally:
            self.waiting -= 1

    @property
    def abandoned(self) -> bool:
        return not self.waiting and not self.begun


class Reads:
    """The core's BatchReads of one upstream: equal questions at the same time are one call, answers are kept a second.

    Where Batch or the budget cannot give a new answer, the old one is given, with its age.
    """

    def __init__(self, calls: PacedCalls, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._calls = calls
        self._clock = clock
        self._kept: OrderedDict[str, tuple[dict[str, Any], float]] = OrderedDict()
        self._flights: dict[str, _Flight] = {}

    async def read(self, operation: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Raises CallFailedError, TooManyReadsError, StoreUnavailableError."""
        return (await self.aged(operation, params)).answer

    async def aged(self, operation: str, params: Mapping[str, Any]) -> Aged:
        """As `read`, with the answer's age."""
        key = json.dumps([operation, params], sort_keys=True)
        kept = self._kept_answer(key)
        if kept is not None and kept.seconds < FRESH_SECONDS:
            return kept
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = _Flight()
            flight.task = asyncio.create_task(self._fly(flight, key, operation, params), name=f"read {operation}")
            flight.task.add_done_callback(partial(self._landed, key, flight))
        try:
            await flight.wait(LONG_PATIENCE_SECONDS if kept is None else PATIENCE_SECONDS)
        finally:
            if flight.abandoned and self._flights.get(key) is flight:  # at once: nobody must board it any more
                del self._flights[key]
                flight.task.cancel()
        if flight.task.done() and not flight.task.cancelled():
            error = flight.task.exception()
            if error is not None and (kept is None or is_refusal(error)):
                raise error
        now_kept = self._kept_answer(key) or kept
        if now_kept is None:
            raise TooManyReadsError
        return now_kept

    async def aclose(self) -> None:
        """Ends what is under way: nobody waits for it any more."""
        tasks = [flight.task for flight in self._flights.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _landed(self, key: str, flight: _Flight, task: asyncio.Task[None]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
        if not task.cancelled():
            task.exception()  # who still waits hears of it; else it is nothing to tell

    def _kept_answer(self, key: str) -> Aged | None:
        if key not in self._kept:
            return None
        answer, at = self._kept[key]
        self._kept.move_to_end(key)
        return Aged(answer=answer, seconds=self._clock() - at)

    async def _fly(self, flight: _Flight, key: str, operation: str, params: Mapping[str, Any]) -> None:
        await self._calls.slot()
        flight.begun = True
        began = self._clock()
        self._kept[key] = (await self._calls.at_once(operation, params), began)
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)


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
