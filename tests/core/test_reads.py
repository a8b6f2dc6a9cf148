"""Questions to Batch: one call for all who ask the same, within the budget, and an old answer rather than none."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from gateway.core import reads as module
from gateway.core.attempt import Answer, AnswerKind
from gateway.core.errors import StoreUnavailableError, TooManyReadsError
from gateway.core.reads import PacedCalls, Reads
from gateway.core.reconcile import CallFailedError
from tests.core.fakes import ScriptedBudget, ScriptedOperations

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

QUEUES = "DescribeJobQueues"
NOT_SENT = Answer(kind=AnswerKind.NOT_SENT, code="EndpointConnectionError")
REFUSED = Answer(kind=AnswerKind.REFUSED, code="ClientException", message="there is no such thing")


class Batch(ScriptedOperations):
    """Counts its answers; fails with `trouble` while that is set."""

    def __init__(self) -> None:
        super().__init__(self._answer)
        self.trouble: Answer | None = None

    def _answer(self, operation: str, params: dict[str, Any]) -> dict[str, Any]:
        if self.trouble:
            raise CallFailedError(self.trouble)
        return {"number": len(self.calls), "operation": operation, "params": params}


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def reading(batch: Batch, budget: ScriptedBudget, clock: Clock) -> AsyncIterator[Reads]:
    reads = Reads(PacedCalls(batch, budget), clock=clock)
    try:
        yield reads
    finally:
        await reads.aclose()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.02)
    monkeypatch.setattr(module, "LONG_PATIENCE_SECONDS", 0.05)


async def test_who_asks_the_same_at_once_shares_a_call() -> None:
    batch, clock = Batch(), Clock()
    batch.gate.clear()
    async with reading(batch, ScriptedBudget(), clock) as reads:
        asked = [asyncio.create_task(reads.aged(QUEUES, {"jobQueues": ["a"]})) for _ in range(5)]
        other = asyncio.create_task(reads.aged(QUEUES, {"jobQueues": ["b"]}))
        while len(batch.calls) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0)
        batch.gate.set()
        found = await asyncio.gather(*asked)
        assert [one.answer["params"] for one in found] == [{"jobQueues": ["a"]}] * 5
        assert (await other).answer["params"] == {"jobQueues": ["b"]}
    assert len(batch.calls) == 2


async def test_an_answer_is_kept_for_a_second() -> None:
    batch, clock = Batch(), Clock()
    async with reading(batch, ScriptedBudget(), clock) as reads:
        await reads.aged(QUEUES, {})
        clock.now += 0.9
        aged = await reads.aged(QUEUES, {})
        assert (aged.answer["number"], round(aged.seconds, 3)) == (1, 0.9)
        clock.now += 0.2
        assert (await reads.aged(QUEUES, {})).answer["number"] == 2


async def test_where_the_budget_is_used_up_the_old_answer_is_given_with_its_age() -> None:
    batch, clock, budget = Batch(), Clock(), ScriptedBudget(1)
    async with reading(batch, budget, clock) as reads:
        await reads.aged(QUEUES, {})
        clock.now += 30
        aged = await reads.aged(QUEUES, {})
        assert (aged.answer["number"], aged.seconds) == (1, 30)
        with pytest.raises(TooManyReadsError):
            await reads.aged(QUEUES, {"jobQueues": ["never asked for"]})
    assert len(batch.calls) == 1


async def test_a_batch_that_is_away_leaves_the_old_answer() -> None:
    batch, clock = Batch(), Clock()
    async with reading(batch, ScriptedBudget(), clock) as reads:
        await reads.aged(QUEUES, {})
        batch.trouble = NOT_SENT
        clock.now += 5
        assert (await reads.aged(QUEUES, {})).seconds == 5
        with pytest.raises(CallFailedError):
            await reads.aged(QUEUES, {"jobQueues": ["never asked for"]})


async def test_a_refusal_is_an_answer() -> None:
    batch, clock = Batch(), Clock()
    async with reading(batch, ScriptedBudget(), clock) as reads:
        await reads.aged(QUEUES, {})
        batch.trouble = REFUSED
        clock.now += 5
        with pytest.raises(CallFailedError, match="ClientException"):
            await reads.aged(QUEUES, {})


async def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_KEPT", 3)
    batch, clock = Batch(), Clock()
    async with reading(batch, ScriptedBudget(), clock) as reads:
        for number in range(5):
            await reads.aged(QUEUES, {"nextToken": str(number)})
        assert len(reads._kept) == 3
        await reads.aged(QUEUES, {"nextToken": "4"})
    assert len(batch.calls) == 5


async def test_calls_go_in_the_order_in_which_they_were_asked_for() -> None:
    batch, budget = Batch(), ScriptedBudget(0)
    calls = PacedCalls(batch, budget)
    asked = [asyncio.create_task(calls.call("DescribeServiceJob", {"jobId": str(number)})) for number in range(5)]
    for _ in range(5):
        await asyncio.sleep(0)
    budget.left = 5
    await asyncio.gather(*asked)
    assert [params["jobId"] for _, params in batch.calls] == ["0", "1", "2", "3", "4"]


async def test_what_nobody_waits_for_any_more_takes_no_slot() -> None:
    batch, clock, budget = Batch(), Clock(), ScriptedBudget(0)
    async with reading(batch, budget, clock) as reads:
        for number in range(20):
            with pytest.raises(TooManyReadsError):
                await reads.aged(QUEUES, {"nextToken": str(number)})
        assert not reads._flights
        budget.left = 10
        await reads.aged(QUEUES, {})
    assert [params for _, params in batch.calls] == [{}]


async def test_a_call_that_gets_no_slot_in_time_says_so() -> None:
    with pytest.raises(TooManyReadsError):
        await PacedCalls(Batch(), ScriptedBudget(0)).call("TerminateServiceJob", {})


async def test_a_store_that_is_away_is_told_of() -> None:
    class Away:
        async def take(self) -> float:
            raise StoreUnavailableError("away")

    batch, clock = Batch(), Clock()
    async with reading(batch, Away(), clock) as reads:  # type: ignore[arg-type]
        with pytest.raises(StoreUnavailableError):
            await reads.aged(QUEUES, {})
    assert batch.calls == []


async def test_what_is_urgent_goes_before_all_others() -> None:
    """A check at acceptance has a second, and anybody may ask for sixty pages of lists."""
    batch, budget = Batch(), ScriptedBudget(0)
    calls = PacedCalls(batch, budget)
    others = [asyncio.create_task(calls.call("ListServiceJobs", {"nextToken": str(number)})) for number in range(60)]
    for _ in range(5):
        await asyncio.sleep(0)
    check = [asyncio.create_task(calls.urgent.call(QUEUES, {"jobQueues": [str(number)]})) for number in range(3)]
    for _ in range(5):
        await asyncio.sleep(0)
    budget.left = 3
    async with asyncio.timeout(1):
        await asyncio.gather(*check)
    assert [params for _, params in batch.calls] == [{"jobQueues": [str(number)]} for number in range(3)]
    budget.left = 60
    await asyncio.gather(*others)
    assert len(batch.calls) == 63


async def test_nor_does_who_comes_later_take_what_is_urgents() -> None:
    batch, budget = Batch(), ScriptedBudget(0)
    calls = PacedCalls(batch, budget)
    check = asyncio.create_task(calls.urgent.call(QUEUES, {}))
    for _ in range(5):
        await asyncio.sleep(0)
    budget.left = 1
    other = asyncio.create_task(calls.call("ListServiceJobs", {}))
    async with asyncio.timeout(1):
        await check
    assert [operation for operation, _ in batch.calls] == [QUEUES]
    budget.left = 1
    await other


async def test_who_gives_up_something_urgent_holds_nobody_up() -> None:
    batch, budget = Batch(), ScriptedBudget(0)
    calls = PacedCalls(batch, budget)
    check = [asyncio.create_task(calls.urgent.call(QUEUES, {})) for _ in range(2)]
    other = asyncio.create_task(calls.call("ListServiceJobs", {}))
    for _ in range(5):
        await asyncio.sleep(0)
    for one in check:
        one.cancel()
    await asyncio.wait(check)
    budget.left = 1
    await other
    assert [operation for operation, _ in batch.calls] == ["ListServiceJobs"]


async def test_an_answer_older_than_a_minute_is_none() -> None:
    batch, clock, budget = Batch(), Clock(), ScriptedBudget(2)
    async with reading(batch, budget, clock) as reads:
        await reads.aged(QUEUES, {})
        batch.trouble = NOT_SENT
        clock.now += 60.1
        with pytest.raises(CallFailedError, match="EndpointConnectionError"):
            await reads.aged(QUEUES, {})
        with pytest.raises(TooManyReadsError):  # no slot
            await reads.aged(QUEUES, {})


async def test_who_says_since_when_gets_nothing_older() -> None:
    batch, clock, budget = Batch(), Clock(), ScriptedBudget(2)
    async with reading(batch, budget, clock) as reads:
        await reads.aged(QUEUES, {})
        since = reads.now()
        assert (await reads.aged(QUEUES, {}, since=since)).answer["number"] == 1
        clock.now += 0.5
        since = reads.now()
        assert (await reads.aged(QUEUES, {}, since=since)).answer["number"] == 2
        clock.now += 0.5
        assert (await reads.aged(QUEUES, {}, since=since)).answer["number"] == 2
        with pytest.raises(TooManyReadsError):
            await reads.aged(QUEUES, {}, since=reads.now())
    assert len(batch.calls) == 2


async def test_who_says_since_when_waits_with_others_for_a_call_that_has_not_begun() -> None:
    batch, clock, budget = Batch(), Clock(), ScriptedBudget(0)
    async with reading(batch, budget, clock) as reads:
        asked = []
        for _ in range(5):
            clock.now += 0.1
            asked.append(asyncio.create_task(reads.aged(QUEUES, {}, since=reads.now())))
            await asyncio.sleep(0)
        budget.left = 5
        assert [one.answer["number"] for one in await asyncio.gather(*asked)] == [1] * 5
    assert len(batch.calls) == 1


async def test_who_says_since_when_boards_no_call_that_began_before() -> None:
    batch, clock = Batch(), Clock()
    batch.gate.clear()
    async with reading(batch, ScriptedBudget(), clock) as reads:
        asked = []
        for number in range(3):
            asked.append(asyncio.create_task(reads.aged(QUEUES, {}, since=reads.now())))
            while len(batch.calls) <= number:  # noqa: ASYNC110
                await asyncio.sleep(0)
            clock.now += 0.1
        batch.gate.set()
        assert [one.seconds < 0.35 for one in await asyncio.gather(*asked)] == [True] * 3
        assert len(batch.calls) == 3


async def test_an_answer_that_comes_late_takes_no_newer_ones_place() -> None:
    class Slow(Batch):
        """Each call is answered when the test says so."""

        def __init__(self) -> None:
            super().__init__()
            self.gates: list[asyncio.Event] = []

        async def call(self, *_: Any) -> dict[str, Any]:
            self.gates.append(gate := asyncio.Event())
            number = len(self.gates)
            await gate.wait()
            return {"number": number}

    batch, clock = Slow(), Clock()
    async with reading(batch, ScriptedBudget(), clock) as reads:
        asked = []
        for number in range(2):
            asked.append(asyncio.create_task(reads.aged(QUEUES, {}, since=reads.now())))
            while len(batch.gates) <= number:  # noqa: ASYNC110
                await asyncio.sleep(0)
            clock.now += 0.1
        for number in (1, 0):
            batch.gates[number].set()
            assert (await asked[number]).answer == {"number": number + 1}
        aged = await reads.aged(QUEUES, {})
        assert (aged.answer, aged.seconds) == ({"number": 2}, pytest.approx(0.1))


async def test_closing_ends_every_call_under_way() -> None:
    batch, clock = Batch(), Clock()
    batch.gate.clear()
    async with reading(batch, ScriptedBudget(), clock) as reads:
        asked = []
        for number in range(2):
            asked.append(asyncio.create_task(reads.aged(QUEUES, {}, since=reads.now())))
            while len(batch.calls) <= number:  # noqa: ASYNC110
                await asyncio.sleep(0)
            clock.now += 0.1
        await reads.aclose()
        assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("read ")]
        await asyncio.gather(*asked, return_exceptions=True)
