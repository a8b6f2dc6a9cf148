"""A submission in Batch's words."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest

from gateway.core.job_view import description, reason, status_of, summary
from gateway.core.submission import Cancel, Failure, State, Submission, queued
from gateway.core.upstream import Upstream
from gateway.emulator.validation import compile_check, load_model
from tests.emulator.test_answers_fit_the_model import unknown_members
from tests.store.world import new_submission

if TYPE_CHECKING:
    from botocore.model import ServiceModel

AT = datetime(2027, 1, 15, 8, 0, 0, 250_000, UTC)
UPSTREAM = Upstream(name="main", region="us-east-1", account="123456789012")
ASKED = {
    "jobName": "resnet",
    "jobQueue": "training",
    "serviceJobType": "SAGEMAKER_TRAINING",
    "serviceRequestPayload": '{"RoleArn": "x"}',
    "shareIdentifier": "vision",
    "schedulingPriority": 7,
    "retryStrategy": {"attempts": 2, "evaluateOnExit": [{"action": "EXIT", "onStatusReason": "x*"}]},
    "preemptionConfiguration": {"preemptionRetriesBeforeTermination": 1},
    "timeoutConfig": {"attemptDurationSeconds": 60},
    "tags": {"team": "vision"},
    "clientToken": "secret",
}
WAITING = queued(new_submission(priority=7, request=json.dumps(ASKED).encode()), accepted_at=AT, position=12)
ENDED = replace(WAITING, position=None, settled_at=AT + timedelta(seconds=2))
FAILURE = Failure(code="ClientException", message="The queue is disabled.")


@cache
def model() -> ServiceModel:
    return load_model()


@pytest.mark.parametrize("operation", ["ListServiceJobs", "DescribeServiceJob"])
@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("request_kept", [True, False])
def test_every_state_fits_the_model(operation: str, state: State, *, request_kept: bool) -> None:
    one = replace(WAITING if state is State.QUEUED else ENDED, state=state)
    if state is State.FORWARDED:
        one = replace(one, job_id="job-1", job_arn=UPSTREAM.job_arn("job-1"))
    if not request_kept:
        one = replace(one, request=b"")
    listed = operation == "ListServiceJobs"
    answer: Any = {"jobSummaryList": [summary(one, UPSTREAM)]} if listed else description(one, UPSTREAM)
    shape = model().operation_model(operation).output_shape
    compile_check(shape)(answer, "")
    assert unknown_members(answer, shape) == []


def test_what_waits_is_submitted_under_its_own_id() -> None:
    own = WAITING.submission_id
    assert summary(WAITING, UPSTREAM) == {
        "jobId": own,
        "jobArn": f"arn:aws:batch:us-east-1:123456789012:service-job/{own}",
        "jobName": "resnet",
        "createdAt": 1_800_000_000_250,
        "serviceJobType": "SAGEMAKER_TRAINING",
        "shareIdentifier": "vision",
        "status": "SUBMITTED",
        "statusReason": "Queued in the gateway, position 12 of its share.",
        "isTerminated": False,
    }


def test_what_batch_has_is_listed_under_batchs_id() -> None:
    one = replace(ENDED, state=State.FORWARDED, job_id="job-1", job_arn="arn:1")
    shown = summary(one, UPSTREAM)
    assert (shown["jobId"], shown["jobArn"], shown["status"]) == ("job-1", "arn:1", "SUBMITTED")
    assert "stoppedAt" not in shown


def test_what_ended_here_keeps_its_own_id_though_batch_made_a_job_too_late() -> None:
    one = replace(ENDED, state=State.CANCELED, job_id="job-1", job_arn="arn:1")
    assert summary(one, UPSTREAM)["jobId"] == one.submission_id
    assert summary(one, UPSTREAM)["jobArn"] == UPSTREAM.job_arn(one.submission_id)


def test_a_quota_share_is_one_and_no_share_is_none() -> None:
    quota, none = replace(WAITING, share_kind="quotaShareName"), replace(WAITING, share_kind="")
    assert summary(quota, UPSTREAM)["quotaShareName"] == "vision"
    assert summary(none, UPSTREAM).keys() & {"quotaShareName", "shareIdentifier"} == set()


def test_a_description_has_what_was_asked_for_and_no_token() -> None:
    shown = description(WAITING, UPSTREAM)
    assert shown.items() >= summary(WAITING, UPSTREAM).items()
    kept = ASKED.keys() - {"clientToken", "jobQueue"}
    assert {name: shown[name] for name in kept} == {name: ASKED[name] for name in kept}
    assert shown["jobQueue"] == "arn:aws:batch:us-east-1:123456789012:job-queue/training"
    assert (shown["startedAt"], shown["attempts"]) == (0, [])
    assert "clientToken" not in shown


def test_its_priority_is_the_one_that_it_has_now() -> None:
    assert description(replace(WAITING, priority=9, request=b""), UPSTREAM)["schedulingPriority"] == 9


@pytest.mark.parametrize(
    ("state", "changes", "told"),
    [
        (State.REJECTED, {"error": FAILURE}, "Rejected: ClientException: The queue is disabled."),
        (State.REJECTED, {}, "Rejected."),
        (
            State.UNKNOWN,
            {"error": Failure(code="NoJob", message="Looked thrice.")},
            "It may be in Batch, and the gateway could not find out; a person must look: NoJob: Looked thrice.",
        ),
        (State.CANCELED, {"cancel": Cancel(by="caller", reason="enough.")}, "Canceled in the gateway: enough."),
        (State.CANCELED, {}, "Canceled in the gateway."),
        (
            State.EXPIRED,
            {"deadline": AT},
            "Expired in the gateway: its deadline, 2027-01-15T08:00:00Z, came before it went to Batch.",
        ),
    ],
)
def test_what_ended_here_has_failed_and_says_why(state: State, changes: dict[str, Any], told: str) -> None:
    shown = summary(replace(ENDED, state=state, **changes), UPSTREAM)
    assert (shown["status"], shown["statusReason"]) == ("FAILED", told)
    assert shown["stoppedAt"] == 1_800_000_002_250
    assert shown["isTerminated"] is (state is State.CANCELED)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"estimated_forward_at": AT}, ", position 12 of its share; expected to go to Batch at 2027-01-15T08:00:00Z."),
        ({"not_before": AT}, ", position 12 of its share; not before 2027-01-15T08:00:00Z."),
        ({"position": None}, "."),
        ({"position": 0}, "; Batch is being called for it."),
        ({"position": 0, "sought": True}, "; an answer of Batch's was lost, and Batch is looked through for its job."),
        (
            {"position": 0, "cancel": Cancel(by="caller")},
            "; it is to end, and Batch is being asked whether it has a job of it.",
        ),
    ],
)
def test_what_waits_says_where_it_stands(changes: dict[str, Any], told: str) -> None:
    assert reason(replace(WAITING, **changes)) == "Queued in the gateway" + told


def test_every_state_has_a_status_and_a_reason() -> None:
    found: dict[State, Submission] = {state: replace(ENDED, state=state) for state in State}
    assert {status_of(one) for one in found.values()} == {"SUBMITTED", "FAILED"}
    assert all(reason(one).endswith(".") for one in found.values())
