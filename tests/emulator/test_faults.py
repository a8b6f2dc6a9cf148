from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest
from botocore.exceptions import (
    ConnectionClosedError,
    EndpointConnectionError,
    ReadTimeoutError,
)

from gateway.emulator import KINDS, Fault
from tests.emulator.rig import ROLE_ARN, SUBMISSION, Rig, emulating, eventually, new_client

BODY = SUBMISSION | {"clientToken": "t"}


async def test_a_throttle_is_a_429_with_a_code_and_makes_no_job(rig: Rig) -> None:
    rig.emulator.set_faults(Fault(kind="throttle", retry_after_ms=1200))
    refusal = await rig.submission_refused()
    assert (refusal.status, refusal.code) == (429, "TooManyRequestsException")
    assert (refusal.headers["x-amz-retry-after"], refusal.headers["retry-after"]) == ("1200", "2")
    assert rig.emulator.jobs == []
    assert (rig.last_call.outcome, rig.last_call.faults, rig.last_call.answered) == ("throttle", ("throttle",), True)


async def test_status_code_and_message_of_an_error_can_be_chosen(rig: Rig) -> None:
    rig.emulator.set_faults(Fault(kind="throttle", status=400, code="ThrottlingException", message="Rate exceeded"))
    refusal = await rig.submission_refused()
    assert (refusal.status, refusal.code, refusal.message) == (400, "ThrottlingException", "Rate exceeded")


@pytest.mark.parametrize("body", ["", "<html>slow down"])
async def test_a_bare_throttle_has_no_code(rig: Rig, body: str) -> None:
    rig.emulator.set_faults(Fault(kind="throttle_bare", body=body, retry_after_ms=100))
    answer = await rig.raw("/v1/submitservicejob", SUBMISSION)
    assert (answer.status, answer.body) == (429, body.encode())
    assert "x-amzn-errortype" not in {name.lower() for name in answer.headers}
    assert answer.headers["Retry-After"] == "1"
    assert (await rig.submission_refused()).code == "429"


async def test_an_injected_throttle_does_not_use_up_the_call_rate() -> None:
    async with emulating(submit_tps=1) as rig:
        rig.emulator.set_faults(Fault(kind="throttle", times=3))
        for _ in range(3):
            await rig.submission_refused()
        await rig.submit()


async def test_an_error_500_makes_no_job(rig: Rig) -> None:
    rig.emulator.set_faults(Fault(kind="error_500"))
    refusal = await rig.submission_refused()
    assert (refusal.status, refusal.code) == (500, "ServerException")
    assert rig.emulator.jobs == []


async def test_a_late_500_makes_the_job_all_the_same(rig: Rig) -> None:
    rig.emulator.set_faults(Fault(kind="late_500"))
    assert (await rig.submission_refused()).status == 500
    (job,) = rig.emulator.jobs
    assert (rig.last_call.outcome, rig.last_call.created, rig.last_call.job_id) == ("late_500", True, job.job_id)


async def test_a_lost_answer_makes_the_job_all_the_same(rig: Rig) -> None:
    rig.emulator.set_faults(Fault(kind="lost_answer"))
    with pytest.raises(ConnectionClosedError):
        await rig.submit()
    (job,) = rig.emulator.jobs
    assert (rig.last_call.outcome, rig.last_call.created, rig.last_call.job_id) == ("lost_answer", True, job.job_id)
    assert (rig.last_call.answered, rig.last_call.status) == (False, None)


async def test_a_lost_answer_is_a_tcp_reset(rig: Rig) -> None:
    rig.emulator.set_faults(Fault(kind="lost_answer"))
    with pytest.raises(aiohttp.ClientOSError) as caught:
        await rig.raw("/v1/submitservicejob", SUBMISSION)
    assert isinstance(caught.value, ConnectionResetError) or caught.value.errno == 104


async def test_a_lost_answer_is_spent_on_made_jobs_only(rig: Rig) -> None:
    rig.emulator.set_faults(Fault(kind="lost_answer", times=1))
    await rig.submission_refused(jobName="a b")
    with pytest.raises(ConnectionClosedError):
        await rig.submit()
    await rig.submit()


