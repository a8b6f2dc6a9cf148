"""Forecasts of a real store's backlog, beside what then happens to it."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.attempt import Leased
from gateway.core.forecast import Forecast, ShareLoad
from gateway.core.pace import PaceRules
from gateway.core.share import Share, ShareLimits
from gateway.store.snapshot import AT_ONCE, take_snapshot
from tests.store.world import GIVEN_BACK, World, examples, forwarded, throttled

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from gateway.core.forecast import Snapshot
    from gateway.core.identity import SubmissionId
    from gateway.core.submission import Submission

QUEUES = ("training", "tuning", "nightly")
PRIORITIES = (0, 0, 0, 1, 500, 9999)
# A caller's or an operator's choice, and any other: with 0.3, 0.6 and 10 it is rounding that decides between shares.
WEIGHTS = (0.1, 0.3, 0.5, 0.6, 0.7, 1.0, 1.0, 2.0, 3.0, 10.0)


_CLOCK = "local now = redis.call('GET', KEYS[1]) return {math.floor(now / 1000000), now % 1000000}"


class ClockedClient:
    """The store, where `TIME` is the time of the world."""

    def __init__(self, world: World) -> None:
        self._world = world

    def pipeline(self, *, transaction: bool) -> Any:
        pipeline = self._world.client.pipeline(transaction=transaction)
        pipeline.time = lambda: pipeline.eval(_CLOCK, 1, f"{self._world.prefix}:clock")
        return pipeline


@dataclass(kw_only=True)
class Backlog:
    """A random one: shares of the queues, some served already, some paused, under a pace that may have been slowed."""

    world: World
    chance: random.Random
    shares: list[Share] = field(default_factory=list)
    paused: set[Share] = field(default_factory=set)
    waiting: dict[SubmissionId, Share] = field(default_factory=dict)

    @classmethod
    async def made(cls, client: Redis, seed: int, *, shares: int, most: int, queues: int, burst: int = 1) -> Backlog:
        """So many shares, with up to `most` submissions each."""
        chance = random.Random(seed)
        world = await World(client, pace=PaceRules(burst=burst)).open()
        backlog = cls(world=world, chance=chance)
        names = chance.sample(range(1000), shares)
        backlog.shares = [Share(chance.choice(QUEUES[:queues]), f"s{name}") for name in names]
        same = chance.random() < 0.25  # all alike: every round is one great tie
        weights = {share: 1.0 if same else backlog.weight() for share in backlog.shares}
        await backlog.arrive(weights, most)
        await backlog.serve(chance.choice((0, 0, 7, len(backlog.waiting) // 3)))
        if chance.random() < 0.5:  # some arrive when others have had their turns
            await backlog.arrive(dict(chance.sample(sorted(weights.items(), key=str), max(1, shares // 3))), most)
        await backlog.reweigh()
        await backlog.slow_down()
        await backlog.pause()
        await world.passes(milliseconds=chance.choice((0, 1, 90, 350, 3000)))
        return backlog

    def weight(self) -> float:
        return self.chance.choice((self.chance.choice(WEIGHTS), round(self.chance.uniform(0.1, 10), 2)))

    async def arrive(self, weights: dict[Share, float], most: int) -> None:
        arrivals = [share for share in weights for _ in range(self.chance.randint(1, most))]
        self.chance.shuffle(arrivals)
        for share in arrivals:
            await self.admit(share, weights[share], self.chance.choice(PRIORITIES))

    async def admit(self, share: Share, weight: float, priority: int) -> Submission:
        admission = await self.world.admit(
            None, ShareLimits(weight=weight), share=share.name, queue=share.queue, priority=priority
        )
        self.waiting[admission.submission.submission_id] = share
        return admission.submission

    async def serve(self, number: int) -> None:
        for _ in range(min(number, len(self.waiting))):
            await self.done(await self.world.next_lease())

    async def done(self, leased: Leased) -> None:
        await self.world.settle(leased, forwarded(leased.submission.submission_id))
        del self.waiting[leased.submission.submission_id]

    async def reweigh(self) -> None:
        """As operators do."""
        for share in self.chance.sample(self.shares, self.chance.choice((0, 0, 1, 2))):
            await self.world.store.set_share(share, {"weight": str(self.weight())})

    async def slow_down(self) -> None:
        """Throttles a second apart, perhaps with calls between that pass: those make a ceiling of the pace."""
        passing = self.chance.choice((0, 0, 1, 3))
        for _ in range(self.chance.choice((0, 0, 1, 2, 5, 12))):
            told = self.chance.choice((0, 0, 0, 4))
            if not self.waiting:
                return
            await self.world.settle(await self.world.next_lease(), throttled(told))
            await self.world.passes(seconds=self.chance.choice((0.2, 1.0, 1.0, 3.0)))
            await self.serve(passing)
        if self.chance.random() < 0.5:
            await self.serve(self.chance.choice((1, 5, 30)))
        if self.waiting and self.chance.random() < 0.2:
            await self.world.settle(await self.world.next_lease(), GIVEN_BACK)

    async def pause(self) -> None:
        for share in self.chance.sample(self.shares, self.chance.randint(0, len(self.shares) // 3)):
            await self.world.store.set_share(share, {"paused": "1"})
            self.paused.add(share)

    async def snapshot(self) -> Snapshot:
        return await take_snapshot(ClockedClient(self.world), self.world.keys, self.world.pace)

    async def places(self) -> dict[SubmissionId, tuple[Share, int]]:
        """Share and position of all that is queued, as callers are told."""
        found = {}
        for one in self.waiting:
            submission = await self.world.store.get(one)
            assert submission is not None
            assert submission.position is not None
            found[one] = (submission.share, submission.position)
        return found

    async def passes(self, seconds: float) -> None:
        """To a moment at which it is clear which calls have gone: not just after one."""
        clear_us = 20_000
        later_us = self.world.now_us + round(seconds * 1e6)
        gone = await self.happens(until_us=later_us)
        later_us = max(later_us, self.world.now_us, round(max(gone.values(), default=0.0) * 1e6) + clear_us)
        await self.happens(until_us=later_us)
        await self.world.set_clock(max(later_us, self.world.now_us))

    async def happens(self, until_us: float = float("inf")) -> dict[SubmissionId, float]:
        """When each is really handed out, in seconds of the store's clock, one call at a time."""
        # Answers come before the next slot opens; those that were saved up would not wait for each other.
        latency_ms = self.chance.choice((0, 0, 40, 150)) if self.world.pace.burst == 1 else 0
        found: dict[SubmissionId, float] = {}
        left = sum(share not in self.paused for share in self.waiting.values())
        while len(found) < left and self.world.now_us < until_us:
            got = await self.world.try_lease()
            if isinstance(got, Leased):
                found[got.submission.submission_id] = self.world.now_us / 1e6
                await self.world.passes(milliseconds=latency_ms)
                await self.done(got)
            else:
                assert got.seconds is not None, got
                if self.world.now_us + got.seconds * 1e6 > until_us:
                    break
                await self.world.passes(seconds=got.seconds)
        return found


