"""What becomes of a submission, answer by answer: the real forwarder and store, with Batch's answers chosen."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from gateway.core import attempt
from gateway.core.attempt import Answer, AnswerKind, Leased, PaceSignal
from gateway.core.forwarder import Forwarder, OwnKeys
from gateway.core.identity import ClientToken, fingerprint, submission_id
from gateway.core.job_search import JobSearch
from gateway.core.journal import Journal
from gateway.core.pace import PaceRules
from gateway.core.share import Share, ShareLimits
from gateway.core.submission import NewSubmission, State, Submission
from gateway.store.bounds import StoreBounds
from gateway.store.connection import connect
from gateway.store.durability import Confirmation
from gateway.store.errands import ErrandQueue
from gateway.store.hints import Hints
from gateway.store.keys import Keys
from gateway.store.redis_store import RedisStore
from tests.conftest import eventually
from tests.core.fakes import MADE, ListLog, ScriptedBatch, ScriptedErrands
from tests.servers import running, valkey_binary

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from redis.asyncio import Redis

UNCLEAR = Answer(kind=AnswerKind.UNCLEAR, code="ReadTimeoutError")
THROTTLED = Answer(kind=AnswerKind.THROTTLED, code="TooManyRequestsException")
REFUSED = Answer(kind=AnswerKind.REFUSED, code="ClientException", message="no")
TRANSIENT = Answer(kind=AnswerKind.TRANSIENT, code="ClientException", message="Failed to create shareIdentifier")
NOT_SENT = Answer(kind=AnswerKind.NOT_SENT, code="EndpointConnectionError")

TAG = submission_id(namespace="n", account="1", region="r", token="any")[:4]
QUICK = PaceRules(rate=1000.0, floor=1000.0, probe_every_ms=1, credentials_hold_ms=1, denied_hold_ms=1)


def submission(token: str = "t", *, share: str = "s", priority: int = 0) -> NewSubmission:
    return NewSubmission(
        submission_id=submission_id(namespace="n", account="1", region="r", token=token),
        client_token=ClientToken(token),
        token_generated=False,
        principal="p",
        namespace="n",
        share=Share("q", share),
        share_kind="shareIdentifier",
        priority=priority,
        job_name="j",
        job_queue="q",
        fingerprint=fingerprint({}),
        role_arn="r",
        request=b'{"token": "%s"}' % token.encode(),
    )


class NoJitter:
    """Chance that always draws the shortest delay, so that retries come at once."""

    def uniform(self, low: float, _: float) -> float:
        return low


@pytest.fixture(autouse=True)
def listed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batch lists jobs as soon as they are made, so that nobody waits for that."""
    monkeypatch.setattr(attempt, "LISTED_WITHIN_SECONDS", 0.0)


class Bench:
    """A store with one forwarder, whose steps the test takes itself."""

    def __init__(self, client: Redis, prefix: str, batch: ScriptedBatch, bounds: StoreBounds, pace: PaceRules) -> None:
        keys = Keys(prefix, TAG)
        self.store = RedisStore(client, keys, pace=pace, bounds=bounds)
        self.hints = Hints(client, keys)
        self.batch = batch
        self.jobs = ScriptedErrands()
        self.log = ListLog()
        self.forwarder = Forwarder(
            search=JobSearch(batch=self.jobs, owners=ErrandQueue(client, keys, bounds=bounds)),
            store=self.store,
            batch=batch,
            wakeup=self.hints,
            journal=Journal("main", self.log),
            max_attempts=bounds.max_attempts,
            lease_seconds=bounds.lease_seconds,
            call_timeout_seconds=bounds.lease_seconds / 2,
            concurrency=4,
            chance=NoJitter(),  # type: ignore[arg-type]
        )

    async def admit(self, token: str = "t", *, share: str = "s") -> Submission:
        return (await self.store.admit(submission(token, share=share), ShareLimits())).submission

    async def lease(self) -> Leased:
        async with asyncio.timeout(10):
            while True:
                got = await self.store.lease()
                if isinstance(got, Leased):
                    return got
                if got.reason == "due":
                    await self.store.reclaim()
                await asyncio.sleep(min(got.seconds or 0.01, 0.01))

    async def step(self) -> Submission:
        """One lease, one call, one settlement."""
        settlement = await self.forwarder.forward(await self.lease(), since=time.monotonic())
        assert settlement.submission is not None
        return settlement.submission


@asynccontextmanager
async def bench(
    client: Redis,
    prefix: str,
    *answers: Answer,
    bounds: StoreBounds | None = None,
    pace: PaceRules = QUICK,
) -> AsyncIterator[Bench]:
    yield Bench(client, prefix, ScriptedBatch(*answers), bounds or StoreBounds(), pace)


