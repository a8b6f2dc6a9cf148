"""Looks, terminations and updates over a real store: what each answer of Batch makes of them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from gateway.core.attempt import Answer, AnswerKind, Verdict
from gateway.core.errands import MOST_TRIES, Errands
from gateway.core.job_search import MAX_CANDIDATES
from gateway.core.journal import Journal
from gateway.core.ports import Errand, Wait
from gateway.core.reconcile import LOOK_AFTER_SECONDS, CallFailedError, Candidate
from gateway.core.submission import State, Submission
from tests.core.fakes import ListLog, ScriptedErrands
from tests.faults.test_forwarding import NoJitter
from tests.store.world import World, forwarded, refused, unclear

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from gateway.core.identity import SubmissionId

GONE = Answer(kind=AnswerKind.REFUSED, code="ClientException", message="no such job")
BAD_PARAMS = Answer(kind=AnswerKind.REFUSED, code="ParamValidationError", message="odd")
SLOW_DOWN = Answer(kind=AnswerKind.THROTTLED, code="TooManyRequestsException", wait_seconds=7.0)
DENIED = Answer(kind=AnswerKind.DENIED, code="AccessDeniedException")
NO_KEYS = Answer(kind=AnswerKind.CREDENTIALS, code="ExpiredToken")
LOST = Answer(kind=AnswerKind.UNCLEAR, code="ReadTimeoutError")


class Bench:
    """A world whose errands the test runs one by one."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.batch = ScriptedErrands()
        self.log = ListLog()
        self.errands = Errands(
            store=world.errands,
            batch=self.batch,
            journal=Journal("main", self.log),
            concurrency=1,
            lease_seconds=60,
            chance=NoJitter(),  # type: ignore[arg-type]
        )

    async def lost(self) -> SubmissionId:
        """A submission that may be in Batch: its repeat was refused, and Batch is to be looked through."""
        (one,) = await self.world.queue(1)
        await self.world.attempt(unclear())
        leased = await self.world.next_lease()
        assert leased.maybe_sent
        await self.world.settle(leased, replace(refused(), verdict=Verdict.RECONCILE))
        return one

    async def step(self) -> float:
        """The next errand, when it is due; how many seconds that was from now."""
        began = self.world.now_us
        while isinstance(got := await self.world.errands.lease(), Wait):
            assert got.seconds is not None, "nothing is owed"
            await self.world.passes(seconds=got.seconds)
        assert isinstance(got, Errand)
        await self.errands.run_one(got)
        return (self.world.now_us - began) / 1e6

    async def nothing_owed(self) -> bool:
        return await self.world.errands.lease() == Wait(seconds=None, reason="errands")

    async def show(self, one: SubmissionId) -> Submission:
        found = await self.world.store.get(one)
        assert found is not None
        return found


@pytest.fixture
async def bench(client: Redis) -> Bench:
    return Bench(await World(client).open())


# ---- Looks


async def test_the_one_job_with_the_tag_is_the_submissions(bench: Bench) -> None:
    one = await bench.lost()
    bench.batch.jobs = {"other": "another-submission", "ours": one, "direct": None}
    assert await bench.step() == pytest.approx(LOOK_AFTER_SECONDS[0], abs=1)
    found = await bench.show(one)
    assert (found.state, found.job_id, found.job_arn, found.error) == (State.FORWARDED, "ours", "arn:ours", None)
    assert await bench.nothing_owed()
    (settled,) = bench.log.of("submission_settled")
    assert (settled["state"], settled["job_id"]) == ("forwarded", "ours")


async def test_jobs_from_five_minutes_before_the_first_call_on_count(bench: Bench) -> None:
    await bench.lost()
    first = bench.world.now
    await bench.step()
    assert bench.batch.since is not None
    assert 300 <= (first - bench.batch.since).total_seconds() <= 310


async def test_none_is_found_in_three_looks_and_a_person_must_look(bench: Bench) -> None:
    one = await bench.lost()
    waits = [await bench.step() for _ in LOOK_AFTER_SECONDS]
    assert waits == pytest.approx(list(LOOK_AFTER_SECONDS), abs=1)
    found = await bench.show(one)
    assert found.state is State.UNKNOWN
    assert found.error is not None
    assert found.error.code == "JobNotFound"
    assert found.request, "a dead letter keeps everything"
    assert await bench.nothing_owed()


