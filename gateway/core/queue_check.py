"""Whether a queue takes a submission, by what Batch told of the queue a short while ago."""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.core.errors import Finding, GatewayError
from gateway.core.queue_facts import read_queue
from gateway.core.reconcile import CallFailedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.core.ports import Log
    from gateway.core.queue_facts import QueueFacts
    from gateway.core.read_ports import OperationCalls
    from gateway.core.share import Share

# Queues change seldom, and one of the same kind as an hour ago nearly always. What is older than a minute serves while
# it is read again beside the callers; past ten minutes it is history.
FRESH_SECONDS, USABLE_SECONDS = 60.0, 600.0
# Nobody is refused for what an operator has put right since: a refusal rests on what was asked so short a while ago.
# It is how often Batch is asked about a queue at most, too, however many are refused.
CERTAIN_SECONDS = 5.0
# A reading is up to three calls of some 100 ms, one after another. Who waits longer is kept from an answer by a check
# that Batch makes again anyway.
WAIT_SECONDS = 1.0
# Once a reading has failed or takes too long, Batch is left alone for so long; then it is asked beside the callers.
GIVEN_UP_SECONDS = 10.0
LOG_SECONDS = 60.0
# An account has some fifty queues, and callers may name any. A process that has just started may read all that there
# are at once; then invented names cost one call a second, however many there are.
STRANGE_READINGS, STRANGE_READINGS_A_SECOND = 50, 1.0
# A queue takes a few kilobytes where it has twenty quota shares, and some hundred bytes where it has none.
KNOWN_QUEUES, STRANGE_QUEUES = 4096, 1024

_UNCHECKED = "could not be checked against Batch: "
_SLOW = _UNCHECKED + "it did not answer in time"
_FAILED = _UNCHECKED + "it cannot be asked about the queue now"
_CROWDED = _UNCHECKED + "too many queues that are new to this gateway are named at once"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What speaks against a submission, and what could not be found out."""

    refused: tuple[Finding, ...] = ()
    warnings: tuple[Finding, ...] = ()


@dataclass(slots=True)
class _Queue:
    """Seconds are the clock's. `read_at` is when the reading of `facts` began: they may be as old as that."""

    name: str
    facts: QueueFacts | None = None
    read_at: float = -math.inf
    given_up_until: float = -math.inf
    logged_at: float = -math.inf
    flight: asyncio.Task[None] | None = None
    trouble: str = _FAILED

    @property
    def troubled(self) -> bool:
        """Whether the last reading failed or was slow: then nobody waits for the next ones, until one succeeds."""
        return self.given_up_until > -math.inf


