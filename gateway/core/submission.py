"""What a submission is: as asked, as frozen at acceptance, as it stands."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

from gateway.core.share import NO_SHARE, Share

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from gateway.core.errors import Finding
    from gateway.core.identity import ClientToken, Fingerprint, SubmissionId

# Sizes as Batch's documentation gives them, in bytes (FACTS.md).
MAX_PAYLOAD_BYTES = 10 * 1024
MAX_REQUEST_BYTES = 30 * 1024

SUBMISSION_TAG = "gateway:submission-id"


class State(StrEnum):
    """Where a submission stands. Leased and delayed ones are still `queued`."""

    QUEUED = "queued"
    FORWARDED = "forwarded"
    REJECTED = "rejected"
    UNKNOWN = "unknown"
    CANCELED = "canceled"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmissionRequest:
    """What a caller asked for, checked.

    `members` are those of SubmitServiceJob as Batch will get them, without the token; `payload` is
    `serviceRequestPayload` parsed. `queue` is the queue's name, also where `members` has its ARN.
    """

    members: Mapping[str, Any]
    payload: Mapping[str, Any]
    queue: str
    client_token: ClientToken | None = None
    warnings: tuple[Finding, ...] = ()

    @property
    def share(self) -> Share:
        name = self.members.get("shareIdentifier") or self.members.get("quotaShareName") or NO_SHARE
        return Share(self.queue, name)

    @property
    def priority(self) -> int:
        return int(self.members.get("schedulingPriority") or 0)

    @property
    def role_arn(self) -> str:
        """The role that the training job runs as: what a denial by IAM is about."""
        role = self.payload.get("RoleArn")
        return role if isinstance(role, str) else ""

    def asked(self) -> dict[str, Any]:
        """What the fingerprint is taken of: the payload parsed, the queue's name."""
        return {**self.members, "jobQueue": self.queue, "serviceRequestPayload": self.payload}


def frozen_request(request: SubmissionRequest, *, batch_token: str, added_tags: Mapping[str, str]) -> bytes:
    """The parameters of SubmitServiceJob as every attempt will send them, as JSON."""
    params = {**request.members, "clientToken": batch_token}
    if added_tags:
        params["tags"] = {**params.get("tags", {}), **added_tags}
    # ASCII and default separators, as botocore writes them: so its length is the length of what is sent
    return json.dumps(params).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSubmission:
    """A submission on its way into the store; everything in it stays as it is from here on."""

    submission_id: SubmissionId
    client_token: ClientToken
    token_generated: bool
    principal: str
    namespace: str
    share: Share
    share_kind: str  # "shareIdentifier", "quotaShareName" or ""
    priority: int
    job_name: str
    job_queue: str
    fingerprint: Fingerprint
    role_arn: str
    request: bytes
    warnings: tuple[Finding, ...] = ()
    traceparent: str | None = None
    deadline: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One lease of a submission and how it ended."""

    at: datetime
    outcome: str
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a submission is where it is: Batch's error code, or ours, and its message."""

    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """Why a submission is to end early: its caller's wish, with the reason that Batch is told, or its deadline."""

    by: Literal["caller", "deadline"]
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """An accepted submission as it stands now.

    `position` is its place in its share's line, from 1; 0 while Batch is being called for it or looked through. It
    goes to Batch not before `not_before`, where that lies ahead.
    """

    submission_id: SubmissionId
    client_token: ClientToken
    token_generated: bool
    principal: str
    namespace: str
    state: State
    share: Share
    share_kind: str
    priority: int
    job_name: str
    job_queue: str
    fingerprint: Fingerprint
    accepted_at: datetime
    settled_at: datetime | None = None
    maybe_sent: bool = False
    attempts: tuple[Attempt, ...] = ()
    attempt_count: int = 0
    job_id: str | None = None
    job_arn: str | None = None
    error: Failure | None = None
    warnings: tuple[Finding, ...] = ()
    traceparent: str | None = None
    deadline: datetime | None = None
    cancel: Cancel | None = None
    terminated_at: datetime | None = None
    owes_termination: bool = False
    sought: bool = False  # Batch is looked through for its job
    closed: bool = False
    position: int | None = None
    not_before: datetime | None = None
    estimated_forward_at: datetime | None = None
    request: bytes = field(default=b"", repr=False)

    @property
    def trace_id(self) -> str | None:
        return self.traceparent.split("-")[1] if self.traceparent else None

    @property
    def cancel_requested(self) -> bool:
        """Whether it is to end, or ended, by its caller's wish, or is looked for because its deadline has come."""
        return self.cancel is not None and self.state is not State.EXPIRED

    @property
    def queue_seconds(self) -> float | None:
        return (self.settled_at - self.accepted_at).total_seconds() if self.settled_at else None


def queued(
    new: NewSubmission, *, accepted_at: datetime, position: int, not_before: datetime | None = None
) -> Submission:
    """A submission as it stands when the store has just taken it."""
    return Submission(
        submission_id=new.submission_id,
        client_token=new.client_token,
        token_generated=new.token_generated,
        principal=new.principal,
        namespace=new.namespace,
        state=State.QUEUED,
        share=new.share,
        share_kind=new.share_kind,
        priority=new.priority,
        job_name=new.job_name,
        job_queue=new.job_queue,
        fingerprint=new.fingerprint,
        accepted_at=accepted_at,
        warnings=new.warnings,
        traceparent=new.traceparent,
        deadline=new.deadline,
        position=position,
        not_before=not_before,
        request=new.request,
    )


def has_submission_tag(request: bytes) -> bool:
    """Whether a frozen request carries the gateway's tag: a job of it cannot be without, then."""
    return SUBMISSION_TAG in (json.loads(request).get("tags") or {})