@dataclass(frozen=True, kw_only=True)
class Told:
    """One forecast: when it was told, for when, and what came of it; in seconds of the store's clock."""

    at: float
    expected: float
    actual: float

    @property
    def error(self) -> float:
        """Of the time that it took."""
        return abs(self.expected - self.actual) / max(self.actual - self.at, 1e-9)

    def holds(self, slot_seconds: float) -> bool:
        return abs(self.expected - self.actual) <= 0.1 * (self.actual - self.at) + slot_seconds


def slot_seconds(snapshot: Snapshot) -> float:
    """One call at the pace of the snapshot, and the millisecond to which waits are rounded up."""
    return 1 / min(snapshot.rate, max(snapshot.ceiling, 0.2)) + 0.001


def seeds() -> st.SearchStrategy[int]:
    return st.integers(0, 2**32)


async def told(backlog: Backlog, *, seconds_later: float = 0.0) -> tuple[Snapshot, list[Told]]:
    """A forecast for each that is queued and whose share is not paused, and what came of it."""
    snapshot = await backlog.snapshot()
    forecast = Forecast.of(snapshot)
    if seconds_later:
        await backlog.passes(seconds_later)
    since = backlog.world.now_us / 1e6 - snapshot.taken_at
    places = await backlog.places()
    expected = {one: forecast.forward_at(*place, since) for one, place in places.items()}
    for one, place in places.items():
        assert (expected[one] is None) == (place[0] in backlog.paused)
    actual = await backlog.happens()
    assert actual.keys() == {one for one, at in expected.items() if at is not None}
    return snapshot, [
        Told(at=snapshot.taken_at, expected=expected[one] or 0.0, actual=moment) for one, moment in actual.items()
    ]


