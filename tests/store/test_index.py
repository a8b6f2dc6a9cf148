"""The lists of submissions: whole, in order, and no longer than what they list."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.ports import Indexed
from gateway.store.bounds import StoreBounds
from gateway.store.sweep import SCRIPTS_A_ROUND, IndexSweep
from tests.store.world import NO_PACE, World, examples, forwarded, refused

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from gateway.core.identity import SubmissionId

MINUTE = timedelta(minutes=1)


async def walked(world: World, limit: int, namespace: str = "n") -> list[SubmissionId]:
    """The whole list, a page at a time."""
    found: list[Indexed] = []
    while page := await world.index.accepted_before(namespace, found[-1] if found else None, limit):
        assert len(page) <= limit
        found += page
    return [one.submission_id for one in found]


async def forget(world: World, *wanted: SubmissionId) -> None:
    """As the server does when a record's time is over."""
    await world.client.delete(*(world.keys.record(one) for one in wanted))


async def swept(world: World, name: str = "index:n", *, passed_over: int = 0) -> tuple[int, int]:
    return await world.index.sweep(name, accepted_before_ms=world.now_us // 1000, passed_over=passed_over)


# ---- Lists


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
async def test_a_list_has_each_once_newest_first_and_by_id_within_a_millisecond(world: World, limit: int) -> None:
    expected: list[SubmissionId] = []
    for number in (1, 5, 2, 1, 4):
        expected = [*sorted(await world.queue(number), reverse=True), *expected]
        await world.passes(milliseconds=1)
    assert await walked(world, limit) == expected


async def test_an_entry_says_when_its_submission_was_accepted(world: World) -> None:
    (wanted,) = await world.queue(1)
    (entry,) = await world.index.accepted_before("n", None, 10)
    assert entry == Indexed(accepted_ms=world.now_us // 1000, submission_id=wanted)
    assert (await world.store.get(wanted)).accepted_at == world.now


async def test_a_list_ends_where_there_is_no_more(world: World) -> None:
    await world.queue(3)
    page = await world.index.accepted_before("n", None, 3)
    assert len(page) == 3
    assert await world.index.accepted_before("n", page[-1], 3) == []
    assert await world.index.accepted_before("unheard of", None, 3) == []


async def test_namespaces_have_lists_of_their_own(world: World) -> None:
    mine, theirs = await world.queue(2), await world.queue(2, namespace="m")
    assert sorted(await walked(world, 10)) == sorted(mine)
    assert sorted(await walked(world, 10, "m")) == sorted(theirs)
    assert await world.index.namespaces() == ["m", "n"]


async def test_what_arrives_during_a_walk_moves_nothing_of_it(world: World) -> None:
    before = await world.queue(6)
    page = await world.index.accepted_before("n", None, 3)
    await world.passes(milliseconds=1)
    await world.queue(4)
    rest = await world.index.accepted_before("n", page[-1], 10)
    assert [one.submission_id for one in (*page, *rest)] == sorted(before, reverse=True)


async def test_where_a_walk_goes_on_needs_no_entry(world: World) -> None:
    """It may have been swept meanwhile."""
    ids = sorted(await world.queue(6), reverse=True)
    page = await world.index.accepted_before("n", None, 3)
    await forget(world, *ids[1:3])
    assert await swept(world) == (6, 2)
    rest = await world.index.accepted_before("n", page[-1], 10)
    assert [one.submission_id for one in rest] == ids[3:]


moves = st.lists(
    st.one_of(
        st.tuples(st.just("accept"), st.integers(1, 5), st.sampled_from([0, 1, 3])),
        st.tuples(st.just("forget"), st.integers(0, 100)),
        st.tuples(st.just("sweep")),
        st.tuples(st.just("page"), st.integers(1, 4)),
    ),
    max_size=40,
)


@given(number=st.integers(0, 12), moves=moves)
@examples(60)
async def test_a_walk_skips_and_repeats_none_while_others_come_and_go(
    client: Redis, number: int, moves: list[tuple[Any, ...]]
) -> None:
    world = await World(client).open()
    at_first = set(await world.queue(number))
    there, gone = sorted(at_first), set[str]()
    found: list[Indexed] = []
    for move, *rest in moves:
        if move == "accept":
            await world.passes(milliseconds=rest[1])
            there += await world.queue(rest[0])
        elif move == "forget" and there:
            gone.add(there.pop(rest[0] % len(there)))
            await forget(world, *gone)
        elif move == "sweep":
            await swept(world)
        elif move == "page":
            found += await world.index.accepted_before("n", found[-1] if found else None, rest[0])
    found += await world.index.accepted_before("n", found[-1] if found else None, 1000)
    ids = [one.submission_id for one in found]
    assert found == sorted(set(found), reverse=True)
    assert at_first - gone <= set(ids)


class Interrupted:
    """A client beside which something else happens before each further range of a page."""

    def __init__(self, client: Any, then: Any) -> None:
        self._client, self._then, self._asked = client, then, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def zrevrangebyscore(self, *args: Any, **options: Any) -> Any:
        if self._asked:
            await self._then(self._asked)
        self._asked += 1
        return await self._client.zrevrangebyscore(*args, **options)


@pytest.mark.parametrize("change", ["sweep", "accept"])
async def test_one_page_skips_and_repeats_none_either(world: World, change: str) -> None:
    """It is read in several ranges where many were accepted in the millisecond in which it begins."""
    ids = sorted(await world.queue(20), reverse=True)
    (first,) = [one for one in await world.index.accepted_before("n", None, 20) if one.submission_id == ids[9]]

    async def then(number: int) -> None:
        if change == "sweep":
            await world.client.zrem(world.keys.index("n"), ids[number])
        else:
            await world.client.zadd(world.keys.index("n"), {f"ffff-{number}": first.accepted_ms})

    world.index._client = Interrupted(world.client, then)
    page = await world.index.accepted_before("n", first, 6)
    assert [one.submission_id for one in page] == ids[10:16]


async def test_many_are_read_in_their_order_and_without_their_requests(world: World) -> None:
    first, second, gone = await world.queue(3)
    await forget(world, gone)
    found = await world.index.get_many([second, gone, first])
    one, other = await world.store.get(first), await world.store.get(second)
    assert found == [replace(other, request=b""), None, replace(one, request=b"")]
    assert await world.index.get_many([]) == []


async def test_a_job_is_known_longer_than_its_record(world: World) -> None:
    (wanted,) = await world.queue(1)
    await world.attempt(forwarded("job-1"))
    await forget(world, wanted)
    assert await world.index.get(wanted) is None
    assert await world.index.of_job("job-1") == wanted
    assert await world.index.of_job("job-2") is None


# ---- Sweeps


async def test_a_sweep_takes_the_expired_and_nothing_else(any_world: World) -> None:
    world = any_world
    ids = await world.queue(6)
    expired = ids[::2]
    await forget(world, *expired)
    assert await swept(world) == (6, 3)
    assert sorted(await walked(world, 10)) == sorted(set(ids) - set(expired))
    before = await world.dump()
    assert await swept(world) == (3, 0)
    assert await world.dump() == before


async def test_a_sweep_looks_at_nothing_that_was_accepted_since(world: World) -> None:
    old = await world.queue(2)
    at_ms = world.now_us // 1000
    await world.passes(milliseconds=1)
    new = await world.queue(2)
    await forget(world, *old, *new)
    assert await world.index.sweep("index:n", accepted_before_ms=at_ms, passed_over=0) == (2, 2)
    assert sorted(await walked(world, 10)) == sorted(new)


@pytest.mark.parametrize(("passed_over", "told"), [(0, (4, 2)), (2, (2, 1)), (3, (1, 1)), (4, (0, 0))])
async def test_a_sweep_goes_on_past_what_it_has_looked_at(
    world: World, passed_over: int, told: tuple[int, int]
) -> None:
    ids = sorted(await world.queue(4))
    await forget(world, ids[1], ids[3])
    assert await swept(world, passed_over=passed_over) == told


async def test_the_last_that_goes_takes_its_namespace_along(any_world: World) -> None:
    world = any_world
    (mine,), (theirs,) = await world.queue(1), await world.queue(1, namespace="m")
    await forget(world, mine)
    await swept(world)
    assert await world.index.namespaces() == ["m"]
    await forget(world, theirs)
    await swept(world)
    assert await world.index.namespaces() == ["m"]
    await swept(world, "index:m")
    assert await world.index.namespaces() == []
    await world.queue(1)
    assert await world.index.namespaces() == ["n"]


async def test_what_comes_back_after_it_was_forgotten_is_listed_once_where_it_is_now(world: World) -> None:
    wanted = (await world.admit("token")).submission.submission_id
    await world.attempt(forwarded("job-1"))
    await forget(world, wanted)
    await world.passes(seconds=10)
    assert not (await world.admit("token")).known
    assert await world.index.accepted_before("n", None, 10) == [
        Indexed(accepted_ms=world.now_us // 1000, submission_id=wanted)
    ]
    assert await swept(world) == (1, 0)


class Hours:
    """A gateway with a short retention and a steady flow, whose dead letters stay."""

    retention = timedelta(minutes=10)

    def __init__(self, world: World) -> None:
        self.world = world
        self.ends: dict[SubmissionId, int] = {}
        self.sweep = IndexSweep(world.index, retention_seconds=self.retention.total_seconds())
        world.index.now_ms = self.now_ms  # type: ignore[method-assign]

    async def now_ms(self) -> int:
        return self.world.now_us // 1000

    async def minute(self, number: int, dead: int) -> None:
        await self.world.queue(number + dead)
        for _ in range(number):
            wanted = (await self.world.attempt(forwarded("job"))).submission.submission_id
            self.ends[wanted] = await self.now_ms() + round(self.retention.total_seconds() * 1000)
        for number_dead in range(dead):
            await self.world.attempt(refused(f"code-{number_dead}"))
        await self.world.passes(seconds=60)
        over = [wanted for wanted, at in self.ends.items() if at <= self.world.now_us // 1000]
        for wanted in over:
            del self.ends[wanted]
        if over:
            await forget(self.world, *over)
        await self.sweep.sweep()


async def test_the_index_stays_as_long_as_what_it_lists(client: Redis) -> None:
    world = await World(client, pace=NO_PACE, bounds=StoreBounds(retention_seconds=600)).open()
    hours = Hours(world)
    lengths, keys = [], []
    for minute in range(180):
        await hours.minute(3, dead=int(minute % 30 == 0))
        lengths.append(await world.client.zcard(world.keys.index("n")))
        keys.append(len([key for key in await world.dump() if b":alias:" not in key]))  # kept for thirty days
    dead = 180 // 30
    assert max(lengths) <= 3 * (hours.retention // MINUTE + 1) + dead
    assert lengths[-1] == len(hours.ends) + dead
    assert max(keys[30:]) <= min(keys[30:]) + dead + 3


async def test_a_round_of_sweeping_ends_however_long_an_index_is(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.store.index.SWEEP_AT_ONCE", 2)
    ids = sorted(await world.queue(2 * SCRIPTS_A_ROUND + 4))
    hours = Hours(world)
    await world.passes(seconds=hours.retention.total_seconds())
    await forget(world, *ids[-3:])  # behind more that stay than a round looks at
    await hours.sweep.sweep()
    assert await world.client.zcard(world.keys.index("n")) == len(ids)
    await hours.sweep.sweep()
    assert await world.client.zcard(world.keys.index("n")) == len(ids) - 3
    await forget(world, *ids[:2])
    await hours.sweep.sweep()
    assert await walked(world, 100) == ids[2:-3][::-1]


async def test_two_that_sweep_at_once_take_out_no_more_than_one(world: World) -> None:
    ids = await world.queue(40)
    await world.passes(seconds=3600)
    await forget(world, *ids[::2])
    sweeps = [Hours(world).sweep for _ in range(2)]
    for sweep in (*sweeps, *sweeps):
        await sweep.sweep()
    assert Counter(await walked(world, 7)) == Counter(ids[1::2])
