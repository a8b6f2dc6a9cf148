"""What Batch is owed beside submitting: looks, terminations and updates, each until it is done, by one at a time."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from gateway.core.ports import Errand, ErrandReport, Wait
from gateway.core.reconcile import LOOK_AFTER_SECONDS
from gateway.core.submission import Failure, State
from gateway.store.bounds import StoreBounds
from gateway.store.errands import ERRANDS_PER_SECOND, LEASE_ROUNDS
from tests.store.world import (
    NOTHING_QUEUED,
    World,
    forwarded,
    reconcile,
    refused,
    throttled,
    transient,
    unclear,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.core.identity import SubmissionId

    Make = Callable[[World], Awaitable[SubmissionId]]

LEASE_ENDS = StoreBounds().lease_seconds
NOT_FOUND = Failure(code="JobNotFound", message="no job of this name")

FOUND = ErrandReport(verdict="found", job_id="job-1", job_arn="arn:job-1")
UNKNOWN = ErrandReport(verdict="unknown", failure=NOT_FOUND)
DONE = ErrandReport(verdict="done")


def looked(delay_seconds: float) -> ErrandReport:
    return ErrandReport(verdict="looked", delay_seconds=delay_seconds)


def later(delay_seconds: float) -> ErrandReport:
    return ErrandReport(verdict="later", delay_seconds=delay_seconds, failure=Failure(code="Throttled", message=""))


async def looked_for(world: World) -> SubmissionId:
    """Batch refused what an earlier call may have made a job of."""
    (wanted,) = await world.queue(1)
    await world.attempt(unclear())
    await world.attempt(reconcile())
    return wanted


async def to_be_terminated(world: World) -> SubmissionId:
    (wanted,) = await world.queue(1)
    await world.attempt(forwarded("job-1"))
    await world.changes.cancel(wanted, "why")
    return wanted


async def to_be_updated(world: World) -> SubmissionId:
    (wanted,) = await world.queue(1)
    await world.attempt(forwarded("job-1"))
    await world.changes.reprioritize(wanted, 7)
    return wanted


OWED = {"look": looked_for, "terminate": to_be_terminated, "update": to_be_updated}
any_kind = pytest.mark.parametrize("make", OWED.values(), ids=OWED)
owed_to_batch = pytest.mark.parametrize("make", [to_be_terminated, to_be_updated])


# ---- Looks


async def test_a_look_is_due_when_the_one_before_says(any_world: World) -> None:
    world = any_world
    wanted = await looked_for(world)
    for number, delay_seconds in enumerate(LOOK_AFTER_SECONDS):
        assert await world.errands.lease() == Wait(seconds=delay_seconds, reason="errands")
        await world.passes(seconds=delay_seconds, milliseconds=-1)
        assert await world.errands.lease() == Wait(seconds=0.001, reason="errands")
        await world.passes(milliseconds=1)
        errand = await world.errand()
        assert (errand.submission.submission_id, errand.kind, errand.looks) == (wanted, "look", number)
        assert errand.submission.request
        if number + 1 < len(LOOK_AFTER_SECONDS):
            end = await world.errands.settle(errand, looked(LOOK_AFTER_SECONDS[number + 1]))
            assert (end.verdict, end.submission.state) == ("settled", State.QUEUED)
    end = await world.errands.settle(errand, UNKNOWN)
    assert end.submission.state is State.UNKNOWN
    await world.no_errand()


async def test_a_look_that_found_nothing_leaves_it_where_it_was(world: World) -> None:
    wanted = await looked_for(world)
    counts = await world.counts()
    await world.errands.settle(await world.next_errand(), looked(25))
    assert await world.places(wanted) == ["errands"]
    assert await world.counts() == counts
    assert (await world.wait()).reason == "idle"


async def test_a_look_goes_back_to_the_first_call_that_may_have_made_a_job(world: World) -> None:
    (wanted,) = await world.queue(1)
    await world.attempt(throttled())
    await world.passes(seconds=1000)
    await world.attempt(unclear())
    await world.passes(seconds=100)
    await world.attempt(reconcile())
    accepted_at = (await world.store.get(wanted)).accepted_at
    assert (await world.next_errand()).maybe_sent_since - accepted_at == timedelta(seconds=1000)


async def test_a_job_that_is_found_is_the_submissions_own(any_world: World) -> None:
    world = any_world
    wanted = await looked_for(world)
    end = await world.errands.settle(await world.next_errand(), FOUND)
    submission = await world.store.get(wanted)
    assert (end.verdict, end.submission) == ("settled", submission)
    assert (submission.state, submission.job_id, submission.job_arn) == (State.FORWARDED, "job-1", "arn:job-1")
    assert (submission.request, submission.error) == (b"", None)
    assert submission.settled_at == world.now
    assert await world.index.of_job("job-1") == wanted
    alias = world.bounds.alias_retention_seconds
    assert alias - 60 < await world.client.ttl(world.keys.job("job-1")) <= alias
    assert 0 < await world.expires_in(wanted) <= world.bounds.retention_seconds
    assert await world.counts() == NOTHING_QUEUED
    assert await world.places(wanted) == []
    await world.no_errand()


async def test_a_job_of_another_submission_is_never_taken(any_world: World) -> None:
    world = any_world
    (other,) = await world.queue(1)
    await world.attempt(forwarded("job-1"))
    wanted = await looked_for(world)
    errand = await world.next_errand()
    assert await world.errands.owners(["job-1", "job-2"]) == {"job-1": other}
    before = await world.dump()
    end = await world.errands.settle(errand, FOUND)
    assert (end.verdict, end.submission) == ("owned", None)
    assert await world.dump() == before
    assert await world.index.of_job("job-1") == other
    await world.passes(seconds=LEASE_ENDS)
    assert (await world.errand()).submission.submission_id == wanted


async def test_a_job_that_is_the_submissions_own_already_may_be_found(world: World) -> None:
    wanted = await looked_for(world)
    await world.client.set(world.keys.job("job-1"), wanted)
    end = await world.errands.settle(await world.next_errand(), FOUND)
    assert end.submission.state is State.FORWARDED


async def test_two_that_find_the_same_job_do_not_both_get_it(world: World) -> None:
    await looked_for(world)
    await looked_for(world)
    first, second = await world.next_errand(), await world.next_errand()
    assert (await world.errands.settle(first, FOUND)).verdict == "settled"
    assert (await world.errands.settle(second, FOUND)).verdict == "owned"
    assert (await world.store.get(second.submission.submission_id)).state is State.QUEUED


async def test_what_is_not_found_keeps_everything_for_a_person(any_world: World) -> None:
    world = any_world
    wanted = await looked_for(world)
    await world.errands.settle(await world.next_errand(), UNKNOWN)
    submission = await world.store.get(wanted)
    assert (submission.state, submission.error, submission.maybe_sent) == (State.UNKNOWN, NOT_FOUND, True)
    assert submission.request == b'{"jobName": "resnet"}'
    assert await world.expires_in(wanted) is None
    assert await world.counts() == NOTHING_QUEUED
    assert await world.places(wanted) == []
    assert await world.store.lease() == Wait(seconds=None, reason="idle")


@pytest.mark.parametrize("report", [FOUND, UNKNOWN])
async def test_the_end_of_a_look_is_told_on_its_channel(world: World, report: ErrandReport) -> None:
    wanted = await looked_for(world)
    errand = await world.next_errand()
    async with world.client.pubsub() as pubsub:
        await pubsub.subscribe(world.keys.ends)
        await pubsub.get_message(timeout=1)
        await world.errands.settle(errand, report)
        message = await pubsub.get_message(timeout=1)
    assert message["data"].decode() == wanted


async def test_a_job_that_is_found_for_a_canceled_one_is_owed_its_termination(any_world: World) -> None:
    world = any_world
    wanted = await looked_for(world)
    await world.changes.cancel(wanted, "why")
    await world.errands.settle(await world.next_errand(), FOUND)
    assert await world.expires_in(wanted) is None
    errand = await world.next_errand()
    assert (errand.kind, errand.submission.job_id, errand.submission.cancel.reason) == ("terminate", "job-1", "why")


async def test_a_canceled_one_that_is_not_found_is_unknown(world: World) -> None:
    wanted = await looked_for(world)
    await world.changes.cancel(wanted, "why")
    end = await world.errands.settle(await world.next_errand(), UNKNOWN)
    assert (end.submission.state, end.submission.cancel_requested) == (State.UNKNOWN, True)
    await world.no_errand()


async def test_a_job_that_is_found_is_owed_the_priority_that_was_given_meanwhile(world: World) -> None:
    wanted = await looked_for(world)
    await world.changes.reprioritize(wanted, 7)
    await world.errands.settle(await world.next_errand(), FOUND)
    errand = await world.next_errand()
    assert (errand.kind, errand.submission.priority) == ("update", 7)


async def test_a_cancel_during_a_look_does_not_spoil_it(world: World) -> None:
    """The look is what the cancel waits for."""
    wanted = await looked_for(world)
    errand = await world.next_errand()
    await world.changes.cancel(wanted, "")
    assert (await world.errands.settle(errand, FOUND)).verdict == "settled"
    assert (await world.next_errand()).kind == "terminate"


async def test_an_answer_that_comes_during_a_look_ends_it(any_world: World) -> None:
    world = any_world
    (wanted,) = await world.queue(1)
    first = await world.attempt(unclear())
    await world.attempt(reconcile())
    errand = await world.next_errand()
    settlement = await world.settle(first, forwarded("job-1"))
    assert (settlement.verdict, settlement.submission.state) == ("settled", State.FORWARDED)
    assert await world.places(wanted) == []
    assert await world.counts() == NOTHING_QUEUED
    before = await world.dump()
    for report in (FOUND, UNKNOWN, looked(5), later(5)):
        assert (await world.errands.settle(errand, report)).verdict == "stale"
    assert await world.dump() == before


# ---- Terminations and updates


@owed_to_batch
async def test_what_is_owed_is_due_at_once_and_expires_only_when_it_is_done(any_world: World, make: Make) -> None:
    world = any_world
    wanted = await make(world)
    assert await world.expires_in(wanted) is None
    errand = await world.errand()
    assert errand.submission.submission_id == wanted
    assert await world.expires_in(wanted) is None
    await world.errands.settle(errand, later(10))
    assert await world.expires_in(wanted) is None
    end = await world.errands.settle(await world.next_errand(), DONE)
    assert (end.verdict, end.submission.state) == ("settled", State.FORWARDED)
    retention = world.bounds.retention_seconds
    assert retention - 60 < await world.expires_in(wanted) <= retention
    assert await world.places(wanted) == []
    await world.no_errand()


@owed_to_batch
async def test_what_is_owed_leaves_the_end_as_it_was(world: World, make: Make) -> None:
    wanted = await make(world)
    before = await world.store.get(wanted)
    await world.passes(seconds=100)
    await world.errands.settle(await world.errand(), DONE)
    after = await world.store.get(wanted)
    assert (after.settled_at, after.attempts, after.job_id) == (before.settled_at, before.attempts, before.job_id)


async def test_a_termination_that_batch_took_is_told(world: World) -> None:
    wanted = await to_be_terminated(world)
    assert (await world.store.get(wanted)).terminated_at is None
    await world.passes(seconds=10)
    await world.errands.settle(await world.errand(), DONE)
    assert (await world.store.get(wanted)).terminated_at == world.now


async def test_an_update_terminates_nothing(world: World) -> None:
    wanted = await to_be_updated(world)
    await world.errands.settle(await world.errand(), DONE)
    assert (await world.store.get(wanted)).terminated_at is None
    assert (await world.changes.cancel(wanted, "")).verdict == "requested"


async def test_a_job_that_is_to_end_needs_no_other_priority(world: World) -> None:
    wanted = await to_be_updated(world)
    await world.changes.cancel(wanted, "")
    errand = await world.errand()
    assert errand.kind == "terminate"
    await world.errands.settle(errand, DONE)
    assert await world.expires_in(wanted) > 0
    await world.no_errand()


async def test_both_asked_for_while_queued_are_one_termination(world: World) -> None:
    (wanted,) = await world.queue(1)
    leased = await world.lease()
    await world.changes.reprioritize(wanted, 7)
    await world.changes.cancel(wanted, "")
    await world.settle(leased, forwarded("job-1"))
    errand = await world.errand()
    assert errand.kind == "terminate"
    await world.errands.settle(errand, DONE)
    await world.no_errand()


async def test_a_cancel_during_an_update_is_not_lost(any_world: World) -> None:
    world = any_world
    wanted = await to_be_updated(world)
    update = await world.errand()
    await world.changes.cancel(wanted, "")
    before = await world.dump()
    assert (await world.errands.settle(update, DONE)).verdict == "stale"
    assert await world.dump() == before
    assert (await world.next_errand()).kind == "terminate"


async def test_another_priority_during_an_update_is_not_lost(any_world: World) -> None:
    world = any_world
    wanted = await to_be_updated(world)
    update = await world.errand()
    await world.changes.reprioritize(wanted, 9)
    assert (await world.errands.settle(update, DONE)).verdict == "stale"
    errand = await world.next_errand()
    assert (errand.kind, errand.submission.priority) == ("update", 9)
    await world.errands.settle(errand, DONE)
    await world.no_errand()


async def test_the_last_of_several_priorities_is_the_one_that_batch_is_told(world: World) -> None:
    wanted = await to_be_updated(world)
    await world.changes.reprioritize(wanted, 8)
    await world.changes.reprioritize(wanted, 9)
    errand = await world.errand()
    assert errand.submission.priority == 9
    await world.errands.settle(errand, DONE)
    await world.no_errand()


# ---- Jobs that are heard of too late


async def ended_then_forwarded(world: World, end: str) -> SubmissionId:
    """Batch answers twice at odds: no job, and then one."""
    (wanted,) = await world.queue(1, deadline=world.now + timedelta(seconds=30))
    leased = await world.lease()
    answer = transient()
    if end == "canceled":
        await world.changes.cancel(wanted, "why")
    elif end == "expired":
        await world.passes(seconds=30)
        await world.store.reclaim()
    else:
        answer = refused()
    settlement = await world.settle(leased, answer)
    assert settlement.submission.state == end
    settlement = await world.settle(leased, forwarded("job-1"))
    assert (settlement.verdict, settlement.submission.state) == ("late", end)
    assert settlement.submission == await world.store.get(wanted)
    return wanted


@pytest.mark.parametrize("end", ["canceled", "expired", "rejected"])
async def test_a_job_for_what_ended_without_one_is_kept_and_terminated(any_world: World, end: str) -> None:
    world = any_world
    wanted = await ended_then_forwarded(world, end)
    assert (await world.store.get(wanted)).job_id == "job-1"
    assert await world.index.of_job("job-1") == wanted
    assert await world.expires_in(wanted) is None
    assert await world.counts() == NOTHING_QUEUED
    errand = await world.errand()
    assert (errand.kind, errand.submission.job_id) == ("terminate", "job-1")
    end_of_it = await world.errands.settle(errand, DONE)
    assert (end_of_it.submission.state, end_of_it.submission.terminated_at) == (end, world.now)
    assert await world.expires_in(wanted) is not None
    assert end_of_it.submission.request == b""
    assert (await world.changes.cancel(wanted, "")).verdict == ("done" if end == "canceled" else "final")
    await world.no_errand()


@pytest.mark.parametrize("end", ["canceled", "expired", "rejected"])
async def test_a_job_for_what_ended_is_taken_once(world: World, end: str) -> None:
    wanted = await ended_then_forwarded(world, end)
    errand = await world.errand()
    await world.errands.settle(errand, DONE)
    before = await world.dump()
    assert (await world.changes.redrive(wanted)).verdict == "refused"
    assert (await world.errands.settle(errand, DONE)).verdict == "stale"
    assert await world.dump() == before


@pytest.mark.parametrize("cancel", [True, False])
async def test_a_job_for_an_unknown_one_is_terminated_only_if_it_was_to_end(world: World, *, cancel: bool) -> None:
    (wanted,) = await world.queue(1)
    leased = await world.lease()
    if cancel:
        await world.changes.cancel(wanted, "")
    await world.settle(leased, replace(refused(maybe_sent=True), proved_none=False))
    if cancel:  # it is looked for before it is given up
        await world.errands.settle(await world.next_errand(), UNKNOWN)
    settlement = await world.settle(leased, forwarded("job-1"))
    assert (settlement.verdict, settlement.submission.state) == ("late", State.FORWARDED)
    assert settlement.submission.request == b""
    await world.passes(seconds=1)
    assert isinstance(await world.errands.lease(), Errand) is cancel
    assert (await world.expires_in(wanted) is None) is cancel


# ---- One at a time


@any_kind
async def test_an_errand_that_nobody_settles_is_handed_out_again(any_world: World, make: Make) -> None:
    world = any_world
    wanted = await make(world)
    first = await world.next_errand()
    assert await world.errands.lease() == Wait(seconds=LEASE_ENDS, reason="errands")
    await world.passes(seconds=LEASE_ENDS, milliseconds=-1)
    assert await world.errands.lease() == Wait(seconds=0.001, reason="errands")
    await world.passes(milliseconds=1)
    second = await world.errand()
    assert (second.submission.submission_id, second.kind) == (wanted, first.kind)
    assert second.number > first.number


@any_kind
@pytest.mark.parametrize("report", [FOUND, UNKNOWN, DONE, looked(5), later(5)], ids=lambda report: report.verdict)
async def test_who_had_an_errand_before_settles_nothing(any_world: World, make: Make, report: ErrandReport) -> None:
    world = any_world
    await make(world)
    first = await world.next_errand()
    await world.passes(seconds=LEASE_ENDS)
    second = await world.errand()
    before = await world.dump()
    end = await world.errands.settle(first, report)
    assert (end.verdict, end.submission) == ("stale", second.submission)
    assert await world.dump() == before


@any_kind
async def test_a_late_answer_counts_where_nobody_has_asked_since(world: World, make: Make) -> None:
    wanted = await make(world)
    errand = await world.next_errand()
    await world.passes(seconds=2 * LEASE_ENDS)
    report = FOUND if errand.kind == "look" else DONE
    assert (await world.errands.settle(errand, report)).verdict == "settled"
    assert (await world.store.get(wanted)).state is State.FORWARDED
    await world.no_errand()


@any_kind
@pytest.mark.parametrize("first", [FOUND, UNKNOWN, DONE, looked(5), later(5)], ids=lambda report: report.verdict)
async def test_an_errand_is_settled_once(world: World, make: Make, first: ErrandReport) -> None:
    await make(world)
    errand = await world.next_errand()
    if (errand.kind == "look") == (first.verdict == "done"):
        return  # no such answer to such an errand
    await world.errands.settle(errand, first)
    before = await world.dump()
    for report in (FOUND, DONE, UNKNOWN, looked(5), later(5)):
        assert (await world.errands.settle(errand, report)).verdict == "stale"
    assert await world.dump() == before


async def test_an_errand_of_what_is_gone_is_settled_by_nobody(any_world: World) -> None:
    wanted = await looked_for(any_world)
    errand = await any_world.next_errand()
    await any_world.client.delete(any_world.keys.record(wanted))
    before = await any_world.dump()
    end = await any_world.errands.settle(errand, FOUND)
    assert (end.verdict, end.submission) == ("gone", None)
    assert await any_world.dump() == before


async def test_numbers_of_errands_and_of_leases_are_never_the_same(world: World) -> None:
    numbers = []
    for _ in range(3):
        await world.queue(2)
        numbers.append((await world.attempt(forwarded("job-1"))).number)
        leased = await world.next_lease()
        numbers.append(leased.number)
        await world.changes.cancel(leased.submission.submission_id, "")
        await world.settle(leased, forwarded(f"job-{leased.number}"))
        errand = await world.next_errand()
        numbers.append(errand.number)
        await world.errands.settle(errand, DONE)
    assert numbers == sorted(set(numbers))


# ---- When


@any_kind
async def test_a_failed_call_is_made_again_when_it_says(world: World, make: Make) -> None:
    await make(world)
    for tries in range(4):
        errand = await world.next_errand()
        assert errand.tries == tries
        await world.errands.settle(errand, later(17.5))
        assert await world.errands.lease() == Wait(seconds=17.5, reason="errands")


async def test_failed_calls_for_one_thing_do_not_count_for_the_next(world: World) -> None:
    wanted = await to_be_updated(world)
    await world.errands.settle(await world.errand(), later(1))
    await world.errands.settle(await world.next_errand(), DONE)
    await world.changes.cancel(wanted, "")
    assert (await world.next_errand()).tries == 0


async def test_failed_looks_do_not_count_for_the_termination_of_what_is_found(world: World) -> None:
    wanted = await looked_for(world)
    await world.changes.cancel(wanted, "")
    await world.errands.settle(await world.next_errand(), later(1))
    await world.errands.settle(await world.next_errand(), FOUND)
    assert (await world.next_errand()).tries == 0


async def test_failed_calls_do_not_count_as_looks(world: World) -> None:
    await looked_for(world)
    await world.errands.settle(await world.next_errand(), later(1))
    await world.errands.settle(await world.next_errand(), looked(1))
    assert (await world.next_errand()).looks == 1


async def test_a_job_that_is_to_end_goes_before_updates_of_others(world: World) -> None:
    for number in range(5):
        (one,) = await world.queue(1)
        await world.attempt(forwarded(f"job-{number}"))
        await world.changes.reprioritize(one, 7)
    wanted = await to_be_terminated(world)
    await world.passes(seconds=1)
    first = await world.errand()
    assert (first.submission.submission_id, first.kind) == (wanted, "terminate")


async def test_the_earliest_errand_is_first(world: World) -> None:
    late = await looked_for(world)
    now = await to_be_terminated(world)
    assert [(await world.next_errand()).submission.submission_id for _ in range(2)] == [now, late]


async def test_errands_keep_to_a_pace_of_their_own_however_many_ask(world: World) -> None:
    for _ in range(4):
        await to_be_terminated(world)
    await world.passes(seconds=10)
    start = world.now_us
    another = world.variant(bounds=StoreBounds())
    for number in range(4):
        await world.next_errand()
        assert world.now_us - start == number * 1e6 / ERRANDS_PER_SECOND
        step = Wait(seconds=1 / ERRANDS_PER_SECOND, reason="errands")
        assert await another.errands.lease() == (
            step if number < 3 else Wait(seconds=LEASE_ENDS - 3 / ERRANDS_PER_SECOND, reason="errands")
        )


async def test_errands_take_no_call_of_the_submissions(world: World) -> None:
    await to_be_terminated(world)
    await world.queue(1)
    await world.passes(seconds=10)
    await world.errand()
    await world.lease()


async def test_a_pause_of_errands_makes_no_burst(world: World) -> None:
    for _ in range(2):
        await to_be_terminated(world)
    await world.passes(seconds=3600)
    await world.errand()
    assert isinstance(await world.errands.lease(), Wait)


@pytest.mark.parametrize("make", [looked_for, to_be_terminated])
async def test_waiting_for_an_errand_changes_nothing(any_world: World, make: Make) -> None:
    await make(any_world)
    await any_world.next_errand()
    before = await any_world.dump()
    for _ in range(3):
        assert isinstance(await any_world.errands.lease(), Wait)
    assert await any_world.dump() == before


async def test_what_is_owed_nothing_any_more_stands_in_nobodys_way(any_world: World) -> None:
    """Records may be lost by no doing of ours."""
    world = any_world
    gone = [f"gone-{number:02}" for number in range(LEASE_ROUNDS + 1)]
    (owing_nothing,) = await world.queue(1)
    await world.attempt(forwarded("job-1"))
    await world.client.zadd(world.keys.errands, dict.fromkeys([*gone, owing_nothing], 1))
    wanted = await to_be_terminated(world)
    assert await world.errands.lease() == Wait(seconds=0.0, reason="dropped")
    errand = await world.errand()
    assert errand.submission.submission_id == wanted
    assert await world.expires_in(owing_nothing) > 0
    await world.errands.settle(errand, DONE)
    await world.no_errand()


async def test_owners_of_no_jobs_are_none(world: World) -> None:
    assert await world.errands.owners([]) == {}