async def test_a_job_is_made_and_remembered(client: Redis, prefix: str) -> None:
    async with bench(client, prefix) as b:
        await b.admit()
        after = await b.step()
        assert (after.state, after.job_id, after.job_arn, after.request) == (State.FORWARDED, "job-1", "arn:1", b"")
        assert [one.outcome for one in after.attempts] == ["submitted"]


@pytest.mark.parametrize("answer", [THROTTLED, NOT_SENT])
async def test_what_was_surely_not_submitted_comes_back_uncharged(client: Redis, prefix: str, answer: Answer) -> None:
    async with bench(client, prefix, answer, MADE, bounds=StoreBounds(max_attempts=1)) as b:
        await b.admit()
        after = await b.step()
        assert (after.state, after.maybe_sent) == (State.QUEUED, False)
        assert (await b.step()).state is State.FORWARDED


async def test_every_attempt_sends_the_same_bytes(client: Redis, prefix: str) -> None:
    async with bench(client, prefix, UNCLEAR, THROTTLED, TRANSIENT, MADE) as b:
        await b.admit()
        for _ in range(4):
            await b.step()
        assert len(b.batch.requests) == 4
        assert len(set(b.batch.requests)) == 1


async def test_a_refusal_of_the_first_call_rejects(client: Redis, prefix: str) -> None:
    async with bench(client, prefix, REFUSED) as b:
        await b.admit()
        after = await b.step()
        assert (after.state, after.maybe_sent) == (State.REJECTED, False)
        assert after.error is not None
        assert (after.error.code, after.error.message) == ("ClientException", "no")
        assert after.request, "a dead letter keeps everything"


async def test_a_refusal_after_a_lost_answer_is_looked_into_and_never_a_guess(client: Redis, prefix: str) -> None:
    async with bench(client, prefix, UNCLEAR, REFUSED) as b:
        await b.admit()
        assert (await b.step()).maybe_sent
        after = await b.step()
        assert (after.state, after.maybe_sent) == (State.QUEUED, True)
        assert not isinstance(await b.store.lease(), Leased), "it is not submitted while Batch is looked through"


async def test_a_job_that_a_lost_answer_made_is_found_and_not_made_again(client: Redis, prefix: str) -> None:
    """Batch may have forgotten the token by now: it is looked through before it is called again."""
    async with bench(client, prefix, UNCLEAR) as b:
        admitted = await b.admit()
        await b.step()
        b.jobs.jobs = {"theirs": "another", "ours": admitted.submission_id}
        after = await b.step()
        assert (after.state, after.job_id, after.job_arn) == (State.FORWARDED, "ours", "arn:ours")
        assert [one.outcome for one in after.attempts] == ["unclear", "found"]
        assert len(b.batch.requests) == 1
        assert b.jobs.since is not None
        assert b.jobs.since < admitted.accepted_at


async def test_jobs_that_may_be_it_are_never_made_again_by_a_guess(client: Redis, prefix: str) -> None:
    async with bench(client, prefix, UNCLEAR) as b:
        await b.admit()
        await b.step()
        b.jobs.jobs = {"untagged": None}
        after = await b.step()
        assert (after.state, after.sought, len(b.batch.requests)) == (State.QUEUED, True, 1)


@pytest.mark.parametrize(
    "failure",
    [
        Answer(kind=AnswerKind.REFUSED, code="UnknownOperationException"),
        Answer(kind=AnswerKind.DENIED, code="AccessDeniedException"),
    ],
    ids=lambda one: one.kind,
)
async def test_where_batch_will_never_tell_of_its_jobs_the_token_has_to_do(
    client: Redis, prefix: str, failure: Answer
) -> None:
    async with bench(client, prefix, UNCLEAR, MADE) as b:
        await b.admit()
        await b.step()
        b.jobs.failures = [failure]
        assert (await b.step()).state is State.FORWARDED
        assert len(b.batch.requests) == 2
        assert [line["error_code"] for line in b.log.of("look_refused")] == [failure.code]


@pytest.mark.parametrize("failure", [UNCLEAR, THROTTLED, NOT_SENT], ids=lambda one: one.kind)
async def test_a_look_that_fails_for_now_is_made_again_before_batch_is_called(
    client: Redis, prefix: str, failure: Answer
) -> None:
    async with bench(client, prefix, UNCLEAR, MADE) as b:
        admitted = await b.admit()
        await b.step()
        b.jobs.failures = [failure]
        after = await b.step()
        assert (after.state, after.maybe_sent, len(b.batch.requests)) == (State.QUEUED, True, 1)
        b.jobs.jobs = {"ours": admitted.submission_id}
        assert (await b.step()).job_id == "ours"
        assert len(b.batch.requests) == 1


