from __future__ import annotations

import pytest

from tests.emulator.rig import SUBMISSION, Rig, emulating

STATES = ["SUBMITTED", "PENDING", "RUNNABLE", "SCHEDULED", "STARTING", "RUNNING", "SUCCEEDED"]


async def test_a_submission_is_answered_with_id_name_and_arn(rig: Rig) -> None:
    answer = await rig.submit()
    assert answer["jobName"] == "first"
    assert answer["jobArn"] == f"arn:aws:batch:us-east-1:123456789012:service-job/{answer['jobId']}"


async def test_region_and_account_are_those_of_the_configuration() -> None:
    async with emulating(region="eu-north-1", account="210987654321") as rig:
        assert (await rig.submit())["jobArn"].startswith("arn:aws:batch:eu-north-1:210987654321:service-job/")


async def test_a_job_is_described_as_it_was_submitted(rig: Rig) -> None:
    asked = {
        "retryStrategy": {"attempts": 3, "evaluateOnExit": [{"action": "RETRY", "onStatusReason": "Capacity*"}]},
        "preemptionConfiguration": {"preemptionRetriesBeforeTermination": 2},
        "timeoutConfig": {"attemptDurationSeconds": 60},
        "tags": {"team": "vision"},
        "schedulingPriority": 7,
        "shareIdentifier": "vision",
    }
    answer = await rig.submit(**asked)
    described = await rig.describe(answer["jobId"])
    assert {name: described[name] for name in asked} == asked
    assert described["serviceRequestPayload"] == SUBMISSION["serviceRequestPayload"]
    assert described["jobQueue"] == "arn:aws:batch:us-east-1:123456789012:job-queue/training"
    assert described["createdAt"] == rig.clock.epoch_ms()
    assert described["capacityUsage"] == [{"capacityUnit": "NUM_INSTANCES", "quantity": 2.0}]
    assert (described["status"], described["isTerminated"], described["attempts"]) == ("SUBMITTED", False, [])


async def test_a_job_is_described_by_its_arn(rig: Rig) -> None:
    answer = await rig.submit()
    assert (await rig.describe(answer["jobArn"]))["jobId"] == answer["jobId"]


async def test_a_job_passes_through_every_state_in_its_time(rig: Rig) -> None:
    job_id = (await rig.submit())["jobId"]
    seen = []
    for _ in range(101):
        status = rig.emulator.status(rig.emulator.jobs[0])
        if status not in seen:
            seen.append(status)
        rig.clock.advance(0.1)
    assert seen == STATES
    assert (await rig.describe(job_id))["status"] == "SUCCEEDED"


async def test_times_and_the_attempt_appear_as_the_job_gets_on(rig: Rig) -> None:
    job_id = (await rig.submit())["jobId"]
    start = rig.clock.epoch_ms()
    assert (await rig.describe(job_id))["startedAt"] == 0
    rig.clock.advance(5)
    running = await rig.describe(job_id)
    assert running["status"] == "RUNNING"
    assert (running["scheduledAt"], running["startedAt"]) == (start + 2000, start + 3000)
    assert "stoppedAt" not in running
    rig.clock.advance(6)
    ended = await rig.describe(job_id)
    assert ended["stoppedAt"] == start + 10_000
    (attempt,) = ended["attempts"]
    assert attempt["serviceResourceId"] == ended["latestAttempt"]["serviceResourceId"]
    assert ":training-job/AWSBatchfirst" in attempt["serviceResourceId"]["value"]


async def test_job_seconds_sets_the_pace_of_jobs() -> None:
    async with emulating(job_seconds=0) as rig:
        assert (await rig.describe((await rig.submit())["jobId"]))["status"] == "SUCCEEDED"


async def test_a_terminated_job_has_failed_for_the_given_reason(rig: Rig) -> None:
    job_id = (await rig.submit())["jobId"]
    rig.clock.advance(5)
    await rig.call("terminate_service_job", jobId=job_id, reason="no longer needed")
    rig.clock.advance(50)
    described = await rig.describe(job_id)
    assert (described["status"], described["statusReason"]) == ("FAILED", "no longer needed")
    assert described["isTerminated"] is True
    assert described["stoppedAt"] == described["createdAt"] + 5000
    assert described["attempts"][0]["statusReason"] == "no longer needed"


