"""Service jobs: what they were asked to be, and how far they have come at a moment."""

import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.emulator.arns import Arns

# Which part of a job's whole time has passed when it enters a state. Batch gives no figures; what matters to a caller
# is that every state is seen, and RUNNING the longest.
_MILESTONES = (
    ("SUCCEEDED", 1.0),
    ("RUNNING", 0.30),
    ("STARTING", 0.25),
    ("SCHEDULED", 0.20),
    ("RUNNABLE", 0.10),
    ("PENDING", 0.05),
    ("SUBMITTED", 0.0),
)
_SCHEDULED_PART = dict(_MILESTONES)["SCHEDULED"]
_STARTED_PART = dict(_MILESTONES)["RUNNING"]

_ECHOED = ("retryStrategy", "preemptionConfiguration", "timeoutConfig")


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a job has come. Times are epoch milliseconds, None for what has not happened."""

    status: str
    scheduled_at: int | None
    started_at: int | None
    stopped_at: int | None

    @property
    def final(self) -> bool:
        return self.status in {"SUCCEEDED", "FAILED"}


# Not frozen: the priority, the tags and the termination change while the job lives.
@dataclass(slots=True, kw_only=True)
class Job:
    """One service job. `created` and `listed_from` are monotonic seconds, `created_at` is epoch milliseconds."""

    number: int
    job_id: str
    arn: str
    training_job_arn: str
    queue: str
    queue_arn: str
    request: Mapping[str, Any]
    created: float
    created_at: int
    listed_from: float
    seconds: float
    priority: int | None
    tags: dict[str, str]
    terminated_after: float | None = None
    termination_reason: str | None = None

    @property
    def name(self) -> str:
        return str(self.request["jobName"])

    @property
    def share(self) -> str | None:
        """The shareIdentifier or quotaShareName, whichever it was submitted with."""
        share = self.request.get("shareIdentifier") or self.request.get("quotaShareName")
        return None if share is None else str(share)

    def progress(self, now: float) -> Progress:
        """Computed from the time that has passed: nothing runs in the background."""
        elapsed = now - self.created
        if self.terminated_after is not None:
            return self._progress("FAILED", self.terminated_after, stopped_after=self.terminated_after)
        status = next(state for state, part in _MILESTONES if elapsed >= part * self.seconds)
        return self._progress(status, elapsed, stopped_after=self.seconds if status == "SUCCEEDED" else None)

    def terminate(self, reason: str, *, now: float) -> None:
        """Makes the job FAILED with that reason; one that is final already stays what it is."""
        if not self.progress(now).final:
            self.terminated_after = now - self.created
            self.termination_reason = reason

    def summary(self, now: float) -> dict[str, Any]:
        """The job as ListServiceJobs shows it."""
        progress = self.progress(now)
        latest = {"serviceResourceId": self._resource_id()} if progress.scheduled_at is not None else None
        return _present(
            latestAttempt=latest,
            capacityUsage=self.capacity_usage(),
            createdAt=self.created_at,
            jobArn=self.arn,
            jobId=self.job_id,
            jobName=self.name,
            scheduledAt=progress.scheduled_at,
            serviceJobType=self.request["serviceJobType"],
            shareIdentifier=self.request.get("shareIdentifier"),
            quotaShareName=self.request.get("quotaShareName"),
            status=progress.status,
            statusReason=self.termination_reason,
            startedAt=progress.started_at,
            stoppedAt=progress.stopped_at,
            isTerminated=self.terminated_after is not None,
        )

    def description(self, now: float) -> dict[str, Any]:
        """The job as DescribeServiceJob shows it. `startedAt` is required there, so it is 0 before the start."""
        progress = self.progress(now)
        echoed = {name: self.request.get(name) for name in _ECHOED}
        return self.summary(now) | _present(
            attempts=self._attempts(progress),
            jobQueue=self.queue_arn,
            schedulingPriority=self.priority,
            serviceRequestPayload=self.request["serviceRequestPayload"],
            startedAt=progress.started_at or 0,
            tags=dict(self.tags) or None,
            **echoed,
        )

    def capacity_usage(self) -> list[dict[str, Any]]:
        """The payload's number of instances; 1 where the payload, which nobody checked, does not say."""
        quantity = 1.0
        try:
            asked = json.loads(self.request["serviceRequestPayload"])["ResourceConfig"]["InstanceCount"]
            quantity = float(asked)
        except (ValueError, TypeError, LookupError, RecursionError):
            pass
        return [{"capacityUnit": "NUM_INSTANCES", "quantity": quantity}]

    def _progress(self, status: str, elapsed: float, *, stopped_after: float | None) -> Progress:
        def moment(after: float | None) -> int | None:
            return None if after is None else self.created_at + round(after * 1000)

        scheduled_after, started_after = _SCHEDULED_PART * self.seconds, _STARTED_PART * self.seconds
        return Progress(
            status=status,
            scheduled_at=moment(scheduled_after if elapsed >= scheduled_after else None),
            started_at=moment(started_after if elapsed >= started_after else None),
            stopped_at=moment(stopped_after),
        )

    def _attempts(self, progress: Progress) -> list[dict[str, Any]]:
        if progress.scheduled_at is None:
            return []
        attempt = _present(
            serviceResourceId=self._resource_id(),
            startedAt=progress.started_at,
            stoppedAt=progress.stopped_at,
            statusReason=self.termination_reason,
        )
        return [attempt]

    def _resource_id(self) -> dict[str, str]:
        return {"name": "TrainingJobArn", "value": self.training_job_arn}