async def test_looks_that_always_fail_end_as_unknown(client: Redis, prefix: str) -> None:
    async with bench(client, prefix, UNCLEAR, bounds=StoreBounds(max_attempts=4)) as b:
        await b.admit()
        b.jobs.failures = [UNCLEAR] * 10
        states = [(await b.step()).state for _ in range(4)]
        assert (states[-2:], len(b.batch.requests)) == ([State.QUEUED, State.UNKNOWN], 1)


async def test_a_call_that_is_cut_off_leaves_its_line(client: Redis, prefix: str) -> None:
    """The drain is over: what became of it nobody knows, and the log says so."""
    async with bench(client, prefix) as b:
        admitted = await b.admit()
        b.batch.gate.clear()
        step = asyncio.create_task(b.step())
        await eventually(lambda: asyncio.sleep(0, bool(b.batch.requests)))
        step.cancel()
        await asyncio.gather(step, return_exceptions=True)
        (line,) = b.log.of("forward")
        assert (line["submission_id"], line["outcome"], line["verdict"]) == (
            admitted.submission_id,
            "cut_off",
            "unsettled",
        )


async def test_a_store_that_forgets_leases_is_not_asked_again_at_once(client: Redis, prefix: str) -> None:
    async with bench(client, prefix) as b:
        await b.admit()
        no_replica = Confirmation(waits=(("WAIT", 1, 20),), wanted=(1,))
        b.store._confirmer.how = lambda: no_replica
        stop = asyncio.Event()
        running_forwarder = asyncio.create_task(b.forwarder.run(stop))
        await eventually(lambda: asyncio.sleep(0, bool(b.log.of("forward"))))
        began, before = time.monotonic(), len(b.log.of("forward"))
        await eventually(lambda: asyncio.sleep(0, len(b.log.of("forward")) > before))
        assert time.monotonic() - began > 0.5
        stop.set()
        await running_forwarder
        assert b.batch.requests == []


async def test_nobody_looks_where_no_call_can_have_made_a_job(client: Redis, prefix: str) -> None:
    async with bench(client, prefix, THROTTLED, MADE) as b:
        await b.admit()
        await b.step()
        await b.step()
        assert b.jobs.calls == []


async def test_a_lease_that_the_store_may_forget_makes_no_call(client: Redis, prefix: str) -> None:
    """It would hand the submission out again as one that was never called for."""
    async with bench(client, prefix) as b:
        await b.admit()
        no_replica = Confirmation(waits=(("WAIT", 1, 20),), wanted=(1,))
        b.store._confirmer.how = lambda: no_replica
        after = await b.step()
        assert (after.state, after.maybe_sent, b.batch.requests) == (State.QUEUED, False, [])
        assert [one.outcome for one in after.attempts] == ["unconfirmed"]
        b.store._confirmer.how = lambda: None
        assert (await b.step()).state is State.FORWARDED


async def test_a_throttle_after_a_lost_answer_does_not_clear_the_doubt(client: Redis, prefix: str) -> None:
    async with bench(client, prefix, UNCLEAR, THROTTLED, REFUSED) as b:
        await b.admit()
        await b.step()
        assert (await b.step()).maybe_sent
        assert (await b.step()).maybe_sent
        assert not isinstance(await b.store.lease(), Leased)


async def test_known_transients_are_tried_again_and_then_rejected(client: Redis, prefix: str) -> None:
    async with bench(client, prefix, TRANSIENT, bounds=StoreBounds(max_attempts=3)) as b:
        await b.admit()
        assert [(await b.step()).state for _ in range(3)] == [State.QUEUED, State.QUEUED, State.REJECTED]


async def test_lost_answers_end_as_unknown_after_the_last_try(client: Redis, prefix: str) -> None:
    async with bench(client, prefix, UNCLEAR, bounds=StoreBounds(max_attempts=3)) as b:
        await b.admit()
        assert [(await b.step()).state for _ in range(3)] == [State.QUEUED, State.QUEUED, State.UNKNOWN]


async def test_the_job_of_a_last_try_is_found_though_nobody_tries_again(client: Redis, prefix: str) -> None:
    async with bench(client, prefix, UNCLEAR, bounds=StoreBounds(max_attempts=1)) as b:
        admitted = await b.admit()
        b.jobs.jobs = {"ours": admitted.submission_id}
        after = await b.step()
        assert (after.state, after.job_id) == (State.FORWARDED, "ours")


