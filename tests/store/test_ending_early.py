"""What a caller cancels and what its deadline ends: at once where no call can have made a job, else by asking Batch."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from gateway.core.ports import ErrandReport, Reclaimed
from gateway.core.share import Share, ShareLimits
from gateway.core.submission import Cancel, State
from gateway.store.bounds import StoreBounds
from tests.store.world import (
    CREDENTIALS,
    DENIED,
    GIVEN_BACK,
    NOT_SENT,
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

    from gateway.core.attempt import Leased, Report
    from gateway.core.identity import SubmissionId

    Make = Callable[[World], Awaitable[SubmissionId]]
    End = Callable[[World, SubmissionId], Awaitable[State]]

VISION = Share("training", "vision")
DEADLINE = timedelta(seconds=30)  # within a lease
LEASE_ENDS = StoreBounds().lease_seconds


async def queued(world: World, number: int = 1, limits: ShareLimits | None = None) -> list[SubmissionId]:
    return await world.queue(number, limits, deadline=world.now + DEADLINE)


# ---- Two ways to end early


async def canceled(world: World, wanted: SubmissionId) -> State:
    await world.changes.cancel(wanted, "changed our minds")
    return State.CANCELED


async def expired(world: World, wanted: SubmissionId) -> State:
    score = await world.client.zscore(world.keys.deadlines, wanted)
    assert score is not None
    await world.set_clock(int(score) * 1000)
    await world.store.reclaim()
    return State.EXPIRED


either_way = pytest.mark.parametrize("end", [canceled, expired])


# ---- Before a call


async def ready(world: World) -> SubmissionId:
    return (await queued(world))[0]


async def backing_off(world: World) -> SubmissionId:
    (wanted,) = await queued(world)
    await world.attempt(transient(delay_seconds=600))
    assert await world.places(wanted) == ["delayed"]
    return wanted


async def over_its_rate(world: World) -> SubmissionId:
    limits = ShareLimits(rate=0.05, burst=1, over_limit="delay")
    await queued(world, 1, limits)
    await world.attempt(forwarded("first"))
    (wanted,) = await queued(world, 1, limits)
    assert await world.places(wanted) == ["delayed"]
    return wanted


async def paused(world: World) -> SubmissionId:
    await world.store.set_share(VISION, {"paused": "1"})
    return (await queued(world))[0]


async def denied_and_aside(world: World) -> SubmissionId:
    (wanted,) = await queued(world)
    await world.attempt(DENIED)
    await world.passes(seconds=1)
    await world.store.lease()
    assert await world.places(wanted) == ["delayed"]
    return wanted


before_a_call = pytest.mark.parametrize("make", [ready, backing_off, over_its_rate, paused, denied_and_aside])


@either_way
@before_a_call
async def test_what_was_never_called_for_ends_at_once(any_world: World, make: Make, end: End) -> None:
    world = any_world
    wanted = await make(world)
    state = await end(world, wanted)
    submission = await world.store.get(wanted)
    assert (submission.state, submission.request, submission.job_id) == (state, b"", None)
    assert submission.settled_at == world.now
    assert await world.places(wanted) == []
    assert await world.counts() == NOTHING_QUEUED
    assert await world.client.zcard(world.keys.deadlines) == 0
    assert await world.client.zcard(world.keys.active) == 0
    retention = world.bounds.retention_seconds
    assert retention - 60 < await world.expires_in(wanted) <= retention
    await world.no_errand()


@before_a_call
async def test_a_cancel_tells_what_it_did_and_why(world: World, make: Make) -> None:
    wanted = await make(world)
    change = await world.changes.cancel(wanted, "changed our minds")
    assert change.verdict == "canceled"
    assert change.submission == await world.store.get(wanted)
    assert change.submission.cancel == Cancel(by="caller", reason="changed our minds")
    assert change.submission.cancel_requested


@before_a_call
async def test_what_expires_is_told_once_by_who_brings_it_back(world: World, make: Make) -> None:
    wanted = await make(world)
    deadline = (await world.store.get(wanted)).deadline
    await world.passes(seconds=(deadline - world.now).total_seconds() - 1)
    assert await world.store.reclaim() == Reclaimed()
    await world.passes(seconds=1)
    assert (await world.store.reclaim()).expired == (await world.store.get(wanted),)
    before = await world.dump()
    assert await world.store.reclaim() == Reclaimed()
    assert await world.dump() == before


async def test_a_deadline_counts_from_the_millisecond_in_which_it_comes(world: World) -> None:
    (wanted,) = await queued(world)
    await world.passes(milliseconds=29_999)
    assert await world.store.reclaim() == Reclaimed()
    await world.passes(milliseconds=1)
    assert [one.submission_id for one in (await world.store.reclaim()).expired] == [wanted]


async def test_a_forwarder_leases_nothing_whose_deadline_has_come(world: World) -> None:
    late, *_ = await queued(world)
    (other,) = await world.queue(1)
    await world.passes(seconds=DEADLINE.total_seconds())
    assert (await world.store.lease()).reason == "due"
    assert (await world.lease()).submission.submission_id == other
    assert (await world.store.get(late)).state is State.EXPIRED


async def test_a_forwarder_that_waits_is_told_when_the_next_deadline_comes(world: World) -> None:
    await queued(world)
    await world.store.set_share(VISION, {"paused": "1"})
    assert (await world.wait()).seconds == DEADLINE.total_seconds()


async def test_many_deadlines_at_once_are_told_once_each(world: World) -> None:
    wanted = await queued(world, 120)
    kept = await world.queue(2)
    await world.passes(seconds=3600)
    told = [one.submission_id for _ in range(4) for one in (await world.store.reclaim()).expired]
    assert sorted(told) == sorted(wanted)
    assert (await world.counts()).queued == 2
    assert [(await world.next_lease()).submission.submission_id for _ in kept] == kept


@either_way
async def test_ends_are_told_on_their_channel(world: World, end: End) -> None:
    async with world.client.pubsub() as pubsub:
        await pubsub.subscribe(world.keys.ends)
        await pubsub.get_message(timeout=1)
        wanted = await ready(world)
        await end(world, wanted)
        message = await pubsub.get_message(timeout=1)
    assert message["data"].decode() == wanted


# ---- The others


@either_way
@pytest.mark.parametrize("position", [0, 1, 2])
async def test_the_others_of_a_share_keep_their_order(world: World, end: End, position: int) -> None:
    before = await world.queue(position)
    (wanted,) = await queued(world)
    after = await world.queue(2 - position)
    await end(world, wanted)
    assert [(await world.next_lease()).submission.submission_id for _ in range(2)] == before + after
    assert (await world.wait()).reason == "idle"


@either_way
async def test_the_other_shares_keep_their_turns(world: World, end: End) -> None:
    (wanted,) = await queued(world)
    for share in "abab":
        await world.queue(1, share=share)
    await world.queue(2)
    await end(world, wanted)
    shares = [(await world.next_lease()).submission.share.name for _ in range(6)]
    assert sorted(shares[:3]) == sorted(shares[3:]) == ["a", "b", "vision"]


@either_way
async def test_a_share_whose_last_ready_one_ends_goes_on_with_those_that_come_back(world: World, end: End) -> None:
    (delayed,) = await world.queue(1)
    await world.attempt(transient(delay_seconds=100))
    (wanted,) = await queued(world)
    await end(world, wanted)
    assert await world.client.zcard(world.keys.active) == 0
    assert (await world.counts()).by_share == {"training/vision": 1}
    assert (await world.next_lease()).submission.submission_id == delayed


@either_way
async def test_the_others_of_a_paused_share_go_on_when_it_is_resumed(world: World, end: End) -> None:
    wanted = await paused(world)
    (other,) = await world.queue(1)
    await end(world, wanted)
    assert (await world.wait()).reason == "idle"
    await world.store.set_share(VISION, {"paused": None})
    assert (await world.lease()).submission.submission_id == other


@either_way
@before_a_call
async def test_what_ended_makes_room_for_another(world: World, make: Make, end: End) -> None:
    full = await world.variant(bounds=StoreBounds(max_queued=1, max_shares_per_queue=1)).open()
    await end(full, await make(full))
    await full.admit(limits=ShareLimits(max_queued=1), share="other")


@either_way
async def test_what_ended_costs_its_share_no_turn(world: World, end: End) -> None:
    wanted = await ready(world)
    await end(world, wanted)
    await world.queue(1, share="other")
    await world.queue(1)
    await world.queue(1, share="other")
    assert [(await world.next_lease()).submission.share.name for _ in range(3)] == ["other", "vision", "other"]


# ---- During a call

PROOFS = {
    "throttled": throttled(),
    "refused": refused(),
    "transient": transient(delay_seconds=10),
    "given back": GIVEN_BACK,
    "not sent": NOT_SENT,
    "credentials": CREDENTIALS,
    "denied": DENIED,
}


async def called(world: World) -> Leased:
    """A call is under way, the first."""
    await queued(world)
    return await world.lease()


async def called_again(world: World) -> Leased:
    """A call is under way, and an earlier one may have made a job."""
    await queued(world)
    await world.attempt(unclear())
    leased = await world.next_lease()
    assert leased.maybe_sent
    return leased


async def is_looked_for(world: World, wanted: SubmissionId) -> None:
    """And for nothing else: whatever time passes, no forwarder gets it."""
    submission = await world.store.get(wanted)
    assert (submission.state, submission.maybe_sent, submission.position) == (State.QUEUED, True, 0)
    assert submission.request
    assert await world.places(wanted) == ["errands"]
    assert (await world.counts()).queued == 1
    assert (await world.errands.lease()).seconds == 5
    for _ in range(3):
        assert (await world.wait()).reason == "idle"
        await world.passes(seconds=300)
    assert (await world.errand()).kind == "look"
    assert await world.expires_in(wanted) is None


@either_way
async def test_what_is_being_called_for_waits_for_the_answer(any_world: World, end: End) -> None:
    world = any_world
    leased = await called(world)
    wanted = leased.submission.submission_id
    await end(world, wanted)
    submission = await world.store.get(wanted)
    assert (submission.state, submission.cancel is None) == (State.QUEUED, False)
    assert await world.places(wanted) == ["leased"]
    assert await world.client.zcard(world.keys.deadlines) == int(end is canceled)
    assert (await world.counts()).queued == 1
    await world.no_errand()


async def test_a_cancel_during_a_call_is_requested(world: World) -> None:
    leased = await called(world)
    change = await world.changes.cancel(leased.submission.submission_id, "why")
    assert change.verdict == "requested"
    assert change.submission.cancel_requested
    assert change.submission.cancel == Cancel(by="caller", reason="why")


async def test_a_deadline_during_a_call_ends_nothing_yet(world: World) -> None:
    leased = await called(world)
    await world.passes(seconds=DEADLINE.total_seconds())
    assert await world.store.reclaim() == Reclaimed()
    before = await world.dump()
    assert await world.store.reclaim() == Reclaimed()
    assert await world.dump() == before
    assert (await world.store.get(leased.submission.submission_id)).cancel == Cancel(by="deadline")


@either_way
@pytest.mark.parametrize("answer", PROOFS)
async def test_an_answer_that_proves_that_there_is_no_job_ends_it(any_world: World, end: End, answer: str) -> None:
    world = any_world
    leased = await called(world)
    wanted = leased.submission.submission_id
    state = await end(world, wanted)
    settlement = await world.settle(leased, PROOFS[answer])
    assert settlement.verdict == "settled"
    assert settlement.submission.state is state
    assert settlement.submission.request == b""
    assert not settlement.submission.maybe_sent
    assert await world.places(wanted) == []
    assert await world.counts() == NOTHING_QUEUED
    assert await world.client.zcard(world.keys.deadlines) == 0
    assert await world.expires_in(wanted) > 0
    await world.no_errand()
    assert (await world.wait()).reason == "idle"


@either_way
@pytest.mark.parametrize("begin", [called, called_again])
async def test_a_job_that_is_made_meanwhile_is_terminated(
    any_world: World, end: End, begin: Callable[[World], Awaitable[Leased]]
) -> None:
    world = any_world
    leased = await begin(world)
    wanted = leased.submission.submission_id
    await end(world, wanted)
    settlement = await world.settle(leased, forwarded("job-1"))
    assert (settlement.verdict, settlement.submission.state) == ("settled", State.FORWARDED)
    assert await world.counts() == NOTHING_QUEUED
    assert await world.expires_in(wanted) is None
    errand = await world.errand()
    assert (errand.kind, errand.submission.job_id) == ("terminate", "job-1")


@either_way
@pytest.mark.parametrize("delay_seconds", [0, 10])
async def test_an_answer_that_proves_nothing_makes_it_looked_for(world: World, end: End, delay_seconds: int) -> None:
    leased = await called(world)
    await end(world, leased.submission.submission_id)
    settlement = await world.settle(leased, unclear(delay_seconds))
    assert (settlement.verdict, settlement.submission.state) == ("settled", State.QUEUED)
    await is_looked_for(world, leased.submission.submission_id)


@either_way
async def test_a_call_whose_lease_ends_makes_it_looked_for(world: World, end: End) -> None:
    leased = await called(world)
    await end(world, leased.submission.submission_id)
    await world.passes(seconds=LEASE_ENDS)
    assert await world.store.reclaim() == Reclaimed()
    await is_looked_for(world, leased.submission.submission_id)


@either_way
@pytest.mark.parametrize(
    "answer", [report for name, report in PROOFS.items() if name != "refused"] + [unclear(), reconcile()]
)
async def test_what_an_earlier_call_may_have_made_is_looked_for(world: World, end: End, answer: Report) -> None:
    leased = await called_again(world)
    await end(world, leased.submission.submission_id)
    await world.settle(leased, answer)
    await is_looked_for(world, leased.submission.submission_id)


@either_way
async def test_what_may_be_in_batch_and_waits_for_its_next_try_is_looked_for(world: World, end: End) -> None:
    (wanted,) = await queued(world)
    await world.attempt(unclear(600))
    await end(world, wanted)
    await is_looked_for(world, wanted)


@either_way
async def test_what_may_be_in_batch_and_stands_ready_is_looked_for(world: World, end: End) -> None:
    (wanted,) = await queued(world)
    await world.attempt(unclear())
    assert await world.places(wanted) == ["ready"]
    await end(world, wanted)
    assert await world.client.zcard(world.keys.active) == 0
    await is_looked_for(world, wanted)


@either_way
async def test_one_that_was_given_up_and_is_to_end_is_looked_for_first(world: World, end: End) -> None:
    leased = await called_again(world)
    await end(world, leased.submission.submission_id)
    settlement = await world.settle(leased, refused(maybe_sent=True))
    assert settlement.submission.request
    await is_looked_for(world, leased.submission.submission_id)


@either_way
async def test_the_last_charged_try_is_no_reason_to_give_up_looking(world: World, end: End) -> None:
    few = await world.variant(bounds=StoreBounds(max_attempts=1)).open()
    leased = await called(few)
    await end(few, leased.submission.submission_id)
    await few.settle(leased, unclear())
    await is_looked_for(few, leased.submission.submission_id)


@either_way
async def test_an_end_that_was_asked_for_is_no_rejection_of_the_share(world: World, end: End) -> None:
    for _ in range(world.pace.like_rejections - 1):
        await queued(world)
        await world.attempt(refused())
    await queued(world)
    leased = await world.next_lease()
    await end(world, leased.submission.submission_id)
    assert not (await world.settle(leased, refused())).share_paused


async def test_a_lease_that_ends_with_the_deadline_makes_it_looked_for(world: World) -> None:
    leased = await called(world)
    await world.passes(seconds=LEASE_ENDS + 1)  # both have passed before anybody asks
    assert await world.store.reclaim() == Reclaimed()
    assert (await world.store.get(leased.submission.submission_id)).attempts[-1].outcome == "lease_ended"
    await is_looked_for(world, leased.submission.submission_id)


async def test_a_deadline_during_a_look_makes_what_is_found_end(world: World) -> None:
    (wanted,) = await queued(world)
    await world.attempt(unclear())
    await world.attempt(reconcile())
    await expired(world, wanted)
    assert (await world.store.get(wanted)).cancel == Cancel(by="deadline")
    assert await world.places(wanted) == ["errands"]
    assert (await world.errand()).kind == "look"


async def test_a_cancel_during_a_look_is_requested_and_leaves_the_look_where_it_is(world: World) -> None:
    (wanted,) = await queued(world)
    await world.attempt(unclear())
    await world.attempt(reconcile())
    await world.passes(seconds=2)
    assert (await world.changes.cancel(wanted, "")).verdict == "requested"
    assert (await world.errands.lease()).seconds == 3


# ---- After a call


async def one_forwarded(world: World) -> SubmissionId:
    await queued(world)
    return (await world.attempt(forwarded("job-1"))).submission.submission_id


async def terminated(world: World) -> SubmissionId:
    wanted = await one_forwarded(world)
    await world.changes.cancel(wanted, "")
    await world.errands.settle(await world.errand(), ErrandReport(verdict="done"))
    return wanted


async def rejected(world: World) -> SubmissionId:
    await queued(world)
    return (await world.attempt(refused())).submission.submission_id


async def unknown(world: World) -> SubmissionId:
    await queued(world)
    return (await world.attempt(refused(maybe_sent=True))).submission.submission_id


async def already_canceled(world: World) -> SubmissionId:
    wanted = await ready(world)
    await canceled(world, wanted)
    return wanted


async def already_expired(world: World) -> SubmissionId:
    wanted = await ready(world)
    await expired(world, wanted)
    return wanted


@pytest.mark.parametrize(
    ("make", "verdict"),
    [
        (terminated, "done"),
        (already_canceled, "done"),
        (rejected, "final"),
        (unknown, "final"),
        (already_expired, "final"),
    ],
)
async def test_a_cancel_of_what_has_ended_changes_nothing(any_world: World, make: Make, verdict: str) -> None:
    wanted = await make(any_world)
    before = await any_world.dump()
    change = await any_world.changes.cancel(wanted, "again")
    assert (change.verdict, change.submission) == (verdict, await any_world.store.get(wanted))
    assert await any_world.dump() == before


async def test_a_cancel_of_what_is_gone_changes_nothing(any_world: World) -> None:
    wanted = await ready(any_world)
    await any_world.client.delete(any_world.keys.record(wanted))
    before = await any_world.dump()
    change = await any_world.changes.cancel(wanted, "")
    assert (change.verdict, change.submission) == ("gone", None)
    assert await any_world.dump() == before


async def test_a_cancel_of_what_is_forwarded_is_owed_to_batch(any_world: World) -> None:
    world = any_world
    wanted = await one_forwarded(world)
    change = await world.changes.cancel(wanted, "why")
    assert (change.verdict, change.submission.state) == ("requested", State.FORWARDED)
    assert await world.expires_in(wanted) is None
    assert await world.counts() == NOTHING_QUEUED
    errand = await world.errand()
    assert (errand.kind, errand.submission.cancel.reason) == ("terminate", "why")


@pytest.mark.parametrize(
    "make",
    [one_forwarded, terminated, rejected, unknown, already_canceled, already_expired],
    ids=lambda it: it.__name__,
)
async def test_the_deadline_of_what_has_ended_is_forgotten(world: World, make: Make) -> None:
    wanted = await make(world)
    assert await world.client.zcard(world.keys.deadlines) == 0
    before, submission = await world.dump(), await world.store.get(wanted)
    await world.passes(seconds=3600)
    assert await world.store.reclaim() == Reclaimed()
    assert await world.dump() == before
    assert submission.deadline is not None


# ---- Once and again, and both at once


async def _leased(world: World) -> SubmissionId:
    return (await called(world)).submission.submission_id


async def _looked_for(world: World) -> SubmissionId:
    (wanted,) = await queued(world)
    await world.attempt(unclear())
    await world.attempt(reconcile())
    return wanted


@pytest.mark.parametrize("make", [_leased, _looked_for, one_forwarded])
async def test_a_cancel_asked_again_changes_nothing(any_world: World, make: Make) -> None:
    wanted = await make(any_world)
    assert (await any_world.changes.cancel(wanted, "first")).verdict == "requested"
    before = await any_world.dump()
    change = await any_world.changes.cancel(wanted, "second")
    assert (change.verdict, change.submission.cancel.reason) == ("pending", "first")
    assert await any_world.dump() == before


async def test_a_cancel_before_the_deadline_wins(world: World) -> None:
    leased = await called(world)
    wanted = leased.submission.submission_id
    await canceled(world, wanted)
    await expired(world, wanted)
    assert (await world.settle(leased, throttled())).submission.state is State.CANCELED


async def test_a_deadline_before_the_cancel_wins(world: World) -> None:
    leased = await called(world)
    wanted = leased.submission.submission_id
    await expired(world, wanted)
    assert (await world.changes.cancel(wanted, "")).verdict == "pending"
    settlement = await world.settle(leased, throttled())
    assert settlement.submission.state is State.EXPIRED
    assert not settlement.submission.cancel_requested


async def test_a_cancel_after_the_deadline_that_nobody_saw_yet_counts_once(world: World) -> None:
    wanted = await ready(world)
    await world.passes(seconds=3600)
    assert (await world.changes.cancel(wanted, "")).verdict == "canceled"
    assert await world.store.reclaim() == Reclaimed()
    assert await world.counts() == NOTHING_QUEUED


async def test_a_delay_that_ends_with_the_deadline_ends_it_once(world: World) -> None:
    (wanted,) = await queued(world)
    await world.attempt(transient(delay_seconds=10))
    await world.passes(seconds=60)
    assert [one.submission_id for one in (await world.store.reclaim()).expired] == [wanted]
    assert await world.places(wanted) == []
    assert await world.counts() == NOTHING_QUEUED
