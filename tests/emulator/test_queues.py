from __future__ import annotations

from typing import Any

import pytest

from gateway.emulator import EmulatorConfig, QueueConfig, QuotaShareConfig
from tests.emulator.rig import SUBMISSION, Rig, emulating

QUEUES = (
    QueueConfig(name="plain"),
    QueueConfig(name="fair", policy="fairshare"),
    QueueConfig(
        name="quota",
        policy="quota",
        quota_shares=(QuotaShareConfig(name="open"), QuotaShareConfig(name="shut", state="DISABLED")),
    ),
    QueueConfig(name="closed", state="DISABLED"),
    QueueConfig(name="containers", job_queue_type="ECS"),
)
QUOTA_SHARE: dict[str, Any] = {
    "capacityLimits": [{"maxCapacity": 4, "capacityUnit": "NUM_INSTANCES"}],
    "resourceSharingConfiguration": {"strategy": "LEND_AND_BORROW", "borrowLimit": 50},
    "preemptionConfiguration": {"inSharePreemption": "ENABLED"},
}


@pytest.mark.parametrize(
    "member",
    [
        {"jobQueue": "plain"},
        {"jobQueue": "arn:aws:batch:us-east-1:123456789012:job-queue/plain"},
        {"jobQueue": "fair", "shareIdentifier": "vision"},
        {"jobQueue": "quota", "quotaShareName": "open"},
        {"jobQueue": "never-heard-of"},
        {"jobQueue": "never-heard-of", "shareIdentifier": "vision"},
        {"jobQueue": "never-heard-of", "quotaShareName": "vision"},
    ],
)
async def test_a_queue_takes_the_share_member_of_its_policy(member: dict[str, str]) -> None:
    async with emulating(queues=QUEUES) as rig:
        described = await rig.describe((await rig.submit(**member))["jobId"])
        assert described["jobQueue"].endswith("/" + member["jobQueue"].rpartition("/")[2])


@pytest.mark.parametrize(
    ("member", "named"),
    [
        ({"jobQueue": "plain", "shareIdentifier": "vision"}, "shareIdentifier"),
        ({"jobQueue": "plain", "quotaShareName": "open"}, "quotaShareName"),
        ({"jobQueue": "fair"}, "shareIdentifier"),
        ({"jobQueue": "fair", "shareIdentifier": ""}, "shareIdentifier"),
        ({"jobQueue": "fair", "quotaShareName": "open"}, "shareIdentifier"),
        ({"jobQueue": "quota"}, "quotaShareName"),
        ({"jobQueue": "quota", "quotaShareName": "absent"}, "quotaShareName"),
        ({"jobQueue": "quota", "quotaShareName": "shut"}, "quotaShareName"),
        ({"jobQueue": "quota", "quotaShareName": "open", "shareIdentifier": "vision"}, "quotaShareName"),
        ({"jobQueue": "anything", "quotaShareName": "a b"}, "quotaShareName"),
        ({"jobQueue": "closed"}, "jobQueue"),
        ({"jobQueue": "containers"}, "jobQueue"),
        ({"jobQueue": "arn:aws:batch:eu-west-1:123456789012:job-queue/plain"}, "jobQueue"),
        ({"jobQueue": "arn:aws:batch:us-east-1:999999999999:job-queue/plain"}, "jobQueue"),
        ({"jobQueue": "no queue's name"}, "jobQueue"),
    ],
)
async def test_a_queue_refuses_what_does_not_fit_it(member: dict[str, str], named: str) -> None:
    async with emulating(queues=QUEUES) as rig:
        refusal = await rig.submission_refused(**member)
        assert (refusal.status, refusal.code) == (400, "ClientException")
        assert refusal.message.startswith(f"{named}:")
        assert rig.emulator.jobs == []


async def test_without_auto_queues_an_unknown_queue_is_refused() -> None:
    async with emulating(queues=QUEUES, auto_queues=False) as rig:
        assert "does not exist" in (await rig.submission_refused(jobQueue="absent")).message
        await rig.submit(jobQueue="plain")


async def test_the_policy_of_a_queue_is_found_as_with_batch() -> None:
    async with emulating(queues=QUEUES) as rig:
        found = {}
        for queue in (await rig.call("describe_job_queues"))["jobQueues"]:
            if "schedulingPolicyArn" in queue:
                answer = await rig.call("describe_scheduling_policies", arns=[queue["schedulingPolicyArn"]])
                found[queue["jobQueueName"]] = answer["schedulingPolicies"][0].keys() & {
                    "fairsharePolicy",
                    "quotaSharePolicy",
                }
        assert found == {"fair": {"fairsharePolicy"}, "quota": {"quotaSharePolicy"}}


