"""A share's rate limit is a plain token bucket, told exactly."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import RateLimitedError
from gateway.core.share import Share, ShareLimits
from tests.store.world import World, examples

if TYPE_CHECKING:
    from redis.asyncio import Redis

VISION = Share("training", "vision")
# The store counts in doubles of microseconds since 1970, which are 0.25 apart; an example adds up to 40 of them.
ROUNDING = Fraction(40 * 25, 100 * 1_000_000)


class TokenBucket:
    """The textbook's: it begins full, fills by `rate` a second up to `burst`, a submission takes one token."""

    def __init__(self, now_us: int, rate: Fraction, burst: int) -> None:
        self.tokens, self.at_us, self.rate, self.burst = Fraction(burst), now_us, rate, burst

    def fill(self, now_us: int) -> None:
        self.tokens = min(self.burst, self.tokens + self.rate * (now_us - self.at_us) / 1_000_000)
        self.at_us = now_us

    @property
    def seconds_short(self) -> Fraction:
        return (1 - self.tokens) / self.rate


async def refusal(world: World, limits: ShareLimits) -> RateLimitedError:
    with pytest.raises(RateLimitedError) as caught:
        await world.admit(limits=limits)
    assert [limit.name for limit in caught.value.limits] == ["share-rate"]
    return caught.value


rates = st.fractions(min_value=Fraction(1, 100), max_value=1000, max_denominator=1000)
gaps_us = st.one_of(st.just(0), st.integers(0, 5_000), st.integers(0, 3_000_000), st.integers(0, 300_000_000))
arrivals = st.lists(st.tuples(gaps_us, st.sampled_from(["new", "new", "new", "replay", "insist"])), max_size=40)


@given(rate=rates, burst=st.integers(1, 12), arrivals=arrivals)
@examples(150)
async def test_the_rate_limit_is_a_token_bucket(
    client: Redis, rate: Fraction, burst: int, arrivals: list[tuple[int, str]]
) -> None:
    world = await World(client).open()
    limits = ShareLimits(rate=float(rate), burst=burst)
    bucket = TokenBucket(world.now_us, Fraction(float(rate)), burst)
    for gap_us, kind in arrivals:
        await world.set_clock(world.now_us + gap_us)
        bucket.fill(world.now_us)
        if kind == "replay":  # costs nothing, is never refused: the buckets would differ from here on
            await world.admit("same", share="other")
            assert (await world.admit("same", limits, share="other")).known
            continue
        if abs(bucket.seconds_short) <= ROUNDING:  # one tick of the clock decides, and rounding may take it
            await world.passes(milliseconds=1)
            bucket.fill(world.now_us)
        if bucket.tokens >= 1:
            admission = await world.admit(limits=limits)
            bucket.tokens -= 1
            assert abs(admission.remaining - bucket.tokens) <= 1
            if min(bucket.tokens % 1, 1 - bucket.tokens % 1) / bucket.rate > ROUNDING:
                assert admission.remaining == int(bucket.tokens)
            continue
        error = await refusal(world, limits)
        short_ms = bucket.seconds_short * 1000
        told_ms = round(error.retry_after_seconds * 1000)
        assert short_ms - ROUNDING * 1000 <= told_ms < short_ms + 1 + ROUNDING * 1000
        if kind == "insist":
            if told_ms > 2:
                await world.passes(milliseconds=told_ms - 2)
                await refusal(world, limits)
                await world.passes(milliseconds=2)
            else:
                await world.passes(milliseconds=told_ms)
            await world.admit(limits=limits)
            bucket.fill(world.now_us)
            bucket.tokens -= 1


@pytest.mark.parametrize("rate", [0.1, 1, 5, 100])
async def test_a_token_counts_from_the_microsecond_in_which_it_is_there(world: World, rate: float) -> None:
    limits = ShareLimits(rate=rate, burst=1)
    await world.admit(limits=limits)
    step_us = round(1e6 / rate)
    await world.set_clock(world.now_us + step_us - 1)
    await refusal(world, limits)
    await world.set_clock(world.now_us + 1)
    await world.admit(limits=limits)


