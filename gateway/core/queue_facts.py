"""What Batch tells of a job queue, and whether such a queue takes a submission. Decides; keeps nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from gateway.core.attempt import Answer, AnswerKind
from gateway.core.errors import Finding
from gateway.core.reconcile import CallFailedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.core.read_ports import OperationCalls
    from gateway.core.share import Share

JOB_QUEUE_TYPE = "SAGEMAKER_TRAINING"
# A queue has at most 20 quota shares, and an answer can name a next page for ever.
MAX_PAGES = 20

# What a queue asks for by its scheduling policy; `untold` where Batch shows none that is known here.
Policy = Literal["none", "fairshare", "quota", "untold"]

_NAMED = {
    "none": "no scheduling policy",
    "fairshare": "a fair-share scheduling policy",
    "quota": "a quota-share scheduling policy",
}
_TAKEN = {"fairshare": "shareIdentifier", "quota": "quotaShareName"}
_SHOWN: Mapping[str, Policy] = {"fairsharePolicy": "fairshare", "quotaSharePolicy": "quota"}


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueFacts:
    """A queue as Batch describes it; "" for what it did not say.

    `quota_shares` are the states by name, of a queue with a quota-share policy alone; None where not all are known.
    """

    exists: bool = True
    state: str = ""
    status: str = ""
    job_queue_type: str = ""
    policy: Policy = "untold"
    quota_shares: Mapping[str, str] | None = field(default_factory=dict)

    def against(self, share: Share, share_kind: str) -> list[Finding]:
        """All that speaks against a submission with this share; `share_kind` is the member that names it, or ""."""
        queue = share.queue
        if not self.exists:
            return [_finding("jobQueue", f"is a queue that Batch does not have: {queue}")]
        if self.job_queue_type not in (JOB_QUEUE_TYPE, ""):  # what its policy asks for is of no use then
            detail = f"is a queue for other jobs: {queue} is of type {self.job_queue_type}, not {JOB_QUEUE_TYPE}"
            return [_finding("jobQueue", detail)]
        return [
            *self._against_queue(queue),
            *self._against_member(queue, share_kind),
            *(self._against_quota_share(share) if share_kind == "quotaShareName" else []),
        ]

    def _against_queue(self, queue: str) -> list[Finding]:
        if self.status in ("DELETING", "DELETED"):
            return [_finding("jobQueue", f"is a queue that is being deleted: {queue} takes no jobs")]
        if self.state == "DISABLED":
            return [_finding("jobQueue", f"is a queue that is disabled: {queue} takes no jobs")]
        return []

    def _against_member(self, queue: str, share_kind: str) -> list[Finding]:
        """Each policy has its member, which must be given; no other one may be."""
        if self.policy == "untold":
            return []
        taken, because = _TAKEN.get(self.policy, ""), f"the queue {queue} has {_NAMED[self.policy]}"
        found = []
        if share_kind not in ("", taken):
            found.append(_finding(share_kind, f"must not be given: {because}"))
        if taken and share_kind != taken:
            found.append(_finding(taken, f"is required: {because}"))
        return sorted(found, key=lambda one: one.pointer)

    def _against_quota_share(self, share: Share) -> list[Finding]:
        if self.policy != "quota" or self.quota_shares is None:
            return []
        state = self.quota_shares.get(share.name)
        if state is None:
            return [_finding("quotaShareName", f"is no quota share of the queue {share.queue}")]
        if state == "DISABLED":
            return [_finding("quotaShareName", f"is a quota share that is disabled in the queue {share.queue}")]
        return []


async def read_queue(calls: OperationCalls, queue: str) -> QueueFacts:
    """Up to three questions, and more for more pages. Raises what `OperationCalls.call` raises.

    An answer that makes no sense is a call that failed: nobody is refused for it.
    """
    described = _list(await calls.call("DescribeJobQueues", {"jobQueues": [queue]}), "jobQueues")
    if not described:
        return QueueFacts(exists=False)
    detail = described[0]
    if detail.get("jobQueueName") != queue:
        raise _malformed("another queue than it was asked for")
    policy = await _policy(calls, detail.get("schedulingPolicyArn"))
    return QueueFacts(
        state=_text(detail, "state"),
        status=_text(detail, "status"),
        job_queue_type=_text(detail, "jobQueueType"),
        policy=policy,
        quota_shares=await _quota_shares(calls, queue) if policy == "quota" else {},
    )


async def _policy(calls: OperationCalls, arn: str | None) -> Policy:
    if not arn:
        return "none"
    policies = _list(await calls.call("DescribeSchedulingPolicies", {"arns": [arn]}), "schedulingPolicies")
    shown = [kind for one in policies for member, kind in _SHOWN.items() if one.get(member) is not None]
    return shown[0] if len(shown) == 1 else "untold"


async def _quota_shares(calls: OperationCalls, queue: str) -> dict[str, str] | None:
    found: dict[str, str] = {}
    asked = {"jobQueue": queue}
    for _ in range(MAX_PAGES):
        page = await calls.call("ListQuotaShares", asked)
        for share in _list(page, "quotaShares"):
            name = _text(share, "quotaShareName")
            if not name:
                raise _malformed("a quota share without a name")
            found[name] = _text(share, "state")
        token = page.get("nextToken")
        if not token:
            return found
        asked = {"jobQueue": queue, "nextToken": token}
    return None


def _list(answer: Mapping[str, Any], member: str) -> list[dict[str, Any]]:
    """Batch answers with an empty list for what it does not have; without one it did not answer the question."""
    found = answer.get(member)
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise _malformed(f"no {member}")
    return found


def _text(detail: Mapping[str, Any], member: str) -> str:
    value = detail.get(member)
    return value if isinstance(value, str) else ""


def _finding(member: str, detail: str) -> Finding:
    return Finding(pointer=f"/{member}", detail=detail)


def _malformed(what: str) -> CallFailedError:
    message = f"Batch answered 200 with {what}."
    return CallFailedError(Answer(kind=AnswerKind.UNCLEAR, code="MalformedAnswer", message=message))