class QueueCheck:
    """The queues of one upstream: what is known of them, and who waits for a reading.

    All who need a queue at the same time share one reading, which goes on beside them: who stops waiting takes it from
    nobody, and a late answer is of use to the next.
    """

    def __init__(
        self, *, upstream: str, calls: OperationCalls, log: Log, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`calls` must ask Batch each time: an answer kept elsewhere would be taken for a new one."""
        self._upstream = upstream
        self._calls = calls
        self._log = log
        self._clock = clock
        # Queues that exist, and those of which that is not known: a flood of these takes no room from the others.
        self._known: OrderedDict[str, _Queue] = OrderedDict()
        self._strange: OrderedDict[str, _Queue] = OrderedDict()
        self._budget = _Budget(clock())
        self._crowd_logged_at = -math.inf
        self._flights: set[asyncio.Task[None]] = set()
        self._closed = False

    async def judge(self, share: Share, share_kind: str) -> Judgement:
        """For a submission to this share; `share_kind` is the member that names it, or "". Waits a second at most."""
        queue, until = self._queue(share.queue), self._clock() + WAIT_SECONDS
        facts = await self._facts(queue, USABLE_SECONDS, until)
        refused = facts.against(share, share_kind) if facts else []
        if refused:
            facts = await self._facts(queue, CERTAIN_SECONDS, until)
            refused = facts.against(share, share_kind) if facts else []
        if facts is None:
            return Judgement(warnings=(Finding(pointer="/jobQueue", detail=queue.trouble),))
        if self._age(queue) > FRESH_SECONDS:
            self._reading(queue)
        return Judgement(refused=tuple(refused))

    async def judge_many(self, asked: Sequence[tuple[Share, str]]) -> list[Judgement | Exception]:
        """As `judge` for each, in order; different queues are waited for at the same time.

        A bug with one queue is its items' answer, and raised for none.
        """
        lines: dict[str, list[int]] = {}
        for number, (share, _) in enumerate(asked):
            lines.setdefault(share.queue, []).append(number)
        judged: list[Judgement | Exception] = [Judgement()] * len(asked)

        async def judge_line(line: list[int]) -> None:
            for number in line:
                try:
                    judged[number] = await self.judge(*asked[number])
                except Exception as error:  # noqa: BLE001 - it must not hide what becomes of the others
                    judged[number] = error

        await asyncio.gather(*(judge_line(line) for line in lines.values()))
        return judged

    async def aclose(self) -> None:
        """Ends all readings, and begins none any more."""
        self._closed = True
        for flight in self._flights:
            flight.cancel()
        if self._flights:
            await asyncio.wait(self._flights)

    async def _facts(self, queue: _Queue, max_age: float, until: float) -> QueueFacts | None:
        """No older than `max_age`; None where they cannot be had until then."""
        while self._age(queue) > max_age:
            now = self._clock()
            if now >= until:
                queue.trouble = _SLOW
                return None
            flight = self._reading(queue)
            if flight is None or queue.troubled:
                return None
            await asyncio.wait({flight}, timeout=until - now)
            if not flight.done():
                self._give_up(queue, _SLOW, "SlowReading")
        return queue.facts

    def _age(self, queue: _Queue) -> float:
        return self._clock() - queue.read_at

    def _reading(self, queue: _Queue) -> asyncio.Task[None] | None:
        """The one under way, or a new one; None where there may be none now."""
        if queue.flight is not None and not queue.flight.done():
            return queue.flight
        now = self._clock()
        if self._closed or now < queue.given_up_until:
            return None
        if queue.name not in self._known and not self._budget.take(now):
            queue.trouble = _CROWDED
            if now - self._crowd_logged_at >= LOG_SECONDS:
                self._crowd_logged_at = now
                self._tell(queue, "TooManyNewQueues")
            return None
        queue.flight = asyncio.create_task(self._read(queue, now), name="queue_check")
        self._flights.add(queue.flight)
        queue.flight.add_done_callback(self._landed)
        return queue.flight

    async def _read(self, queue: _Queue, began: float) -> None:
        try:
            queue.facts = await read_queue(self._calls, queue.name)
        except CallFailedError as error:
            self._give_up(queue, _FAILED, error.answer.code)
        except GatewayError as error:  # the store has the budget of all readings
            self._give_up(queue, _FAILED, type(error).__name__)
        except Exception as error:
            self._give_up(queue, _FAILED, type(error).__name__)
            raise
        else:
            queue.read_at, queue.given_up_until = began, -math.inf
            self._remember(queue)

    def _give_up(self, queue: _Queue, trouble: str, code: str) -> None:
        now = self._clock()
        queue.given_up_until, queue.trouble = now + GIVEN_UP_SECONDS, trouble
        if now - queue.logged_at >= LOG_SECONDS:
            queue.logged_at = now
            self._tell(queue, code)

    def _tell(self, queue: _Queue, code: str) -> None:
        self._log.warning("queue_unchecked", upstream=self._upstream, queue=queue.name, error_code=code)

    def _landed(self, flight: asyncio.Task[None]) -> None:
        """Nobody waits for what fails beside the callers: the loop tells the log of bugs."""
        self._flights.discard(flight)
        error = None if flight.cancelled() else flight.exception()
        if error is not None:
            flight.get_loop().call_exception_handler(
                {"message": "A queue cannot be read from Batch.", "exception": error, "task": flight}
            )

    def _queue(self, name: str) -> _Queue:
        for queues in (self._known, self._strange):
            if name in queues:
                queues.move_to_end(name)
                return queues[name]
        queue = _Queue(name)
        self._remember(queue)
        return queue

    def _remember(self, queue: _Queue) -> None:
        """Where it belongs now, as the last that was used; the one that was used longest ago makes room."""
        exists = queue.facts is not None and queue.facts.exists
        queues, others, most = (
            (self._known, self._strange, KNOWN_QUEUES) if exists else (self._strange, self._known, STRANGE_QUEUES)
        )
        others.pop(queue.name, None)
        queues[queue.name] = queue
        queues.move_to_end(queue.name)
        if len(queues) > most:
            queues.popitem(last=False)


class _Budget:
    """Readings of queues that nobody knows to exist."""

    def __init__(self, now: float) -> None:
        self._left = float(STRANGE_READINGS)
        self._at = now

    def take(self, now: float) -> bool:
        self._left = min(STRANGE_READINGS, self._left + (now - self._at) * STRANGE_READINGS_A_SECOND)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