async def test_a_job_that_is_listed_late_is_found_by_a_later_look(bench: Bench) -> None:
    one = await bench.lost()
    await bench.step()
    bench.batch.jobs = {"ours": one}
    await bench.step()
    assert (await bench.show(one)).state is State.FORWARDED


@pytest.mark.parametrize("tags", [(None,), ("ours", "ours"), (None, None)])
async def test_several_or_untagged_ones_are_named_for_a_person(bench: Bench, tags: tuple[str | None, ...]) -> None:
    one = await bench.lost()
    bench.batch.jobs = {f"job-{number}": one if tag else None for number, tag in enumerate(tags)}
    for _ in LOOK_AFTER_SECONDS:
        await bench.step()
    found = await bench.show(one)
    assert found.state is State.UNKNOWN
    assert found.error is not None
    assert found.error.code == "JobNotCertain"
    assert all(job in found.error.message for job in bench.batch.jobs)


async def test_a_job_of_another_submission_is_not_even_described(bench: Bench) -> None:
    other = (await bench.world.queue(1))[0]
    await bench.world.attempt(forwarded("theirs"))
    one = await bench.lost()
    bench.batch.jobs = {"theirs": other, "ours": one}
    await bench.step()
    assert ("describe", "theirs") not in bench.batch.calls
    assert (await bench.show(one)).job_id == "ours"


async def test_a_sweep_of_one_name_hides_no_job(bench: Bench) -> None:
    for number in range(MAX_CANDIDATES + 20):
        await bench.world.queue(1)
        await bench.world.attempt(forwarded(f"job-{number}"))
    one = await bench.lost()
    bench.batch.jobs = {f"job-{number}": "theirs" for number in range(MAX_CANDIDATES + 20)} | {"ours": one}
    await bench.step()
    assert (await bench.show(one)).job_id == "ours"


@pytest.mark.parametrize("failure", [DENIED, BAD_PARAMS])
async def test_looks_that_batch_never_lets_us_have_end_for_a_person(bench: Bench, failure: Answer) -> None:
    one = await bench.lost()
    bench.batch.failures = [failure] * MOST_TRIES
    for _ in range(MOST_TRIES):
        await bench.step()
    found = await bench.show(one)
    assert found.state is State.UNKNOWN
    assert found.error is not None
    assert found.error.code == failure.code


async def test_an_outage_ends_no_look_however_long_it_lasts(bench: Bench) -> None:
    one = await bench.lost()
    bench.batch.failures = [LOST] * 3 * MOST_TRIES
    for _ in range(3 * MOST_TRIES):
        await bench.step()
    assert (await bench.show(one)).state is State.QUEUED


@pytest.mark.parametrize("unowned", [False, True])
async def test_looks_that_were_cut_short_do_not_say_that_there_is_no_job(bench: Bench, *, unowned: bool) -> None:
    one = await bench.lost()
    bench.batch.complete = unowned
    bench.batch.jobs = {f"job-{number}": "theirs" for number in range(MAX_CANDIDATES + 1 if unowned else 1)}
    for _ in LOOK_AFTER_SECONDS:
        await bench.step()
    found = await bench.show(one)
    assert found.error is not None
    assert (found.state, found.error.code) == (State.UNKNOWN, "JobNotCertain")


@pytest.mark.parametrize("failure", [SLOW_DOWN, NO_KEYS, LOST, BAD_PARAMS])
async def test_a_look_that_batch_does_not_answer_is_no_look(bench: Bench, failure: Answer) -> None:
    one = await bench.lost()
    bench.batch.failures = [failure] * 5
    for _ in range(5):
        await bench.step()
    assert (await bench.show(one)).state is State.QUEUED
    bench.batch.jobs = {"ours": one}
    await bench.step()
    assert (await bench.show(one)).state is State.FORWARDED