async def test_the_policy_of_a_queue_made_on_first_use_tells_nothing_about_its_share_member() -> None:
    async with emulating(queues=QUEUES) as rig:
        names = ["never-heard-of", "another"]
        queues = (await rig.call("describe_job_queues", jobQueues=names))["jobQueues"]
        assert [(queue["jobQueueName"], queue["state"]) for queue in queues] == [(name, "ENABLED") for name in names]
        for queue in queues:
            arns = [queue["schedulingPolicyArn"]]
            (policy,) = (await rig.call("describe_scheduling_policies", arns=arns))["schedulingPolicies"]
            assert policy.keys() == {"name", "arn"}
        await rig.submit(jobQueue="another", shareIdentifier="vision")
        await rig.submit(jobQueue="another", quotaShareName="vision")
        await rig.submit(jobQueue="another")


async def test_a_queue_made_on_first_use_can_get_a_policy_of_either_kind(rig: Rig) -> None:
    for kind in ("fairsharePolicy", "quotaSharePolicy"):
        body = {kind: {"idleResourceAssignmentStrategy": "FIFO"} if kind == "quotaSharePolicy" else {}}
        arn = (await rig.call("create_scheduling_policy", name=kind, **body))["arn"]
        await rig.submit(jobQueue=f"with-{kind}")
        await rig.call("update_job_queue", jobQueue=f"with-{kind}", schedulingPolicyArn=arn)
        assert "required" in (await rig.submission_refused(jobQueue=f"with-{kind}")).message


async def test_queues_are_described_by_name_or_arn_and_absent_ones_left_out() -> None:
    async with emulating(queues=QUEUES, auto_queues=False) as rig:
        names = ["closed", "absent", "arn:aws:batch:us-east-1:123456789012:job-queue/containers"]
        queues = (await rig.call("describe_job_queues", jobQueues=names))["jobQueues"]
        assert [(queue["jobQueueName"], queue["state"], queue["jobQueueType"]) for queue in queues] == [
            ("closed", "DISABLED", "SAGEMAKER_TRAINING"),
            ("containers", "ENABLED", "ECS"),
        ]


async def test_queues_are_described_page_by_page() -> None:
    async with emulating(queues=QUEUES) as rig:
        pages = await rig.call("describe_job_queues", maxResults=3)
        rest = await rig.call("describe_job_queues", maxResults=3, nextToken=pages["nextToken"])
        names = [queue["jobQueueName"] for queue in pages["jobQueues"] + rest["jobQueues"]]
        assert names == [queue.name for queue in QUEUES]
        assert "nextToken" not in rest


async def test_a_queue_with_quota_shares_can_be_set_up_by_calls(rig: Rig) -> None:
    policy = await rig.call(
        "create_scheduling_policy", name="shares", quotaSharePolicy={"idleResourceAssignmentStrategy": "FIFO"}
    )
    await rig.call(
        "create_job_queue",
        jobQueueName="made",
        priority=1,
        schedulingPolicyArn=policy["arn"],
        serviceEnvironmentOrder=[{"order": 1, "serviceEnvironment": "main"}],
        tags={"team": "vision"},
    )
    made = await rig.call("create_quota_share", jobQueue="made", quotaShareName="vision", **QUOTA_SHARE)
    listed = (await rig.call("list_quota_shares", jobQueue="made"))["quotaShares"]
    assert [share["quotaShareName"] for share in listed] == ["vision"]
    described = await rig.call("describe_quota_share", quotaShareArn=made["quotaShareArn"])
    assert {name: described[name] for name in QUOTA_SHARE} == QUOTA_SHARE
    await rig.submit(jobQueue="made", quotaShareName="vision")
    await rig.call("update_quota_share", quotaShareArn=made["quotaShareArn"], state="DISABLED")
    assert "DISABLED" in (await rig.submission_refused(jobQueue="made", quotaShareName="vision")).message


async def test_a_queue_can_be_closed_and_opened_by_calls(rig: Rig) -> None:
    await rig.submit()
    await rig.call("update_job_queue", jobQueue="training", state="DISABLED")
    assert "DISABLED" in (await rig.submission_refused()).message
    await rig.call("update_job_queue", jobQueue="training", state="ENABLED")
    await rig.submit()