async def test_a_repeat_after_a_lost_answer_shows_what_became_of_the_first() -> None:
    async with emulating(repeats="replay") as rig:
        rig.emulator.set_faults(Fault(kind="lost_answer"))
        with pytest.raises(ConnectionClosedError):
            await rig.submit(clientToken="t")
        assert (await rig.submit(clientToken="t"))["jobId"] == rig.emulator.jobs[0].job_id


async def test_a_hanging_answer_is_in_the_ledger_while_the_caller_waits_and_ends_in_a_reset(rig: Rig) -> None:
    rig.emulator.set_faults(Fault(kind="lost_answer_hang", seconds=30))
    call = asyncio.create_task(rig.submit())
    await eventually(lambda: rig.clock.sleepers == 1)
    assert (rig.last_call.outcome, rig.last_call.answered) == ("lost_answer_hang", False)
    assert len(rig.emulator.jobs) == 1
    rig.clock.advance(29)
    assert rig.clock.sleepers == 1
    rig.clock.advance(1)
    with pytest.raises(ConnectionClosedError):
        await call


async def test_a_hanging_answer_runs_into_the_callers_time_out(rig: Rig) -> None:
    rig.emulator.set_faults(Fault(kind="lost_answer_hang"))
    client = await asyncio.to_thread(new_client, rig.url, read_timeout=0.05)
    with pytest.raises(ReadTimeoutError):
        await asyncio.to_thread(client.submit_service_job, **SUBMISSION)
    client.close()
    assert len(rig.emulator.jobs) == 1


async def test_the_emulator_stops_at_once_though_a_call_hangs() -> None:
    async with emulating() as rig:
        rig.emulator.set_faults(Fault(kind="lost_answer_hang"))
        call = asyncio.create_task(rig.raw("/v1/submitservicejob", BODY))
        await eventually(lambda: rig.clock.sleepers == 1)
        await asyncio.wait_for(rig.emulator.stop(), 5)
        with pytest.raises(aiohttp.ClientConnectionError):
            await call


async def test_a_drop_comes_before_anything_is_done(rig: Rig) -> None:
    rig.emulator.set_faults(Fault(kind="drop", times=1))
    with pytest.raises(ConnectionClosedError):
        await rig.submit()
    assert rig.emulator.jobs == []
    assert (rig.last_call.outcome, rig.last_call.answered) == ("drop", False)
    await rig.submit()


async def test_down_breaks_every_call_until_it_is_cleared(rig: Rig) -> None:
    rig.emulator.set_faults(Fault(kind="down"))
    for operation, params in (("submit_service_job", SUBMISSION), ("describe_job_queues", {})):
        with pytest.raises(ConnectionClosedError):
            await rig.call(operation, **params)
    await rig.admin("DELETE", "/faults")
    await rig.submit()


async def test_slow_answers_as_usual_after_its_time(rig: Rig) -> None:
    rig.emulator.set_faults(Fault(kind="slow", seconds=3))
    call = asyncio.create_task(rig.submit())
    await eventually(lambda: rig.clock.sleepers == 1)
    rig.clock.advance(2.9)
    assert rig.emulator.jobs == []
    rig.clock.advance(0.1)
    assert (await call)["jobId"] == rig.emulator.jobs[0].job_id
    assert (rig.last_call.outcome, rig.last_call.faults) == ("created", ("slow",))


async def test_a_slow_answer_to_a_caller_who_left_is_not_answered(rig: Rig) -> None:
    rig.emulator.set_faults(Fault(kind="slow", seconds=3))
    client = await asyncio.to_thread(new_client, rig.url, read_timeout=0.05)
    with pytest.raises(ReadTimeoutError):
        await asyncio.to_thread(client.submit_service_job, **SUBMISSION)
    client.close()
    assert rig.emulator._http is not None
    await eventually(lambda: all(peer.transport is None for peer in rig.emulator._http.connections))
    rig.clock.advance(3)
    await eventually(lambda: len(rig.emulator.ledger()) == 1)
    assert (rig.last_call.outcome, rig.last_call.answered) == ("created", False)


async def test_jitter_passes_before_the_call_is_counted() -> None:
    async with emulating(submit_tps=1, limiter="window", seed=1) as rig:
        rig.emulator.set_faults(Fault(kind="jitter", ms=50))
        calls = [asyncio.create_task(rig.raw("/v1/submitservicejob", SUBMISSION)) for _ in range(5)]
        await eventually(lambda: rig.clock.sleepers == 5)
        assert rig.emulator.ledger() == []
        for _ in range(50):
            rig.clock.advance(0.001)
            await asyncio.sleep(0)
        statuses = sorted([(await call).status for call in calls])
        assert statuses == [200, 429, 429, 429, 429]
        assert len({entry.at for entry in rig.emulator.ledger()}) > 1


