"""Batch's own face over a real store and an emulated Batch: what each operation does with whose jobs, and when."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from gateway.core.ports import Errand
from gateway.core.submission import Failure
from gateway.emulator import Fault
from gateway.store.bounds import StoreBounds
from gateway.store.errands import ErrandQueue
from tests.api.batch_behind import ARN, RUNNABLE_SECONDS, World, batch_behind, own_arn, request
from tests.api.callers import TEXT, VISION
from tests.api.test_deadlines import by
from tests.api.test_edits import REJECTED, UNKNOWN
from tests.conftest import eventually
from tests.contract.in_process import NobodyThere
from tests.examples import submission, training_job

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis

    from tests.contract.in_process import Answer

LONG_SECONDS = 30
STATES = ("queued", "being called for", "forwarded", "canceled", "expired", "rejected", "unknown")
STRANGER = "5c6a6f0a-0000-4000-8000-000000000000"
MARK = "hunter2-5ecret"


@pytest.fixture
async def world(client: Redis, prefix: str) -> AsyncIterator[World]:
    async with batch_behind(client, prefix) as world:
        yield world


@pytest.fixture
async def waiting_world(client: Redis, prefix: str) -> AsyncIterator[World]:
    """Where a submission waits for Batch's ids as long as any test could."""
    async with batch_behind(client, prefix, wait_seconds=LONG_SECONDS) as world:
        yield world


async def held_submission(world: World, **members: Any) -> asyncio.Task[Answer]:
    """A submission whose answer is being held."""

    async def held() -> bool:
        return bool(world.gateway.hints._watchers)

    task = asyncio.create_task(world.submit(**members))
    await eventually(held)
    return task


async def in_state(world: World, state: str, **members: Any) -> str:
    """The id of a submission that stands so."""
    if state == "expired":
        made = await world.gateway.post(submission(**members), headers=by(1))
        one = str(made.json["submissionId"])

        async def has_expired() -> bool:
            await world.gateway.store.reclaim()
            return (await world.gateway.show(one)).json["state"] == "expired"

        await eventually(has_expired)
        return one
    one = await world.submitted(**members)
    match state:
        case "being called for":
            await world.gateway.lease()
        case "forwarded":
            await world.forward()
        case "canceled":
            await world.gateway.call("POST", f"/v1/submissions/{one}/cancel", {"reason": "wrong data"})
        case "rejected" | "unknown":
            await world.gateway.settle(REJECTED if state == "rejected" else UNKNOWN)
    return one


async def state_of(world: World, one: str) -> str:
    return str((await world.gateway.show(one)).json["state"])


async def describe(world: World, wanted: str, **how: Any) -> Answer:
    return await world.ask("DescribeServiceJob", {"jobId": wanted}, **how)


async def terminate(world: World, wanted: str, **how: Any) -> Answer:
    return await world.ask("TerminateServiceJob", {"jobId": wanted, "reason": "enough"}, **how)


async def update(world: World, wanted: str, **how: Any) -> Answer:
    return await world.ask("UpdateServiceJob", {"jobId": wanted, "schedulingPriority": 70}, **how)


def ids(answer: Answer) -> tuple[str, str]:
    assert answer.status == 200, answer.body
    return answer.json["jobId"], answer.json["jobArn"]