async def test_leases_that_nobody_settled_are_looked_into_before_they_are_given_up(client: Redis, prefix: str) -> None:
    async with bench(client, prefix, bounds=StoreBounds(max_attempts=1, lease_seconds=0.05)) as b:
        admitted = await b.admit()
        await b.lease()
        b.jobs.jobs = {"ours": admitted.submission_id}
        await asyncio.sleep(0.1)  # the store's own clock
        after = await b.step()
        assert (after.state, after.job_id, b.batch.requests) == (State.FORWARDED, "ours", [])


async def test_deadlines_are_met_while_every_slot_is_taken(client: Redis, prefix: str) -> None:
    async with bench(client, prefix) as b:
        b.batch.gate.clear()
        for number in range(4):
            await b.admit(f"busy-{number}")
        stop = asyncio.Event()
        running = asyncio.create_task(b.forwarder.run(stop))
        await eventually(lambda: asyncio.sleep(0, len(b.batch.requests) == 4))
        soon = datetime.now(UTC) + timedelta(seconds=0.2)
        late = replace(submission("late"), deadline=soon)
        await b.store.admit(late, ShareLimits())

        async def expired() -> bool:
            found = await b.store.get(late.submission_id)
            return found is not None and found.state is State.EXPIRED

        await eventually(expired)
        assert [line["state"] for line in b.log.of("submission_settled")] == ["expired"]
        stop.set()
        b.batch.gate.set()
        await running


async def test_a_job_that_was_made_after_the_deadline_is_to_end(client: Redis, prefix: str) -> None:
    async with bench(client, prefix) as b:
        soon = datetime.now(UTC) + timedelta(seconds=0.2)
        await b.store.admit(replace(submission("late"), deadline=soon), ShareLimits())
        leased = await b.lease()
        await eventually(lambda: asyncio.sleep(0, datetime.now(UTC) > soon + timedelta(milliseconds=5)))
        settlement = await b.forwarder.forward(leased, since=time.monotonic())
        assert settlement.submission is not None
        assert (settlement.submission.state, settlement.submission.cancel_requested) == (State.FORWARDED, True)


async def test_tries_end_with_their_window(client: Redis, prefix: str) -> None:
    bounds = StoreBounds(attempt_window_seconds=0.001)
    async with bench(client, prefix, UNCLEAR, bounds=bounds) as b:
        await b.admit()
        tries = 1
        while (after := await b.step()).state is State.QUEUED:
            tries += 1
        assert after.state is State.UNKNOWN
        assert tries < StoreBounds().max_attempts


async def test_an_old_lease_is_given_back_without_a_call(client: Redis, prefix: str) -> None:
    async with bench(client, prefix) as b:
        await b.admit()
        leased = await b.lease()
        settlement = await b.forwarder.forward(leased, since=time.monotonic() - 31)
        assert settlement.submission is not None
        assert (settlement.submission.state, settlement.submission.maybe_sent) == (State.QUEUED, False)
        assert b.batch.requests == []


async def test_leases_that_nobody_settled_count_and_end_as_unknown_without_another_call(
    client: Redis, prefix: str
) -> None:
    bounds = StoreBounds(lease_seconds=0.001, max_attempts=3)
    async with bench(client, prefix, bounds=bounds) as b:
        await b.admit()
        for _ in range(3):
            await b.lease()  # the process dies here
        leased = await b.lease()
        assert (leased.maybe_sent, leased.tries) == (True, 3)
        settlement = await b.forwarder.forward(leased, since=time.monotonic() + 1)
        assert settlement.verdict in ("settled", "stale")
        assert b.batch.requests == []


async def test_a_settlement_is_repeated_until_the_store_is_back(short_folder: Path, prefix: str) -> None:
    folder = short_folder / uuid4().hex[:8]
    folder.mkdir()
    with running(valkey_binary(), folder, "--appendonly", "yes", "--appendfsync", "always") as server:
        async with connect(server.url) as client, bench(client, prefix) as b:
            await b.admit()
            leased = await b.lease()
            b.batch.gate.clear()
            forwarding = asyncio.create_task(b.forwarder.forward(leased, since=time.monotonic()))
            await eventually(lambda: asyncio.sleep(0, bool(b.batch.requests)))
            server.kill()
            b.batch.gate.set()
            await asyncio.sleep(0)
            server.start()
            settlement = await forwarding
            assert settlement.submission is not None
            assert settlement.submission.state is State.FORWARDED


