from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.emulator import QueueConfig, QuotaShareConfig
from gateway.emulator.validation import compile_check, load_model
from tests.emulator.rig import SUBMISSION, Rig, emulating

if TYPE_CHECKING:
    from botocore.model import Shape

QUEUE_ARN = "arn:aws:batch:us-east-1:123456789012:job-queue/training"
FULL = SUBMISSION | {
    "quotaShareName": "vision",
    "schedulingPriority": 1,
    "retryStrategy": {"attempts": 2, "evaluateOnExit": [{"action": "EXIT", "onStatusReason": "x*"}]},
    "preemptionConfiguration": {"preemptionRetriesBeforeTermination": 1},
    "timeoutConfig": {"attemptDurationSeconds": 60},
    "tags": {"team": "vision"},
}


def unknown_members(value: Any, shape: Shape, path: str = "") -> list[str]:
    if shape.type_name == "structure":
        known = shape.members
        return [f"{path}.{name}" for name in value if name not in known] + [
            problem
            for name, member in value.items()
            if name in known
            for problem in unknown_members(member, known[name], f"{path}.{name}")
        ]
    if shape.type_name == "list":
        return [problem for member in value for problem in unknown_members(member, shape.member, f"{path}[]")]
    return []


async def test_every_answer_has_the_members_and_types_of_the_model() -> None:
    model = load_model()
    answered = set()

    async def ask(rig: Rig, operation: str, **params: Any) -> Any:
        shape, http = model.operation_model(operation).output_shape, model.operation_model(operation).http
        path = http["requestUri"].replace("{resourceArn}", QUEUE_ARN)
        if operation == "UntagResource":
            path += "?tagKeys=" + params.pop("tagKeys")
        answer = await rig.raw(path, params if http["method"] == "POST" else b"", method=http["method"])
        assert answer.status == 200, (operation, answer.body)
        assert answer.headers["x-amzn-RequestId"]
        compile_check(shape)(answer.json, "")
        assert unknown_members(answer.json, shape) == []
        answered.add(operation)
        return answer.json

    queues = (QueueConfig(name="training", policy="quota", quota_shares=(QuotaShareConfig(name="vision"),)),)
    async with emulating(queues=queues) as rig:
        share = {
            "jobQueue": "training",
            "capacityLimits": [{"maxCapacity": 1, "capacityUnit": "NUM_INSTANCES"}],
            "resourceSharingConfiguration": {"strategy": "LEND"},
            "preemptionConfiguration": {"inSharePreemption": "DISABLED"},
            "tags": {"team": "text"},
        }
        arn = (await ask(rig, "CreateQuotaShare", quotaShareName="text", **share))["quotaShareArn"]
        job_id = (await ask(rig, "SubmitServiceJob", **FULL))["jobId"]
        for seconds in (0, 1.5, 4, 20):
            rig.clock.advance(seconds)
            await ask(rig, "DescribeServiceJob", jobId=job_id)
            await ask(rig, "ListServiceJobs", jobQueue="training", filters=[{"name": "JOB_NAME", "values": ["*"]}])
            await ask(rig, "GetJobQueueSnapshot", jobQueue="training")
        job_id = (await ask(rig, "SubmitServiceJob", **FULL))["jobId"]
        await ask(rig, "UpdateServiceJob", jobId=job_id, schedulingPriority=2)
        await ask(rig, "TerminateServiceJob", jobId=job_id, reason="enough")
        await ask(rig, "DescribeServiceJob", jobId=job_id)
        await ask(rig, "CreateSchedulingPolicy", name="fair", tags={"a": "b"})
        policy = "arn:aws:batch:us-east-1:123456789012:scheduling-policy/"
        await ask(rig, "DescribeSchedulingPolicies", arns=[policy + "fair", policy + "training-quota", policy + "x"])
        await ask(rig, "CreateJobQueue", jobQueueName="second", priority=2, tags={"a": "b"})
        await ask(rig, "UpdateJobQueue", jobQueue="second", priority=3)
        await ask(rig, "DescribeJobQueues")
        await ask(rig, "ListQuotaShares", jobQueue="training", maxResults=1)
        await ask(rig, "UpdateQuotaShare", quotaShareArn=arn, state="DISABLED")
        await ask(rig, "DescribeQuotaShare", quotaShareArn=arn)
        await ask(rig, "TagResource", tags={"a": "b"})
        await ask(rig, "ListTagsForResource")
        await ask(rig, "UntagResource", tagKeys="a")
        assert answered == set(rig.emulator._service.operations)
