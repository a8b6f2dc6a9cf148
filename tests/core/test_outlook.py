"""Answers from a snapshot at most a second old: who waits for it, and how often the store is asked."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from gateway.core import outlook as module
from gateway.core.errors import StoreUnavailableError
from gateway.core.forecast import ShareLoad, Snapshot
from gateway.core.outlook import Outlook
from gateway.core.share import Share, ShareLimits, ShareRule, ShareRules
from gateway.core.submission import State, Submission

if TYPE_CHECKING:
    from gateway.core.outlook import SnapshotStore

SHARE = Share("training", "vision")


class Clock:
    """The process's clock, where the outlook looks at it."""

    def __init__(self) -> None:
        self.now = 5000.0

    def monotonic(self) -> float:
        return self.now


class Store:
    """Snapshots that tell which one they are; `gate` holds them back while cleared."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.asked = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: Exception | None = None

    async def snapshot(self) -> Snapshot:
        self.asked += 1
        taken_at = self._clock.now
        await self.gate.wait()
        if self.error:
            raise self.error
        load = ShareLoad(start=0.0, weight=1.0, ready=1000)
        return Snapshot(taken_at=taken_at, shares={SHARE: load}, rate=1.0, limit=1.0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def store(clock: Clock) -> Store:
    return Store(clock)


@pytest.fixture
def outlook(store: Store) -> Outlook:
    return Outlook(store)


async def taken_at(outlook: Outlook) -> float | None:
    snapshot = await outlook.snapshot()
    return snapshot.taken_at if snapshot else None


async def settle() -> None:
    """Whatever is ready to run does."""
    for _ in range(20):
        await asyncio.sleep(0)


def at_once(coroutine: Any) -> Any:
    """What a coroutine answers that waits for nothing; one that waits fails the test."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    coroutine.close()
    raise AssertionError("it waits")


async def test_who_asks_first_waits_and_who_asks_meanwhile_waits_for_the_same(outlook: Outlook, store: Store) -> None:
    store.gate.clear()
    asking = [asyncio.ensure_future(taken_at(outlook)) for _ in range(5)]
    await settle()
    assert not any(one.done() for one in asking)
    store.gate.set()
    assert await asyncio.gather(*asking) == [5000.0] * 5
    assert store.asked == 1


async def test_nobody_waits_while_there_is_one_that_is_young_enough(
    outlook: Outlook, store: Store, clock: Clock
) -> None:
    await taken_at(outlook)
    store.gate.clear()
    for moment, asked in ((5000.4, 1), (5000.5, 2), (5000.7, 2), (5000.99, 2)):
        clock.now = moment
        assert at_once(taken_at(outlook)) == 5000.0
        await settle()
        assert store.asked == asked
    store.gate.set()
    await settle()
    clock.now = 5001.49
    assert at_once(taken_at(outlook)) == 5000.5


async def test_a_post_every_tenth_of_a_second_never_waits_and_asks_the_store_twice_a_second(
    outlook: Outlook, store: Store, clock: Clock
) -> None:
    await taken_at(outlook)
    for tick in range(1, 101):
        clock.now = 5000 + tick / 10
        taken = at_once(taken_at(outlook))
        assert clock.now - taken < 1
        await settle()
    assert store.asked <= 21


async def test_nothing_older_than_a_second_is_answered(outlook: Outlook, store: Store, clock: Clock) -> None:
    """Its age counts from when its reading began."""
    store.gate.clear()
    asking = asyncio.ensure_future(taken_at(outlook))
    await settle()
    clock.now += 0.8
    store.gate.set()
    assert await asking == 5000.0
    clock.now += 0.2
    assert await taken_at(outlook) == 5001.0


async def test_the_store_is_not_asked_while_nobody_asks(outlook: Outlook, store: Store, clock: Clock) -> None:
    await taken_at(outlook)
    clock.now += 3600
    await settle()
    assert store.asked == 1


async def test_a_store_that_fails_is_asked_once_a_second_and_answers_have_no_forecast(
    outlook: Outlook, store: Store, clock: Clock
) -> None:
    store.error = StoreUnavailableError("away")
    for tick in range(100):
        clock.now = 5000 + tick / 50
        assert await taken_at(outlook) is None
        await settle()
    assert store.asked == 2
    store.error = None
    clock.now = 5002.1
    assert await taken_at(outlook) == 5002.1


