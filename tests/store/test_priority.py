"""A priority that is changed after acceptance: another place in the share's line, and what Batch is told of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from gateway.core.ports import ErrandReport
from gateway.core.submission import State
from tests.store.world import (
    GIVEN_BACK,
    World,
    forwarded,
    refused,
    throttled,
    transient,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.core.attempt import Report
    from gateway.core.identity import SubmissionId

    Make = Callable[[World], Awaitable[SubmissionId]]

REQUEST = b'{"jobName": "resnet", "schedulingPriority": 5}'


async def served(world: World, number: int) -> list[SubmissionId]:
    return [(await world.attempt(forwarded(f"job-{n}"))).submission.submission_id for n in range(number)]


# ---- In line


@pytest.mark.parametrize(
    ("priority", "order"), [(9999, "2013"), (6, "2013"), (5, "0123"), (4, "0123"), (3, "0132"), (0, "0132")]
)
async def test_a_priority_is_a_place_in_the_line_of_the_share(any_world: World, priority: int, order: str) -> None:
    ids = await any_world.queue(3, priority=5) + await any_world.queue(1, priority=4)
    change = await any_world.changes.reprioritize(ids[2], priority)
    assert (change.verdict, change.submission.priority) == ("placed", priority)
    assert await served(any_world, 4) == [ids[int(digit)] for digit in order]


async def test_who_gets_the_same_priority_keeps_the_order_of_arrival(world: World) -> None:
    ids = await world.queue(5)
    for position in (3, 1, 4):
        await world.changes.reprioritize(ids[position], 7)
    assert await served(world, 5) == [ids[1], ids[3], ids[4], ids[0], ids[2]]


async def test_a_priority_that_is_changed_back_is_as_if_never_changed(world: World) -> None:
    ids = await world.queue(3, priority=5)
    await world.changes.reprioritize(ids[1], 9)
    await world.changes.reprioritize(ids[1], 5)
    assert await served(world, 3) == ids


async def test_positions_are_told_by_the_new_order(world: World) -> None:
    ids = await world.queue(3)
    await world.changes.reprioritize(ids[2], 7)
    assert [(await world.store.get(one)).position for one in ids] == [2, 3, 1]
    replay = await world.admit("token-2")
    assert (replay.known, replay.submission.position, replay.submission.priority) == (True, 1, 7)


async def test_a_priority_counts_inside_the_share_only(world: World) -> None:
    first, wanted = await world.queue(2)
    (other,) = await world.queue(1, share="other")
    await world.changes.reprioritize(wanted, 9999)
    assert await served(world, 3) == [other, wanted, first]


@pytest.mark.parametrize("answer", [GIVEN_BACK, throttled(), transient(), transient(delay_seconds=10)])
async def test_a_priority_that_changes_during_a_call_counts_after_it(world: World, answer: Report) -> None:
    wanted, *_ = await world.queue(3)
    leased = await world.lease()
    change = await world.changes.reprioritize(wanted, 7)
    assert change.verdict == "placed"
    assert await world.places(wanted) == ["leased"]
    await world.settle(leased, answer)
    await world.queue(1, priority=6)
    await world.passes(seconds=10)
    assert (await world.next_lease()).submission.submission_id == wanted


async def test_a_priority_that_changes_during_a_delay_counts_after_it(world: World) -> None:
    wanted, *_ = await world.queue(3)
    await world.attempt(transient(delay_seconds=10))
    await world.changes.reprioritize(wanted, 7)
    assert await world.places(wanted) == ["delayed"]
    assert (await world.store.get(wanted)).position == 1
    await world.passes(seconds=10)
    assert (await world.lease()).submission.submission_id == wanted


async def test_a_lowered_priority_holds_after_a_lease_that_ended(world: World) -> None:
    wanted, other = await world.queue(2, priority=5)
    await world.lease()
    await world.changes.reprioritize(wanted, 1)
    await world.passes(seconds=world.bounds.lease_seconds)
    assert (await world.lease()).submission.submission_id == other


async def test_a_priority_asked_again_changes_nothing(any_world: World) -> None:
    _, wanted = await any_world.queue(2)
    await any_world.changes.reprioritize(wanted, 7)
    before = await any_world.store.get(wanted)
    assert (await any_world.changes.reprioritize(wanted, 7)).verdict == "placed"
    assert await any_world.store.get(wanted) == before


async def test_a_redriven_one_keeps_the_priority_that_it_was_given(world: World) -> None:
    (wanted,) = await world.queue(1)
    await world.changes.reprioritize(wanted, 7)
    await world.attempt(refused())
    await world.queue(1, priority=6)
    await world.changes.redrive(wanted)
    await world.queue(1, priority=7)
    assert (await world.next_lease()).submission.submission_id == wanted


# ---- What Batch is told


async def test_the_request_stays_as_it_was_frozen(any_world: World) -> None:
    (wanted,) = await any_world.queue(1, request=REQUEST, priority=5)
    before = await any_world.counts()
    change = await any_world.changes.reprioritize(wanted, 7)
    assert change.submission.request == REQUEST
    assert (await any_world.lease()).submission.request == REQUEST
    assert await any_world.counts() == before


async def test_a_job_is_owed_the_priority_that_it_was_given_while_queued(any_world: World) -> None:
    (wanted,) = await any_world.queue(1, priority=5)
    await any_world.changes.reprioritize(wanted, 6)
    await any_world.changes.reprioritize(wanted, 7)
    await any_world.no_errand()
    await any_world.attempt(forwarded("job-1"))
    errand = await any_world.errand()
    assert (errand.kind, errand.submission.job_id, errand.submission.priority) == ("update", "job-1", 7)
    await any_world.errands.settle(errand, ErrandReport(verdict="done"))
    await any_world.no_errand()


@pytest.mark.parametrize("redriven", [False, True])
async def test_a_job_is_owed_nothing_for_a_priority_that_was_changed_back(world: World, *, redriven: bool) -> None:
    (wanted,) = await world.queue(1, priority=5)
    await world.changes.reprioritize(wanted, 7)
    if redriven:
        await world.attempt(refused())
        await world.changes.redrive(wanted)
    await world.changes.reprioritize(wanted, 5)
    await world.attempt(forwarded("job-1"))
    assert await world.expires_in(wanted) is not None
    await world.no_errand()


async def test_a_redriven_ones_job_is_owed_the_priority_that_it_was_given_before(world: World) -> None:
    (wanted,) = await world.queue(1, priority=5)
    await world.changes.reprioritize(wanted, 7)
    await world.attempt(refused())
    await world.changes.redrive(wanted)
    await world.attempt(forwarded("job-1"))
    assert (await world.errand()).kind == "update"


async def test_a_priority_of_a_job_is_owed_to_batch(any_world: World) -> None:
    (wanted,) = await any_world.queue(1, priority=5)
    await any_world.attempt(forwarded("job-1"))
    change = await any_world.changes.reprioritize(wanted, 7)
    assert change.verdict == "owed"
    assert change.submission == await any_world.store.get(wanted)
    assert (change.submission.state, change.submission.priority) == (State.FORWARDED, 7)
    assert await any_world.expires_in(wanted) is None
    assert (await any_world.errand()).kind == "update"


async def test_a_priority_of_a_job_that_was_changed_back_is_owed_too(world: World) -> None:
    """Batch may have taken the first change already."""
    (wanted,) = await world.queue(1, priority=5)
    await world.attempt(forwarded("job-1"))
    await world.changes.reprioritize(wanted, 7)
    update = await world.errand()
    await world.changes.reprioritize(wanted, 5)
    await world.errands.settle(update, ErrandReport(verdict="done"))
    assert (await world.next_errand()).submission.priority == 5


# ---- What has no priority any more


async def _rejected(world: World) -> SubmissionId:
    await world.queue(1)
    return (await world.attempt(refused())).submission.submission_id


async def _unknown(world: World) -> SubmissionId:
    await world.queue(1)
    return (await world.attempt(refused(maybe_sent=True))).submission.submission_id


async def _canceled(world: World) -> SubmissionId:
    (wanted,) = await world.queue(1)
    await world.changes.cancel(wanted, "")
    return wanted


async def _expired(world: World) -> SubmissionId:
    (wanted,) = await world.queue(1, deadline=world.now + timedelta(seconds=1))
    await world.passes(seconds=1)
    await world.store.reclaim()
    return wanted


async def _to_be_canceled(world: World) -> SubmissionId:
    (wanted,) = await world.queue(1)
    await world.lease()
    await world.changes.cancel(wanted, "")
    return wanted


async def _to_be_terminated(world: World) -> SubmissionId:
    (wanted,) = await world.queue(1)
    await world.attempt(forwarded("job-1"))
    await world.changes.cancel(wanted, "")
    return wanted


@pytest.mark.parametrize("make", [_rejected, _unknown, _canceled, _expired, _to_be_canceled, _to_be_terminated])
async def test_what_no_job_comes_of_or_is_to_end_gets_no_priority(any_world: World, make: Make) -> None:
    wanted = await make(any_world)
    before = await any_world.dump()
    change = await any_world.changes.reprioritize(wanted, 7)
    assert (change.verdict, change.submission) == ("final", replace(await any_world.store.get(wanted), position=None))
    assert await any_world.dump() == before


async def test_what_is_gone_gets_no_priority(any_world: World) -> None:
    (wanted,) = await any_world.queue(1)
    await any_world.client.delete(any_world.keys.record(wanted))
    before = await any_world.dump()
    change = await any_world.changes.reprioritize(wanted, 7)
    assert (change.verdict, change.submission) == ("gone", None)
    assert await any_world.dump() == before
