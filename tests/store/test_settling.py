"""What becomes of a submission: who may say so, what is kept, and for how long."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING

import msgpack
import pytest

from gateway.core.attempt import Report, Verdict
from gateway.core.share import Share
from gateway.core.submission import Failure, State
from gateway.store.bounds import StoreBounds
from gateway.store.scripts import script_text
from tests.store.world import GIVEN_BACK, World, forwarded, refused, throttled, transient, unclear

if TYPE_CHECKING:
    from gateway.core.attempt import Leased

VISION = Share("training", "vision")
LEASE_ENDS = StoreBounds().lease_seconds


async def leased_twice(world: World) -> tuple[Leased, Leased]:
    """A process that hangs, and the one that was given its submission after it."""
    await world.queue(1)
    first = await world.lease()
    await world.passes(seconds=LEASE_ENDS)
    second = await world.lease()
    assert second.submission.submission_id == first.submission.submission_id
    return first, second


# ---- Forwarded


async def test_what_is_forwarded_drops_its_request_and_stays_known_for_a_while(world: World) -> None:
    (wanted,) = await world.queue(1)
    await world.attempt(transient())
    settlement = await world.settle(await world.next_lease(), forwarded("job-1"))
    submission = await world.store.get(wanted)
    assert settlement.verdict == "settled"
    assert settlement.submission == submission
    assert (submission.state, submission.job_id, submission.job_arn) == (State.FORWARDED, "job-1", "arn:job-1")
    assert (submission.request, submission.error) == (b"", None)
    assert submission.fingerprint.members
    assert [attempt.outcome for attempt in submission.attempts] == ["transient", "submitted"]
    retention, alias = world.bounds.retention_seconds, world.bounds.alias_retention_seconds
    assert retention - 60 < await world.client.ttl(world.keys.record(wanted)) <= retention
    assert alias - 60 < await world.client.ttl(world.keys.job("job-1")) <= alias
    assert await world.client.get(world.keys.job("job-1")) == wanted.encode()
    assert alias - 60 < await world.client.ttl(world.keys.alias(wanted)) <= alias
    await world.client.delete(world.keys.record(wanted))  # as its retention does in time
    assert await world.index.job_of(wanted) == "job-1"
    assert await world.index.of_job("job-1") == wanted


async def test_a_forwarded_submission_leaves_nothing_behind_but_its_record(world: World) -> None:
    await world.queue(1)
    await world.attempt(forwarded("job-1"))
    names = {name.decode().removeprefix(world.keys.root).split(":")[0] for name in await world.dump()}
    assert names == {"upstream", "share", "sub", "job", "alias", "index", "namespaces"}
    assert await world.client.ttl(world.keys.share(VISION)) > 6 * 24 * 3600


async def test_the_hash_of_a_share_with_a_backlog_never_expires(world: World) -> None:
    await world.queue(1)
    await world.attempt(forwarded())
    await world.queue(1)
    assert await world.client.ttl(world.keys.share(VISION)) == -1


async def test_what_operators_set_never_expires(world: World) -> None:
    await world.store.set_share(VISION, {"rate": "7"})
    await world.queue(1)
    await world.attempt(forwarded())
    assert await world.client.ttl(world.keys.share(VISION)) == -1
    await world.store.set_share(VISION, {"rate": None})
    assert await world.client.ttl(world.keys.share(VISION)) > 0


@pytest.mark.parametrize("changes", [{"rate": "7"}, {"paused": "1"}])
async def test_what_operators_set_for_an_idle_share_never_expires(world: World, changes: dict[str, str | None]) -> None:
    await world.queue(1)
    await world.attempt(forwarded())
    await world.store.set_share(VISION, changes)
    assert await world.client.ttl(world.keys.share(VISION)) == -1


async def test_a_pause_never_expires(world: World) -> None:
    await world.queue(1)
    leased = await world.lease()
    await world.store.set_share(VISION, {"paused": "1"})
    await world.settle(leased, forwarded())
    assert await world.client.ttl(world.keys.share(VISION)) == -1


@pytest.mark.parametrize("verdict", ["forwarded", "rejected", "unknown"])
async def test_ends_are_told_on_their_channel(world: World, verdict: str) -> None:
    report = {"forwarded": forwarded(), "rejected": refused(), "unknown": refused(maybe_sent=True)}[verdict]
    async with world.client.pubsub() as pubsub:
        await pubsub.subscribe(world.keys.ends)
        await pubsub.get_message(timeout=1)
        (wanted,) = await world.queue(1)
        await world.attempt(transient())  # no end
        await world.attempt(report)
        message = await pubsub.get_message(timeout=1)
    assert message["data"].decode() == wanted


# ---- Dead letters


async def test_dead_letters_keep_everything_for_a_person(world: World) -> None:
    rejected, unknown = await world.queue(2)
    await world.attempt(refused("ClientException"))
    await world.attempt(refused("ClientException", maybe_sent=True))
    for wanted, state in ((rejected, State.REJECTED), (unknown, State.UNKNOWN)):
        submission = await world.store.get(wanted)
        assert submission.state is state
        assert submission.request == b'{"jobName": "resnet"}'
        assert submission.error == Failure(code="ClientException", message="no")
        assert submission.settled_at - submission.accepted_at < timedelta(seconds=1)
        assert await world.client.ttl(world.keys.record(wanted)) == -1
    assert (await world.store.pace())["queued"] == 0


# ---- Who may settle


@pytest.mark.parametrize("report", [GIVEN_BACK, throttled(), unclear(), refused(), refused(maybe_sent=True)])
async def test_an_old_lease_settles_nothing(world: World, report: Report) -> None:
    first, _ = await leased_twice(world)
    before = await world.dump()
    settlement = await world.settle(first, report)
    assert settlement.verdict == "stale"
    assert settlement.submission.state is State.QUEUED
    assert await world.dump() == before


@pytest.mark.parametrize("report", [GIVEN_BACK, throttled(), unclear(), refused()])
async def test_a_lease_that_ended_settles_nothing_even_before_the_next(world: World, report: Report) -> None:
    await world.queue(1)
    leased = await world.lease()
    await world.passes(seconds=LEASE_ENDS)
    await world.store.set_share(VISION, {"paused": "1"})
    assert (await world.wait()).reason == "idle"  # brought back, and nobody else has it
    before = await world.dump()
    assert (await world.settle(leased, report)).verdict == "stale"
    assert await world.dump() == before


@pytest.mark.parametrize("report", [GIVEN_BACK, unclear(), refused(), forwarded("another")])
async def test_a_settled_submission_is_settled_once(world: World, report: Report) -> None:
    await world.queue(1)
    leased = await world.attempt(forwarded("job-1"))
    before = await world.dump()
    assert (await world.settle(leased, report)).verdict == "stale"
    assert await world.dump() == before


async def test_a_job_is_taken_from_an_attempt_whose_lease_is_over(world: World) -> None:
    first, second = await leased_twice(world)
    settlement = await world.settle(first, forwarded("job-1"))
    assert (settlement.verdict, settlement.submission.state) == ("settled", State.FORWARDED)
    assert (await world.store.pace())["queued"] == 0
    assert (await world.store.pace())["leased"] == 0
    before = await world.dump()
    assert (await world.settle(second, throttled())).verdict == "stale"
    assert await world.dump() == before


@pytest.mark.parametrize("delay_seconds", [0, 600])
async def test_a_job_is_taken_from_an_attempt_whose_submission_waits_again(world: World, delay_seconds: int) -> None:
    first, second = await leased_twice(world)
    await world.settle(second, transient(delay_seconds=delay_seconds))
    assert (await world.settle(first, forwarded("job-1"))).verdict == "settled"
    assert (await world.wait()).reason in {"idle", "pace"}
    await world.passes(seconds=3600)
    assert await world.wait() == await world.wait()
    assert (await world.wait()).reason == "idle"


async def test_an_unknown_one_learns_of_its_job_late(world: World) -> None:
    first, second = await leased_twice(world)
    await world.settle(second, refused(maybe_sent=True))
    settlement = await world.settle(first, forwarded("job-1"))
    assert (settlement.verdict, settlement.submission.state) == ("late", State.FORWARDED)
    assert settlement.submission.request == b""
    assert settlement.submission.error is None
    wanted = first.submission.submission_id
    assert await world.client.ttl(world.keys.record(wanted)) > 0
    assert await world.client.get(world.keys.job("job-1")) == wanted.encode()
    assert (await world.store.pace())["queued"] == 0  # counted out once


async def test_a_rejected_one_learns_of_its_job_late_and_stays_rejected(world: World) -> None:
    """Its job is owed a termination: tests/store/test_errands.py."""
    first, second = await leased_twice(world)
    await world.settle(second, refused())
    settlement = await world.settle(first, forwarded("job-1"))
    assert (settlement.verdict, settlement.submission.state) == ("late", State.REJECTED)
    assert settlement.submission.job_id == "job-1"
    assert settlement.submission.error == refused().failure
    assert (await world.store.pace())["queued"] == 0


async def test_a_record_that_is_gone_is_settled_by_nobody(world: World) -> None:
    await world.queue(1)
    leased = await world.lease()
    await world.client.delete(world.keys.record(leased.submission.submission_id))
    before = await world.dump()
    settlement = await world.settle(leased, forwarded())
    assert (settlement.verdict, settlement.submission) == ("gone", None)
    assert await world.dump() == before


async def test_lease_numbers_only_grow(world: World) -> None:
    numbers = []
    for _ in range(10):
        await world.queue(1)
        numbers.append((await world.attempt(throttled())).number)
        numbers.append((await world.attempt(forwarded())).number)
    assert numbers == sorted(set(numbers))


# ---- Whether there may be a job


@pytest.mark.parametrize("proved_none", [True, False])
@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("verdict", [Verdict.RETRY, Verdict.REJECT, Verdict.UNKNOWN])
async def test_only_proof_clears_maybe_sent_and_only_of_this_call(
    world: World, *, verdict: Verdict, before: bool, proved_none: bool
) -> None:
    (wanted,) = await world.queue(1)
    if before:
        await world.attempt(unclear())
    leased = await world.next_lease()
    assert leased.maybe_sent is before
    assert (await world.store.get(wanted)).maybe_sent
    await world.settle(leased, Report(verdict=verdict, outcome="outcome", proved_none=proved_none))
    assert (await world.store.get(wanted)).maybe_sent is (before or not proved_none)


async def test_a_lease_that_ended_may_have_made_a_job(world: World) -> None:
    _, second = await leased_twice(world)
    assert (second.maybe_sent, second.tries) == (True, 1)
    await world.settle(second, GIVEN_BACK)
    assert (await world.next_lease()).maybe_sent
    assert [attempt.outcome for attempt in second.submission.attempts] == ["lease_ended"]


# ---- The bounds of charged tries


@pytest.mark.parametrize(("report", "state"), [(transient(), State.REJECTED), (unclear(), State.UNKNOWN)])
async def test_the_last_of_the_charged_tries_ends_a_submission(world: World, report: Report, state: State) -> None:
    (wanted,) = await world.queue(1)
    for number in range(10):
        await world.attempt(throttled())  # these do not count
        leased = await world.next_lease()
        assert leased.tries == number
        settlement = await world.settle(leased, report)
        assert settlement.charged
    assert settlement.submission.state is state
    assert (await world.store.get(wanted)).error == report.failure


async def test_one_unclear_try_among_many_makes_the_end_unknown(world: World) -> None:
    (wanted,) = await world.queue(1)
    await world.attempt(unclear())
    for _ in range(9):
        await world.attempt(transient())
    assert (await world.store.get(wanted)).state is State.UNKNOWN


async def test_the_window_counts_from_the_first_charged_try(world: World) -> None:
    (wanted,) = await world.queue(1)
    await world.attempt(throttled())
    await world.passes(seconds=1000)
    first = await world.attempt(transient())
    assert first.tries == 0
    began = world.now_us
    await world.set_clock(began + 599_900_000)
    await world.attempt(throttled())
    assert (await world.store.get(wanted)).state is State.QUEUED
    await world.passes(milliseconds=500)
    await world.attempt(throttled())  # uncharged: no end, however late
    assert (await world.store.get(wanted)).state is State.QUEUED
    await world.attempt(transient())
    assert (await world.store.get(wanted)).state is State.REJECTED


async def test_the_window_counts_from_a_lease_that_ended_too(world: World) -> None:
    _, second = await leased_twice(world)
    await world.settle(second, GIVEN_BACK)
    await world.passes(seconds=world.bounds.attempt_window_seconds)
    leased = await world.attempt(transient())
    assert (await world.store.get(leased.submission.submission_id)).state is State.UNKNOWN


async def test_the_counters_hold_the_sizes_of_what_is_queued(world: World) -> None:
    await world.queue(1, request=b"x" * 1000)
    size = (await world.store.pace())["queued_bytes"]
    assert size > 1000
    await world.queue(1, request=b"x" * 1000)
    assert (await world.store.pace())["queued_bytes"] == 2 * size
    await world.attempt(forwarded("1"))
    await world.attempt(refused())
    pace = await world.store.pace()
    assert (pace["queued"], pace["queued_bytes"], pace["forwarded"]) == (0, 0, 1)


async def test_the_scripts_get_the_pace_rules_by_the_names_they_ask_for(world: World) -> None:
    """A rule that is misspelt is nil in Lua, and fails only in the branch that needs it."""
    asked = set(re.findall(r"\brules\.(\w+)", script_text("settle")))
    assert asked <= msgpack.unpackb(world.store._packed_pace).keys()