async def test_terminating_what_has_ended_changes_nothing(rig: Rig) -> None:
    job_id = (await rig.submit())["jobId"]
    rig.clock.advance(11)
    await rig.call("terminate_service_job", jobId=job_id, reason="too late")
    assert (await rig.describe(job_id))["status"] == "SUCCEEDED"


async def test_an_update_changes_the_priority(rig: Rig) -> None:
    job_id = (await rig.submit(schedulingPriority=1))["jobId"]
    answer = await rig.call("update_service_job", jobId=job_id, schedulingPriority=9)
    assert (answer["jobId"], answer["jobName"]) == (job_id, "first")
    assert (await rig.describe(job_id))["schedulingPriority"] == 9


async def test_an_update_is_refused_out_of_range_and_after_the_end(rig: Rig) -> None:
    job_id = (await rig.submit())["jobId"]
    refusal = await rig.refused("update_service_job", jobId=job_id, schedulingPriority=10_000)
    assert "schedulingPriority" in refusal.message
    rig.clock.advance(11)
    refusal = await rig.refused("update_service_job", jobId=job_id, schedulingPriority=1)
    assert (refusal.status, refusal.code) == (400, "ClientException")


@pytest.mark.parametrize(
    "job_id", ["nobody", "arn:aws:batch:eu-west-1:123456789012:service-job/x", "arn:aws:batch:us-east-1:1:job/x"]
)
async def test_a_job_that_does_not_exist_is_a_client_error(rig: Rig, job_id: str) -> None:
    for operation, others in (
        ("describe_service_job", {}),
        ("terminate_service_job", {"reason": "why"}),
        ("update_service_job", {"schedulingPriority": 1}),
    ):
        refusal = await rig.refused(operation, jobId=job_id, **others)
        assert (refusal.status, refusal.code) == (400, "ClientException")
        assert "jobId" in refusal.message


@pytest.mark.parametrize("payload", ["no json", "[]", '{"ResourceConfig": {"InstanceCount": "x"}}'])
async def test_a_payload_is_passed_on_unchecked(rig: Rig, payload: str) -> None:
    described = await rig.describe((await rig.submit(serviceRequestPayload=payload))["jobId"])
    assert described["serviceRequestPayload"] == payload
    assert described["capacityUsage"][0]["quantity"] == 1.0


async def test_tags_of_a_job_are_listed_added_and_taken_away(rig: Rig) -> None:
    arn = (await rig.submit(tags={"team": "vision"}))["jobArn"]
    await rig.call("tag_resource", resourceArn=arn, tags={"owner": "ada"})
    listed = await rig.call("list_tags_for_resource", resourceArn=arn)
    assert listed["tags"] == {"team": "vision", "owner": "ada"}
    await rig.call("untag_resource", resourceArn=arn, tagKeys=["team", "absent"])
    assert (await rig.describe(arn))["tags"] == {"owner": "ada"}


async def test_a_resource_takes_at_most_fifty_tags(rig: Rig) -> None:
    arn = (await rig.submit(tags={f"k{n}": "" for n in range(49)}))["jobArn"]
    await rig.call("tag_resource", resourceArn=arn, tags={"last": ""})
    assert "tags" in (await rig.refused("tag_resource", resourceArn=arn, tags={"over": ""})).message


async def test_tags_of_what_does_not_exist_are_a_client_error(rig: Rig) -> None:
    arn = "arn:aws:batch:us-east-1:123456789012:service-job/x"
    assert (await rig.refused("list_tags_for_resource", resourceArn=arn)).code == "ClientException"


async def test_a_snapshot_shows_the_front_of_the_queue_by_priority_and_what_runs(rig: Rig) -> None:
    await rig.submit()
    rig.clock.advance(4)
    low, high = await rig.submit(schedulingPriority=1), await rig.submit(schedulingPriority=2)
    rig.clock.advance(1.5)
    snapshot = await rig.call("get_job_queue_snapshot", jobQueue="training")
    assert [job["jobArn"] for job in snapshot["frontOfQueue"]["jobs"]] == [high["jobArn"], low["jobArn"]]
    assert snapshot["queueUtilization"]["totalCapacityUsage"] == [{"capacityUnit": "NUM_INSTANCES", "quantity": 2.0}]
