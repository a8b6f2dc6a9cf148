"""Dead letters that a person has looked at: back in line, or resolved."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from gateway.core.attempt import Report, Verdict
from gateway.core.ports import ErrandReport, Reclaimed, Wait
from gateway.core.share import Share, ShareLimits
from gateway.core.submission import Failure, State
from gateway.store.bounds import StoreBounds
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

VISION = Share("training", "vision")


async def queued(world: World) -> SubmissionId:
    return (await world.queue(1))[0]


async def leased(world: World) -> SubmissionId:
    await world.queue(1)
    return (await world.lease()).submission.submission_id


async def looked_for(world: World) -> SubmissionId:
    wanted = await queued(world)
    await world.attempt(unclear())
    await world.attempt(reconcile())
    return wanted


async def rejected(world: World) -> SubmissionId:
    await world.queue(1)
    return (await world.attempt(refused())).submission.submission_id


async def unknown(world: World) -> SubmissionId:
    await world.queue(1)
    await world.attempt(unclear())
    return (await world.attempt(refused(maybe_sent=True))).submission.submission_id


async def one_forwarded(world: World) -> SubmissionId:
    await world.queue(1)
    return (await world.attempt(forwarded("job-1"))).submission.submission_id


async def canceled(world: World) -> SubmissionId:
    wanted = await queued(world)
    await world.changes.cancel(wanted, "")
    return wanted


async def expired(world: World) -> SubmissionId:
    (wanted,) = await world.queue(1, deadline=world.now + timedelta(seconds=1))
    await world.passes(seconds=1)
    await world.store.reclaim()
    return wanted


async def rejected_with_a_job(world: World) -> SubmissionId:
    await world.queue(1)
    late = await world.attempt(refused())
    await world.settle(late, forwarded("job-1"))
    return late.submission.submission_id


async def rejected_in_doubt(world: World) -> SubmissionId:
    await world.queue(1)
    doubt = Report(verdict=Verdict.REJECT, outcome="refused", failure=Failure(code="Odd", message=""))
    return (await world.attempt(doubt)).submission.submission_id


async def changes_nothing(world: World, wanted: SubmissionId, job_id: str | None = "") -> str:
    """The verdict on a redrive, or with a job id or None on a resolution."""
    before = await world.dump()
    change = await (
        world.changes.redrive(wanted) if job_id == "" else world.changes.resolve(wanted, job_id, f"arn:{job_id}")
    )
    assert await world.dump() == before
    now = await world.store.get(wanted)
    assert change.submission == (now and replace(now, position=None))
    return change.verdict


# ---- Redrive


async def test_a_rejected_one_goes_back_in_line_with_its_tries_before_it(any_world: World) -> None:
    world = any_world
    (wanted,) = await world.queue(1)
    accepted = await world.store.get(wanted)
    counts = await world.counts()
    await world.attempt(throttled())
    await world.attempt(refused())
    await world.passes(seconds=1000)
    change = await world.changes.redrive(wanted)
    submission = await world.store.get(wanted)
    assert change.verdict == "queued"
    assert (submission.state, submission.position, submission.maybe_sent) == (State.QUEUED, 1, False)
    assert (submission.settled_at, submission.error) == (None, None)
    assert (submission.accepted_at, submission.request) == (accepted.accepted_at, accepted.request)
    assert [attempt.outcome for attempt in submission.attempts] == ["throttled", "refused"]
    assert await world.places(wanted) == ["ready"]
    assert await world.expires_in(wanted) is None
    assert await world.counts() == counts
    leased = await world.lease()
    assert (leased.submission.submission_id, leased.maybe_sent, leased.tries) == (wanted, False, 0)
    assert (await world.settle(leased, forwarded("job-1"))).verdict == "settled"
    assert await world.counts() == NOTHING_QUEUED


async def test_a_redriven_one_has_all_its_tries_again_and_all_the_time(world: World) -> None:
    few = await world.variant(bounds=StoreBounds(max_attempts=2)).open()
    (wanted,) = await few.queue(1)
    for _ in range(2):
        for _ in range(2):
            assert (await few.store.get(wanted)).state is State.QUEUED
            await few.attempt(transient())
        assert (await few.store.get(wanted)).state is State.REJECTED
        await few.passes(seconds=few.bounds.attempt_window_seconds)
        await few.changes.redrive(wanted)


async def test_a_redriven_one_arrives_as_the_last_of_its_priority(world: World) -> None:
    low = [await queued(world)]
    wanted, *high = await world.queue(2, priority=7)
    await world.attempt(refused())
    await world.changes.redrive(wanted)
    low += await world.queue(1)
    high += [wanted, *await world.queue(1, priority=7)]
    assert [(await world.next_lease()).submission.submission_id for _ in range(5)] == high + low


async def test_redriven_and_new_ones_stand_in_the_order_in_which_they_came(world: World) -> None:
    dead = [await rejected(world) for _ in range(4)]
    order = []
    for wanted in dead:
        await world.changes.redrive(wanted)
        order += [wanted, *await world.queue(1)]
    served = [(await world.attempt(forwarded(f"job-{number}"))).submission.submission_id for number in range(8)]
    assert served == order


async def test_a_redriven_one_wakes_who_sleeps(world: World) -> None:
    wanted = await rejected(world)
    async with world.client.pubsub() as pubsub:
        await pubsub.subscribe(world.keys.wake)
        await pubsub.get_message(timeout=1)
        await world.changes.redrive(wanted)
        assert (await pubsub.get_message(timeout=1))["type"] == "message"


async def test_what_is_redriven_into_a_paused_share_waits(world: World) -> None:
    wanted = await rejected(world)
    await world.store.set_share(VISION, {"paused": "1"})
    await world.changes.redrive(wanted)
    await world.passes(seconds=10)
    assert await world.wait() == Wait(seconds=None, reason="idle")
    await world.store.set_share(VISION, {"paused": None})
    assert (await world.lease()).submission.submission_id == wanted


async def test_a_redriven_one_takes_its_turn_after_the_one_that_its_share_had(world: World) -> None:
    wanted = await rejected(world)
    await world.queue(1, share="zoology")
    await world.changes.redrive(wanted)
    await world.queue(1, share="zoology")
    shares = [(await world.next_lease()).submission.share.name for _ in range(3)]
    assert shares == ["zoology", "vision", "zoology"]


async def test_limits_hold_off_no_redrive(world: World) -> None:
    full = await world.variant(bounds=StoreBounds(max_queued=1, max_shares_per_queue=1)).open()
    wanted = await rejected(full)
    await full.admit(limits=ShareLimits(max_queued=1), share="other")
    assert (await full.changes.redrive(wanted)).verdict == "queued"
    assert (await full.counts()).by_share == {"training/other": 1, "training/vision": 1}
    assert (await full.counts()).shares_by_queue == {"training": 2}


async def test_the_hash_of_a_share_with_a_redriven_one_never_expires(world: World) -> None:
    wanted = await rejected(world)
    assert await world.client.ttl(world.keys.share(VISION)) > 0
    await world.changes.redrive(wanted)
    assert await world.client.ttl(world.keys.share(VISION)) == -1


async def test_the_deadline_of_a_redriven_one_holds_again(world: World) -> None:
    (wanted,) = await world.queue(1, deadline=world.now + timedelta(seconds=30))
    await world.attempt(refused())
    await world.changes.redrive(wanted)
    await world.store.set_share(VISION, {"paused": "1"})
    await world.passes(seconds=29)
    assert await world.store.reclaim() == Reclaimed()
    await world.passes(seconds=1)
    assert [one.submission_id for one in (await world.store.reclaim()).expired] == [wanted]


async def test_a_deadline_that_has_come_is_no_reason_not_to_redrive(world: World) -> None:
    """Whoever redrives knows how late it is."""
    (wanted,) = await world.queue(1, deadline=world.now + timedelta(seconds=30))
    await world.attempt(refused())
    await world.passes(seconds=30)
    await world.changes.redrive(wanted)
    assert (await world.lease()).submission.submission_id == wanted
    assert (await world.store.get(wanted)).cancel is None


async def test_an_answer_from_before_a_redrive_settles_nothing_but_a_job(world: World) -> None:
    await world.queue(1)
    late = await world.attempt(refused())
    await world.changes.redrive(late.submission.submission_id)
    assert (await world.settle(late, refused())).verdict == "stale"
    settlement = await world.settle(late, forwarded("job-1"))
    assert (settlement.verdict, settlement.submission.state) == ("settled", State.FORWARDED)
    assert await world.counts() == NOTHING_QUEUED
    await world.no_errand()


@pytest.mark.parametrize(
    "make",
    [queued, leased, looked_for, unknown, one_forwarded, canceled, expired, rejected_with_a_job, rejected_in_doubt],
)
async def test_nothing_but_what_was_rejected_and_surely_made_no_job_is_redriven(any_world: World, make: Make) -> None:
    assert await changes_nothing(any_world, await make(any_world)) == "refused"


async def test_an_unknown_one_is_redriven_only_after_it_was_resolved(any_world: World) -> None:
    world = any_world
    wanted = await unknown(world)
    assert await changes_nothing(world, wanted) == "refused"
    assert (await world.changes.resolve(wanted, None, None)).verdict == "resolved"
    assert (await world.changes.redrive(wanted)).verdict == "queued"
    leased = await world.next_lease()
    assert (leased.submission.submission_id, leased.maybe_sent) == (wanted, False)
    assert leased.submission.request


@pytest.mark.parametrize("job_id", ["", None, "job-1"])
async def test_what_is_gone_is_neither_redriven_nor_resolved(any_world: World, job_id: str | None) -> None:
    wanted = await rejected(any_world)
    await any_world.client.delete(any_world.keys.record(wanted))
    assert await changes_nothing(any_world, wanted, job_id) == "gone"


# ---- Resolve


async def test_an_unknown_one_gets_the_job_that_a_person_found(any_world: World) -> None:
    world = any_world
    wanted = await unknown(world)
    change = await world.changes.resolve(wanted, "job-1", "arn:job-1")
    submission = await world.store.get(wanted)
    assert (change.verdict, change.submission) == ("resolved", submission)
    assert (submission.state, submission.job_id, submission.job_arn) == (State.FORWARDED, "job-1", "arn:job-1")
    assert (submission.request, submission.error, submission.maybe_sent) == (b"", None, False)
    assert await world.index.of_job("job-1") == wanted
    assert await world.client.ttl(world.keys.job("job-1")) > world.bounds.alias_retention_seconds - 60
    assert 0 < await world.expires_in(wanted) <= world.bounds.retention_seconds
    assert await world.counts() == NOTHING_QUEUED
    await world.no_errand()


async def test_an_unknown_one_that_is_in_no_queue_of_batchs_is_rejected(any_world: World) -> None:
    world = any_world
    wanted = await unknown(world)
    error = (await world.store.get(wanted)).error
    change = await world.changes.resolve(wanted, None, None)
    submission = await world.store.get(wanted)
    assert (change.verdict, change.submission) == ("resolved", submission)
    assert (submission.state, submission.maybe_sent, submission.error) == (State.REJECTED, False, error)
    assert submission.request
    assert await world.expires_in(wanted) is None
    assert await world.counts() == NOTHING_QUEUED
    await world.no_errand()


async def unknown_and_to_end(world: World, by: str) -> SubmissionId:
    (wanted,) = await world.queue(1, deadline=world.now + timedelta(seconds=30))
    leased = await world.lease()
    if by == "canceled":
        await world.changes.cancel(wanted, "why")
    else:
        await world.passes(seconds=30)
        await world.store.reclaim()
    await world.settle(leased, unclear())
    await world.errands.settle(await world.next_errand(), ErrandReport(verdict="unknown"))
    return wanted


@pytest.mark.parametrize("by", ["canceled", "expired"])
async def test_what_was_to_end_early_ends_so_once_it_is_known_that_there_is_no_job(any_world: World, by: str) -> None:
    wanted = await unknown_and_to_end(any_world, by)
    submission = (await any_world.changes.resolve(wanted, None, None)).submission
    assert (submission.state, submission.request) == (by, b"")
    assert await any_world.expires_in(wanted) > 0
    await any_world.no_errand()
    assert await changes_nothing(any_world, wanted) == "refused"


@pytest.mark.parametrize("by", ["canceled", "expired"])
async def test_what_was_to_end_early_is_owed_its_termination_once_its_job_is_known(any_world: World, by: str) -> None:
    wanted = await unknown_and_to_end(any_world, by)
    submission = (await any_world.changes.resolve(wanted, "job-1", "arn:job-1")).submission
    assert submission.state is State.FORWARDED
    assert await any_world.expires_in(wanted) is None
    errand = await any_world.next_errand()
    assert (errand.kind, errand.submission.job_id) == ("terminate", "job-1")


async def test_the_priority_that_was_given_while_queued_is_owed_once_the_job_is_known(world: World) -> None:
    (wanted,) = await world.queue(1)
    await world.changes.reprioritize(wanted, 7)
    await world.attempt(refused(maybe_sent=True))
    await world.changes.resolve(wanted, "job-1", "arn:job-1")
    errand = await world.errand()
    assert (errand.kind, errand.submission.priority) == ("update", 7)


async def test_no_submission_gets_another_ones_job(any_world: World) -> None:
    world = any_world
    other = await one_forwarded(world)
    wanted = await unknown(world)
    before = await world.dump()
    change = await world.changes.resolve(wanted, "job-1", "arn:job-1")
    assert (change.verdict, change.owner, change.submission) == ("owned", other, None)
    assert await world.dump() == before
    assert (await world.changes.resolve(wanted, "job-2", "arn:job-2")).verdict == "resolved"


async def test_a_submission_may_get_the_job_that_it_had_before_its_record_was_forgotten(world: World) -> None:
    wanted = await unknown(world)
    await world.client.set(world.keys.job("job-1"), wanted)
    assert (await world.changes.resolve(wanted, "job-1", "arn:job-1")).submission.job_id == "job-1"


@pytest.mark.parametrize("job_id", [None, "job-2"])
@pytest.mark.parametrize("make", [queued, leased, looked_for, one_forwarded, canceled, expired])
async def test_nothing_but_dead_letters_is_resolved(any_world: World, make: Make, job_id: str | None) -> None:
    assert await changes_nothing(any_world, await make(any_world), job_id) == "refused"


async def test_a_rejected_one_is_given_no_job(world: World) -> None:
    assert await changes_nothing(world, await rejected(world), "job-2") == "refused"


async def test_the_same_job_is_the_same_answer(world: World) -> None:
    wanted = await unknown(world)
    await world.changes.resolve(wanted, "job-1", "arn")
    assert await changes_nothing(world, wanted, "job-1") == "same"
    assert await changes_nothing(world, wanted, "job-2") == "refused"


@pytest.mark.parametrize("make", [rejected, unknown])
async def test_a_rejected_one_is_closed_and_forgotten_in_time(any_world: World, make: Make) -> None:
    world = any_world
    wanted = await make(world)
    if make is unknown:
        assert (await world.changes.resolve(wanted, None, None)).submission.request, "it may be redriven yet"
    assert await world.expires_in(wanted) is None
    assert await changes_nothing(world, wanted, None) == "same"
    closed = await world.changes.resolve(wanted, None, None, close=True)
    assert (closed.verdict, closed.submission.state, closed.submission.request) == ("resolved", State.REJECTED, b"")
    assert await world.expires_in(wanted) == pytest.approx(world.bounds.retention_seconds, abs=60)
    assert (await world.changes.redrive(wanted)).verdict == "refused"
    assert (await world.changes.resolve(wanted, None, None, close=True)).verdict == "same"


async def test_a_job_of_a_call_from_before_is_terminated_where_a_person_said_that_there_was_none(world: World) -> None:
    await world.queue(1)
    late = await world.attempt(refused(maybe_sent=True))
    await world.changes.resolve(late.submission.submission_id, None, None)
    settlement = await world.settle(late, forwarded("job-1"))
    assert (settlement.verdict, settlement.submission.state) == ("late", State.REJECTED)
    assert (await world.errand()).kind == "terminate"
