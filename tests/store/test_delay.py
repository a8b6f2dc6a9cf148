"""A share that delays what is over its rate: queued at once, handed out when the rate allows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.attempt import Leased
from gateway.core.errors import BacklogFullError, DeadlineUnreachableError, RateLimitedError
from gateway.core.share import Share, ShareLimits
from gateway.core.submission import State
from tests.store.world import NO_PACE, World, examples, forwarded

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from gateway.core.submission import Submission

VISION = Share("training", "vision")
DELAYS = ShareLimits(rate=1, burst=2, over_limit="delay")
REJECTS = ShareLimits(rate=1, burst=2)


@pytest.fixture
async def world(client: Redis) -> World:
    return await World(client, pace=NO_PACE).open()


async def admitted(world: World, limits: ShareLimits = DELAYS, **members: object) -> Submission:
    return (await world.admit(limits=limits, **members)).submission


def delay_seconds(world: World, submission: Submission) -> float | None:
    return submission.not_before and (submission.not_before - world.now).total_seconds()


# ---- When


async def test_what_is_over_the_rate_is_queued_for_the_time_that_conforms(any_world: World) -> None:
    world = any_world
    told = [delay_seconds(world, await admitted(world)) for _ in range(5)]
    assert told == [None, None, 1, 2, 3]
    await world.passes(seconds=3.5)
    assert delay_seconds(world, await admitted(world)) == 0.5
    await world.passes(seconds=1)
    assert delay_seconds(world, await admitted(world)) == 0.5


async def test_what_waits_for_its_rate_says_so_wherever_it_is_asked_for(any_world: World) -> None:
    await any_world.queue(2, DELAYS)
    new = await any_world.admit("token", DELAYS)
    submission = await any_world.store.get(new.submission.submission_id)
    assert submission.not_before == new.submission.not_before == any_world.now + timedelta(seconds=1)
    assert submission.state is State.QUEUED
    assert await any_world.places(submission.submission_id) == ["delayed"]
    assert new.remaining == 0
    replay = await any_world.admit("token", DELAYS)
    assert (replay.known, replay.submission.not_before) == (True, submission.not_before)


async def test_it_is_handed_out_in_the_millisecond_in_which_it_conforms(world: World) -> None:
    await world.queue(2, DELAYS)
    wanted = (await admitted(world)).submission_id
    for _ in range(2):
        await world.attempt(forwarded("job"))
    assert (await world.wait()).seconds == 1
    await world.passes(milliseconds=999)
    assert (await world.wait()).seconds == 0.001
    await world.passes(milliseconds=1)
    assert (await world.lease()).submission.submission_id == wanted


async def test_a_share_with_no_rate_delays_nothing(world: World) -> None:
    limits = ShareLimits(rate=0, burst=1, over_limit="delay")
    assert [(await admitted(world, limits)).not_before for _ in range(5)] == [None] * 5


rates = st.fractions(min_value=Fraction(1, 100), max_value=1000, max_denominator=1000)
gaps_us = st.one_of(st.just(0), st.integers(0, 5_000), st.integers(0, 3_000_000), st.integers(0, 300_000_000))


@given(rate=rates, burst=st.integers(1, 8), gaps=st.lists(gaps_us, max_size=30))
@examples(80)
async def test_each_is_due_when_a_token_bucket_would_let_it_through(
    client: Redis, rate: Fraction, burst: int, gaps: list[int]
) -> None:
    """Tokens may be owed: the bucket falls below nothing, and each waits until it is filled up to its own."""
    world = await World(client).open()
    limits = ShareLimits(rate=float(rate), burst=burst, over_limit="delay")
    tokens, rate = Fraction(burst), Fraction(float(rate))
    last_due = datetime.fromtimestamp(0, UTC)
    for gap_us in gaps:
        await world.set_clock(world.now_us + gap_us)
        tokens = min(Fraction(burst), tokens + rate * gap_us / 1_000_000) - 1
        due = (await admitted(world, limits)).not_before or world.now
        waits_us = max(Fraction(0), -tokens / rate * 1_000_000)
        told_us = round((due - world.now) / timedelta(microseconds=1))
        # in whole ms of the store's, rounded up from the clock's whole ms; doubles of microseconds are 0.25 apart
        assert waits_us - 1_000 - 10 <= told_us <= waits_us + 1_000 + 10
        assert due >= last_due - timedelta(milliseconds=1)
        last_due = due


@given(ticks=st.lists(st.sampled_from([0, 0, 0, 0, 1, 1, 3]), min_size=5, max_size=60))
@examples(40)
async def test_they_go_in_their_order_and_no_faster_than_the_rate(client: Redis, ticks: list[int]) -> None:
    """So many arrive in each tick of 200 ms, and what may go in it goes."""
    world = await World(client, pace=NO_PACE).open()
    arrived, went, went_at = [], [], []
    for number in [*ticks, *[0] * 5 * sum(ticks)]:
        await world.passes(milliseconds=200)
        arrived += await world.queue(number, DELAYS)
        while isinstance(got := await world.try_lease(), Leased):
            await world.settle(got, forwarded(got.submission.submission_id))
            went.append(got.submission.submission_id)
            went_at.append(world.now_us)
    assert went == arrived
    for first in range(len(went_at) - 3):  # of any four, two are the burst, and a tick is late
        assert went_at[first + 3] - went_at[first] >= 2_000_000 - 1_000_000 - 200_000


async def test_a_delay_costs_the_share_no_turn(world: World) -> None:
    await world.queue(2, DELAYS)
    delayed = await admitted(world)
    await world.queue(2, share="zoology")
    for _ in range(4):
        await world.attempt(forwarded("job"))
    await world.passes(seconds=1)
    await world.queue(2, share="zoology")
    assert (await world.lease()).submission.submission_id == delayed.submission_id


async def test_a_delayed_one_has_its_place_by_priority_when_it_is_due(world: World) -> None:
    await world.store.set_share(VISION, {"paused": "1"})
    first, second = await world.queue(2, DELAYS)
    urgent = await admitted(world, priority=9)
    await world.passes(seconds=1)
    await world.store.reclaim()
    await world.store.set_share(VISION, {"paused": None})
    served = [(await world.attempt(forwarded("job"))).submission.submission_id for _ in range(3)]
    assert served == [urgent.submission_id, first, second]


# ---- Bounds


async def test_what_is_delayed_counts_against_the_shares_backlog(any_world: World) -> None:
    limits = ShareLimits(rate=1, burst=1, max_queued=3, over_limit="delay")
    await any_world.queue(3, limits)
    before = await any_world.dump()
    with pytest.raises(BacklogFullError) as caught:
        await any_world.admit("one too many", limits)
    assert [limit.name for limit in caught.value.limits] == ["share-backlog"]
    assert await any_world.dump() == before
    assert (await any_world.counts()).by_share == {"training/vision": 3}


@pytest.mark.parametrize(("seconds", "taken"), [(0.5, False), (0.999, False), (1.0, True), (2.0, True)])
async def test_a_deadline_before_the_time_that_conforms_is_refused(
    any_world: World, seconds: float, *, taken: bool
) -> None:
    await any_world.queue(2, DELAYS)
    before = await any_world.dump()
    deadline = any_world.now + timedelta(seconds=seconds)
    if taken:
        assert delay_seconds(any_world, await admitted(any_world, deadline=deadline)) == 1
        return
    with pytest.raises(DeadlineUnreachableError) as caught:
        await any_world.admit("late", DELAYS, deadline=deadline)
    assert caught.value.retry_after_seconds == pytest.approx(1 - seconds)
    assert await any_world.dump() == before


async def test_a_refusal_costs_nothing_of_what_is_to_come(world: World) -> None:
    await world.queue(2, DELAYS)
    for _ in range(3):
        with pytest.raises(DeadlineUnreachableError):
            await world.admit("late", DELAYS, deadline=world.now)
    assert delay_seconds(world, await admitted(world)) == 1


async def test_a_deadline_that_only_the_forecast_misses_is_refused_too(world: World) -> None:
    deadline, expected_at = world.now + timedelta(seconds=10), world.now + timedelta(seconds=12.5)
    with pytest.raises(DeadlineUnreachableError) as caught:
        await world.admit("late", DELAYS, deadline=deadline, expected_at=expected_at)
    assert caught.value.retry_after_seconds == 2.5
    await world.admit("in time", DELAYS, deadline=expected_at, expected_at=expected_at)


# ---- Operators change their minds


async def test_operators_may_make_a_share_delay_and_refuse_again(world: World) -> None:
    await world.queue(2, REJECTS)
    await world.store.set_share(VISION, {"overLimit": "delay"})
    assert delay_seconds(world, await admitted(world, REJECTS)) == 1
    await world.store.set_share(VISION, {"overLimit": None})
    with pytest.raises(RateLimitedError):
        await world.admit(limits=REJECTS)
    await world.store.set_share(VISION, {"overLimit": "reject"})
    with pytest.raises(RateLimitedError):
        await world.admit(limits=DELAYS)


async def test_what_was_delayed_keeps_its_time_where_the_share_refuses_now(world: World) -> None:
    await world.queue(2, DELAYS)
    wanted = (await admitted(world)).submission_id
    for _ in range(2):
        await world.attempt(forwarded("job"))
    await world.store.set_share(VISION, {"overLimit": "reject"})
    assert (await world.wait()).seconds == 1
    await world.passes(seconds=1)
    assert (await world.lease()).submission.submission_id == wanted


@pytest.mark.parametrize("delayed", [0, 1, 5])
async def test_a_refusal_after_delays_tells_exactly_when_to_come_back(world: World, delayed: int) -> None:
    await world.queue(2 + delayed, DELAYS)
    with pytest.raises(RateLimitedError) as caught:
        await world.admit(limits=REJECTS)
    retry_ms = round(caught.value.retry_after_seconds * 1000)
    await world.passes(milliseconds=retry_ms - 1)
    with pytest.raises(RateLimitedError) as caught:
        await world.admit(limits=REJECTS)
    assert caught.value.retry_after_seconds == 0.001
    await world.passes(milliseconds=1)
    await world.admit(limits=REJECTS)


async def test_delays_go_on_where_they_stopped_when_a_share_refused_meanwhile(world: World) -> None:
    await world.queue(5, DELAYS)
    with pytest.raises(RateLimitedError):
        await world.admit(limits=REJECTS)
    assert delay_seconds(world, await admitted(world)) == 4


async def test_a_raised_rate_brings_the_next_ones_forward(world: World) -> None:
    await world.queue(4, DELAYS)
    await world.store.set_share(VISION, {"rate": "10"}, DELAYS)
    assert delay_seconds(world, await admitted(world)) == 0.3


# ---- When the rate changes


async def forwarded_order(world: World, number: int) -> list[str]:
    """Tokens in the order in which so many are handed out."""
    return [(await world.attempt(forwarded(f"job-{one}"))).submission.client_token for one in range(number)]


async def test_a_rate_that_is_taken_away_lets_those_go_that_wait_for_it(any_world: World) -> None:
    world = any_world
    slow = ShareLimits(rate=0.01, burst=1, over_limit="delay")
    old = [await admitted(world, slow) for _ in range(5)]
    await world.store.set_share(VISION, {"rate": "0"}, slow)
    new = await admitted(world, slow)
    order = await forwarded_order(world, 6)
    assert order == [one.client_token for one in [*old, new]]


async def test_a_rate_that_rises_keeps_the_order(any_world: World) -> None:
    world = any_world
    slow = ShareLimits(rate=0.5, burst=1, over_limit="delay")
    old = [await admitted(world, slow) for _ in range(5)]
    await world.store.set_share(VISION, {"rate": "100"}, slow)
    new = [await admitted(world, slow) for _ in range(3)]
    assert await forwarded_order(world, 8) == [one.client_token for one in [*old, *new]]


async def test_a_rate_that_falls_spreads_those_that_wait(any_world: World) -> None:
    world = any_world
    quick = ShareLimits(rate=10, burst=1, over_limit="delay")
    old = [await admitted(world, quick) for _ in range(4)]
    await world.store.set_share(VISION, {"rate": "1"}, quick)
    waiting = [await world.store.get(one.submission_id) for one in old[1:]]
    assert [delay_seconds(world, one) for one in waiting] == [1, 2, 3]
    assert delay_seconds(world, await admitted(world, quick)) == 4


async def test_a_rate_that_is_set_again_changes_nothing_for_those_that_wait(any_world: World) -> None:
    world = any_world
    await world.queue(5, DELAYS)
    before = await world.client.zrange(world.keys.delayed, 0, -1, withscores=True)
    await world.store.set_share(VISION, {"rate": "1", "weight": "2"}, DELAYS)
    assert await world.client.zrange(world.keys.delayed, 0, -1, withscores=True) == before


async def test_those_that_wait_for_the_rate_have_a_place_in_line_each(any_world: World) -> None:
    world = any_world
    made = [await admitted(world) for _ in range(6)]
    assert [one.position for one in made] == [1, 2, 3, 4, 5, 6]
    shown = [await world.store.get(one.submission_id) for one in made]
    assert [one.position for one in shown] == [1, 2, 3, 4, 5, 6]


async def test_nothing_is_left_of_those_that_waited(any_world: World) -> None:
    world = any_world
    made = [await admitted(world) for _ in range(4)]
    await world.changes.cancel(made[3].submission_id, "")
    await forwarded_order(world, 3)
    assert not await world.client.exists(world.keys.held(VISION))
