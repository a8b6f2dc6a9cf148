"""What waits in a queue: whole, in order, as it stood at one moment."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

from gateway.core.share import Share
from gateway.core.submission import State
from gateway.store import queue_listing
from gateway.store.queue_listing import WaitingRoom
from tests.store.world import NO_PACE, World, forwarded, reconcile, throttled, transient, unclear

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from redis.asyncio import Redis

    from gateway.core.attempt import Report
    from gateway.core.identity import SubmissionId

Execute: TypeAlias = "Callable[[], Awaitable[Any]]"

VISION = Share("training", "vision")


@pytest.fixture
async def world(client: Redis) -> World:
    return await World(client, pace=NO_PACE).open()


@pytest.fixture
def room(world: World) -> WaitingRoom:
    return WaitingRoom(world.client, world.keys)


def around_pipelines(monkeypatch: pytest.MonkeyPatch, client: Any, around: Callable[[Execute], Awaitable[Any]]) -> None:
    """Something happens around each group of commands."""
    pipeline = client.pipeline

    def made(**options: Any) -> Any:
        pipe = pipeline(**options)
        execute = pipe.execute
        pipe.execute = lambda **how: around(partial(execute, **how))
        return pipe

    monkeypatch.setattr(client, "pipeline", made)


async def walked(room: WaitingRoom, limit: int, share: str | None = None) -> list[SubmissionId]:
    found: list[SubmissionId] = []
    part = await room.waiting("training", share=share, before=None, limit=limit)
    while True:
        assert len(part.places) <= limit
        assert not set(found) & {one.submission_id for one in part.places}
        found += [one.submission_id for one in part.places]
        if not part.more:
            return found
        assert part.places, "there are more, and none came"
        part = await room.waiting("training", share=share, before=part.places[-1], limit=limit)


@pytest.mark.parametrize("limit", [1, 3, 7, 100])
async def test_all_shares_together_newest_first_and_by_id_within_a_millisecond(
    world: World, room: WaitingRoom, limit: int
) -> None:
    expected: list[SubmissionId] = []
    for number in (1, 30, 2, 4):
        arrived = [*await world.queue(number), *await world.queue(number, share="text")]
        expected = [*sorted(arrived, reverse=True), *expected]
        await world.passes(milliseconds=1)
    await world.queue(1, queue="elsewhere")
    await world.queue(1, queue="training2")
    assert await walked(room, limit) == expected


async def test_one_share_alone(world: World, room: WaitingRoom) -> None:
    await world.queue(2, share="text")
    wanted = await world.queue(3)
    assert await walked(room, 2, share="vision") == sorted(wanted, reverse=True)
    assert await walked(room, 2, share="nobody's") == []


async def test_what_fits_into_a_part_has_no_other_behind_it(world: World, room: WaitingRoom) -> None:
    await world.queue(30)
    assert not (await room.waiting("training", share=None, before=None, limit=30)).more
    assert (await room.waiting("training", share=None, before=None, limit=29)).more


async def test_many_shares_are_read_a_little_of_each_and_none_is_passed_over(
    world: World, room: WaitingRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_listing, "PLACES_AT_ONCE", 4)
    monkeypatch.setattr(queue_listing, "PLACES_EACH", 2)
    expected = []
    for number in range(40):  # the share `a` has most of the newest
        await world.passes(milliseconds=1)
        expected[:0] = await world.queue(1, share="a" if number > 20 else f"s{number % 7}")
    assert await walked(room, 5) == expected


async def test_a_share_that_fills_between_two_looks_is_read_too(
    world: World, room: WaitingRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first,) = await world.queue(1)
    late: list[SubmissionId] = []
    pending = [1]

    async def comes(execute: Execute) -> Any:
        answer = await execute()  # which tells the shares
        if pending:
            await world.passes(milliseconds=pending.pop())
            late.extend(await world.queue(1, share="new"))
        return answer

    around_pipelines(monkeypatch, world.client, comes)
    part = await room.waiting("training", share=None, before=None, limit=9)
    assert [one.submission_id for one in part.places] == [*late, first]


async def test_nobody_waits_in_an_empty_queue(room: WaitingRoom) -> None:
    part = await room.waiting("training", share=None, before=None, limit=9)
    assert (part.places, part.records, part.more) == ([], [], False)


async def test_records_tell_what_became_of_them_since_and_where_they_stand(
    world: World, room: WaitingRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await world.queue(2)
    look = world.client.time

    async def leaves() -> Any:
        await world.changes.cancel(second, "enough")
        return await look()

    monkeypatch.setattr(world.client, "time", leaves)
    part = await room.waiting("training", share=None, before=None, limit=9)
    records = {one.submission_id: one for one in part.records if one}
    assert records[second].state is State.CANCELED
    assert records[first].position == 1
    assert records[first].request == b""  # a list has no need of it


async def test_records_are_read_in_a_later_millisecond(
    world: World, room: WaitingRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.queue(1)
    read_at_ms: list[int] = []

    async def timed(execute: Execute) -> Any:
        read_at_ms.append(await world.index.now_ms())
        return await execute()

    around_pipelines(monkeypatch, world.client, timed)
    for _ in range(10):  # the rest of a millisecond may pass by itself
        read_at_ms.clear()
        part = await room.waiting("training", share="vision", before=None, limit=9)
        assert read_at_ms[1] > part.at_ms


async def test_a_clock_that_is_set_back_keeps_nobody_waiting(
    world: World, room: WaitingRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    (wanted,) = await world.queue(1)

    async def long_ago() -> tuple[int, int]:
        return 0, 0

    monkeypatch.setattr(world.client, "time", long_ago)
    part = await room.waiting("training", share=None, before=None, limit=9)
    assert [one.submission_id for one in part.places] == [wanted]


@pytest.mark.parametrize(
    ("report", "may_be_there"),
    [
        (None, True),  # its call is under way
        (unclear(delay_seconds=30), True),
        (unclear(), True),  # first in its line again
        (reconcile(), True),  # looked for
        (throttled(), False),
        (transient(delay_seconds=30), False),
        (forwarded(), False),
    ],
)
async def test_under_way_is_what_batch_may_have_a_job_of(
    world: World, room: WaitingRoom, report: Report | None, *, may_be_there: bool
) -> None:
    await world.queue(1, share="text")
    (wanted, _) = await world.queue(2)
    await world.lease()  # of the other share
    leased = await world.lease()
    assert leased.submission.submission_id == wanted
    if report is not None:
        await world.settle(leased, report)
    found = await room.under_way({VISION})
    assert [one.submission_id for one in found] == ([wanted] if may_be_there else [])


async def test_terminations_that_are_owed_do_not_hide_what_is_looked_for(
    world: World, room: WaitingRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_listing, "ERRANDS_MOST", 2)
    ended = await world.queue(3)
    for one in ended:
        await world.attempt(forwarded(f"job-{one}"))
    (sought,) = await world.queue(1)
    await world.attempt(reconcile())
    for one in ended:
        await world.changes.cancel(one, "enough")
    assert [one.submission_id for one in await room.under_way({VISION})] == [sought]


async def test_the_owners_of_jobs_are_known_by_their_ids(world: World) -> None:
    (wanted,) = await world.queue(1)
    await world.attempt(forwarded("job-1"))
    assert await world.index.owners(["job-1", "job-2"]) == {"job-1": wanted}
    assert await world.index.owners([]) == {}