async def test_a_running_forwarder_starts_at_once_what_another_process_accepts(client: Redis, prefix: str) -> None:
    async with bench(client, prefix) as b, asyncio.TaskGroup() as group:
        stop = asyncio.Event()
        group.create_task(b.hints.run(stop))
        group.create_task(b.forwarder.run(stop))
        subscribers = Keys(prefix, TAG).wake

        async def subscribed() -> bool:
            return bool(dict(await client.pubsub_numsub(subscribers))[subscribers.encode()])

        await eventually(subscribed)
        accepted = await b.admit()

        async def forwarded() -> bool:
            found = await b.store.get(accepted.submission_id)
            return found is not None and found.state is State.FORWARDED

        await eventually(forwarded, seconds=0.5)  # half the poll: the hint must have come
        stop.set()


async def test_a_process_whose_keys_are_refused_leaves_the_submissions_to_the_others(
    client: Redis, prefix: str
) -> None:
    """Its clock may be wrong, or its role: the fleet goes on without it."""
    refused = Answer(kind=AnswerKind.CREDENTIALS, code="InvalidSignatureException")
    async with bench(client, prefix, refused) as bad, bench(client, prefix) as good:
        tokens = [f"t{number}" for number in range(40)]
        stop = asyncio.Event()
        running = [asyncio.create_task(bad.forwarder.run(stop))]
        admitted = [await good.admit(tokens[0])]
        await eventually(lambda: asyncio.sleep(0, bool(bad.batch.requests)))
        running.append(asyncio.create_task(good.forwarder.run(stop)))
        admitted += [await good.admit(token) for token in tokens[1:]]

        async def all_forwarded() -> bool:
            found = [await good.store.get(one.submission_id) for one in admitted]
            return {one.state for one in found if one} == {State.FORWARDED}

        try:
            await eventually(all_forwarded)
        finally:
            stop.set()
            await asyncio.gather(*running)
        assert len(bad.batch.requests) <= 4  # those that were in flight when the first was refused
        assert sorted(good.batch.requests) == sorted(submission(token).request for token in tokens)


def test_the_rest_grows_while_keys_are_refused_and_ends_with_an_answer() -> None:
    keys = OwnKeys()
    assert keys.rest_seconds <= 0
    for least in (9, 19, 39, 59, 59):
        keys.hear(PaceSignal.CREDENTIALS)
        assert least < keys.rest_seconds <= least + 1
    keys.hear(PaceSignal.UNREACHABLE)  # says nothing of keys
    keys.hear(PaceSignal.CREDENTIALS)
    assert keys.rest_seconds > 59
    keys.hear(PaceSignal.ANSWERED)
    keys.hear(PaceSignal.CREDENTIALS)
    assert 9 < keys.rest_seconds <= 10


async def test_told_to_stop_it_finishes_calls_in_flight_and_takes_no_more(client: Redis, prefix: str) -> None:
    async with bench(client, prefix) as b:
        for number in range(20):
            await b.admit(f"t{number}")
        b.batch.gate.clear()
        stop = asyncio.Event()
        running_forwarder = asyncio.create_task(b.forwarder.run(stop))
        await eventually(lambda: asyncio.sleep(0, len(b.batch.requests) == 4))
        stop.set()
        b.batch.gate.set()
        await asyncio.wait_for(running_forwarder, 5)
        pace = await b.store.pace()
        assert (pace["queued"], pace["leased"]) == (16, 0)


async def test_there_is_one_forward_line_an_attempt_and_one_settled_line_at_the_end(client: Redis, prefix: str) -> None:
    async with bench(client, prefix, THROTTLED, UNCLEAR, MADE) as b:
        accepted = await b.admit()
        for _ in range(3):
            await b.step()
        assert [line["outcome"] for line in b.log.of("forward")] == ["throttled", "unclear", "submitted"]
        (settled,) = b.log.of("submission_settled")
        assert (settled["submission_id"], settled["attempts"]) == (accepted.submission_id, 3)


async def test_five_like_rejections_pause_the_share_and_say_so(client: Redis, prefix: str) -> None:
    async with bench(client, prefix, REFUSED) as b:
        for number in range(6):
            await b.admit(f"t{number}")
        for _ in range(5):
            await b.step()
        (paused,) = b.log.of("share_paused")
        assert (paused["share"], paused["error_code"]) == ("q/s", "ClientException")
        (status,) = await b.store.shares()
        assert (status.paused, status.queued) == (True, 1)
        await b.store.set_share(Share("q", "s"), {"paused": None})
        assert (await b.step()).state is State.REJECTED
