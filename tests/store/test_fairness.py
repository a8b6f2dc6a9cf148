"""The order of service, beside an ideal fluid scheduler that serves all shares at once, each by its weight."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.attempt import Leased
from gateway.core.share import Share, ShareLimits
from tests.store.world import NO_PACE, World, examples, forwarded, throttled, transient

if TYPE_CHECKING:
    from redis.asyncio import Redis


NAMES = "abcdef"


@pytest.fixture
async def world(client: Redis) -> World:
    return await World(client, pace=NO_PACE).open()


class Fluid:
    """Generalized processor sharing: a slot's capacity of one submission flows to all shares that wait, by weight."""

    def __init__(self, weights: dict[str, Fraction]) -> None:
        self.weights = weights
        self.backlog = dict.fromkeys(weights, Fraction(0))
        self.served = dict.fromkeys(weights, Fraction(0))

    def slot(self) -> None:
        capacity = Fraction(1)
        while capacity > 0:
            waiting = {name for name, backlog in self.backlog.items() if backlog > 0}
            if not waiting:
                return
            total = sum(self.weights[name] for name in waiting)
            # up to the moment when the first of them has nothing left
            used = min(capacity, *(self.backlog[name] * total / self.weights[name] for name in waiting))
            for name in waiting:
                part = used * self.weights[name] / total
                self.backlog[name] -= part
                self.served[name] += part
            capacity -= used


async def serve(world: World) -> Leased | None:
    """The next submission, in a moment of its own."""
    await world.passes(milliseconds=1)
    got = await world.try_lease()
    return got if isinstance(got, Leased) else None


async def order(world: World, number: int) -> str:
    """The shares of so many submissions, best of one letter each, as they are handed out and forwarded."""
    shares = ""
    for _ in range(number):
        leased = await serve(world)
        assert leased is not None
        await world.settle(leased, forwarded(leased.submission.submission_id))
        shares += leased.submission.share.name
    return shares


def fairness_ops() -> st.SearchStrategy[list[tuple[Any, ...]]]:
    share = st.sampled_from(NAMES)
    return st.lists(
        st.one_of(
            st.tuples(st.just("arrive"), share, st.integers(1, 8)),
            st.tuples(st.just("serve"), st.integers(1, 12)),
            st.tuples(st.just("call")),  # as serve, but the answer takes its time
            st.tuples(st.just("give back")),  # what was called longest ago comes back uncharged
            st.tuples(st.just("retry"), st.integers(1, 12)),  # charged, back after so many slots
            st.tuples(st.just("drain")),
        ),
        max_size=40,
    )


weights = st.sampled_from(
    [Fraction(1), Fraction(1), Fraction(1, 2), Fraction(2), Fraction(3), Fraction(1, 7), Fraction(10)]
)


class Race:
    """The store and the ideal side by side, slot by slot."""

    def __init__(self, world: World, of: dict[str, Fraction]) -> None:
        self.world, self.of, self.fluid = world, of, Fluid(of)
        self.served, self.slot, self.wasted = Counter[str](), 0, 0
        self.late: list[tuple[int, str]] = []  # (slot in which it is back, share) of what was retried
        self.called: Leased | None = None

    async def arrive(self, name: str, number: int) -> None:
        if name in self.of:
            await self.world.queue(number, ShareLimits(weight=float(self.of[name])), share=name)
            self.fluid.backlog[name] += number

    async def next(self) -> Leased | None:
        """A slot of both: who has the store's?"""
        self.slot += 1
        leased = await serve(self.world)
        for name in [name for slot, name in self.late if slot <= self.slot]:
            self.fluid.backlog[name] += 1
        self.late = [one for one in self.late if one[0] > self.slot]
        if leased is not None:
            self.served[leased.submission.share.name] += 1
        if self.wasted:  # a call that came to nothing took a slot, and the ideal one's with it
            self.wasted -= 1
        else:
            self.fluid.slot()
        self.check()
        return leased

    def check(self) -> None:
        for name in self.of:
            lag = self.fluid.served[name] - self.served[name]
            assert lag <= len(self.of) - 1, f"{name} lags by {float(lag)} in slot {self.slot}"

    async def do(self, op: str, *rest: Any) -> None:
        match op:
            case "arrive":
                await self.arrive(*rest)
            case "serve":
                for _ in range(rest[0]):
                    await self.next()
            case "drain":
                while await self.next():
                    pass
            case "call" if self.called is None:
                self.called = await self.next()
            case "give back" if self.called:
                await self.world.give_back(self.called)
                self.served[self.called.submission.share.name] -= 1
                self.called = None
                self.wasted += 1
            case "retry":
                if leased := await self.next():
                    await self.world.settle(leased, transient(delay_seconds=rest[0] / 1000))
                    self.late.append((self.slot + rest[0], leased.submission.share.name))


