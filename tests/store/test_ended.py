"""What ended without a job of Batch's is in its queue's list, as long as that is so and it is remembered."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from gateway.core.ports import ErrandReport, Indexed
from gateway.core.submission import Failure
from gateway.store.scripts import NAMES, Script
from gateway.store.sweep import IndexSweep
from tests.store.furnished import told
from tests.store.world import World, clocked, forwarded, refused, throttled, unclear

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from redis.asyncio import Redis

    from gateway.core.attempt import Leased
    from gateway.core.identity import SubmissionId

LISTS = re.compile(r"^ *list_ended\(prefix, id, record\)$", re.MULTILINE)


class Older(World):
    """A gateway that knows no such list, beside one that does."""

    def _clocked(self, part: Any) -> Any:
        part = super()._clocked(part)
        for name in NAMES:
            text, number = LISTS.subn("", clocked(name)._text)
            assert number == 1 + (name == "redrive"), "lists are written in another way: tell the tests"
            part._scripts[name] = Script(name, text)
        return part


def older(world: World) -> World:
    other = Older(world.client, prefix=world.prefix, now_us=world.now_us)
    other._tokens = world._tokens
    return other


async def listed(world: World, queue: str = "training") -> list[SubmissionId]:
    entries = await world.index.ended_before(queue, None, 100)
    named = await world.index.lists()
    assert (f"ended:{queue}" in named) == bool(entries)
    assert await told(world) == set()
    return [one.submission_id for one in entries]


async def rejected(world: World) -> Leased:
    return await world.attempt(refused())


async def unknown(world: World) -> Leased:
    return await world.attempt(refused(maybe_sent=True))


async def not_found(world: World) -> Leased:
    leased = await world.attempt(unclear())
    await world.changes.cancel(leased.submission.submission_id, "")
    report = ErrandReport(verdict="unknown", failure=Failure(code="NotFound", message=""))
    await world.errands.settle(await world.next_errand(), report)
    return leased


async def canceled(world: World) -> Leased:
    leased = await world.attempt(throttled())
    await world.changes.cancel(leased.submission.submission_id, "")
    return leased


async def expired(world: World) -> Leased:
    leased = await world.attempt(throttled())
    await world.passes(seconds=100)
    await world.store.reclaim()
    return leased


ENDS = [rejected, unknown, not_found, canceled, expired]


@pytest.mark.parametrize("end", ENDS)
async def test_what_ends_without_a_job_is_listed_where_it_was_accepted(
    any_world: World, end: Callable[[World], Awaitable[Leased]]
) -> None:
    world, at_ms = any_world, any_world.now_us // 1000
    (wanted,) = await world.queue(1, deadline=world.now + timedelta(seconds=100))
    await world.passes(seconds=1)
    assert await listed(world) == []
    leased = await end(world)
    assert leased.submission.submission_id == wanted
    assert await listed(world) == [wanted]
    assert await world.index.ended_before("training", None, 1) == [Indexed(accepted_ms=at_ms, submission_id=wanted)]
    assert await listed(world, "other") == []
    await world.settle(leased, forwarded("job"))  # an answer that was long on its way
    assert (await world.store.get(wanted)).job_id == "job"  # type: ignore[union-attr]
    assert await listed(world) == []


async def test_what_batch_has_or_waits_is_not_listed(world: World) -> None:
    await world.queue(3)
    await world.attempt(forwarded("job"))
    await world.attempt(unclear(30))
    await world.next_lease()
    assert await listed(world) == []


async def test_a_dead_letter_leaves_the_list_when_it_is_redriven(any_world: World) -> None:
    world = any_world
    first, second = await world.queue(2)
    for _ in range(2):
        await world.attempt(refused())
    for one, left in ((first, [second]), (second, [])):
        await world.changes.redrive(one)
        assert await listed(world) == left
    await world.attempt(refused())
    assert await listed(world) == [first]


@pytest.mark.parametrize(("job_id", "stays"), [("job", False), (None, True)])
async def test_a_dead_letter_leaves_the_list_when_its_job_is_found(
    any_world: World, job_id: str | None, *, stays: bool
) -> None:
    world = any_world
    (wanted,) = await world.queue(1)
    await unknown(world)
    await world.changes.resolve(wanted, job_id, "arn")
    assert await listed(world) == ([wanted] if stays else [])
    await world.changes.resolve(wanted, None, None, close=True)
    assert await listed(world) == ([wanted] if stays else [])


async def test_the_list_is_newest_first_and_each_queue_has_its_own(world: World) -> None:
    expected: list[SubmissionId] = []
    for number in (2, 5, 1):
        expected = [*sorted(await world.queue(number), reverse=True), *expected]
        (elsewhere,) = await world.queue(1, queue="other")
        await world.changes.cancel(elsewhere, "")
        await world.passes(milliseconds=1)
    for one in expected[::2] + expected[1::2]:
        await world.changes.cancel(one, "")
    for limit in (1, 3, 100):
        found: list[Indexed] = []
        while page := await world.index.ended_before("training", found[-1] if found else None, limit):
            assert len(page) <= limit
            found += page
        assert [one.submission_id for one in found] == expected


async def test_entries_go_with_a_sweep_once_their_records_have_expired(world: World) -> None:
    gone, there = await world.queue(2)
    for one in (gone, there):
        await world.changes.cancel(one, "")
    await world.client.delete(world.keys.record(gone))
    sweep = IndexSweep(world.index, retention_seconds=600)

    async def now_ms() -> int:
        return world.now_us // 1000

    world.index.now_ms = now_ms  # type: ignore[method-assign]
    await sweep.sweep()
    assert await world.client.zcard(world.keys.ended("training")) == 2
    await world.passes(seconds=600)
    await sweep.sweep()
    assert await listed(world) == [there]
    await world.client.delete(world.keys.record(there))
    await sweep.sweep()
    assert await listed(world) == []
    assert await world.index.lists() == []


# ---- Beside an older gateway: whatever it does, nothing is wrong with the list that a later end does not set right


@pytest.fixture
async def both(client: Redis) -> tuple[World, World]:
    world = await World(client).open()
    return world, older(world)


async def test_what_an_older_gateway_ends_is_not_listed(both: tuple[World, World]) -> None:
    world, before = both
    await before.queue(1)
    await rejected(before)
    assert await listed(world) == []


async def test_what_an_older_gateway_redrives_is_listed_until_it_is_forwarded(both: tuple[World, World]) -> None:
    world, before = both
    (wanted,) = await world.queue(1)
    await rejected(world)
    assert (await before.changes.redrive(wanted)).verdict == "queued"
    assert await listed(world) == [wanted]
    await world.attempt(forwarded("job"))
    assert await listed(world) == []


@pytest.mark.parametrize("again", [False, True])
async def test_what_an_older_gateway_redrives_and_ends_again_is_listed_once(
    both: tuple[World, World], *, again: bool
) -> None:
    world, before = both
    (wanted,) = await world.queue(1)
    await rejected(world)
    await before.changes.redrive(wanted)
    await rejected(world if again else before)
    assert await listed(world) == [wanted]
    await world.changes.redrive(wanted)
    assert await listed(world) == []


async def test_what_an_older_gateway_finds_the_job_of_is_listed_until_its_record_has_expired(
    both: tuple[World, World],
) -> None:
    world, before = both
    (wanted,) = await world.queue(1)
    leased = await unknown(world)
    await before.settle(leased, forwarded("job"))
    assert await listed(world) == [wanted]
    await world.client.delete(world.keys.record(wanted))
    await world.passes(seconds=world.bounds.retention_seconds)
    await world.index.sweep("ended:training", accepted_before_ms=world.now_us // 1000, passed_over=0)
    assert await world.client.exists(world.keys.ended("training"), world.keys.endings) == 0


async def test_a_token_that_is_sent_again_after_its_record_has_expired_may_have_an_entry_left(world: World) -> None:
    wanted = (await world.admit("again")).submission.submission_id
    await world.changes.cancel(wanted, "")
    await world.client.delete(world.keys.record(wanted))
    await world.passes(seconds=1)
    await world.admit("again", queue="other")
    assert await listed(world) == [wanted]
    await world.changes.cancel(wanted, "")
    assert (await listed(world), await listed(world, "other")) == ([wanted], [wanted])
