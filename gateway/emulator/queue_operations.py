"""What each operation does to the account's queues, scheduling policies and quota shares."""

from collections.abc import Mapping
from typing import Any

from gateway.emulator.calls import Call
from gateway.emulator.errors import BatchError
from gateway.emulator.operations import Operation
from gateway.emulator.paging import numbered_page
from gateway.emulator.queues import Queues
from gateway.emulator.submission import check_tags

_QUOTA_SHARE_BODY = ("capacityLimits", "resourceSharingConfiguration", "preemptionConfiguration")
_QUEUE_BODY = ("priority", "computeEnvironmentOrder", "serviceEnvironmentOrder", "jobStateTimeLimitActions")


class QueueOperations:
    """The operations on queues, policies and quota shares, each under its name in Batch's model."""

    def __init__(self, queues: Queues) -> None:
        self._queues = queues

    def table(self) -> Mapping[str, Operation]:
        return {
            "CreateJobQueue": self.create_queue,
            "UpdateJobQueue": self.update_queue,
            "DescribeJobQueues": self.describe_queues,
            "CreateSchedulingPolicy": self.create_policy,
            "DescribeSchedulingPolicies": self.describe_policies,
            "CreateQuotaShare": self.create_quota_share,
            "UpdateQuotaShare": self.update_quota_share,
            "DescribeQuotaShare": self.describe_quota_share,
            "ListQuotaShares": self.list_quota_shares,
        }

    def create_queue(self, call: Call) -> dict[str, Any]:
        params = call.params
        check_tags(params.get("tags"))
        # A queue of service environments can only be one for service jobs.
        untold = "SAGEMAKER_TRAINING" if params.get("serviceEnvironmentOrder") else "ECS"
        queue = self._queues.add_queue(
            params["jobQueueName"],
            policy_arn=params.get("schedulingPolicyArn"),
            state=params.get("state", "ENABLED"),
            job_queue_type=params.get("jobQueueType", untold),
        )
        queue.body.update(_some(params, _QUEUE_BODY))
        queue.tags.update(params.get("tags") or {})
        return {"jobQueueName": queue.name, "jobQueueArn": queue.arn}

    def update_queue(self, call: Call) -> dict[str, Any]:
        queue = self._queues.get(call.params["jobQueue"])
        policy_arn = call.params.get("schedulingPolicyArn")
        if policy_arn is not None:
            kind = self._queues.known_policy(policy_arn).kind
            if queue.policy not in {kind, "any"}:
                raise BatchError("schedulingPolicyArn: a policy can only be replaced by one of the same type")
            queue.policy, queue.policy_arn = kind, policy_arn
        queue.state = call.params.get("state", queue.state)
        queue.body.update(_some(call.params, _QUEUE_BODY))
        return {"jobQueueName": queue.name, "jobQueueArn": queue.arn}

    def describe_queues(self, call: Call) -> dict[str, Any]:
        """Names that do not exist are left out, as Batch does; one that is made on first use is made by this."""
        names = call.params.get("jobQueues") or []
        named = {queue.name: queue for queue in map(self._queues.find, names) if queue is not None}
        queues = list(named.values()) if names else self._queues.all()
        return numbered_page([queue.shown() for queue in queues], call.params, "jobQueues", names=names)

    def create_policy(self, call: Call) -> dict[str, Any]:
        params = call.params
        check_tags(params.get("tags"))
        body = _some(params, ("fairsharePolicy", "quotaSharePolicy"))
        if len(body) > 1:
            raise BatchError("quotaSharePolicy: must not be given together with fairsharePolicy")
        # Without either Batch makes a fair-share policy with nothing set.
        policy = self._queues.add_policy(params["name"], body or {"fairsharePolicy": {}}, params.get("tags") or {})
        return {"name": policy.name, "arn": policy.arn}

    def describe_policies(self, call: Call) -> dict[str, Any]:
        policies = map(self._queues.policy, call.params["arns"])
        return {"schedulingPolicies": [policy.shown() for policy in policies if policy is not None]}

    def create_quota_share(self, call: Call) -> dict[str, Any]:
        params = call.params
        check_tags(params.get("tags"))
        share = self._queues.add_quota_share(
            self._queues.get(params["jobQueue"]),
            params["quotaShareName"],
            state=params.get("state", "ENABLED"),
            body=_some(params, _QUOTA_SHARE_BODY),
            tags=params.get("tags") or {},
        )
        return {"quotaShareName": share.name, "quotaShareArn": share.arn}

    def update_quota_share(self, call: Call) -> dict[str, Any]:
        share = self._queues.quota_share(call.params["quotaShareArn"])
        share.state = call.params.get("state", share.state)
        share.body.update(_some(call.params, _QUOTA_SHARE_BODY))
        return {"quotaShareName": share.name, "quotaShareArn": share.arn}

    def describe_quota_share(self, call: Call) -> dict[str, Any]:
        share = self._queues.quota_share(call.params["quotaShareArn"])
        return share.shown() | ({"tags": dict(share.tags)} if share.tags else {})

    def list_quota_shares(self, call: Call) -> dict[str, Any]:
        queue = self._queues.get(call.params["jobQueue"])
        shown = [share.shown() for share in queue.quota_shares.values()]
        return numbered_page(shown, call.params, "quotaShares", queue=queue.name)


def _some(params: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: params[name] for name in names if name in params}