@given(weighed=st.lists(weights, min_size=2, max_size=len(NAMES)), ops=fairness_ops())
@examples(60)
async def test_no_share_lags_its_due_by_more_than_one_submission_of_each_other(
    client: Redis, weighed: list[Fraction], ops: list[tuple[Any, ...]]
) -> None:
    race = Race(await World(client, pace=NO_PACE).open(), dict(zip(NAMES, weighed, strict=False)))
    for op in ops:
        await race.do(*op)


async def test_a_small_share_is_served_beside_a_flood(world: World) -> None:
    await world.queue(50, share="flood")
    await order(world, 20)
    await world.queue(3, share="small")
    assert (await order(world, 6)).count("small") == 3


async def test_weights_divide_the_service(world: World) -> None:
    for share, weight in (("a", 1.0), ("b", 2.0), ("c", 0.5)):
        await world.queue(40, ShareLimits(weight=weight), share=share)
    assert Counter(await order(world, 35)) == {"a": 10, "b": 20, "c": 5}


async def test_what_operators_set_as_weight_wins_over_the_settings(world: World) -> None:
    await world.store.set_share(Share("training", "b"), {"weight": "3"})
    await world.queue(20, share="a")
    await world.queue(20, share="b")
    assert Counter(await order(world, 16)) == {"a": 4, "b": 12}
    await world.store.set_share(Share("training", "b"), {"weight": None})
    assert abs(Counter(await order(world, 10))["a"] - 5) <= 1


async def test_a_raised_weight_counts_at_once(world: World) -> None:
    await world.queue(60, share="a")
    await world.queue(20, ShareLimits(weight=0.001), share="b")
    await order(world, 5)  # one of b has been served: its next turn would be a thousand submissions away
    await world.store.set_share(Share("training", "b"), {"weight": "1"})
    assert abs(Counter(await order(world, 20))["b"] - 10) <= 2


async def test_a_lowered_weight_counts_at_once(world: World) -> None:
    await world.queue(40, share="a")
    await world.queue(40, ShareLimits(weight=10), share="b")
    await order(world, 11)
    await world.store.set_share(Share("training", "b"), {"weight": "0.1"})
    assert Counter(await order(world, 20))["b"] <= 3


async def test_an_idle_share_saves_no_credit(world: World) -> None:
    await world.queue(1, share="b")
    await order(world, 1)
    await world.queue(60, share="a")
    await order(world, 30)  # b could have had fifteen of these
    await world.queue(30, share="b")
    assert abs(Counter(await order(world, 20))["b"] - 10) <= 1


async def test_leases_that_ended_bring_no_credit_with_them(world: World) -> None:
    await world.queue(10, share="b")
    for _ in range(10):
        await serve(world)  # by a process that is never heard of again
    await world.queue(70, share="a")
    await order(world, 40)
    await world.passes(seconds=world.bounds.lease_seconds)
    assert abs(Counter(await order(world, 10))["b"] - 5) <= 1