@dataclass(slots=True, kw_only=True)
class Jobs:
    """All jobs, by id, and by queue, name and share in the order of their creation."""

    arns: Arns
    seconds: float
    _by_id: dict[str, Job] = field(default_factory=dict)
    _by_queue: dict[str, list[Job]] = field(default_factory=dict)
    _by_name: dict[tuple[str, str], list[Job]] = field(default_factory=dict)
    _by_share: dict[str, dict[str, list[Job]]] = field(default_factory=dict)

    def create(
        self, request: Mapping[str, Any], *, queue: str, now: float, epoch_ms: int, listing_delay: float = 0
    ) -> Job:
        """A new job of the queue named `queue`; lists show it `listing_delay` seconds later."""
        unique = uuid.uuid4()
        job = Job(
            number=len(self._by_id) + 1,
            job_id=str(unique),
            arn=self.arns.job(str(unique)),
            # Batch renames the training job like this, whatever the payload says.
            training_job_arn=self.arns.training_job(f"AWSBatch{request['jobName']}{unique.hex}"),
            queue=queue,
            queue_arn=self.arns.queue(queue),
            request=request,
            created=now,
            created_at=epoch_ms,
            listed_from=now + listing_delay,
            seconds=self.seconds,
            priority=request.get("schedulingPriority"),
            tags=dict(request.get("tags") or {}),
        )
        self._by_id[job.job_id] = job
        self._by_queue.setdefault(queue, []).append(job)
        self._by_name.setdefault((queue, job.name.lower()), []).append(job)
        if job.share is not None:
            self._by_share.setdefault(queue, {}).setdefault(job.share, []).append(job)
        return job

    def __len__(self) -> int:
        return len(self._by_id)

    def get(self, job_id: str) -> Job | None:
        return self._by_id.get(job_id)

    def all(self) -> Iterable[Job]:
        return self._by_id.values()

    def of_queue(self, queue: str) -> list[Job]:
        return self._by_queue.get(queue, [])

    def of_name(self, queue: str, name: str) -> list[Job]:
        """Those with that name, whatever its case."""
        return self._by_name.get((queue, name.lower()), [])

    def shares(self, queue: str) -> Mapping[str, list[Job]]:
        """All jobs of the queue that have a share, by share."""
        return self._by_share.get(queue, {})

    def clear(self) -> None:
        self._by_id.clear()
        self._by_queue.clear()
        self._by_name.clear()
        self._by_share.clear()


def _present(**members: Any) -> dict[str, Any]:
    """Without the members that are None: absent, in Batch's answers."""
    return {name: value for name, value in members.items() if value is not None}