@pytest.mark.parametrize(
    ("code", "words"),
    [(None, "is invalid"), ("UnrecognizedClientException", "is invalid"), ("ExpiredTokenException", "is expired")],
)
async def test_bad_credentials_are_a_403_on_every_call(rig: Rig, code: str | None, words: str) -> None:
    rig.emulator.set_faults(Fault(kind="credentials", code=code))
    for refusal in (await rig.submission_refused(), await rig.refused("describe_job_queues")):
        assert (refusal.status, refusal.code) == (403, code or "UnrecognizedClientException")
        assert words in refusal.message
    assert rig.emulator.jobs == []


async def test_access_can_be_denied_for_one_role(rig: Rig) -> None:
    rig.emulator.set_faults(Fault(kind="access_denied", role_arn="arn:aws:iam::*:role/trai*"))
    refusal = await rig.submission_refused()
    assert (refusal.status, refusal.code) == (403, "AccessDeniedException")
    for payload in (
        SUBMISSION["serviceRequestPayload"].replace(ROLE_ARN, "arn:aws:iam::1:role/other"),
        "{}",
        "no json",
    ):
        await rig.submit(serviceRequestPayload=payload)
    rig.emulator.set_faults(Fault(kind="access_denied"))
    assert (await rig.submission_refused(serviceRequestPayload="{}")).status == 403


async def test_a_client_error_has_the_given_message(rig: Rig) -> None:
    rig.emulator.set_faults(Fault(kind="client_error", message="no such service environment"))
    refusal = await rig.submission_refused()
    assert (refusal.status, refusal.code, refusal.message) == (400, "ClientException", "no such service environment")
    assert rig.emulator.jobs == []


async def test_the_first_use_of_each_share_fails_once(rig: Rig) -> None:
    await rig.submit(shareIdentifier="known")
    rig.emulator.set_faults(Fault(kind="first_share_500"))
    for share in ("vision", "text"):
        refusal = await rig.submission_refused(shareIdentifier=share)
        assert (refusal.status, refusal.code) == (500, "ServerException")
        assert refusal.message == "Failed to create shareIdentifier"
        await rig.submit(shareIdentifier=share)
    await rig.submit(shareIdentifier="known")
    await rig.submit()
    assert len(rig.emulator.jobs) == 5


async def test_late_jobs_are_listed_after_their_time_but_described_at_once(rig: Rig) -> None:
    rig.emulator.set_faults(Fault(kind="late_listing", seconds=30, times=1))
    late, prompt = (await rig.submit())["jobId"], (await rig.submit())["jobId"]
    assert await rig.list_named("first") == [prompt]
    assert (await rig.describe(late))["jobId"] == late
    rig.clock.advance(30)
    assert await rig.list_named("first") == [prompt, late]


async def test_garbage_comes_as_a_200_after_the_job_was_made(rig: Rig) -> None:
    rig.emulator.set_faults(Fault(kind="error_200_garbage"))
    # botocore takes it for an answer, just without any member of one.
    assert (await rig.submit()).keys() & {"jobId", "jobArn", "jobName"} == set()
    assert (await rig.raw("/v1/submitservicejob", SUBMISSION)).body.startswith(b"<html>")
    assert len(rig.emulator.jobs) == 2
    assert (rig.last_call.outcome, rig.last_call.status) == ("error_200_garbage", 200)


async def test_refuse_closes_the_port_and_opens_the_same_one_again(rig: Rig) -> None:
    await rig.submit()
    rig.emulator.set_faults(Fault(kind="refuse", seconds=5))
    # The reset goes out in the loop's next turn; a call on the kept-alive connection must not overtake it.
    await eventually(lambda: rig.emulator._http is not None and not rig.emulator._http.connections)
    with pytest.raises(EndpointConnectionError):
        await rig.submit()
    rig.clock.advance(5)
    await eventually(lambda: rig.emulator._listener is not None)
    await rig.submit()
    assert len(rig.emulator.jobs) == 2