async def test_a_late_turn_does_not_turn_the_clock_back_for_others(world: World) -> None:
    """A light share's turn is a hundred of the others': what arrives after it must not start so far back."""
    await world.queue(5, ShareLimits(weight=0.01), share="l")
    await world.queue(200, share="a")
    await order(world, 1)
    leased = await serve(world)
    assert leased is not None
    assert leased.submission.share.name == "l"
    await order(world, 50)
    await world.give_back(leased)
    assert await order(world, 1) == "l"
    await world.queue(50, share="n")
    assert abs(Counter(await order(world, 20))["n"] - 10) <= 1


async def test_a_share_that_leaves_and_returns_pays_for_what_it_had(world: World) -> None:
    """One submission at a time, each when the last is gone: no way past those who wait."""
    await world.queue(30, share="b")
    served = ""
    for _ in range(20):
        await world.queue(1, share="a")
        served += await order(world, 1)
    assert served.count("b") >= 9


async def test_in_a_share_priority_goes_first_and_then_arrival(world: World) -> None:
    low = await world.queue(2, priority=1)
    high = await world.queue(2, priority=9999)
    none = await world.queue(2, priority=0)
    middle = await world.queue(1, priority=500)
    for expected in (*high, *middle, *low, *none):
        leased = await serve(world)
        assert leased is not None
        assert leased.submission.submission_id == expected


async def test_priority_says_nothing_between_shares(world: World) -> None:
    await world.queue(10, share="a", priority=9999)
    await world.queue(10, share="b", priority=0)
    assert Counter(await order(world, 10)) == {"a": 5, "b": 5}


async def test_a_paused_share_waits_aside_and_resumes_in_its_order(world: World) -> None:
    paused = await world.queue(3, share="a")
    await world.queue(10, share="b")
    status = await world.store.set_share(Share("training", "a"), {"paused": "1"})
    assert (status.paused, status.queued) == (True, 3)
    assert await order(world, 4) == "bbbb"
    paused += await world.queue(1, share="a")  # accepted, and it waits too
    assert await order(world, 1) == "b"
    await world.store.set_share(Share("training", "a"), {"paused": None})
    resumed = []
    shares = ""
    while (leased := await serve(world)) is not None:
        shares += leased.submission.share.name
        if leased.submission.share.name == "a":
            resumed.append(leased.submission.submission_id)
    assert resumed == paused
    assert shares.rindex("a") <= 7  # four of a beside four of b: a pause saved no credit and cost none


async def test_nothing_is_handed_out_while_all_shares_are_paused(world: World) -> None:
    await world.queue(2)
    await world.store.set_share(Share("training", "vision"), {"paused": "1"})
    assert (await world.wait()).reason == "idle"


async def test_an_attempt_under_way_comes_back_to_a_paused_share_without_waking_it(world: World) -> None:
    (first, second) = await world.queue(2)
    leased = await world.lease()
    await world.store.set_share(Share("training", "vision"), {"paused": "1"})
    await world.give_back(leased)
    assert (await world.wait()).reason == "idle"
    await world.store.set_share(Share("training", "vision"), {"paused": None})
    assert [(await world.next_lease()).submission.submission_id for _ in range(2)] == [first, second]


@pytest.mark.parametrize("back", ["given back", "throttled"])
async def test_an_uncharged_return_keeps_its_place_and_its_turn(world: World, back: str) -> None:
    ids = await world.queue(3, share="b")
    await world.queue(9, share="a")
    await order(world, 2)  # a, b
    before = await world.client.hget(world.keys.share(Share("training", "b")), "finish")
    await order(world, 1)  # a
    leased = await serve(world)
    assert leased is not None
    assert leased.submission.submission_id == ids[1]
    await world.settle(leased, throttled()) if back == "throttled" else await world.give_back(leased)
    assert await world.client.hget(world.keys.share(Share("training", "b")), "finish") == before
    again = await world.next_lease()
    assert again.submission.submission_id == ids[1]


async def test_a_turn_given_back_late_is_the_next_one(world: World) -> None:
    """Its share had waited for all others; that a new round has begun meanwhile is not its fault."""
    for share in "abcdef":
        await world.queue(5, share=share)
    await order(world, 5)
    leased = await serve(world)
    assert leased is not None
    assert leased.submission.share.name == "f"
    assert await order(world, 3) == "abc"
    await world.give_back(leased)
    again = await serve(world)
    assert again is not None
    assert again.submission.submission_id == leased.submission.submission_id


