"""How fast the store hands out: the fleet's one pace, its fall on throttles and its way back."""

from __future__ import annotations

import itertools
import random

import pytest

from gateway.core.pace import PaceRules
from tests.store.world import GIVEN_BACK, World, forwarded, refused, throttled, transient, unclear


async def times(world: World, number: int, *, late_ms: float = 0) -> list[float]:
    """When so many submissions are handed out, in ms from the first, to one who asks so late each time."""
    found: list[float] = []
    for _ in range(number):
        leased = await world.next_lease()
        found.append(world.now_us / 1000)
        await world.settle(leased, forwarded(leased.submission.submission_id))
        wait = await world.try_lease()
        if hasattr(wait, "reason") and wait.reason == "pace":
            await world.passes(seconds=wait.seconds, milliseconds=late_ms)
        elif len(found) < number:
            raise AssertionError(wait)
    return [at - found[0] for at in found]


async def rate(world: World) -> float:
    return float((await world.store.pace())["rate"])


async def slowed(world: World, times: int, apart_seconds: float = 1.0) -> None:
    for _ in range(times):
        await world.attempt(throttled())
        await world.passes(seconds=apart_seconds)


async def calls_until(world: World, wanted: float, *, within_seconds: float) -> float:
    """Seconds of answered calls, one after the other as the pace allows, until it is back at a rate."""
    began = world.now_us
    while await rate(world) < wanted:
        await world.queue(1)
        leased = await world.next_lease()
        await world.passes(milliseconds=50)
        await world.settle(leased, forwarded(leased.submission.submission_id))
        assert (world.now_us - began) / 1e6 <= within_seconds, f"only {await rate(world)} a second"
    return (world.now_us - began) / 1e6


async def test_calls_start_at_the_rate_200_ms_apart(world: World) -> None:
    await world.queue(21)
    assert await times(world, 20) == [200 * number for number in range(20)]


async def test_a_little_lateness_costs_no_calls(world: World) -> None:
    await world.queue(52)
    found = await times(world, 51, late_ms=20)
    assert found[-1] == 50 * 200 + 20
    assert all(later - earlier >= 179 for earlier, later in itertools.pairwise(found))


async def test_more_lateness_starts_a_new_timetable(world: World) -> None:
    await world.queue(12)
    assert await times(world, 11, late_ms=30) == [230 * number for number in range(11)]


@pytest.mark.parametrize("burst", [1, 3])
async def test_a_pause_saves_up_no_more_than_the_burst(world: World, burst: int) -> None:
    world = await world.variant(pace=PaceRules(burst=burst)).open()
    await world.queue(2 * burst + 2)
    for _ in range(2):
        await world.passes(seconds=60)
        for _ in range(burst):
            await world.lease()
        wait = await world.wait()
        assert (wait.seconds, wait.reason) == (0.2, "pace")


async def test_the_pace_is_one_for_all_processes(world: World) -> None:
    await world.queue(3)
    await world.lease()
    wait = await world.another_store(world.client).lease()
    assert (wait.seconds, wait.reason) == (0.2, "pace")


async def test_a_throttle_slows_to_seven_tenths(world: World) -> None:
    await world.queue(2)
    settlement = await world.settle(await world.lease(), throttled())
    assert settlement.pace == pytest.approx(3.5)
    assert await rate(world) == 3.5
    await world.next_lease()
    wait = await world.wait()
    assert wait.seconds == pytest.approx(1 / 3.5, abs=0.001)


async def test_throttles_of_one_second_tell_the_same_news_once(world: World) -> None:
    await world.queue(4)
    first, second, third = [await world.next_lease() for _ in range(3)]
    assert (await world.settle(first, throttled())).pace == pytest.approx(3.5)
    assert (await world.settle(second, throttled())).pace is None
    await world.passes(milliseconds=999)
    assert (await world.settle(third, throttled())).pace is None
    await world.passes(milliseconds=1)
    assert (await world.settle(await world.next_lease(), throttled())).pace == pytest.approx(2.45)


async def test_the_pace_never_falls_under_a_fifth_a_second(world: World) -> None:
    await world.queue(1)
    await slowed(world, 15)
    assert await rate(world) == 0.2
    assert (await world.wait()).seconds <= 5


async def test_all_calls_wait_as_long_as_a_throttle_says(world: World) -> None:
    await world.queue(3)
    first = await world.lease()
    second = await world.next_lease()
    await world.settle(first, throttled(wait_seconds=7))
    assert (await world.try_lease()).reason in {"throttled", "pace"}
    await world.settle(second, throttled(wait_seconds=2))  # the longer wait holds
    await world.passes(seconds=6.5)
    wait = await world.wait()
    assert (wait.seconds, wait.reason) == (0.5, "throttled")
    await world.passes(seconds=0.5)
    await world.lease()


async def test_the_pace_grows_only_while_it_is_what_limits(world: World) -> None:
    await world.queue(10)
    await slowed(world, 3)
    low = await rate(world)
    for _ in range(4):
        await world.passes(seconds=30)  # nobody was held back: these answers say nothing of more
        await world.attempt(forwarded("job"))
    assert await rate(world) == low
    await world.attempt(forwarded("job"))  # this one came as soon as the pace let it
    assert await rate(world) > low