async def test_a_queue_that_is_gone_has_no_jobs_and_the_looks_end(bench: Bench) -> None:
    one = await bench.lost()
    bench.batch.failures = [GONE] * len(LOOK_AFTER_SECONDS)
    for _ in LOOK_AFTER_SECONDS:
        await bench.step()
    assert (await bench.show(one)).state is State.UNKNOWN


async def test_one_job_that_batch_cannot_describe_stops_no_look(bench: Bench) -> None:
    one = await bench.lost()
    bench.batch.jobs = {"odd": None, "ours": one}
    original = bench.batch.candidate

    async def candidate(job_id: str) -> Candidate:
        if job_id == "odd":
            raise CallFailedError(GONE)
        return await original(job_id)

    bench.batch.candidate = candidate  # type: ignore[method-assign]
    await bench.step()
    assert (await bench.show(one)).job_id == "ours"


async def test_what_is_canceled_while_it_is_looked_for_is_terminated_once_found(bench: Bench) -> None:
    one = await bench.lost()
    await bench.world.changes.cancel(one, "too dear")
    bench.batch.jobs = {"ours": one}
    await bench.step()
    await bench.step()
    assert bench.batch.calls[-1] == ("terminate", "ours", "too dear")
    found = await bench.show(one)
    assert (found.state, found.cancel_requested, found.terminated_at is not None) == (State.FORWARDED, True, True)
    assert await bench.nothing_owed()


async def test_what_is_canceled_and_not_found_is_unknown_and_never_called_canceled(bench: Bench) -> None:
    one = await bench.lost()
    await bench.world.changes.cancel(one, "")
    for _ in LOOK_AFTER_SECONDS:
        await bench.step()
    found = await bench.show(one)
    assert (found.state, found.cancel_requested) == (State.UNKNOWN, True)


# ---- Terminations and updates


@pytest.mark.parametrize(("failure", "seconds"), [(SLOW_DOWN, 7), (NO_KEYS, 60), (LOST, 0), (BAD_PARAMS, 0)])
async def test_a_termination_is_asked_again_until_batch_has_answered(
    bench: Bench, failure: Answer, seconds: float
) -> None:
    (one,) = await bench.world.queue(1)
    await bench.world.attempt(forwarded("ours"))
    await bench.world.changes.cancel(one, "")
    bench.batch.failures = [failure]
    await bench.step()
    assert (await bench.show(one)).terminated_at is None
    assert await bench.step() == pytest.approx(seconds, abs=1)
    assert [call[:2] for call in bench.batch.calls] == [("terminate", "ours")] * 2
    assert (await bench.show(one)).terminated_at is not None
    assert await bench.nothing_owed()


async def test_a_termination_that_batch_refuses_for_good_is_given_up_and_never_called_done(bench: Bench) -> None:
    (one,) = await bench.world.queue(1)
    await bench.world.attempt(forwarded("ours"))
    await bench.world.changes.cancel(one, "")
    bench.batch.failures = [GONE] * MOST_TRIES
    for _ in range(MOST_TRIES):
        await bench.step()
    assert await bench.nothing_owed()
    assert [line["outcome"] for line in bench.log.of("errand")] == ["later"] * (MOST_TRIES - 1) + ["moot"]
    assert (await bench.show(one)).terminated_at is None
    assert (await bench.world.changes.cancel(one, "")).verdict == "requested", "who asks again is heard again"
    await bench.step()
    assert (await bench.show(one)).terminated_at is not None


async def test_a_job_that_batch_does_not_know_at_once_is_terminated_a_moment_later(bench: Bench) -> None:
    (one,) = await bench.world.queue(1)
    await bench.world.attempt(forwarded("ours"))
    await bench.world.changes.cancel(one, "")
    bench.batch.failures = [GONE]
    await bench.step()
    await bench.step()
    assert (await bench.show(one)).terminated_at is not None


async def test_batch_is_told_the_priority_as_it_is_when_it_is_told(bench: Bench) -> None:
    (one,) = await bench.world.queue(1)
    await bench.world.attempt(forwarded("ours"))
    await bench.world.changes.reprioritize(one, 5)
    await bench.world.changes.reprioritize(one, 9)
    await bench.step()
    assert bench.batch.calls == [("update", "ours", 9)]
    assert await bench.nothing_owed()