async def test_what_is_at_hand_serves_its_second_while_the_store_fails(
    outlook: Outlook, store: Store, clock: Clock
) -> None:
    await taken_at(outlook)
    store.error = StoreUnavailableError("away")
    for moment, expected in ((5000.6, 5000.0), (5000.9, 5000.0), (5001.0, None), (5001.3, None)):
        clock.now = moment
        assert await taken_at(outlook) == expected
        await settle()
    assert store.asked == 2


async def test_a_store_that_hangs_keeps_nobody_longer_than_its_answer_would_be_of_use(
    outlook: Outlook, store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FRESH_SECONDS", 0.05)
    store.gate.clear()
    assert await asyncio.wait_for(taken_at(outlook), 5) is None
    clock.now += 10
    assert await asyncio.wait_for(taken_at(outlook), 5) is None
    assert store.asked == 1  # one at a time
    store.gate.set()
    await settle()
    assert await taken_at(outlook) == 5010.0
    assert store.asked == 2


async def test_who_gives_up_waiting_takes_the_snapshot_from_nobody(outlook: Outlook, store: Store) -> None:
    store.gate.clear()
    impatient, patient = (asyncio.ensure_future(taken_at(outlook)) for _ in range(2))
    await settle()
    impatient.cancel()
    await settle()
    store.gate.set()
    assert await patient == 5000.0


async def test_a_bug_is_told_to_the_log_and_not_to_callers(outlook: Outlook, store: Store, clock: Clock) -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    store.error = ZeroDivisionError("a bug")
    for moment in (5000.0, 5000.5, 5001.0):
        clock.now = moment
        assert await taken_at(outlook) is None
        await settle()
    assert [context["exception"] for context in told] == [store.error] * 2


async def test_closing_ends_a_reading_and_leaves_no_task(outlook: Outlook, store: Store) -> None:
    await outlook.aclose()
    store.gate.clear()
    asking = asyncio.ensure_future(taken_at(outlook))
    await settle()
    await outlook.aclose()
    assert await asking is None
    assert asyncio.all_tasks() == {asyncio.current_task()}
    await outlook.aclose()


def queued(position: int | None, *, not_before: float | None = None, state: State = State.QUEUED) -> Submission:
    fields: dict[str, Any] = dict.fromkeys(
        ("submission_id", "client_token", "principal", "namespace", "share_kind", "job_name", "job_queue"), "x"
    )
    return Submission(
        **fields,
        token_generated=False,
        state=state,
        share=SHARE,
        priority=0,
        fingerprint=None,  # type: ignore[arg-type]  # nobody looks
        accepted_at=moment(4000.0),
        position=position,
        not_before=None if not_before is None else moment(not_before),
    )


def moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


async def expected(outlook: Outlook, submission: Submission) -> datetime | None:
    return (await outlook.with_forecast(submission)).estimated_forward_at


async def test_a_queued_one_is_told_when_it_goes(outlook: Outlook) -> None:
    assert await expected(outlook, queued(1)) == moment(5000.0)
    assert await expected(outlook, queued(11)) == moment(5010.0)
    assert await expected(outlook, queued(0)) == moment(5000.0)  # it is being called


async def test_what_went_since_the_snapshot_is_not_waited_for_again(outlook: Outlook, clock: Clock) -> None:
    await expected(outlook, queued(1))
    clock.now = 5000.9
    assert await expected(outlook, queued(1)) == moment(5001.0)


async def test_a_delayed_one_goes_when_its_delay_is_over(outlook: Outlook) -> None:
    assert await expected(outlook, queued(1, not_before=5007.0)) == moment(5007.0)
    assert await expected(outlook, queued(11, not_before=5007.0)) == moment(5010.0)


@pytest.mark.parametrize("submission", [queued(1, state=State.FORWARDED), queued(None)])
async def test_what_stands_in_no_line_has_no_forecast(outlook: Outlook, store: Store, submission: Submission) -> None:
    assert await outlook.with_forecast(submission) is submission
    assert store.asked == 0


async def test_a_share_that_is_new_since_weighs_what_the_settings_say(store: SnapshotStore) -> None:
    rule = ShareRule(queue="training", share="heavy", limits=ShareLimits(weight=2.0))
    outlook = Outlook(store, ShareRules([rule]))
    heavy, other = Share("training", "heavy"), Share("training", "other")
    found = [await outlook.expected_at(heavy, position) for position in (1, 2, 3)]
    assert found == [moment(5000.0), moment(5002.0), moment(5003.0)]
    assert await outlook.expected_at(other, 2) == moment(5002.0)