def fitting(most: int, shares: int) -> int:
    """No more than some 250 submissions in all: thousands tell no more and take a minute."""
    return min(most, 250 // shares + 1)


@given(seed=seeds(), shares=st.integers(3, 50), most=st.sampled_from((1, 2, 4, 8, 20)), queues=st.integers(1, 3))
@examples(40)
async def test_a_forecast_is_within_a_tenth_of_what_then_happens(
    client: Redis, seed: int, shares: int, most: int, queues: int
) -> None:
    backlog = await Backlog.made(client, seed, shares=shares, most=fitting(most, shares), queues=queues)
    snapshot, forecasts = await told(backlog)
    for one in forecasts:
        assert one.holds(slot_seconds(snapshot)), (one, snapshot)


@given(seed=seeds(), shares=st.integers(3, 50), most=st.sampled_from((1, 3, 8)), seconds_later=st.floats(0.05, 1.0))
@examples(20)
async def test_it_holds_for_positions_of_a_second_after_the_snapshot(
    client: Redis, seed: int, shares: int, most: int, seconds_later: float
) -> None:
    """Who asks gets a position of now and a forecast from the snapshot at hand."""
    backlog = await Backlog.made(client, seed, shares=shares, most=fitting(most, shares), queues=2)
    snapshot, forecasts = await told(backlog, seconds_later=seconds_later)
    for one in forecasts:
        assert one.holds(2 * slot_seconds(snapshot)), (one, snapshot)


@given(seed=seeds(), shares=st.integers(3, 50), most=st.sampled_from((1, 3, 8)), seconds_later=st.floats(0.0, 1.0))
@examples(20)
async def test_it_holds_for_what_arrives_after_the_snapshot(
    client: Redis, seed: int, shares: int, most: int, seconds_later: float
) -> None:
    """The answer to a POST: its submission is in no snapshot yet, and perhaps its share is not."""
    backlog = await Backlog.made(client, seed, shares=shares, most=fitting(most, shares), queues=2)
    snapshot = await backlog.snapshot()
    forecast = Forecast(snapshot, lambda _: 2.0)
    list(forecast.prepared())
    await backlog.passes(seconds_later)
    since = backlog.world.now_us / 1e6 - snapshot.taken_at
    share = backlog.chance.choice([Share("training", "new"), *snapshot.shares])
    weight = snapshot.shares[share].weight if share in snapshot.shares else 2.0
    new = [await backlog.admit(share, weight, priority=0) for _ in range(backlog.chance.randint(1, 5))][-1]
    assert new.position is not None
    expected = forecast.forward_at(share, new.position, since)
    assert expected is not None
    actual = (await backlog.happens())[new.submission_id]
    one = Told(at=snapshot.taken_at, expected=expected, actual=actual)
    assert one.holds(2 * slot_seconds(snapshot)), (one, snapshot)


@given(seed=seeds(), shares=st.integers(3, 20), burst=st.integers(2, 10))
@examples(10)
async def test_it_holds_with_calls_saved_up(client: Redis, seed: int, shares: int, burst: int) -> None:
    backlog = await Backlog.made(client, seed, shares=shares, most=5, queues=1, burst=burst)
    snapshot, forecasts = await told(backlog)
    for one in forecasts:
        assert one.holds(slot_seconds(snapshot)), (one, snapshot)


async def test_hundreds_of_shares_are_all_in_the_snapshot(client: Redis) -> None:
    """They come a few at a time, in whatever order the store keeps them."""
    world = await World(client).open()
    number = 6 * AT_ONCE + 7
    for share in range(number):
        await world.queue(1 + share % 3, ShareLimits(weight=1 + share % 5), share=f"s{share}")
        if share % 4 == 0:
            await world.store.set_share(Share("training", f"s{share}"), {"paused": "1"})
    snapshot = await world.store.snapshot()
    assert snapshot.paused == {Share("training", f"s{share}") for share in range(0, number, 4)}
    assert snapshot.shares == {
        Share("training", f"s{share}"): ShareLoad(start=0.0, weight=1.0 + share % 5, ready=1 + share % 3)
        for share in range(number)
        if share % 4
    }


async def test_a_share_that_is_paused_before_anything_waits_in_it_is_known_as_paused(world: World) -> None:
    await world.store.set_share(Share("training", "vision"), {"paused": "1"})
    await world.store.set_share(Share("training", "text"), {"weight": "2"})
    snapshot = await world.store.snapshot()
    assert snapshot.paused == {Share("training", "vision")}


@pytest.mark.parametrize("field", ["outage", "forwarding", "held_until"])
async def test_nothing_is_forecast_while_calls_are_held(world: World, field: str) -> None:
    await world.queue(1)
    held = {"outage": "1", "forwarding": "0", "held_until": "9999999999999"}[field]
    await world.client.hset(world.keys.upstream, field, held)
    snapshot = await world.store.snapshot()
    assert Forecast.of(snapshot).forward_at(Share("training", "vision"), 1) is None
