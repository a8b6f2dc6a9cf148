"""GetJobQueueSnapshot: what stands at the front of a queue, and what its running jobs use."""

from collections.abc import Iterable, Sequence
from typing import Any

from gateway.emulator.jobs import Job, Jobs
from gateway.emulator.queues import Queue

_FRONT = 100  # as many as Batch shows
_WORKING = frozenset({"SCHEDULED", "STARTING", "RUNNING"})


def snapshot(jobs: Jobs, queue: Queue, *, now: float, epoch_ms: int) -> dict[str, Any]:
    """The answer for one queue; the order is by priority, then age, as there is no scheduler behind it."""
    by_status: dict[str, list[Job]] = {"RUNNABLE": [], "working": []}
    for job in jobs.of_queue(queue.name):
        status = job.progress(now).status
        if status == "RUNNABLE":
            by_status["RUNNABLE"].append(job)
        elif status in _WORKING:
            by_status["working"].append(job)
    front = sorted(by_status["RUNNABLE"], key=lambda job: (-(job.priority or 0), job.number))
    answer: dict[str, Any] = {
        "frontOfQueue": {"jobs": _places(front[:_FRONT], epoch_ms), "lastUpdatedAt": epoch_ms},
        "queueUtilization": _utilization(by_status["working"], queue) | {"lastUpdatedAt": epoch_ms},
    }
    if queue.policy == "quota":
        first = {share: _places(members[:1], epoch_ms) for share, members in _by_share(front).items()}
        answer["frontOfQuotaShares"] = {"quotaShares": first, "lastUpdatedAt": epoch_ms}
    return answer


def _places(front: Sequence[Job], epoch_ms: int) -> list[dict[str, Any]]:
    return [{"jobArn": job.arn, "earliestTimeAtPosition": epoch_ms} for job in front]


def _utilization(working: Sequence[Job], queue: Queue) -> dict[str, Any]:
    answer: dict[str, Any] = {"totalCapacityUsage": _capacity(working)}

    def shares(member: str) -> list[dict[str, Any]]:
        return [{member: share, "capacityUsage": _capacity(jobs)} for share, jobs in _by_share(working).items()]

    if queue.policy == "fairshare":
        top = shares("shareIdentifier")
        answer["fairshareUtilization"] = {"activeShareCount": len(top), "topCapacityUtilization": top}
    elif queue.policy == "quota":
        answer["quotaShareUtilization"] = {"topCapacityUtilization": shares("quotaShareName")}
    return answer


def _capacity(working: Iterable[Job]) -> list[dict[str, Any]]:
    quantity = sum((job.capacity_usage()[0]["quantity"] for job in working), 0.0)
    return [{"capacityUnit": "NUM_INSTANCES", "quantity": quantity}]


def _by_share(jobs: Iterable[Job]) -> dict[str, list[Job]]:
    shares: dict[str, list[Job]] = {}
    for job in jobs:
        if job.share is not None:
            shares.setdefault(job.share, []).append(job)
    return shares
