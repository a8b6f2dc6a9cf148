"""What each operation does to the account's jobs. Queues, policies and quota shares are in `queue_operations.py`."""

from collections.abc import Callable, Mapping
from typing import Any

from gateway.emulator.arns import Arns
from gateway.emulator.calls import Call
from gateway.emulator.clock import Clock
from gateway.emulator.config import EmulatorConfig
from gateway.emulator.errors import BatchError
from gateway.emulator.faults import FaultBook
from gateway.emulator.jobs import Job, Jobs
from gateway.emulator.listing import list_jobs
from gateway.emulator.queues import Queue, Queues
from gateway.emulator.snapshot import snapshot
from gateway.emulator.submission import check_priority, check_share, check_submission, check_tags
from gateway.emulator.tokens import Tokens

Operation = Callable[[Call], dict[str, Any]]
"""Takes a call that fits the model, returns the answer's members; raises BatchError for an error answer."""

_MAX_ACTIVE_SHARES = 500  # share identifiers a queue, as Batch's quotas say
_MAX_TAGS = 50


class JobOperations:
    """The operations on jobs and on tags, each under its name in Batch's model."""

    def __init__(self, config: EmulatorConfig, *, clock: Clock, queues: Queues, faults: FaultBook) -> None:
        self._clock = clock
        self._queues = queues
        self._faults = faults
        self._arns = Arns(region=config.region, account=config.account)
        self._tokens = Tokens(repeats=config.repeats, ttl_seconds=config.token_ttl_seconds)
        self.jobs = Jobs(arns=self._arns, seconds=config.job_seconds)

    def table(self) -> Mapping[str, Operation]:
        return {
            "SubmitServiceJob": self.submit,
            "DescribeServiceJob": self.describe,
            "ListServiceJobs": self.list,
            "TerminateServiceJob": self.terminate,
            "UpdateServiceJob": self.update,
            "GetJobQueueSnapshot": self.snapshot,
            "TagResource": self.tag,
            "UntagResource": self.untag,
            "ListTagsForResource": self.list_tags,
        }

    def reset(self) -> None:
        self.jobs.clear()
        self._tokens.clear()

    def submit(self, call: Call) -> dict[str, Any]:
        params, now = call.params, self._clock.monotonic()
        check_submission(params, body_bytes=len(call.body))
        queue = self._queues.get(params["jobQueue"])
        check_share(params, queue)
        token = call.client_token
        call.job = self._tokens.repeated(token, params, now=now) if token is not None else None
        if call.job is not None:
            call.outcome = "replayed"
        else:
            call.job = self._create(call, queue, now)
            call.created, call.outcome = True, "created"
            if token is not None:
                self._tokens.remember(token, params, call.job, now=now)
        return {"jobArn": call.job.arn, "jobName": call.job.name, "jobId": call.job.job_id}

    def describe(self, call: Call) -> dict[str, Any]:
        return self._job(call).description(self._clock.monotonic())

    def list(self, call: Call) -> dict[str, Any]:
        if call.params.get("jobQueue") is None:
            raise BatchError("jobQueue: is required")
        queue = self._queues.get(call.params["jobQueue"])
        return list_jobs(self.jobs, call.params, queue=queue.name, now=self._clock.monotonic())

    def terminate(self, call: Call) -> dict[str, Any]:
        self._job(call).terminate(call.params["reason"], now=self._clock.monotonic())
        return {}

    def update(self, call: Call) -> dict[str, Any]:
        job, priority = self._job(call), call.params["schedulingPriority"]
        check_priority(priority)
        if job.progress(self._clock.monotonic()).final:
            raise BatchError(f"jobId: the job {job.job_id} has ended")
        job.priority = priority
        return {"jobArn": job.arn, "jobName": job.name, "jobId": job.job_id}

    def snapshot(self, call: Call) -> dict[str, Any]:
        queue = self._queues.get(call.params["jobQueue"])
        return snapshot(self.jobs, queue, now=self._clock.monotonic(), epoch_ms=self._clock.epoch_ms())

    def tag(self, call: Call) -> dict[str, Any]:
        tags, added = self._tags(call), call.params["tags"]
        check_tags(added)
        if len(tags.keys() | added.keys()) > _MAX_TAGS:
            raise BatchError(f"tags: a resource has at most {_MAX_TAGS}")
        tags.update(added)
        return {}

    def untag(self, call: Call) -> dict[str, Any]:
        tags = self._tags(call)
        for key in call.params["tagKeys"]:
            tags.pop(key, None)
        return {}

    def list_tags(self, call: Call) -> dict[str, Any]:
        return {"tags": dict(self._tags(call))}

    def _create(self, call: Call, queue: Queue, now: float) -> Job:
        self._first_use(call, queue, now)
        late = self._faults.meet(call, "late_listing", now=now)
        return self.jobs.create(
            call.params,
            queue=queue.name,
            now=now,
            epoch_ms=self._clock.epoch_ms(),
            listing_delay=(late.seconds or 0) if late is not None else 0,
        )

    def _first_use(self, call: Call, queue: Queue, now: float) -> None:
        share = call.share
        if share is None or share in queue.shares_used:
            return
        if "shareIdentifier" in call.params and self._active_shares(queue, now) >= _MAX_ACTIVE_SHARES:
            raise BatchError(
                f"shareIdentifier: {queue.name} has {_MAX_ACTIVE_SHARES} active ones, the most there can be"
            )
        queue.shares_used.add(share)
        failed = self._faults.meet(call, "first_share_500", now=now)
        if failed is not None:
            raise failed.error()

    def _active_shares(self, queue: Queue, now: float) -> int:
        """How many shares have a job that has not ended. A share that has none is forgotten."""
        if len(queue.shares_used) < _MAX_ACTIVE_SHARES:
            return len(queue.shares_used)
        jobs = self.jobs.shares(queue.name)
        queue.shares_used = {
            share
            for share in queue.shares_used
            # The newest is the likeliest to be alive still.
            if any(not job.progress(now).final for job in reversed(jobs.get(share, [])))
        }
        return len(queue.shares_used)

    def _job(self, call: Call) -> Job:
        job_id = self._arns.job_id(call.params["jobId"])
        job = self.jobs.get(job_id)
        if job is None:
            raise BatchError(f"jobId: the service job {job_id} does not exist")
        call.job = job
        return job

    def _tags(self, call: Call) -> dict[str, str]:
        arn = call.params["resourceArn"]
        job = self.jobs.get(arn.rpartition("/")[2])
        tags = job.tags if job is not None and job.arn == arn else self._queues.tags_of(arn)
        if tags is None:
            raise BatchError(f"resourceArn: {arn} does not exist")
        return tags