async def test_refuse_over_http_is_answered_and_cuts_all_others(rig: Rig) -> None:
    rig.emulator.set_faults(Fault(kind="lost_answer_hang"))
    hanging = asyncio.create_task(rig.submit())
    await eventually(lambda: rig.clock.sleepers == 1)
    assert await rig.admin("PUT", "/faults", {"kind": "refuse", "seconds": 5}) == {"faults": []}
    with pytest.raises(ConnectionClosedError):
        await hanging
    with pytest.raises(aiohttp.ClientConnectorError):
        await rig.admin("GET", "/faults")
    rig.clock.advance(5)
    await eventually(lambda: rig.emulator._listener is not None)
    assert await rig.admin("GET", "/faults") == {"faults": []}


async def test_a_listener_that_refuses_tries_until_the_port_is_free(rig: Rig) -> None:
    rig.emulator.refuse(1)
    squatter = await asyncio.start_server(
        lambda _, writer: writer.close(), "127.0.0.1", int(rig.url.rpartition(":")[2])
    )
    rig.clock.advance(1)
    await eventually(lambda: rig.clock.sleepers == 0)
    squatter.close()
    await squatter.wait_closed()
    await eventually(lambda: rig.emulator._listener is not None)
    await rig.submit()


async def test_a_second_refuse_takes_the_place_of_the_first(rig: Rig) -> None:
    rig.emulator.refuse(1)
    rig.emulator.refuse(10)
    await eventually(lambda: rig.clock.sleepers == 1)
    rig.clock.advance(5)
    with pytest.raises(EndpointConnectionError):
        await rig.submit()


async def test_the_emulator_stops_while_it_refuses() -> None:
    async with emulating() as rig:
        rig.emulator.refuse(10)
    with pytest.raises(RuntimeError, match="not serving"):
        rig.emulator.refuse(1)


async def test_a_fault_is_met_so_many_times(rig: Rig) -> None:
    rig.emulator.set_faults(Fault(kind="throttle", times=2))
    for _ in range(2):
        await rig.submission_refused()
    await rig.submit()
    assert rig.emulator.faults == [Fault(kind="throttle", times=2)]


async def test_a_fault_is_met_with_its_probability() -> None:
    async with emulating(seed=7) as rig:
        rig.emulator.set_faults(Fault(kind="throttle", probability=0.25))
        statuses = [(await rig.raw("/v1/submitservicejob", SUBMISSION)).status for _ in range(400)]
        assert 70 <= statuses.count(429) <= 130
        rig.emulator.set_faults(Fault(kind="throttle", probability=0))
        await rig.submit()


async def test_the_same_seed_meets_the_same_faults() -> None:
    runs = []
    for _ in range(2):
        async with emulating(seed=3) as rig:
            rig.emulator.set_faults(Fault(kind="throttle", probability=0.5))
            runs.append([(await rig.raw("/v1/submitservicejob", SUBMISSION)).status for _ in range(30)])
    assert runs[0] == runs[1]
    assert set(runs[0]) == {200, 429}


async def test_a_fault_ends_after_its_time(rig: Rig) -> None:
    rig.emulator.set_faults(Fault(kind="throttle", for_seconds=30))
    rig.clock.advance(29)
    await rig.submission_refused()
    rig.clock.advance(1)
    await rig.submit()


@pytest.mark.parametrize(
    ("narrowed", "met"),
    [
        ({"job_name": "fi"}, True),
        ({"job_name": "se"}, False),
        ({"share": "vision"}, True),
        ({"share": "training/vision"}, True),
        ({"share": "other/vision"}, False),
        ({"share": "text"}, False),
        ({"operation": "SubmitServiceJob"}, True),
        ({"operation": "*"}, True),
        ({"operation": "DescribeServiceJob"}, False),
    ],
)
async def test_a_fault_is_met_by_those_that_it_names(rig: Rig, *, narrowed: dict[str, Any], met: bool) -> None:
    rig.emulator.set_faults(Fault(kind="throttle", **narrowed))
    answer = await rig.raw("/v1/submitservicejob", SUBMISSION | {"shareIdentifier": "vision"})
    assert answer.status == (429 if met else 200)


