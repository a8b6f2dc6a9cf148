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
        asked = [asyncio.create_task(reads.read(QUEUES, {"jobQueues": ["a"]})) for _ in range(5)]
        other = asyncio.create_task(reads.read(QUEUES, {"jobQueues": ["b"]}))
        while len(batch.calls) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0)
        batch.gate.set()
        found = await asyncio.gather(*asked)
        assert [one["params"] for one in found] == [{"jobQueues": ["a"]}] * 5
        assert (await other)["params"] == {"jobQueues": ["b"]}
    assert len(batch.calls) == 2


async def test_an_answer_is_kept_for_a_second() -> None:
    batch, clock = Batch(), Clock()
    async with reading(batch, ScriptedBudget(), clock) as reads:
        await reads.read(QUEUES, {})
        clock.now += 0.9
        aged = await reads.aged(QUEUES, {})
        assert (aged.answer["number"], round(aged.seconds, 3)) == (1, 0.9)
        clock.now += 0.2
        assert (await reads.aged(QUEUES, {})).answer["number"] == 2


async def test_where_the_budget_is_used_up_the_old_answer_is_given_with_its_age() -> None:
    batch, clock, budget = Batch(), Clock(), ScriptedBudget(1)
    async with reading(batch, budget, clock) as reads:
        await reads.read(QUEUES, {})
        clock.now += 30
        aged = await reads.aged(QUEUES, {})
        assert (aged.answer["number"], aged.seconds) == (1, 30)
        with pytest.raises(TooManyReadsError):
            await reads.read(QUEUES, {"jobQueues": ["never asked for"]})
    assert len(batch.calls) == 1


async def test_a_batch_that_is_away_leaves_the_old_answer() -> None:
    batch, clock = Batch(), Clock()
    async with reading(batch, ScriptedBudget(), clock) as reads:
        await reads.read(QUEUES, {})
        batch.trouble = NOT_SENT
        clock.now += 5
        assert (await reads.aged(QUEUES, {})).seconds == 5
        with pytest.raises(CallFailedError):
            await reads.read(QUEUES, {"jobQueues": ["never asked for"]})


async def test_a_refusal_is_an_answer() -> None:
    batch, clock = Batch(), Clock()
    async with reading(batch, ScriptedBudget(), clock) as reads:
        await reads.read(QUEUES, {})
        batch.trouble = REFUSED
        clock.now += 5
        with pytest.raises(CallFailedError, match="ClientException"):
            await reads.read(QUEUES, {})


async def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_KEPT", 3)
    batch, clock = Batch(), Clock()
    async with reading(batch, ScriptedBudget(), clock) as reads:
        for number in range(5):
            await reads.read(QUEUES, {"nextToken": str(number)})
        assert len(reads._kept) == 3
        await reads.read(QUEUES, {"nextToken": "4"})
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
                await reads.read(QUEUES, {"nextToken": str(number)})
        assert not reads._flights
        budget.left = 10
        await reads.read(QUEUES, {})
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
            await reads.read(QUEUES, {})
    assert batch.calls == []