async def test_the_pace_stays_a_hair_below_what_was_throttled_for_ten_minutes(world: World) -> None:
    await slowed_from_full(world)
    began = world.now_us
    await calls_until(world, 4.899, within_seconds=20)
    while world.now_us - began < 590e6:
        await world.queue(1)
        await world.attempt(forwarded("job"))
        assert await rate(world) <= 4.9
        await world.passes(seconds=5)
    await world.passes(seconds=10)
    await calls_until(world, 5, within_seconds=20)


async def slowed_from_full(world: World) -> None:
    await world.queue(1)
    await world.attempt(throttled())


async def test_a_later_throttle_lowers_the_ceiling(world: World) -> None:
    await slowed_from_full(world)
    await world.passes(seconds=1)
    await calls_until(world, 4.6, within_seconds=20)
    throttled_at = await rate(world)
    await world.passes(seconds=1)
    await world.queue(1)
    await world.attempt(throttled())
    await calls_until(world, throttled_at * 0.979, within_seconds=20)
    for _ in range(20):
        await world.queue(1)
        await world.attempt(forwarded("job"))
    assert await rate(world) == pytest.approx(throttled_at * 0.98, abs=0.001)


async def test_a_ceiling_that_proves_itself_is_trusted_for_longer(world: World) -> None:
    await slowed_from_full(world)
    await world.passes(seconds=1)
    await calls_until(world, 3.6, within_seconds=5)
    await world.queue(2)
    await world.attempt(throttled())  # far below the ceiling: one of ten seconds
    await calls_until(world, 4.2, within_seconds=20)
    throttled_at = await rate(world)
    await world.queue(2)
    await world.attempt(throttled())  # only when it had been forgotten: the next is one of twenty
    began = world.now_us
    while world.now_us - began < 19e6:
        await world.queue(1)
        await world.attempt(forwarded())
        assert await rate(world) <= throttled_at * 0.98 + 0.001
    await calls_until(world, throttled_at, within_seconds=3)


@pytest.mark.parametrize("storm_seconds", [10, 60, 300])
async def test_a_storm_of_throttles_is_over_soon_after_its_end(world: World, storm_seconds: int) -> None:
    await world.queue(1)
    end = world.now_us + storm_seconds * 1e6
    while world.now_us < end:
        await world.attempt(throttled())
    assert await calls_until(world, 4.5, within_seconds=20) > 1


@pytest.mark.parametrize("share_throttled", [0.1, 0.3, 0.5, 0.8])
async def test_a_storm_in_which_some_calls_pass_is_over_soon_after_its_end_too(
    world: World, share_throttled: float
) -> None:
    """Somebody else floods the account: at which pace a call of ours is throttled says nothing of our budget."""
    chance = random.Random(3)
    await world.queue(1)
    end = world.now_us + 60 * 1e6
    while world.now_us < end:
        await world.queue(1)
        await world.attempt(throttled() if chance.random() < share_throttled else forwarded())
    assert await rate(world) < 4
    await calls_until(world, 4.5, within_seconds=25)


async def test_a_budget_below_the_rate_is_found_and_kept_to(world: World) -> None:
    """A bucket of 2.5 a second, as another client of the account would leave us: most calls pass, and most are used."""
    passed = refused_calls = 0
    tokens, at = 1.0, world.now_us
    began = world.now_us
    while world.now_us - began < 300e6:
        await world.queue(1)
        leased = await world.next_lease()
        tokens, at = min(1.0, tokens + (world.now_us - at) / 1e6 * 2.5), world.now_us
        if tokens >= 1:
            tokens -= 1
            passed += 1
            await world.settle(leased, forwarded())
        else:
            refused_calls += 1
            await world.settle(leased, throttled())
    assert passed / 300 > 0.75 * 2.5
    assert refused_calls < 0.1 * passed


@pytest.mark.parametrize("answer", [forwarded(), refused(), transient()], ids=lambda report: report.outcome)
async def test_every_answer_lets_the_pace_grow(world: World, answer: object) -> None:
    await world.queue(3)
    await slowed(world, 2)
    low = await rate(world)
    leased = await world.next_lease()
    await world.settle(leased, GIVEN_BACK)
    leased = await world.next_lease()  # as soon as the pace allows
    await world.settle(leased, answer)  # type: ignore[arg-type]
    assert await rate(world) > low


async def test_what_proves_nothing_leaves_the_pace_alone(world: World) -> None:
    await world.queue(3)
    await slowed(world, 2)
    low = await rate(world)
    for report in (GIVEN_BACK, unclear()):
        await world.settle(await world.next_lease(), report)
    assert await rate(world) == low


async def test_a_rate_that_operators_lower_holds_for_every_process(world: World) -> None:
    await world.client.hset(world.keys.upstream, "o_rate", "2")
    await world.queue(4)
    assert await times(world, 3) == [0, 500, 1000]


async def test_a_rate_that_is_lowered_holds_where_the_pace_was_higher(world: World) -> None:
    await world.queue(5)
    await slowed(world, 1)
    assert await rate(world) == 3.5
    await world.client.hset(world.keys.upstream, "o_rate", "2")
    await world.next_lease()
    assert (await world.wait()).seconds == 0.5