async def test_a_return_gives_back_what_the_lease_took_whatever_the_weight_is_by_then(world: World) -> None:
    share = world.keys.share(Share("training", "b"))
    await world.queue(2, ShareLimits(weight=0.01), share="b")
    leased = await serve(world)
    assert leased is not None
    await world.queue(1, ShareLimits(weight=100), share="b")
    await world.give_back(leased)
    assert float(await world.client.hget(share, "finish")) == 0


async def test_a_new_weight_and_a_return_together_make_no_credit(world: World) -> None:
    await world.queue(60, share="a")
    await world.queue(40, ShareLimits(weight=0.001), share="b")
    await order(world, 1)
    leased = await serve(world)
    assert leased is not None
    assert leased.submission.share.name == "b"
    await world.store.set_share(Share("training", "b"), {"weight": "1"})
    await world.give_back(leased)
    assert Counter(await order(world, 20))["b"] <= 12


async def test_a_charged_retry_pays_for_each_call(world: World) -> None:
    await world.queue(1, share="a")
    await world.queue(20, share="b")
    shares = ""
    for _ in range(12):
        leased = await serve(world)
        assert leased is not None
        shares += leased.submission.share.name
        again = leased.submission.share.name == "a"
        await world.settle(leased, transient() if again else forwarded(leased.submission.submission_id))
    assert abs(shares.count("a") - 6) <= 1


async def test_a_delayed_one_comes_back_to_its_place(world: World) -> None:
    ids = await world.queue(4)
    leased = await serve(world)
    assert leased is not None
    await world.settle(leased, transient(delay_seconds=5))
    assert (await world.lease()).submission.submission_id == ids[1]
    await world.passes(seconds=5)
    assert (await world.lease()).submission.submission_id == ids[0]
    assert (await world.lease()).submission.submission_id == ids[2]


async def test_a_lease_that_ended_comes_back_to_its_place(world: World) -> None:
    ids = await world.queue(3)
    await world.lease()
    await world.passes(seconds=world.bounds.lease_seconds, milliseconds=-1)
    assert (await world.store.get(ids[0])).position == 0
    second = await world.lease()
    assert second.submission.submission_id == ids[1]
    await world.passes(milliseconds=1)
    assert (await world.lease()).submission.submission_id == ids[0]
    assert (await world.lease()).submission.submission_id == ids[2]


async def test_more_are_due_than_one_reclaim_brings_back(world: World) -> None:
    ids = await world.queue(120)
    for _ in ids:
        await serve(world)
    await world.passes(seconds=world.bounds.lease_seconds)
    assert [(await serve(world)).submission.submission_id for _ in ids] == ids


async def test_500_shares_take_turns(world: World) -> None:
    shares = [f"share-{number:03}" for number in range(500)]
    for share in shares:
        await world.queue(2, share=share)
    await world.queue(100, share="flood", queue="other")
    first = [(await serve(world)).submission.share.name for _ in range(501)]
    assert sorted(first) == sorted([*shares, "flood"])
    second = [(await serve(world)).submission.share.name for _ in range(501)]
    assert sorted(second) == sorted(first)


async def test_a_position_counts_those_ahead_in_its_share(world: World) -> None:
    assert [(await world.admit()).submission.position for _ in range(3)] == [1, 2, 3]
    assert (await world.admit("urgent", priority=5)).submission.position == 1
    assert (await world.admit("urgent", priority=5)).submission.position == 1
    assert (await world.admit(share="other")).submission.position == 1


async def test_a_replay_that_names_another_share_tells_the_position_in_its_own(world: World) -> None:
    await world.queue(2, share="vision")
    await world.admit("token", share="vision")
    replay = await world.admit("token", share="text")
    assert (replay.known, str(replay.submission.share), replay.submission.position) == (True, "training/vision", 3)
