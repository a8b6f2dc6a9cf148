"""POST and GET of a submission: what is taken, what comes back, and what a token makes of a repeat."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from gateway.core.attempt import PaceSignal, Report, Verdict
from gateway.core.identity import SubmissionId, submission_id
from gateway.core.submission import Failure
from tests.contract.in_process import FORWARDED, UPSTREAM, InProcessGateway, in_process_gateway
from tests.examples import ACCOUNT, REGION, submission, training_job

if TYPE_CHECKING:
    from redis.asyncio import Redis

ARN = f"arn:aws:batch:{REGION}:{ACCOUNT}:job-queue/training"
REFUSED = Report(
    verdict=Verdict.REJECT,
    outcome="refused",
    charged=True,
    proved_none=True,
    signal=PaceSignal.ANSWERED,
    failure=Failure(code="ClientException", message="no such queue"),
)
UNCLEAR = Report(
    verdict=Verdict.UNKNOWN,
    outcome="unclear",
    charged=True,
    signal=PaceSignal.FAILED,
    failure=Failure(code="ReadTimeoutError", message="no answer"),
)


async def frozen(gateway: InProcessGateway, submission_id: str) -> dict[str, Any]:
    """What Batch will be sent."""
    found = await gateway.store.get(SubmissionId(submission_id))
    assert found is not None
    request: dict[str, Any] = json.loads(found.request)
    return request


async def test_a_submission_is_queued_and_found_again(gateway: InProcessGateway) -> None:
    answer = await gateway.post(submission(clientToken="t1", schedulingPriority=7))
    made = answer.lasting
    assert answer.status == 202
    assert answer.headers["Location"] == f"/v1/submissions/{made['submissionId']}"
    assert "Idempotent-Replayed" not in answer.headers
    assert made == {
        **made,
        "clientToken": "t1",
        "tokenGenerated": False,
        "state": "queued",
        "cancelRequested": False,
        "jobName": "resnet",
        "jobQueue": "training",
        "shareIdentifier": "vision",
        "schedulingPriority": 7,
        "attempts": [],
        "warnings": [],
        "position": 1,
    }
    found = await gateway.get(answer.headers["Location"])
    assert (found.status, found.lasting) == (200, made)


async def test_the_id_can_be_computed_from_the_token(gateway: InProcessGateway) -> None:
    made = (await gateway.post(submission(clientToken="mine"))).json
    expected = submission_id(namespace="anonymous", account=ACCOUNT, region=REGION, token="mine")
    assert made["submissionId"] == expected


async def test_an_id_is_found_in_any_spelling_of_a_uuid(gateway: InProcessGateway) -> None:
    made = (await gateway.post()).json["submissionId"]
    for spelling in (made.upper(), made.replace("-", "")):
        assert (await gateway.show(spelling)).json["submissionId"] == made


@pytest.mark.parametrize("unknown", ["fb8b5596-d40f-8a2b-8937-a9c8da8f26ae", str(UUID(int=0)), "no-uuid", "%ff", "%00"])
async def test_an_unknown_id_is_404(gateway: InProcessGateway, unknown: str) -> None:
    assert (await gateway.show(unknown)).kind == (404, "not-found")


async def test_a_submission_without_a_token_gets_one_that_makes_a_retry_safe(gateway: InProcessGateway) -> None:
    first = (await gateway.post()).json
    assert first["tokenGenerated"] is True
    other = (await gateway.post()).json
    assert other["submissionId"] != first["submissionId"]
    again = await gateway.post(submission(clientToken=first["clientToken"]))
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.json["submissionId"] == first["submissionId"]


async def test_where_a_token_is_required_a_request_without_one_is_malformed(client: Redis, prefix: str) -> None:
    async with in_process_gateway(client, prefix, require_token=True) as gateway:
        answer = await gateway.post()
        assert (answer.kind, answer.pointers) == ((400, "malformed"), ["/clientToken"])
        assert (await gateway.post(submission(clientToken="t"))).status == 202
        assert (await gateway.post(headers={"Idempotency-Key": "u"})).status == 202


@pytest.mark.parametrize(
    ("header", "token"),
    [
        ("bare-1", "bare-1"),
        ('"quoted-1"', "quoted-1"),
        (r'"a \"word\" and \\"', r'a "word" and \\'.replace(r"\\", "\\")),
        ("with spaces inside", "with spaces inside"),
        ("größe", "größe"),
        ("x" * 64, "x" * 64),
    ],
)
async def test_the_header_names_the_request_bare_or_quoted(gateway: InProcessGateway, header: str, token: str) -> None:
    made = (await gateway.post(headers={"Idempotency-Key": header})).json
    assert (made["clientToken"], made["tokenGenerated"]) == (token, False)
    again = await gateway.post(submission(clientToken=token))
    assert (again.json["submissionId"], again.headers["Idempotent-Replayed"]) == (made["submissionId"], "true")


@pytest.mark.parametrize("header", ["", '"', '""', '"open', "x" * 65, '"' + "x" * 65 + '"', "tab\there"])
async def test_a_header_that_is_no_token_is_malformed(gateway: InProcessGateway, header: str) -> None:
    assert (await gateway.post(headers={"Idempotency-Key": header})).kind == (400, "malformed")


async def test_header_and_member_may_both_be_given_if_they_agree(gateway: InProcessGateway) -> None:
    body = submission(clientToken="same")
    assert (await gateway.post(body, headers={"Idempotency-Key": '"same"'})).status == 202
    answer = await gateway.post(body, headers={"Idempotency-Key": "other"})
    assert (answer.kind, answer.pointers) == ((422, "invalid-submission"), ["/clientToken"])


ORIGINAL = submission(
    clientToken="t",
    schedulingPriority=620,
    retryStrategy={"attempts": 2, "evaluateOnExit": [{"action": "RETRY", "onStatusReason": "Capacity*"}]},
)
REPEATS = {
    "payload as a string": {"serviceRequestPayload": json.dumps(training_job(), indent=2)},
    "payload in another order": {"serviceRequestPayload": dict(reversed(training_job().items()))},
    "queue by ARN": {"jobQueue": ARN},
    "action in small letters": {
        "retryStrategy": {"attempts": 2.0, "evaluateOnExit": [{"action": "Retry", "onStatusReason": "Capacity*"}]}
    },
    "620.0 for 620": {"schedulingPriority": 620.0},
    "1.0 for 1 in the payload": {
        "serviceRequestPayload": {
            **training_job(),
            "ResourceConfig": {"InstanceType": "ml.g5.xlarge", "InstanceCount": 1.0, "VolumeSizeInGB": 50},
        }
    },
    "{} for absent": {"tags": {}, "timeoutConfig": {}, "preemptionConfiguration": {}, "quotaShareName": {}},
}


@pytest.mark.parametrize("change", REPEATS.values(), ids=REPEATS.keys())
async def test_the_same_request_in_another_form_is_a_replay(gateway: InProcessGateway, change: dict[str, Any]) -> None:
    first = (await gateway.post(ORIGINAL)).lasting
    again = await gateway.post({**ORIGINAL, **change})
    assert (again.status, again.headers["Idempotent-Replayed"], again.lasting) == (202, "true", first)


async def test_null_counts_as_absent(gateway: InProcessGateway) -> None:
    first = (await gateway.post(submission(clientToken="t"))).lasting
    optional = (
        "quotaShareName",
        "schedulingPriority",
        "retryStrategy",
        "preemptionConfiguration",
        "timeoutConfig",
        "tags",
    )
    again = await gateway.post({**submission(clientToken="t"), **dict.fromkeys(optional)})
    assert (again.headers["Idempotent-Replayed"], again.lasting) == ("true", first)
    assert (await gateway.post({**submission(), "clientToken": None})).json["tokenGenerated"] is True


async def test_batch_gets_what_the_caller_sent_with_our_token_and_tag(gateway: InProcessGateway) -> None:
    text = json.dumps(training_job(), indent=1)
    body = submission(
        clientToken="t",
        jobQueue=ARN,
        serviceRequestPayload=text,
        retryStrategy={"attempts": 2, "evaluateOnExit": [{"action": "exit"}]},
        tags={"owner": "vision"},
        timeoutConfig={"attemptDurationSeconds": None},
    )
    made = (await gateway.post(body)).json
    sent = await frozen(gateway, made["submissionId"])
    assert sent == {
        "jobName": "resnet",
        "jobQueue": ARN,
        "serviceJobType": "SAGEMAKER_TRAINING",
        "shareIdentifier": "vision",
        "serviceRequestPayload": text,
        "retryStrategy": {"attempts": 2, "evaluateOnExit": [{"action": "EXIT"}]},
        "tags": {"owner": "vision", "gateway:submission-id": made["submissionId"]},
        "clientToken": sent["clientToken"],
    }
    assert sent["clientToken"] != "t"


async def test_a_quota_share_is_answered_as_one(gateway: InProcessGateway) -> None:
    made = (await gateway.post(submission(shareIdentifier=None, quotaShareName="nlp"))).json
    assert (made["quotaShareName"], "shareIdentifier" in made) == ("nlp", False)
    neither = (await gateway.post(submission(shareIdentifier=None))).json
    assert not {"quotaShareName", "shareIdentifier"} & neither.keys()


async def test_position_counts_within_the_share_by_priority(gateway: InProcessGateway) -> None:
    first = (await gateway.post()).json
    assert (await gateway.post()).json["position"] == 2
    assert (await gateway.post(submission(schedulingPriority=1))).json["position"] == 1
    assert (await gateway.post(submission(shareIdentifier="other"))).json["position"] == 1
    assert (await gateway.show(first["submissionId"])).json["position"] == 2


async def test_a_forwarded_submission_is_answered_200_with_its_job(gateway: InProcessGateway) -> None:
    made = (await gateway.post(submission(clientToken="t"))).json
    await gateway.settle()
    again = await gateway.post(submission(clientToken="t"))
    assert (again.status, again.headers["Idempotent-Replayed"]) == (200, "true")
    now = again.json
    assert (now["state"], now["jobId"], now["jobArn"]) == ("forwarded", FORWARDED.job_id, FORWARDED.job_arn)
    assert [one["outcome"] for one in now["attempts"]] == ["submitted"]
    assert now["acceptedAt"] == made["acceptedAt"] <= now["attempts"][0]["at"] <= now["forwardedAt"]
    assert "position" not in now
    assert (await gateway.show(made["submissionId"])).json == now


@pytest.mark.parametrize(("report", "state"), [(REFUSED, "rejected"), (UNCLEAR, "unknown")])
async def test_a_dead_letter_is_replayed_as_it_is(gateway: InProcessGateway, report: Report, state: str) -> None:
    await gateway.post(submission(clientToken="t"))
    await gateway.settle(report)
    again = await gateway.post(submission(clientToken="t"))
    assert (again.status, again.json["state"]) == (200, state)
    assert report.failure is not None
    assert again.json["error"] == {"code": report.failure.code, "message": report.failure.message}
    assert [one["error"] for one in again.json["attempts"]] == [report.failure.code]


async def test_a_submission_that_is_being_tried_is_still_queued(gateway: InProcessGateway) -> None:
    made = (await gateway.post(submission(clientToken="t"))).json
    await gateway.lease()
    again = await gateway.post(submission(clientToken="t"))
    assert (again.status, again.json["state"], again.json["submissionId"]) == (202, "queued", made["submissionId"])


DIFFERENT: dict[str, tuple[dict[str, Any], list[str]]] = {
    "one": ({"jobName": "other"}, ["jobName"]),
    "payload": (
        {"serviceRequestPayload": {**training_job(), "HyperParameters": {"secret": "hunter2"}}},
        ["serviceRequestPayload"],
    ),
    "added": ({"tags": {"a": "hunter2"}}, ["tags"]),
    "several": (
        {"schedulingPriority": 1, "jobQueue": "other", "timeoutConfig": {"attemptDurationSeconds": 60}},
        ["jobQueue", "schedulingPriority", "timeoutConfig"],
    ),
    "share": ({"shareIdentifier": None, "quotaShareName": "vision"}, ["quotaShareName", "shareIdentifier"]),
}


@pytest.mark.parametrize(("change", "members"), DIFFERENT.values(), ids=DIFFERENT.keys())
async def test_a_token_that_is_used_again_names_exactly_the_members_that_differ(
    gateway: InProcessGateway, change: dict[str, Any], members: list[str]
) -> None:
    await gateway.post(submission(clientToken="t"))
    answer = await gateway.post(submission(**{"clientToken": "t", **change}))
    assert (answer.kind, answer.json["members"]) == ((422, "token-reused"), members)
    assert "hunter2" not in answer.body.decode()


async def test_a_token_that_is_used_again_changes_nothing(gateway: InProcessGateway) -> None:
    first = (await gateway.post(submission(clientToken="t"))).lasting
    await gateway.post(submission(clientToken="t", jobName="other"))
    assert (await gateway.show(first["submissionId"])).lasting == first
    assert (await gateway.store.pace())["queued"] == 1


async def test_where_repeats_are_errors_the_first_is_named(client: Redis, prefix: str) -> None:
    async with in_process_gateway(client, prefix, duplicates="reject") as gateway:
        first = await gateway.post(submission(clientToken="t"))
        again = await gateway.post(submission(clientToken="t"))
        assert again.kind == (409, "duplicate-request")
        assert again.headers["Location"] == first.headers["Location"]
        assert again.json["submissionId"] == first.json["submissionId"]
        changed = await gateway.post(submission(clientToken="t", jobName="other"))
        assert changed.kind == (422, "token-reused")


async def test_without_our_tag_callers_have_all_of_batchs_tags(client: Redis, prefix: str) -> None:
    async with in_process_gateway(client, prefix, upstream=replace(UPSTREAM, submission_tag=False)) as gateway:
        tags = {f"t{number}": "v" for number in range(50)}
        made = (await gateway.post(submission(tags=tags))).json
        assert (await frozen(gateway, made["submissionId"]))["tags"] == tags
        made = (await gateway.post()).json
        assert "tags" not in await frozen(gateway, made["submissionId"])
