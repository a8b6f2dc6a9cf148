"""Job queues, their scheduling policies and quota shares."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.emulator.arns import Arns
from gateway.emulator.config import EmulatorConfig, Policy, QueueConfig
from gateway.emulator.errors import BatchError

NAME = re.compile(r"[A-Za-z0-9_-]{1,128}", re.ASCII)
MAX_QUOTA_SHARES = 20  # a queue, as Batch's quotas say

# The policy of queues that take any share member: who looks it up finds neither kind in it.
_ANY_POLICY = "emulator-any-share-member"

# What a share that comes from the configuration is shown with: the members are required, their values play no part.
_DEFAULT_QUOTA_SHARE: dict[str, Any] = {
    "capacityLimits": [{"maxCapacity": 1, "capacityUnit": "NUM_INSTANCES"}],
    "resourceSharingConfiguration": {"strategy": "RESERVE"},
    "preemptionConfiguration": {"inSharePreemption": "DISABLED"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulingPolicy:
    """`body` holds either `fairsharePolicy` or `quotaSharePolicy`, as it is shown; of the kind `any` neither."""

    name: str
    arn: str
    body: Mapping[str, Any]
    tags: dict[str, str]

    @property
    def kind(self) -> Policy:
        if "quotaSharePolicy" in self.body:
            return "quota"
        return "fairshare" if "fairsharePolicy" in self.body else "any"

    def shown(self) -> dict[str, Any]:
        tags = {"tags": dict(self.tags)} if self.tags else {}
        return {"name": self.name, "arn": self.arn, **self.body, **tags}


# Not frozen, as the queue below: UpdateQuotaShare, UpdateJobQueue and the tag calls change them in place.
@dataclass(slots=True, kw_only=True)
class QuotaShare:
    """`body` holds the limits and strategies, as they are shown."""

    name: str
    arn: str
    queue_arn: str
    state: str
    body: dict[str, Any]
    tags: dict[str, str]

    def shown(self) -> dict[str, Any]:
        return {
            "quotaShareName": self.name,
            "quotaShareArn": self.arn,
            "jobQueueArn": self.queue_arn,
            "state": self.state,
            "status": "VALID",
            **self.body,
        }


@dataclass(slots=True, kw_only=True)
class Queue:
    """A job queue. `body` holds what is only shown: priority and the orders of environments."""

    name: str
    arn: str
    policy: Policy
    policy_arn: str | None
    state: str
    job_queue_type: str
    body: dict[str, Any]
    tags: dict[str, str]
    quota_shares: dict[str, QuotaShare] = field(default_factory=dict)
    shares_used: set[str] = field(default_factory=set)

    def shown(self) -> dict[str, Any]:
        shown = {
            "jobQueueName": self.name,
            "jobQueueArn": self.arn,
            "state": self.state,
            "status": "VALID",
            "statusReason": "JobQueue Healthy",
            "jobQueueType": self.job_queue_type,
            "computeEnvironmentOrder": [],
            **self.body,
        }
        if self.policy_arn is not None:
            shown["schedulingPolicyArn"] = self.policy_arn
        if self.tags:
            shown["tags"] = dict(self.tags)
        return shown


class Queues:
    """All queues, policies and quota shares of the account."""

    def __init__(self, config: EmulatorConfig, arns: Arns) -> None:
        self._config = config
        self._arns = arns
        self.reset()

    def reset(self) -> None:
        """Back to what the configuration says."""
        self._queues: dict[str, Queue] = {}
        self._policies: dict[str, SchedulingPolicy] = {}
        self._quota_shares: dict[str, QuotaShare] = {}
        for queue in self._config.queues:
            self._configure(queue)

    def all(self) -> list[Queue]:
        return list(self._queues.values())

    def find(self, name_or_arn: str) -> Queue | None:
        """The queue, made now where queues are made on first use. Raises BatchError for an ARN of something else."""
        name = self._arns.queue_name(name_or_arn)
        queue = self._queues.get(name)
        if queue is None and self._config.auto_queues and NAME.fullmatch(name):
            queue = self._configure(QueueConfig(name=name, policy="any"))
        return queue

    def get(self, name_or_arn: str) -> Queue:
        """As `find`, but raises BatchError where there is none."""
        queue = self.find(name_or_arn)
        if queue is None:
            message = f"jobQueue: the job queue {name_or_arn} does not exist"
            raise BatchError(message)
        return queue

    def policy(self, arn: str) -> SchedulingPolicy | None:
        return self._policies.get(arn)

    def quota_share(self, arn: str) -> QuotaShare:
        share = self._quota_shares.get(arn)
        if share is None:
            message = f"quotaShareArn: the quota share {arn} does not exist"
            raise BatchError(message)
        return share

    def add_queue(self, name: str, *, policy_arn: str | None, state: str, job_queue_type: str) -> Queue:
        """Raises BatchError for a bad or taken name, and for a policy that does not exist."""
        _check_name("jobQueueName", name, taken=name in self._queues)
        policy: Policy = "none"
        if policy_arn is not None:
            policy = self.known_policy(policy_arn).kind
        queue = Queue(
            name=name,
            arn=self._arns.queue(name),
            policy=policy,
            policy_arn=policy_arn,
            state=state,
            job_queue_type=job_queue_type,
            body={"priority": 1},
            tags={},
        )
        self._queues[name] = queue
        return queue

    def known_policy(self, arn: str) -> SchedulingPolicy:
        policy = self._policies.get(arn)
        if policy is None:
            message = f"schedulingPolicyArn: the scheduling policy {arn} does not exist"
            raise BatchError(message)
        return policy

    def add_policy(self, name: str, body: Mapping[str, Any], tags: Mapping[str, str]) -> SchedulingPolicy:
        """Raises BatchError for a bad or taken name."""
        arn = self._arns.policy(name)
        _check_name("name", name, taken=arn in self._policies)
        policy = SchedulingPolicy(name=name, arn=arn, body=body, tags=dict(tags))
        self._policies[arn] = policy
        return policy

    def add_quota_share(
        self, queue: Queue, name: str, *, state: str, body: Mapping[str, Any], tags: Mapping[str, str]
    ) -> QuotaShare:
        """Raises BatchError for a bad or taken name, a queue without a quota-share policy, and one share too many."""
        _check_name("quotaShareName", name, taken=name in queue.quota_shares)
        if queue.policy != "quota":
            message = f"jobQueue: the job queue {queue.name} has no quota-share policy"
            raise BatchError(message)
        if len(queue.quota_shares) >= MAX_QUOTA_SHARES:
            message = f"jobQueue: the job queue {queue.name} has {MAX_QUOTA_SHARES} quota shares, the most there can be"
            raise BatchError(message)
        arn = self._arns.quota_share(queue.name, name)
        share = QuotaShare(name=name, arn=arn, queue_arn=queue.arn, state=state, body=dict(body), tags=dict(tags))
        queue.quota_shares[name] = share
        self._quota_shares[arn] = share
        return share

    def tags_of(self, arn: str) -> dict[str, str] | None:
        """The tags of the queue, policy or quota share with that ARN, to be changed in place."""
        resources: list[Queue | SchedulingPolicy | QuotaShare] = [
            *(queue for queue in self._queues.values() if queue.arn == arn),
            *(known[arn] for known in (self._policies, self._quota_shares) if arn in known),
        ]
        return resources[0].tags if resources else None

    def _configure(self, config: QueueConfig) -> Queue:
        policy_arn = self._any_policy() if config.policy == "any" else None
        if config.policy in {"fairshare", "quota"}:
            body: dict[str, Any] = (
                {"fairsharePolicy": {"shareDecaySeconds": 0, "computeReservation": 0, "shareDistribution": []}}
                if config.policy == "fairshare"
                else {"quotaSharePolicy": {"idleResourceAssignmentStrategy": "FIFO"}}
            )
            policy_arn = self.add_policy(f"{config.name[:110]}-{config.policy}", body, {}).arn
        queue = self.add_queue(
            config.name, policy_arn=policy_arn, state=config.state, job_queue_type=config.job_queue_type
        )
        queue.policy = config.policy
        for share in config.quota_shares:
            self.add_quota_share(queue, share.name, state=share.state, body=_DEFAULT_QUOTA_SHARE, tags={})
        return queue

    def _any_policy(self) -> str:
        """The ARN of the one that they all have: a queue without a policy is one that takes no share member."""
        arn = self._arns.policy(_ANY_POLICY)
        if arn not in self._policies:
            self.add_policy(_ANY_POLICY, {}, {})
        return arn


def _check_name(member: str, name: str, *, taken: bool) -> None:
    if not NAME.fullmatch(name):
        message = f"{member}: {name!r} must be 1 to 128 of A-Z a-z 0-9 - _"
        raise BatchError(message)
    if taken:
        message = f"{member}: {name} already exists"
        raise BatchError(message)
