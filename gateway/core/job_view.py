"""A submission as Batch's own face shows it: the members of ListServiceJobs and DescribeServiceJob, and the wording."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from gateway.core.submission import State

if TYPE_CHECKING:
    from gateway.core.submission import Submission
    from gateway.core.upstream import Upstream

# One that may be in Batch and could not be found is as good as failed to whoever waits for it; a person will look.
_STATUS = {
    State.QUEUED: "SUBMITTED",
    State.FORWARDED: "SUBMITTED",
    State.REJECTED: "FAILED",
    State.UNKNOWN: "FAILED",
    State.CANCELED: "FAILED",
    State.EXPIRED: "FAILED",
}
PAUSED = "Queued in the gateway; its share is paused, by an operator or after like rejections in a row."
# What Batch shows as it was asked for.
_ECHOED = ("retryStrategy", "preemptionConfiguration", "timeoutConfig", "serviceRequestPayload", "tags")


def status_of(submission: Submission) -> str:
    """As Batch would call its state; one that Batch has as it stands there at first."""
    return _STATUS[submission.state]


def summary(submission: Submission, upstream: Upstream) -> dict[str, Any]:
    """An item of ListServiceJobs' `jobSummaryList`: under Batch's id once forwarded, else under its own."""
    forwarded = submission.state is State.FORWARDED and submission.job_id
    job_id = submission.job_id if forwarded else submission.submission_id
    members: dict[str, Any] = {
        "jobId": job_id,
        "jobArn": (submission.job_arn if forwarded else None) or upstream.job_arn(str(job_id)),
        "jobName": submission.job_name,
        "createdAt": milliseconds(submission.accepted_at),
        "serviceJobType": "SAGEMAKER_TRAINING",
        "status": status_of(submission),
        "statusReason": reason(submission),
        "isTerminated": submission.state is State.CANCELED,
    }
    if submission.share_kind:
        members[submission.share_kind] = submission.share.name
    if submission.settled_at and submission.state is not State.FORWARDED:
        members["stoppedAt"] = milliseconds(submission.settled_at)
    return members


def description(submission: Submission, upstream: Upstream, *, paused: bool = False) -> dict[str, Any]:
    """DescribeServiceJob's answer; what was asked for is in it as long as the gateway keeps that.

    `paused` is whether its share is, which is all that there is to say of it then.
    """
    asked = json.loads(submission.request) if submission.request else {}
    return {
        **summary(submission, upstream),
        **({"statusReason": PAUSED} if paused and _is_in_line(submission) else {}),
        **{name: asked[name] for name in _ECHOED if name in asked},
        "jobQueue": upstream.queue_arn(submission.share.queue),
        "schedulingPriority": submission.priority,
        "startedAt": 0,  # required, and it never ran
        "attempts": [],
    }


def reason(submission: Submission) -> str:
    """`statusReason`: why it stands where it does, in one sentence."""
    match submission.state:
        case State.QUEUED:
            return _waiting(submission)
        case State.FORWARDED:
            return f"The gateway has handed it to Batch, as job {submission.job_id}."
        case State.REJECTED:
            return f"Rejected{_because(submission)}."
        case State.UNKNOWN:
            return f"It may be in Batch, and the gateway could not find out; a person must look{_because(submission)}."
        case State.CANCELED:
            told = submission.cancel.reason.rstrip(".") if submission.cancel else ""
            return f"Canceled in the gateway{f': {told}' if told else ''}."
        case State.EXPIRED:
            by = f", {_clock(submission.deadline)}," if submission.deadline else ""
            return f"Expired in the gateway: its deadline{by} came before it went to Batch."


def milliseconds(moment: datetime) -> int:
    """Since 1970, as Batch counts."""
    return round(moment.timestamp() * 1000)


def _is_in_line(submission: Submission) -> bool:
    """Whether it waits for its turn, and for nothing else."""
    return bool(submission.position) and not submission.cancel and not submission.sought


def _waiting(submission: Submission) -> str:
    if submission.cancel:
        return "Queued in the gateway; it is to end, and Batch is being asked whether it has a job of it."
    if submission.sought:
        return "Queued in the gateway; an answer of Batch's was lost, and Batch is looked through for its job."
    if submission.position == 0:
        return "Queued in the gateway; Batch is being called for it."
    place = f", position {submission.position} of its share" if submission.position else ""
    expected = submission.estimated_forward_at
    if expected is not None:
        return f"Queued in the gateway{place}; expected to go to Batch at {_clock(expected)}."
    held = submission.not_before
    return f"Queued in the gateway{place}{f'; not before {_clock(held)}' if held else ''}."


def _because(submission: Submission) -> str:
    error = submission.error
    return f": {error.code}: {error.message.rstrip('.')}" if error else ""


def _clock(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