async def test_other_operations_can_fail_too(rig: Rig) -> None:
    job_id = (await rig.submit())["jobId"]
    rig.emulator.set_faults(Fault(kind="error_500", operation="DescribeServiceJob"))
    assert (await rig.refused("describe_service_job", jobId=job_id)).status == 500
    rig.emulator.set_faults(Fault(kind="lost_answer", operation="TerminateServiceJob"))
    with pytest.raises(ConnectionClosedError):
        await rig.call("terminate_service_job", jobId=job_id, reason="why")
    assert (await rig.describe(job_id))["status"] == "FAILED"
    assert (rig.emulator.ledger()[-2].outcome, rig.emulator.ledger()[-2].job_name) == ("lost_answer", "first")


async def test_the_first_fault_that_fits_is_met_and_more_can_be_added(rig: Rig) -> None:
    rig.emulator.set_faults(Fault(kind="throttle", job_name="other"), Fault(kind="throttle", times=1, message="one"))
    rig.emulator.add_faults(Fault(kind="throttle", times=1, message="two"))
    assert [(await rig.submission_refused()).message for _ in range(2)] == ["one", "two"]
    rig.emulator.clear_faults()
    await rig.submit(jobName="other")


async def test_boto3_gets_over_a_lost_answer_with_the_same_bytes() -> None:
    async with emulating(repeats="replay") as rig:
        rig.emulator.set_faults(Fault(kind="lost_answer", times=1), Fault(kind="throttle", times=1))
        client = await asyncio.to_thread(new_client, rig.url, total_max_attempts=4)
        await asyncio.to_thread(client.submit_service_job, **SUBMISSION)
        client.close()
        calls = rig.emulator.ledger()
        assert [call.outcome for call in calls] == ["throttle", "lost_answer", "replayed"]
        assert len({call.body_sha256 for call in calls}) == 1
        assert len({call.client_token for call in calls}) == 1


async def test_faults_are_set_read_and_cleared_over_http(rig: Rig) -> None:
    asked = {"kind": "throttle", "times": 3, "jobName": "fi", "retryAfterMs": 100}
    assert await rig.admin("PUT", "/faults", asked) == {"faults": [asked | {"probability": 1.0, "met": 0}]}
    await rig.submission_refused()
    assert (await rig.admin("GET", "/faults"))["faults"][0]["met"] == 1
    added = await rig.admin("POST", "/faults", {"kind": "slow", "seconds": 1})
    assert [fault["kind"] for fault in added["faults"]] == ["throttle", "slow"]
    both = await rig.admin("PUT", "/faults", {"faults": [{"kind": "drop"}, {"kind": "jitter", "ms": 5}]})
    assert [fault["kind"] for fault in both["faults"]] == ["drop", "jitter"]
    snake = await rig.admin("PUT", "/faults", [{"kind": "throttle", "retry_after_ms": 5, "for_seconds": 1.5}])
    assert (snake["faults"][0]["retryAfterMs"], snake["faults"][0]["forSeconds"]) == (5, 1.5)
    assert await rig.admin("DELETE", "/faults") == {"faults": []}
    await rig.submit()


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"kind": "earthquake"}, "kind must be one of"),
        ({}, "kind is required"),
        ("throttle", "must be an object"),
        ([1], "must be an object"),
        ({"kind": "throttle", "colour": "red"}, "unknown member of a fault: colour"),
        ({"kind": "throttle", "times": 0}, "times"),
        ({"kind": "throttle", "times": True}, "times"),
        ({"kind": "throttle", "times": "3"}, "times"),
        ({"kind": "throttle", "probability": 1.1}, "probability"),
        ({"kind": "slow"}, "seconds"),
        ({"kind": "slow", "seconds": -1}, "seconds"),
        ({"kind": "late_listing"}, "seconds"),
        ({"kind": "refuse"}, "seconds"),
        ({"kind": "jitter"}, "ms"),
        ({"kind": "jitter", "ms": -1}, "ms"),
    ],
)
async def test_a_bad_fault_is_refused_and_leaves_the_old_ones(rig: Rig, fault: Any, words: str) -> None:
    rig.emulator.set_faults(Fault(kind="throttle"))
    async with rig.http.put(f"{rig.url}/_emulator/faults", json=fault) as answer:
        assert answer.status == 400
        assert words in (await answer.json())["message"]
    assert rig.emulator.faults == [Fault(kind="throttle")]


def test_every_kind_can_be_set_with_the_figures_it_needs() -> None:
    for kind in KINDS:
        Fault(kind=kind, seconds=1, ms=1)