def error(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.headers["x-amzn-errortype"]


# ---- Submit: whose ids, and when


async def test_one_that_can_be_called_at_once_is_answered_with_batchs_ids(waiting_world: World) -> None:
    began = time.monotonic()
    waiting = await held_submission(waiting_world)
    job_id = await waiting_world.forward()
    answer = await waiting
    assert ids(answer) == (job_id, f"{ARN}service-job/{job_id}")
    assert answer.json["jobName"] == "resnet"
    assert answer.headers["x-gateway-submission-id"] != job_id
    assert await state_of(waiting_world, job_id) == "forwarded"
    assert time.monotonic() - began < LONG_SECONDS / 3


async def test_one_behind_another_is_answered_at_once_with_its_own_ids(waiting_world: World) -> None:
    await waiting_world.gateway.post()
    began = time.monotonic()
    for _ in range(5):
        answer = await waiting_world.submit()
        own = answer.headers["x-gateway-submission-id"]
        assert ids(answer) == (own, own_arn(own))
        assert await state_of(waiting_world, own) == "queued"
    assert time.monotonic() - began < LONG_SECONDS / 3


async def test_one_that_nobody_forwards_is_not_waited_for(waiting_world: World) -> None:
    await waiting_world.gateway.call("PATCH", "/v1/upstreams/main", {"forwarding": False})
    began = time.monotonic()
    answer = await waiting_world.submit()
    assert answer.json["jobId"] == answer.headers["x-gateway-submission-id"]
    assert time.monotonic() - began < LONG_SECONDS / 3


async def test_after_the_time_to_wait_it_is_answered_with_its_own_ids(client: Redis, prefix: str) -> None:
    async with batch_behind(client, prefix, wait_seconds=0.3) as world:
        began = time.monotonic()
        answer = await world.submit()
        assert time.monotonic() - began >= 0.3
        assert answer.json["jobId"] == answer.headers["x-gateway-submission-id"]


async def test_a_drain_ends_the_wait(waiting_world: World) -> None:
    waiting = await held_submission(waiting_world)
    waiting_world.gateway.drain()
    answer = await asyncio.wait_for(waiting, LONG_SECONDS / 3)
    assert answer.json["jobId"] == answer.headers["x-gateway-submission-id"]


async def test_one_that_batch_rejects_while_it_waits_is_answered_with_batchs_reason(waiting_world: World) -> None:
    waiting = await held_submission(waiting_world)
    await waiting_world.gateway.settle(REJECTED)
    answer = await waiting
    assert error(answer) == (400, "ClientException")
    assert "ClientException: no such queue" in answer.json["message"]


async def test_one_that_ends_otherwise_while_it_waits_is_answered_with_its_own_ids(waiting_world: World) -> None:
    waiting = await held_submission(waiting_world, clientToken="t")
    one = (await waiting_world.gateway.get("/v1/submissions")).json["items"][0]["submissionId"]
    await terminate(waiting_world, one)
    assert ids(await waiting) == (one, own_arn(one))


async def test_a_repeat_is_answered_as_it_stands_now_with_nothing_new(waiting_world: World) -> None:
    waiting = await held_submission(waiting_world, clientToken="t")
    began = time.monotonic()
    again = await waiting_world.submit(clientToken="t")
    assert time.monotonic() - began < LONG_SECONDS / 3
    own = again.headers["x-gateway-submission-id"]
    assert (again.headers["Idempotent-Replayed"], ids(again)) == ("true", (own, own_arn(own)))
    job_id = await waiting_world.forward()
    first, later = await waiting, await waiting_world.submit(clientToken="t")
    assert "Idempotent-Replayed" not in first.headers
    assert later.headers["Idempotent-Replayed"] == "true"
    assert {ids(first)[0], ids(later)[0]} == {job_id}
    assert {one.headers["x-gateway-submission-id"] for one in (first, later)} == {own}
    assert waiting_world.asked == ["SubmitServiceJob"]


@pytest.mark.parametrize(
    ("tried", "status"),
    [("attempt=1", 400), ("attempt=1; max=5", 400), ("", 400), ("attempt=2; max=5", 200), ("ttl=1; attempt=10", 200)],
)
async def test_where_repeats_are_errors_an_sdks_own_retry_is_none(
    client: Redis, prefix: str, tried: str, status: int
) -> None:
    """Its caller has sent one request, and the answer was lost on the way."""
    async with batch_behind(client, prefix, duplicates="reject") as world:
        one = await world.submitted(clientToken="t")
        again = await world.submit(clientToken="t", headers={"amz-sdk-request": tried})
        assert again.status == status
        if status == 200:
            assert again.headers["x-gateway-submission-id"] == one


@pytest.mark.parametrize("payload", [training_job(), {}, [], 7])
async def test_a_payload_that_is_no_string_is_told_as_that(world: World, payload: Any) -> None:
    answer = await world.submit(serviceRequestPayload=payload)
    assert answer.status == 400
    assert "serviceRequestPayload: must be a string that holds JSON" in answer.json["message"]
    if payload:
        assert "is required" not in answer.json["message"]


async def test_members_that_are_no_members_are_named(world: World) -> None:
    for name in ("self", "operation_name", "x" * 100):
        answer = await world.ask("DescribeJobQueues", {name: 1})
        assert (answer.status, answer.json["message"]) == (400, f"{name[:64]}: is not a member that is known here")


async def test_who_may_not_describe_says_so_and_does_not_make_callers_wait_for_ever(world: World) -> None:
    one = await world.submitted()
    await world.forward()
    world.emulator.set_faults(Fault(kind="access_denied", operation="DescribeServiceJob"))
    answer = await world.ask("DescribeServiceJob", {"jobId": one})
    assert answer.status == 403
    (line,) = world.gateway.lines_of("reads_failing")
    assert line["error_code"] == "AccessDeniedException"


async def test_what_is_odd_about_a_payload_is_told_in_a_header(world: World) -> None:
    payload = training_job()
    payload["ResourceConfig"]["InstanceType"] = "ml.zz9.größe"
    answer = await world.submit(serviceRequestPayload=json.dumps(payload))
    assert answer.status == 200
    assert answer.headers["x-gateway-warning"].startswith("/serviceRequestPayload/ResourceConfig/InstanceType: ")
    assert answer.headers["x-gateway-warning"].isascii()
    assert "x-gateway-warning" not in (await world.submit()).headers


async def test_what_waits_in_a_paused_share_says_so(world: World) -> None:
    one = await world.submitted()
    await world.gateway.call("PATCH", "/v1/shares/training/vision", {"paused": True})

    async def told() -> bool:
        described = await world.ask("DescribeServiceJob", {"jobId": one})
        return "its share is paused" in described.json["statusReason"]

    await eventually(told)


async def test_the_newest_of_a_name_comes_first_wherever_it_ended(world: World) -> None:
    await world.submitted(jobName="nightly")
    job_id = await world.forward()
    later = await world.submitted(jobName="nightly")
    await terminate(world, later)
    query = {"jobQueue": "training", "filters": [{"name": "JOB_NAME", "values": ["nightly"]}]}
    listed = (await world.ask("ListServiceJobs", query)).json["jobSummaryList"]
    assert [(job["jobId"], job["status"]) for job in listed] == [(later, "FAILED"), (job_id, "SUBMITTED")]


async def test_a_token_is_the_same_in_both_faces(world: World) -> None:
    one = await world.submitted(clientToken="t")
    posted = await world.gateway.post(submission(clientToken="t"))
    assert (posted.json["submissionId"], posted.headers["Idempotent-Replayed"]) == (one, "true")


async def test_a_token_of_another_request_is_refused_with_the_members_that_differ(world: World) -> None:
    await world.submit(clientToken="t")
    other = json.dumps(training_job() | {"HyperParameters": {"lr": MARK}})
    answer = await world.submit(clientToken="t", jobName="other", serviceRequestPayload=other)
    assert error(answer) == (400, "ClientException")
    assert "jobName, serviceRequestPayload" in answer.json["message"]
    assert MARK not in answer.json["message"]


async def test_a_repeat_of_a_rejected_one_is_refused_with_batchs_reason(world: World) -> None:
    await world.submit(clientToken="t")
    failure = Failure(code="ClientException", message="Job queue training does not exist.")
    await world.gateway.settle(replace(REJECTED, failure=failure))
    for _ in range(2):
        answer = await world.submit(clientToken="t")
        assert error(answer) == (400, "ClientException")
        assert answer.json["message"].endswith("was rejected: ClientException: Job queue training does not exist.")


@pytest.mark.parametrize("state", ["canceled", "unknown"])
async def test_a_repeat_of_one_without_a_job_has_its_own_ids(world: World, state: str) -> None:
    one = await in_state(world, state, clientToken="t")
    assert ids(await world.submit(clientToken="t")) == (one, own_arn(one))


async def test_two_submissions_without_a_token_are_two(world: World) -> None:
    assert await world.submitted() != await world.submitted()


@pytest.mark.parametrize("payload", [training_job(), [], 7, True])
async def test_a_payload_must_be_a_string(world: World, payload: Any) -> None:
    answer = await world.submit(serviceRequestPayload=payload)
    assert error(answer) == (400, "ClientException")
    assert "serviceRequestPayload: must be a string" in answer.json["message"]
    assert (await world.gateway.get("/v1/submissions")).json["items"] == []


@pytest.mark.parametrize("content_type", ["application/x-amz-json-1.1", "text/plain", "application/octet-stream", "no"])
async def test_the_content_type_does_not_matter(world: World, content_type: str) -> None:
    answer = await world.ask(
        "SubmitServiceJob", data=json.dumps(request()).encode(), headers={"Content-Type": content_type}
    )
    assert answer.status == 200


async def test_no_body_is_an_empty_one(world: World) -> None:
    answer = await world.ask("SubmitServiceJob", data=b"")
    assert error(answer) == (400, "ClientException")
    for name in ("jobName", "jobQueue", "serviceJobType", "serviceRequestPayload"):
        assert f"{name}: is required" in answer.json["message"]
    assert (await world.ask("DescribeJobQueues", data=b"")).status == 200
    chunked = (
        b"POST /v1/describejobqueues HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    )
    assert b" 200 OK\r\n" in await world.gateway.raw(chunked + b"0\r\n\r\n")


async def test_headers_of_the_gateways_own_face_mean_nothing_here(waiting_world: World) -> None:
    await waiting_world.gateway.post()
    headers = {"Idempotency-Key": "other", "Deadline": "never", "Prefer": "wait=never"}
    answer = await waiting_world.submit(clientToken="t", headers=headers)
    shown = (await waiting_world.gateway.show(answer.headers["x-gateway-submission-id"])).json
    assert (shown["clientToken"], shown.get("deadline")) == ("t", None)


async def test_a_trace_is_kept_with_the_submission(world: World) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await world.submit(headers={"traceparent": trace})
    assert (await world.gateway.lease()).submission.traceparent == trace


async def test_batch_gets_what_was_sent(world: World) -> None:
    payload = json.dumps(training_job(), indent=1)
    tags = {"team": "vision"}
    await world.submit(serviceRequestPayload=payload, tags=tags, schedulingPriority=3.0, clientToken="t")
    job_id = await world.forward()
    job = await world.batch.operations.call("DescribeServiceJob", {"jobId": job_id})
    assert (job["serviceRequestPayload"], job["schedulingPriority"]) == (payload, 3)
    assert job["tags"].items() >= tags.items()


# ---- Describe

FAILED_BECAUSE = {
    "canceled": r"Canceled in the gateway: wrong data\.",
    "expired": r"Expired in the gateway: its deadline, 20\d\d-[-:T0-9]+Z, came before it went to Batch\.",
    "rejected": r"Rejected: ClientException: no such queue\.",
    "unknown": r"It may be in Batch, .* a person must look: ClientException: no such queue\.",
}


async def test_a_queued_one_is_submitted_and_says_its_place_and_when_it_goes(world: World) -> None:
    await world.submitted()
    one = await world.submitted(tags={"team": "vision"}, schedulingPriority=0)
    for wanted in (one, own_arn(one)):
        answer = await describe(world, wanted)
        job = answer.json
        assert ids(answer) == (one, own_arn(one))
        assert (job["status"], job["isTerminated"], job["startedAt"], job["attempts"]) == ("SUBMITTED", False, 0, [])
        assert re.fullmatch(
            r"Queued in the gateway, position 2 of its share; expected to go to Batch at 20\d\d-\d\d-\d\dT[:\d]+Z\.",
            job["statusReason"],
        )
        assert (job["jobName"], job["jobQueue"], job["shareIdentifier"]) == (
            "resnet",
            f"{ARN}job-queue/training",
            "vision",
        )
        assert json.loads(job["serviceRequestPayload"]) == training_job()
        assert job["tags"] == {"team": "vision", "gateway:submission-id": one}
        assert abs(job["createdAt"] / 1000 - time.time()) < 60
        assert (answer.headers["Age"], answer.headers["x-gateway-submission-id"]) == ("0", one)
        assert "x-gateway-job-arn" not in answer.headers
    assert world.asked == []


async def test_one_that_batch_is_called_for_says_so(world: World) -> None:
    one = await in_state(world, "being called for")
    job = (await describe(world, one)).json
    assert (job["status"], job["statusReason"]) == ("SUBMITTED", "Queued in the gateway; Batch is being called for it.")
    await terminate(world, one)
    assert "it is to end" in (await describe(world, one)).json["statusReason"]


@pytest.mark.parametrize("state", FAILED_BECAUSE)
async def test_one_that_ended_in_the_gateway_has_failed_and_says_why(world: World, state: str) -> None:
    one = await in_state(world, state)
    for wanted in (one, own_arn(one)):
        answer = await describe(world, wanted)
        assert ids(answer) == (one, own_arn(one))
        job = answer.json
        assert (job["status"], job["isTerminated"]) == ("FAILED", state == "canceled")
        assert re.fullmatch(FAILED_BECAUSE[state], job["statusReason"])
        assert job["stoppedAt"] >= job["createdAt"]
        assert ("serviceRequestPayload" in job) == (state in ("rejected", "unknown"))
    assert world.asked == []


async def test_a_forwarded_one_is_as_batch_says_under_the_id_that_was_asked_with(world: World) -> None:
    one = await world.submitted(headers=VISION)
    job_id = await world.forward()
    job_arn = f"{ARN}service-job/{job_id}"
    await world.batch.operations.call("TerminateServiceJob", {"jobId": job_id, "reason": "by another"})
    of_batch = await world.batch.operations.call("DescribeServiceJob", {"jobId": job_id})
    assert of_batch["status"] == "FAILED"
    asked = {one: (one, own_arn(one)), own_arn(one): (one, own_arn(one))}
    asked |= {job_id: (job_id, job_arn), job_arn: (job_id, job_arn)}
    for wanted, expected in asked.items():
        answer = await describe(world, wanted, headers=VISION)
        assert ids(answer) == expected
        assert answer.json == of_batch | {"jobId": expected[0], "jobArn": expected[1]}
        assert (answer.headers["x-gateway-submission-id"], answer.headers["x-gateway-job-arn"]) == (one, job_arn)
        assert int(answer.headers["Age"]) < 60


async def test_a_job_that_batch_knows_no_more_is_gone_unless_batch_has_just_made_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await world.submitted()
    await world.forward()
    world.emulator.set_faults(Fault(kind="client_error", operation="DescribeServiceJob", message="It is gone."))
    assert (await describe(world, one)).json["status"] == "SUBMITTED"
    monkeypatch.setattr("gateway.core.service_jobs.SETTLING_SECONDS", -1.0)
    answer = await describe(world, one)
    assert (error(answer), answer.json["message"]) == ((400, "ClientException"), "It is gone.")


async def test_a_forwarded_one_stands_as_it_went_while_batch_cannot_say(client: Redis, prefix: str) -> None:
    async with batch_behind(client, prefix, batch=NobodyThere()) as world:
        one = await world.submitted()
        job_id = await world.forward()
        answer = await describe(world, one)
        assert (answer.json["status"], answer.json["jobId"]) == ("SUBMITTED", one)
        assert answer.json["statusReason"] == f"The gateway has handed it to Batch, as job {job_id}."
        assert answer.headers["x-gateway-job-arn"] == f"{ARN}service-job/{job_id}"


async def test_an_answer_of_batchs_serves_for_a_second_and_is_older_where_batch_is_down(world: World) -> None:
    one = await world.submitted()
    await world.forward()
    described = [await describe(world, one) for _ in range(3)]
    assert world.asked.count("DescribeServiceJob") == 1
    world.emulator.set_faults(Fault(kind="down"))

    async def aged() -> bool:
        answer = await describe(world, one)
        assert answer.json == described[0].json
        return int(answer.headers["Age"]) >= 1

    await eventually(aged)


async def test_a_job_outlives_its_record_for_operators(world: World, client: Redis) -> None:
    one = await world.submitted(headers=VISION)
    job_id = await world.forward()
    await client.delete(world.gateway.store._keys.record(one))
    job_arn = f"{ARN}service-job/{job_id}"
    for wanted in (one, own_arn(one), job_id, job_arn):
        answer = await describe(world, wanted)
        expected = (one, own_arn(one)) if wanted in (one, own_arn(one)) else (job_id, job_arn)
        assert ids(answer) == expected
        assert answer.headers["x-gateway-job-arn"] == job_arn
        assert ids(await update(world, wanted)) == expected
        for caller in (VISION, TEXT):
            assert error(await describe(world, wanted, headers=caller)) == (404, "ClientException")
    assert (await terminate(world, one)).status == 200
    (job,) = world.emulator.jobs
    assert (job.priority, job.termination_reason) == (70, "enough")


async def test_what_the_gateway_never_saw_is_asked_of_batch_for_operators_alone(world: World) -> None:
    job_id = await world.made_by_another()
    job_arn = f"{ARN}service-job/{job_id}"
    for wanted in (job_id, job_arn):
        for ask in (describe, update, terminate):
            before = len(world.asked)
            assert error(await ask(world, wanted, headers=VISION)) == (404, "ClientException")
            assert len(world.asked) == before
        answer = await describe(world, wanted)
        assert ids(answer) == (job_id, job_arn)
        assert "x-gateway-submission-id" not in answer.headers
        assert ids(await update(world, wanted)) == (job_id, job_arn)
    assert (await terminate(world, job_arn)).json == {}
    (job,) = world.emulator.jobs
    assert (job.priority, job.termination_reason) == (70, "enough")


async def test_what_batch_never_saw_is_batchs_to_refuse_for_operators(world: World) -> None:
    for ask in (describe, update, terminate):
        answer = await ask(world, STRANGER)
        assert error(answer) == (400, "ClientException")
        assert STRANGER in answer.json["message"]
    elsewhere = own_arn(STRANGER).replace("us-east-1", "eu-west-1")
    assert error(await describe(world, elsewhere)) == (404, "ClientException")


@pytest.mark.parametrize("state", STATES)
async def test_another_callers_job_is_not_there(world: World, state: str) -> None:
    one = await in_state(world, state) if state == "expired" else ""
    if not one:
        made = await world.submit(headers=VISION)
        one = made.headers["x-gateway-submission-id"]
    wanted = [one, own_arn(one)]
    if state == "forwarded":
        job_id = await world.forward()
        wanted += [job_id, f"{ARN}service-job/{job_id}"]
    elif state in ("rejected", "unknown"):
        await world.gateway.settle(REJECTED if state == "rejected" else UNKNOWN)
    elif state == "canceled":
        await terminate(world, one)
    before = (await world.gateway.show(one)).lasting
    asked = len(world.asked)
    for each in wanted:
        for ask in (describe, terminate, update):
            answer = await ask(world, each, headers=TEXT)
            assert error(answer) == (404, "ClientException")
            assert answer.json["message"] == f"No submission or job {each} is known here."
    assert (await world.gateway.show(one)).lasting == before
    assert len(world.asked) == asked
    assert not any(line["change"] == "priority" for line in world.gateway.lines_of("submission_changed"))


async def test_of_the_jobs_at_the_front_callers_see_their_own(world: World) -> None:
    for headers in (VISION, TEXT, VISION):
        await world.submit(headers=headers, jobQueue="fair")
        await world.forward()
    world.clock.advance(RUNNABLE_SECONDS)
    seen = {}
    for name, headers in (("vision", VISION), ("text", TEXT), ("operator", {})):
        answer = await world.ask("GetJobQueueSnapshot", {"jobQueue": "fair"}, headers=headers)
        seen[name] = [job["jobArn"] for job in answer.json["frontOfQueue"]["jobs"]]
    arns = [job.arn for job in world.emulator.jobs]
    assert seen == {"operator": arns, "vision": [arns[0], arns[2]], "text": [arns[1]]}


# ---- Terminate and update


async def owed(world: World, client: Redis) -> Errand:
    """What Batch is to be asked next."""
    errand = await ErrandQueue(client, world.gateway.store._keys, bounds=StoreBounds()).lease()
    assert isinstance(errand, Errand)
    return errand


async def test_a_queued_one_is_canceled_with_the_reason(world: World) -> None:
    for wanted in (str, own_arn):
        one = await world.submitted()
        assert (await terminate(world, wanted(one))).json == {}
        assert await state_of(world, one) == "canceled"
        assert (await describe(world, one)).json["statusReason"] == "Canceled in the gateway: enough."
        assert (await terminate(world, one)).json == {}
    assert len(world.gateway.lines_of("submission_settled")) == 2
    assert world.asked == []


async def test_a_reason_is_any_text(world: World) -> None:
    for reason in ("", "\u00e9\n\x7f\U0001f600" * 512, "x" * 2048):
        one = await world.submitted()
        assert (await world.ask("TerminateServiceJob", {"jobId": one, "reason": reason})).status == 200
        told = f"Canceled in the gateway: {reason}." if reason else "Canceled in the gateway."
        assert (await describe(world, one)).json["statusReason"] == told


async def test_one_that_batch_is_called_for_is_to_end(world: World) -> None:
    one = await in_state(world, "being called for")
    assert (await terminate(world, one)).status == 200
    shown = (await world.gateway.show(one)).json
    assert (shown["state"], shown["cancelRequested"]) == ("queued", True)


@pytest.mark.parametrize("by_whose_id", ["own id", "own arn", "batch's id", "batch's arn"])
async def test_for_a_forwarded_one_batch_is_owed_the_change(world: World, client: Redis, by_whose_id: str) -> None:
    one = await world.submitted()
    job_id = await world.forward()
    wanted = {
        "own id": one,
        "own arn": own_arn(one),
        "batch's id": job_id,
        "batch's arn": f"{ARN}service-job/{job_id}",
    }[by_whose_id]
    answer = await update(world, wanted)
    own = by_whose_id.startswith("own")
    assert ids(answer) == ((one, own_arn(one)) if own else (job_id, f"{ARN}service-job/{job_id}"))
    errand = await owed(world, client)
    assert (errand.kind, errand.submission.priority, errand.submission.job_id) == ("update", 70, job_id)
    assert (await terminate(world, wanted)).json == {}
    shown = (await world.gateway.show(one)).json
    assert (shown["state"], shown["cancelRequested"]) == ("forwarded", True)
    changes = [(line["change"], line["state"]) for line in world.gateway.lines_of("submission_changed")]
    assert changes == [("priority", "forwarded"), ("cancel", "forwarded")]
    assert world.asked == ["SubmitServiceJob"]


@pytest.mark.parametrize("state", ["canceled", "expired", "rejected"])
async def test_what_has_ended_is_ended_and_nothing_changes(world: World, state: str) -> None:
    one = await in_state(world, state)
    before = (await world.gateway.show(one)).json
    assert (await terminate(world, one)).json == {}
    assert (await world.gateway.show(one)).json == before


@pytest.mark.parametrize("state", ["expired", "rejected"])
async def test_the_log_tells_of_no_change_where_there_was_none(world: World, state: str) -> None:
    await terminate(world, await in_state(world, state))
    assert world.gateway.lines_of("submission_changed") == []


async def test_what_may_be_in_batch_unseen_is_a_persons_to_end(world: World) -> None:
    one = await in_state(world, "unknown")
    answer = await terminate(world, one)
    assert error(answer) == (400, "ClientException")
    assert "until an operator resolves it" in answer.json["message"]
    assert await state_of(world, one) == "unknown"


async def test_a_queued_one_has_its_new_place_at_once(world: World) -> None:
    first, second = await world.submitted(), await world.submitted()
    answer = await update(world, own_arn(second))
    assert ids(answer) == (second, own_arn(second))
    assert answer.json["jobName"] == "resnet"
    assert "position 1 " in (await describe(world, second)).json["statusReason"]
    assert "position 2 " in (await describe(world, first)).json["statusReason"]
    assert (await describe(world, second)).json["schedulingPriority"] == 70
    assert (await world.gateway.lease()).submission.submission_id == second


@pytest.mark.parametrize("state", ["canceled", "expired", "rejected", "unknown"])
async def test_what_will_be_no_job_has_no_priority_to_change(world: World, state: str) -> None:
    one = await in_state(world, state)
    answer = await update(world, one)
    assert error(answer) == (400, "ClientException")
    assert f"The submission is {state}, which is final" in answer.json["message"]
    assert world.gateway.lines_of("request")[-1]["problem"] == "already-final"


# ---- The log


async def test_a_request_line_says_which_call_of_an_sdk_it_was(world: World) -> None:
    sdk = {"amz-sdk-invocation-id": "6a2f4e3c-0c5b-4f0e-9d5f-0a7d3d4a6b1f", "amz-sdk-request": "attempt=2; max=5"}
    made = await world.submit(headers=sdk)
    await describe(world, STRANGER, headers=sdk | VISION)
    await describe(world, STRANGER, headers={"amz-sdk-request": "x" * 129})
    first, second, third = world.gateway.lines_of("request")
    for line in (first, second):
        assert (line["amz_sdk_invocation_id"], line["amz_sdk_request"]) == tuple(sdk.values())
    assert (third["amz_sdk_invocation_id"], third["amz_sdk_request"]) == (None, None)
    assert (first["route"], first["status"], first["problem"]) == ("/v1/submitservicejob", 200, None)
    assert (first["submission_id"], first["share"]) == (made.headers["x-gateway-submission-id"], "training/vision")
    assert (second["status"], second["problem"], second["principal"]) == (404, "not-found", "vision")
    assert (third["status"], third["problem"]) == (400, "upstream-refused")
    assert made.headers["x-amzn-RequestId"] == made.headers["X-Request-Id"] == first["request_id"]


async def test_a_request_line_names_the_submission(world: World) -> None:
    one = await world.submitted(clientToken="t")
    await world.submit(clientToken="t")
    await world.submit(clientToken="t", jobName="other")
    await describe(world, own_arn(one))
    await update(world, one)
    await terminate(world, one)
    lines = world.gateway.lines_of("request")
    assert {(line["submission_id"], line["share"]) for line in lines} == {(one, "training/vision")}
    assert [line["replayed"] for line in lines] == [False, True, None, None, None, None]
    assert [line["problem"] for line in lines] == [None, None, "token-reused", None, None, None]


async def test_an_operation_that_the_gateway_has_not_has_its_line_too(world: World) -> None:
    await world.ask("ListJobs", {})
    (line,) = world.gateway.lines_of("request")
    assert (line["route"], line["status"], line["problem"]) == (None, 404, "not-found")


async def test_no_payload_token_or_reason_is_told(
    world: World, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "gateway")
    secret = {**training_job(), "Environment": {"KEY": MARK}, "HyperParameters": {"password": MARK}}
    text = json.dumps(secret)
    one = (await world.submit(serviceRequestPayload=text, clientToken=MARK)).headers["x-gateway-submission-id"]
    for members in (
        {"serviceRequestPayload": secret},
        {"serviceRequestPayload": text[:-1]},
        {"serviceRequestPayload": json.dumps({**secret, "RoleArn": MARK, "TrainingJobName": f"_{MARK}"})},
        {"serviceRequestPayload": text, "jobName": f"{MARK} "},
        {"jobName": "other", "clientToken": MARK * 2, "tags": {"aws:x": MARK}, "schedulingPriority": MARK},
    ):
        answer = await world.submit(**members)
        assert (answer.status, MARK in answer.body.decode()) == (400, False)
    await world.ask("SubmitServiceJob", data=f'{{"clientToken": "{MARK}'.encode())
    await world.ask("TerminateServiceJob", {"jobId": one, "reason": {MARK: MARK}})
    await world.ask(
        "ListServiceJobs", {"jobQueue": "training", "filters": [{"name": "JOB_NAME", "values": [MARK, MARK]}]}
    )
    await world.ask("DescribeQuotaShare", {"quotaShareArn": f"{ARN}job-queue/quota/quota-share/vision", "x": MARK})
    await describe(world, one)
    await terminate(world, one)
    captured = capfd.readouterr()
    for told in (world.gateway.log.getvalue(), captured.out, captured.err, caplog.text):
        assert MARK not in told


async def test_a_list_says_how_old_what_batch_said_is(world: World) -> None:
    query = {"jobQueue": "training"}
    assert (await world.ask("ListServiceJobs", query)).headers["Age"] == "0"
    world.emulator.set_faults(Fault(kind="throttle", operation="ListServiceJobs"))

    async def is_older() -> bool:
        answer = await world.ask("ListServiceJobs", query)
        assert answer.status == 200
        return int(answer.headers["Age"]) >= 1

    await eventually(is_older)
    assert (await world.ask("ListServiceJobs", {**query, "jobStatus": "SUBMITTED"})).status == 429
