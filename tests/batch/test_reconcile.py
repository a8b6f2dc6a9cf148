"""What is asked of Batch beside submissions: against the emulator, and against peers that misbehave."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from gateway.batch.batch_client import BatchClient, Endpoint, open_batch_client
from gateway.batch.reconcile import ERRAND_CONNECTIONS, MAX_PAGES
from gateway.core.attempt import Answer, AnswerKind
from gateway.core.reconcile import CallFailedError, Candidate
from gateway.core.submission import SUBMISSION_TAG
from tests.batch.wire import (
    Asked,
    answering,
    error_body,
    never_answer,
    peer,
    read_request,
    recording,
    reset_after_reading,
    unused_url,
    write_answer,
)
from tests.emulator.rig import SUBMISSION, Rig, emulating, eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from gateway.batch.reconcile import ErrandClient
    from tests.batch.wire import Behaviour

LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
JOB = {"jobId": "J", "jobName": "first", "serviceJobType": "SAGEMAKER_TRAINING", "createdAt": 1_750_000_000_000}

CALLS: dict[str, Callable[[ErrandClient], Awaitable[Any]]] = {
    "ListServiceJobs": lambda errands: errands.jobs_named(frozen(), LONG_AGO),
    "DescribeServiceJob": lambda errands: errands.candidate("J"),
    "TerminateServiceJob": lambda errands: errands.terminate("J", "canceled"),
    "UpdateServiceJob": lambda errands: errands.update("J", 7),
}
each_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())


def frozen(**changes: str) -> bytes:
    return json.dumps(SUBMISSION | {"clientToken": "t"} | changes).encode()


@asynccontextmanager
async def client_of(url: str, *, concurrency: int = 1, seconds: float = 20.0) -> AsyncIterator[BatchClient]:
    endpoint = Endpoint(region="us-east-1", url=url, access_key_id="a", secret_access_key="s")
    async with open_batch_client(endpoint, concurrency=concurrency, call_timeout_seconds=seconds) as batch:
        yield batch


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with emulating() as opened:
        yield opened


@pytest.fixture
async def batch(rig: Rig) -> AsyncIterator[BatchClient]:
    async with client_of(rig.url) as opened:
        yield opened


async def submitted(batch: BatchClient, name: str = "first", count: int = 1, **changes: Any) -> list[str]:
    """The ids of as many jobs, oldest first."""
    ids = []
    for number in range(count):
        request = {**SUBMISSION, "jobName": name, "clientToken": f"{name}-{number}", **changes}
        answer = await batch.submit(json.dumps(request).encode())
        assert answer.job_id, answer
        ids.append(answer.job_id)
    return ids


def now_of(rig: Rig) -> datetime:
    return datetime.fromtimestamp(rig.clock.epoch_ms() / 1000, UTC)


def calls_of(rig: Rig, operation: str) -> int:
    return sum(entry.operation == operation for entry in rig.emulator.ledger())


async def failure_of(call: Awaitable[Any]) -> Answer:
    with pytest.raises(CallFailedError) as raised:
        await call
    return raised.value.answer


# ---- looking for a job


async def test_jobs_are_found_by_queue_and_exact_name_newest_first(rig: Rig, batch: BatchClient) -> None:
    first, second = await submitted(batch, count=2)
    await submitted(batch, "FIRST")
    await submitted(batch, "first-2")
    await submitted(batch, clientToken="elsewhere", jobQueue="other")
    assert (await batch.errands.jobs_named(frozen(), now_of(rig))).ids == [second, first]
    arn = "arn:aws:batch:us-east-1:123456789012:job-queue/training"
    assert (await batch.errands.jobs_named(frozen(jobQueue=arn), now_of(rig))).ids == [second, first]


async def test_a_name_that_ends_in_a_star_finds_no_other_names(batch: BatchClient) -> None:
    await submitted(batch, "first-2")
    assert (await batch.errands.jobs_named(frozen(jobName="first*"), LONG_AGO)).ids == []


async def test_jobs_created_before_are_left_out(rig: Rig, batch: BatchClient) -> None:
    await submitted(batch, clientToken="before")
    rig.clock.advance(1)
    (after,) = await submitted(batch, clientToken="after")
    assert (await batch.errands.jobs_named(frozen(), now_of(rig))).ids == [after]
    assert (await batch.errands.jobs_named(frozen(), now_of(rig) + timedelta(milliseconds=1))).ids == []


async def test_a_job_on_a_later_page_is_found(rig: Rig, batch: BatchClient) -> None:
    (ours,) = await submitted(batch)
    await submitted(batch, "First", count=100)
    assert (await batch.errands.jobs_named(frozen(), LONG_AGO)).ids == [ours]
    assert calls_of(rig, "ListServiceJobs") == 2


async def test_after_the_first_older_job_no_page_is_asked_for(rig: Rig, batch: BatchClient) -> None:
    await submitted(batch, count=100)
    rig.clock.advance(1)
    (ours,) = await submitted(batch, clientToken="ours")
    assert (await batch.errands.jobs_named(frozen(), now_of(rig))).ids == [ours]
    assert calls_of(rig, "ListServiceJobs") == 1


async def test_a_name_that_a_whole_sweep_has_is_listed_to_its_end(rig: Rig, batch: BatchClient) -> None:
    ids = await submitted(batch, count=250)
    assert (await batch.errands.jobs_named(frozen(), LONG_AGO)).ids == ids[::-1]
    assert calls_of(rig, "ListServiceJobs") == 3


@pytest.mark.parametrize("jobs", [[], [JOB | {"jobName": "FIRST"}]])
async def test_pages_without_end_end(jobs: list[dict[str, Any]]) -> None:
    seen: list[Asked] = []
    async with peer(recording(seen, lambda _: {"jobSummaryList": jobs, "nextToken": "on"})) as url, client_of(url) as b:
        assert (await b.errands.jobs_named(frozen(), LONG_AGO)).ids == []
    assert [one.json.get("nextToken") for one in seen] == [None, *["on"] * (MAX_PAGES - 1)]


async def test_a_job_without_a_time_may_be_ours() -> None:
    timeless = {name: value for name, value in JOB.items() if name != "createdAt"}
    async with peer(recording([], lambda _: {"jobSummaryList": [timeless]})) as url, client_of(url) as batch:
        assert (await batch.errands.jobs_named(frozen(), now_of_wall())).ids == ["J"]


def now_of_wall() -> datetime:
    return datetime.now(UTC)


# ---- whose a job is


@pytest.mark.parametrize(
    ("tags", "submission"), [({SUBMISSION_TAG: "sub-1", "team": "vision"}, "sub-1"), ({"team": "vision"}, None)]
)
async def test_a_candidate_tells_the_submission_of_its_tag(
    batch: BatchClient, tags: dict[str, str], submission: str | None
) -> None:
    (job_id,) = await submitted(batch, tags=tags)
    candidate = await batch.errands.candidate(job_id)
    arn = f"arn:aws:batch:us-east-1:123456789012:service-job/{job_id}"
    assert candidate == Candidate(job_id=job_id, job_arn=arn, submission=submission)


async def test_a_job_without_any_tags_is_nobodys(batch: BatchClient) -> None:
    (job_id,) = await submitted(batch)
    assert (await batch.errands.candidate(job_id)).submission is None


# ---- changing a job


async def test_a_terminated_job_has_failed_for_the_reason_given(rig: Rig, batch: BatchClient) -> None:
    (job_id,) = await submitted(batch)
    await batch.errands.terminate(job_id, "canceled by its caller")
    (job,) = rig.emulator.jobs
    assert (rig.emulator.status(job), job.termination_reason) == ("FAILED", "canceled by its caller")


async def test_an_updated_job_has_the_priority(rig: Rig, batch: BatchClient) -> None:
    (job_id,) = await submitted(batch, schedulingPriority=1)
    await batch.errands.update(job_id, 7)
    assert rig.emulator.jobs[0].priority == 7


# ---- what goes wrong


@each_call
async def test_what_batch_does_not_know_is_refused(
    batch: BatchClient, call: Callable[[ErrandClient], Awaitable[Any]]
) -> None:
    if call is CALLS["ListServiceJobs"]:
        answer = await failure_of(batch.errands.jobs_named(frozen(jobQueue="arn:aws:nonsense"), LONG_AGO))
    else:
        answer = await failure_of(call(batch.errands))
    assert (answer.kind, answer.code) == (AnswerKind.REFUSED, "ClientException")


FAULTS: dict[str, tuple[Behaviour, AnswerKind]] = {
    "429": (answering(429, b""), AnswerKind.THROTTLED),
    "500": (answering(500, error_body("x"), "x-amzn-errortype: ServerException"), AnswerKind.UNCLEAR),
    "denied": (answering(403, b"{}", "x-amzn-errortype: AccessDeniedException"), AnswerKind.DENIED),
    "expired": (answering(403, b"{}", "x-amzn-errortype: ExpiredTokenException"), AnswerKind.CREDENTIALS),
    "garbage": (answering(200, b"<html>"), AnswerKind.UNCLEAR),
    "redirect": (answering(307, b"", "Location: /elsewhere"), AnswerKind.UNCLEAR),
    "reset": (reset_after_reading, AnswerKind.UNCLEAR),
    "silence": (never_answer, AnswerKind.UNCLEAR),
}


@each_call
@pytest.mark.parametrize(("behaviour", "kind"), FAULTS.values(), ids=FAULTS.keys())
async def test_each_failure_is_told_as_that_of_a_submission_is(
    call: Callable[[ErrandClient], Awaitable[Any]], behaviour: Behaviour, kind: AnswerKind
) -> None:
    seconds = 0.5 if behaviour is never_answer else 20.0
    async with peer(behaviour) as url, client_of(url, seconds=seconds) as batch, asyncio.timeout(20):
        assert (await failure_of(call(batch.errands))).kind is kind


@each_call
async def test_a_refused_connection_sent_nothing(call: Callable[[ErrandClient], Awaitable[Any]]) -> None:
    async with client_of(unused_url()) as batch:
        assert (await failure_of(call(batch.errands))).kind is AnswerKind.NOT_SENT


MALFORMED_LISTS: dict[str, Any] = {
    "no list": {},
    "null for a list": {"jobSummaryList": None},
    "text for a list": {"jobSummaryList": "none"},
    "null for a job": {"jobSummaryList": [None]},
    "text for a job": {"jobSummaryList": ["J"]},
    "a job without a name": {"jobSummaryList": [{"jobId": "J"}]},
    "a job without an id": {"jobSummaryList": [{"jobName": "first"}]},
    "a job whose id is none": {"jobSummaryList": [JOB | {"jobId": {"a": 1}}]},
    "a job with an endless id": {"jobSummaryList": [JOB | {"jobId": "x" * 5000}]},
    "a time that is none": {"jobSummaryList": [JOB | {"createdAt": "yesterday"}]},
    "a token that is none": {"jobSummaryList": [], "nextToken": {"a": 1}},
    "no object": [1],
}


@pytest.mark.parametrize("body", MALFORMED_LISTS.values(), ids=MALFORMED_LISTS.keys())
async def test_a_list_that_makes_no_sense_is_unclear_and_no_refusal(body: Any) -> None:
    async with peer(answering(200, json.dumps(body).encode())) as url, client_of(url) as batch:
        assert (await failure_of(batch.errands.jobs_named(frozen(), LONG_AGO))).kind is AnswerKind.UNCLEAR


MALFORMED_JOBS: dict[str, Any] = {
    "nothing": {},
    "another job": {"jobId": "K", "jobArn": "A"},
    "no ARN": {"jobId": "J"},
    "an ARN that is none": {"jobId": "J", "jobArn": 7},
    "tags that are none": {"jobId": "J", "jobArn": "A", "tags": "none"},
    "a tag that is none": {"jobId": "J", "jobArn": "A", "tags": {SUBMISSION_TAG: {"a": 1}}},
}


@pytest.mark.parametrize("body", MALFORMED_JOBS.values(), ids=MALFORMED_JOBS.keys())
async def test_a_description_that_makes_no_sense_is_unclear(body: Any) -> None:
    async with peer(answering(200, json.dumps(body).encode())) as url, client_of(url) as batch:
        assert (await failure_of(batch.errands.candidate("J"))).kind is AnswerKind.UNCLEAR


# ---- beside submissions


class Halves:
    """A Batch that answers either submissions or errands, and holds the others until it is told."""

    def __init__(self, *, holds_submissions: bool) -> None:
        self._holds_submissions = holds_submissions
        self.held = 0
        self.go_on = asyncio.Event()

    async def behave(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await read_request(reader)
        if (asked.path == "/v1/submitservicejob") is self._holds_submissions:
            self.held += 1
            await self.go_on.wait()
        write_answer(writer, 200, b'{"jobId": "J", "jobArn": "A"}', "x-amzn-RequestId: R")
        await writer.drain()


async def test_hanging_errands_leave_submissions_their_connections() -> None:
    peers = Halves(holds_submissions=False)
    async with peer(peers.behave) as url, client_of(url, concurrency=1) as batch, asyncio.TaskGroup() as group:
        for _ in range(3 * ERRAND_CONNECTIONS):
            group.create_task(batch.errands.terminate("J", "canceled"))
        await eventually(lambda: peers.held == ERRAND_CONNECTIONS)
        assert (await batch.submit(frozen())).kind is AnswerKind.SUBMITTED
        assert peers.held == ERRAND_CONNECTIONS
        peers.go_on.set()


async def test_hanging_submissions_leave_errands_their_connections() -> None:
    peers = Halves(holds_submissions=True)
    async with peer(peers.behave) as url, client_of(url, concurrency=2) as batch, asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(batch.submit(frozen()))
        await eventually(lambda: peers.held == 2)
        await asyncio.gather(*(batch.errands.update("J", 7) for _ in range(ERRAND_CONNECTIONS)))
        peers.go_on.set()


async def test_an_errand_that_waits_for_a_connection_waits_no_longer_than_a_call() -> None:
    peers = Halves(holds_submissions=False)
    async with peer(peers.behave) as url, client_of(url, seconds=0.5) as batch, asyncio.timeout(20):
        waits = [failure_of(batch.errands.update("J", 7)) for _ in range(10 * ERRAND_CONNECTIONS)]
        assert {one.kind for one in await asyncio.gather(*waits)} == {AnswerKind.UNCLEAR}
        peers.go_on.set()