async def test_a_burst_passes_at_once_and_the_next_waits_for_one_token(world: World) -> None:
    limits = ShareLimits(rate=4, burst=3)
    assert [(await world.admit(limits=limits)).remaining for _ in range(3)] == [2, 1, 0]
    error = await refusal(world, limits)
    (limit,) = error.limits
    assert (limit.quota, limit.window_seconds, limit.remaining) == (3, 0.75, 0)
    assert limit.retry_after_seconds == error.retry_after_seconds == 0.25


async def test_no_rate_is_no_limit_and_tells_none(world: World) -> None:
    assert {(await world.admit(limits=ShareLimits(rate=0, burst=1))).remaining for _ in range(5)} == {None}


async def test_shares_have_buckets_of_their_own(world: World) -> None:
    limits = ShareLimits(rate=1, burst=1)
    await world.admit(limits=limits, share="vision")
    await world.admit(limits=limits, share="text")
    await world.admit(limits=limits, share="vision", queue="other")


async def test_what_operators_set_wins_over_the_settings(world: World) -> None:
    limits = ShareLimits(rate=1, burst=1)
    await world.store.set_share(VISION, {"rate": "10", "burst": "3"})
    assert [(await world.admit(limits=limits)).remaining for _ in range(3)] == [2, 1, 0]
    assert (await refusal(world, limits)).retry_after_seconds == 0.1
    await world.passes(seconds=60)
    await world.store.set_share(VISION, {"rate": None, "burst": None})
    await world.admit(limits=limits)
    assert (await refusal(world, limits)).retry_after_seconds == 1.0


async def test_operators_may_lift_a_limit_and_set_one_where_there_is_none(world: World) -> None:
    limited, free = ShareLimits(rate=1, burst=1), ShareLimits(rate=0, burst=1)
    await world.store.set_share(VISION, {"rate": "0"})
    await world.admit(limits=limited)
    await world.admit(limits=limited)
    await world.store.set_share(VISION, {"rate": "2"})
    await world.admit(limits=free)
    assert (await refusal(world, free)).retry_after_seconds == 0.5


async def test_a_raised_rate_helps_at_once(world: World) -> None:
    limits = ShareLimits(rate=0.1, burst=100)  # an empty bucket: 1000 s from full
    for _ in range(100):
        await world.admit(limits=limits)
    assert (await refusal(world, limits)).retry_after_seconds == 10
    await world.store.set_share(VISION, {"rate": "20"})
    assert (await refusal(world, limits)).retry_after_seconds == 0.05


async def test_a_lowered_rate_hands_out_no_second_burst(world: World) -> None:
    limits = ShareLimits(rate=10, burst=20)
    for _ in range(20):
        await world.admit(limits=limits)
    await world.store.set_share(VISION, {"rate": "0.1"})
    assert (await refusal(world, limits)).retry_after_seconds == 10


async def test_a_smaller_burst_counts_what_was_sent_before_it_and_tells_exactly_for_how_long(world: World) -> None:
    limits = ShareLimits(rate=1, burst=50)
    for _ in range(50):
        await world.admit(limits=limits)
    await world.store.set_share(VISION, {"burst": "2"})
    assert (await refusal(world, limits)).retry_after_seconds == 49
    await world.passes(seconds=48.999)
    assert (await refusal(world, limits)).retry_after_seconds == 0.001
    await world.passes(milliseconds=1)
    await world.admit(limits=limits)


async def test_replicas_with_different_settings_share_one_bucket(world: World) -> None:
    slow, fast = ShareLimits(rate=1, burst=10), ShareLimits(rate=10, burst=10)
    for _ in range(5):
        await world.admit(limits=slow)
        await world.admit(limits=fast)
    assert (await refusal(world, slow)).retry_after_seconds == 1
    assert (await refusal(world, fast)).retry_after_seconds == 0.1


async def test_a_refusal_and_a_replay_cost_no_rate(world: World) -> None:
    limits = ShareLimits(rate=1, burst=2)
    await world.admit("a", limits)
    await world.admit("b", limits)
    for _ in range(20):
        await refusal(world, limits)
        assert (await world.admit("a", limits)).known
    await world.passes(seconds=1)
    await world.admit("c", limits)
    assert (await refusal(world, limits)).retry_after_seconds == 1
