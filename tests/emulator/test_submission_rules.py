from __future__ import annotations

import json
from typing import Any

import pytest

from tests.emulator.rig import SUBMISSION, Rig

EVALUATION = {"action": "RETRY", "onStatusReason": "x*"}


@pytest.mark.parametrize(
    "changes",
    [
        {"jobName": "a" * 128},
        {"jobName": "aZ09-_"},
        {"serviceRequestPayload": "x" * 10 * 1024},
        {"shareIdentifier": None},
        {"schedulingPriority": 0},
        {"schedulingPriority": 9999},
        {"retryStrategy": {"attempts": 1}},
        {"retryStrategy": {"attempts": 10, "evaluateOnExit": [EVALUATION] * 5}},
        {"retryStrategy": {"attempts": 1, "evaluateOnExit": [{"action": "Retry"}]}},
        {"retryStrategy": {"attempts": 1, "evaluateOnExit": [{"onStatusReason": "x" * 512}]}},
        {"preemptionConfiguration": {"preemptionRetriesBeforeTermination": 0}},
        {"timeoutConfig": {"attemptDurationSeconds": 1}},
        {"tags": {f"key{number}": "" for number in range(50)}},
        {"tags": {"k" * 128: "v" * 256}},
        {"clientToken": "t" * 64},
        {"someFutureMember": 1},
    ],
)
async def test_what_the_rules_allow_is_taken(rig: Rig, changes: dict[str, Any]) -> None:
    answer = await rig.raw("/v1/submitservicejob", SUBMISSION | changes)
    assert answer.status == 200, answer.body


@pytest.mark.parametrize(
    ("changes", "member"),
    [
        *(({name: None}, name) for name in SUBMISSION),
        ({"jobName": ""}, "jobName"),
        ({"jobName": "a" * 129}, "jobName"),
        ({"jobName": "a.b"}, "jobName"),
        ({"jobName": "ä"}, "jobName"),
        ({"jobName": "a\n"}, "jobName"),
        ({"jobName": 5}, "jobName"),
        ({"jobQueue": ""}, "jobQueue"),
        ({"jobQueue": ["training"]}, "jobQueue"),
        ({"serviceJobType": "ECS"}, "serviceJobType"),
        ({"serviceJobType": "sagemaker_training"}, "serviceJobType"),
        ({"serviceRequestPayload": {}}, "serviceRequestPayload"),
        ({"serviceRequestPayload": ""}, "serviceRequestPayload"),
        ({"serviceRequestPayload": "ä" * (5 * 1024 + 1)}, "serviceRequestPayload"),
        ({"schedulingPriority": -1}, "schedulingPriority"),
        ({"schedulingPriority": 10_000}, "schedulingPriority"),
        ({"schedulingPriority": "1"}, "schedulingPriority"),
        ({"schedulingPriority": True}, "schedulingPriority"),
        ({"schedulingPriority": 1.5}, "schedulingPriority"),
        ({"retryStrategy": []}, "retryStrategy"),
        ({"retryStrategy": {}}, "retryStrategy.attempts"),
        ({"retryStrategy": {"attempts": 0}}, "retryStrategy.attempts"),
        ({"retryStrategy": {"attempts": 11}}, "retryStrategy.attempts"),
        ({"retryStrategy": {"attempts": 1, "evaluateOnExit": [EVALUATION] * 6}}, "retryStrategy.evaluateOnExit"),
        ({"retryStrategy": {"attempts": 1, "evaluateOnExit": EVALUATION}}, "retryStrategy.evaluateOnExit"),
        (
            {"retryStrategy": {"attempts": 1, "evaluateOnExit": [{"action": "SLEEP"}]}},
            "retryStrategy.evaluateOnExit[0].action",
        ),
        (
            {"retryStrategy": {"attempts": 1, "evaluateOnExit": [{"onStatusReason": "x" * 513}]}},
            "retryStrategy.evaluateOnExit[0].onStatusReason",
        ),
        (
            {"retryStrategy": {"attempts": 1, "evaluateOnExit": [EVALUATION, {"onStatusReason": "a\tb"}]}},
            "retryStrategy.evaluateOnExit[1].onStatusReason",
        ),
        (
            {"preemptionConfiguration": {"preemptionRetriesBeforeTermination": -1}},
            "preemptionConfiguration.preemptionRetriesBeforeTermination",
        ),
        ({"timeoutConfig": {"attemptDurationSeconds": 0}}, "timeoutConfig.attemptDurationSeconds"),
        ({"tags": {}}, "tags"),
        ({"tags": []}, "tags"),
        ({"tags": {f"key{number}": "" for number in range(51)}}, "tags"),
        ({"tags": {"": "v"}}, "tags key ''"),
        ({"tags": {"k": None}}, "tags.k"),
        ({"tags": {"k": "v" * 257}}, "tags.k"),
        ({"tags": {"AWS:team": "v"}}, "tags"),
        ({"clientToken": ""}, "clientToken"),
        ({"clientToken": "t" * 65}, "clientToken"),
    ],
)
async def test_what_breaks_a_rule_is_refused_by_name(rig: Rig, changes: dict[str, Any], member: str) -> None:
    answer = await rig.raw("/v1/submitservicejob", SUBMISSION | changes)
    assert (answer.status, answer.headers["x-amzn-errortype"]) == (400, "ClientException")
    assert answer.json["message"].startswith(f"{member}:")
    assert rig.emulator.jobs == []
    assert rig.last_call.outcome == "rejected"


async def test_a_request_has_at_most_thirty_kibibytes(rig: Rig) -> None:
    def of_size(size: int) -> bytes:
        text = json.dumps(SUBMISSION)
        return (text + " " * (size - len(text))).encode()

    assert (await rig.raw("/v1/submitservicejob", of_size(30 * 1024))).status == 200
    refusal = await rig.raw("/v1/submitservicejob", of_size(30 * 1024 + 1))
    assert refusal.status == 400
    assert "30720" in refusal.json["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"text"', b"\xff", b"[" * 20_000])
async def test_a_body_that_is_no_object_is_a_client_error(rig: Rig, body: bytes) -> None:
    answer = await rig.raw("/v1/submitservicejob", body)
    assert (answer.status, answer.headers["x-amzn-errortype"]) == (400, "ClientException")


async def test_half_a_surrogate_pair_is_passed_on(rig: Rig) -> None:
    body = json.dumps(SUBMISSION | {"serviceRequestPayload": "\ud800"}).encode()
    assert (await rig.raw("/v1/submitservicejob", body)).status == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/v1/submitjob"), ("GET", "/v1/submitservicejob"), ("POST", "/"), ("POST", "/v1/tags")],
)
async def test_an_operation_that_is_not_there_is_not_found(rig: Rig, method: str, path: str) -> None:
    answer = await rig.raw(path, b"{}", method=method)
    assert (answer.status, answer.headers["x-amzn-errortype"]) == (404, "UnknownOperationException")
    assert rig.last_call.operation == f"{method} {path}"