async def test_a_queue_made_with_a_fair_share_policy_asks_for_a_share(rig: Rig) -> None:
    arn = (await rig.call("create_scheduling_policy", name="fair"))["arn"]
    await rig.call(
        "create_job_queue",
        jobQueueName="made",
        priority=1,
        schedulingPolicyArn=arn,
        jobQueueType="SAGEMAKER_TRAINING",
    )
    assert "shareIdentifier" in (await rig.submission_refused(jobQueue="made")).message
    tags = {"team": "vision"}
    for resource in (arn, "arn:aws:batch:us-east-1:123456789012:job-queue/made"):
        await rig.call("tag_resource", resourceArn=resource, tags=tags)
        assert (await rig.call("list_tags_for_resource", resourceArn=resource))["tags"] == tags


async def test_names_are_taken_once(rig: Rig) -> None:
    queue = {"jobQueueName": "made", "priority": 1, "jobQueueType": "SAGEMAKER_TRAINING"}
    await rig.call("create_job_queue", **queue)
    assert "exists" in (await rig.refused("create_job_queue", **queue)).message
    assert "jobQueueName" in (await rig.refused("create_job_queue", **(queue | {"jobQueueName": "a b"}))).message


async def test_a_policy_is_one_or_the_other_and_is_only_replaced_by_its_like() -> None:
    async with emulating(queues=QUEUES) as rig:
        quota = {"quotaSharePolicy": {"idleResourceAssignmentStrategy": "FIFO"}}
        both = {"fairsharePolicy": {"shareDecaySeconds": 1}} | quota
        assert "quotaSharePolicy" in (await rig.refused("create_scheduling_policy", name="both", **both)).message
        arn = (await rig.call("create_scheduling_policy", name="quota2", **quota))["arn"]
        await rig.call("update_job_queue", jobQueue="quota", schedulingPolicyArn=arn)
        assert (await rig.refused("update_job_queue", jobQueue="fair", schedulingPolicyArn=arn)).status == 400
        unknown = await rig.refused("update_job_queue", jobQueue="fair", schedulingPolicyArn=arn + "x")
        assert "does not exist" in unknown.message


async def test_a_queue_has_at_most_twenty_quota_shares() -> None:
    async with emulating(queues=QUEUES) as rig:
        for number in range(18):
            await rig.call("create_quota_share", jobQueue="quota", quotaShareName=f"s{number}", **QUOTA_SHARE)
        refusal = await rig.refused("create_quota_share", jobQueue="quota", quotaShareName="over", **QUOTA_SHARE)
        assert "20" in refusal.message
        refusal = await rig.refused("create_quota_share", jobQueue="plain", quotaShareName="x", **QUOTA_SHARE)
        assert "no quota-share policy" in refusal.message


async def test_a_queue_has_at_most_five_hundred_active_share_identifiers(rig: Rig) -> None:
    for number in range(500):
        answer = await rig.raw("/v1/submitservicejob", SUBMISSION | {"shareIdentifier": f"s{number}"})
        assert answer.status == 200
    assert "shareIdentifier" in (await rig.submission_refused(shareIdentifier="over")).message
    await rig.submit(shareIdentifier="s0")
    rig.clock.advance(11)
    await rig.submit(shareIdentifier="over")


async def test_a_snapshot_shows_shares_by_policy() -> None:
    async with emulating(queues=QUEUES) as rig:
        job = await rig.submit(jobQueue="quota", quotaShareName="open")
        await rig.submit(jobQueue="fair", shareIdentifier="vision")
        rig.clock.advance(1.5)
        front = (await rig.call("get_job_queue_snapshot", jobQueue="quota"))["frontOfQuotaShares"]["quotaShares"]
        assert front["open"][0]["jobArn"] == job["jobArn"]
        rig.clock.advance(5)
        used = (await rig.call("get_job_queue_snapshot", jobQueue="fair"))["queueUtilization"]["fairshareUtilization"]
        assert (used["activeShareCount"], used["topCapacityUtilization"][0]["shareIdentifier"]) == (1, "vision")


def test_a_configuration_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="twice: a"):
        EmulatorConfig(queues=(QueueConfig(name="a"), QueueConfig(name="a")))
    with pytest.raises(ValueError, match="policy must be quota"):
        QueueConfig(name="a", quota_shares=(QuotaShareConfig(name="b"),))
