"""boto3 with its own retries, as services use it, on Batch and on the gateway: nothing but the address differs."""

from __future__ import annotations

import json
import random
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.clients.cut import cutting
from tests.clients.stand import LIMITED_QUEUE, QUOTA_SHARES, eventually, request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.clients.stand import Stand

    Connect = Callable[..., Any]

MODES = ("legacy", "standard", "adaptive")
# Faults of Batch's that a caller who calls it directly gets to see or sits through, and the gateway's callers never do.
FAULTS = ("throttle", "throttle_bare", "error_500", "late_500", "lost_answer", "drop")


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Clients of an address with a retry mode, closed at the end."""
    clients = []

    def connected(url: str, mode: str = "standard", **retries: int) -> Any:
        config = Config(retries={"mode": mode, **retries}, read_timeout=20)
        client = _session().client("batch", endpoint_url=url, config=config)
        clients.append(client)
        return client

    yield connected
    for client in clients:
        client.close()


@pytest.fixture
def batch(endpoint: str, connect: Connect) -> Any:
    return connect(endpoint)


@pytest.fixture
def gateway(stand: Stand, connect: Connect) -> Any:
    return connect(stand.gateway.url)


@pytest.mark.parametrize("mode", MODES)
def test_a_submission_is_one_job_in_every_retry_mode(
    stand: Stand, endpoint: str, connect: Connect, name: str, mode: str
) -> None:
    submitted = connect(endpoint, mode).submit_service_job(**request(name, schedulingPriority=7))
    (job,) = stand.jobs(name)
    assert _members(submitted) == {"jobId": job["jobId"], "jobArn": job["jobArn"], "jobName": name}
    assert submitted["ResponseMetadata"]["RetryAttempts"] == 0
    assert job["schedulingPriority"] == 7


def test_no_fault_of_batch_reaches_a_caller_in_any_retry_mode(stand: Stand, connect: Connect, name: str) -> None:
    """All at once: after most of these faults the gateway looks for a job for seconds before it calls again."""
    clients = {mode: connect(stand.gateway.url, mode) for mode in MODES}
    # Each mode meets two of them: none gets to see any, so that more pairs would only take longer.
    cases = [(f"{name}-{fault}", fault, clients[mode]) for fault, mode in zip(FAULTS, MODES * 2, strict=True)]
    for job_name, fault, _ in cases:
        stand.break_batch(fault, jobName=job_name, times=1)

    def submit(job_name: str, client: Any) -> tuple[int, str]:
        submitted = client.submit_service_job(**request(job_name))
        described = client.describe_service_job(jobId=submitted["jobArn"])
        return submitted["ResponseMetadata"]["RetryAttempts"], described["jobName"]

    with ThreadPoolExecutor(len(cases)) as threads:
        answered = {job_name: threads.submit(submit, job_name, client) for job_name, _, client in cases}
        assert {job_name: answer.result() for job_name, answer in answered.items()} == {
            job_name: (0, job_name) for job_name, _, _ in cases
        }
    eventually(lambda: all(stand.jobs(job_name) for job_name, _, _ in cases))
    assert [len(stand.jobs(job_name)) for job_name, _, _ in cases] == [1] * len(cases)


def test_a_caller_of_batch_itself_repeats_with_one_token(stand: Stand, connect: Connect, name: str) -> None:
    stand.break_batch("throttle", jobName=name, times=1)
    client = connect(stand.batch, "legacy")
    assert client.submit_service_job(**request(name))["ResponseMetadata"]["RetryAttempts"] == 1
    tokens = [call["clientToken"] for call in stand.calls(name)]
    assert (len(tokens), len(set(tokens))) == (2, 1)


@pytest.mark.parametrize("mode", MODES)
def test_a_share_over_its_rate_is_waited_for_in_every_retry_mode(
    stand: Stand, connect: Connect, name: str, mode: str
) -> None:
    client = connect(stand.gateway.url, mode)
    tokens = _tokens_sent(client)
    asked = request(name, jobQueue=LIMITED_QUEUE, shareIdentifier=name)
    client.submit_service_job(**asked)
    tokens.clear()
    # The share takes the next one after 0.5 s. botocore 1.43 waits by chance alone, and this chance is 0.84 s at first.
    random.seed(0)
    assert client.submit_service_job(**asked)["ResponseMetadata"]["RetryAttempts"] == 1
    assert (len(tokens), len(set(tokens))) == (2, 1)
    eventually(lambda: len(stand.jobs(name)) == 2)


def test_a_share_over_its_rate_says_so_in_batchs_words(stand: Stand, connect: Connect, name: str) -> None:
    client = connect(stand.gateway.url, total_max_attempts=1)
    asked = request(name, jobQueue=LIMITED_QUEUE, shareIdentifier=name)
    client.submit_service_job(**asked)
    with pytest.raises(ClientError) as refused:
        client.submit_service_job(**asked)
    answer = refused.value.response
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 429
    assert answer["Error"]["Code"] == headers["x-amzn-errortype"] == "TooManyRequestsException"
    assert 0 < int(headers["x-amz-retry-after"]) <= 500
    assert headers["retry-after"] == "1"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("held", [True, False], ids=["queued", "forwarded"])
def test_a_repeat_after_a_lost_answer_gets_the_same_submission(
    stand: Stand, connect: Connect, name: str, mode: str, *, held: bool
) -> None:
    if held:
        stand.set_share("training", name, paused=True)
    with cutting(stand.gateway.url) as cut:
        client = connect(cut.url, mode)
        tokens = _tokens_sent(client)
        submitted = client.submit_service_job(**request(name, shareIdentifier=name))
    assert submitted["ResponseMetadata"]["RetryAttempts"] == 1
    assert (len(tokens), len(set(tokens))) == (2, 1)
    assert submitted["ResponseMetadata"]["HTTPHeaders"]["idempotent-replayed"] == "true"
    first, second = cut.answers[0], cut.answers[1]
    assert first["jobId"] == second["jobId"] == submitted["jobId"]
    if held:
        stand.set_share("training", name, paused=False)
    eventually(lambda: len(stand.jobs(name)) == 1)


def test_a_serial_loop_does_not_go_at_batchs_pace(stand: Stand, connect: Connect, name: str) -> None:
    """`TrainingQueue.map` is one: with a share that stands still, it would wait for ever."""
    stand.set_share("training", name, paused=True)
    client = connect(stand.gateway.url)
    began = time.monotonic()
    ids = {client.submit_service_job(**request(name, shareIdentifier=name))["jobId"] for _ in range(50)}
    assert time.monotonic() - began < 5
    assert len(ids) == 50
    stand.set_share("training", name, paused=False)
    eventually(lambda: len(stand.jobs(name)) == 50)


def test_a_serial_loop_does_not_go_at_a_slow_batchs_pace(stand: Stand, gateway: Any, name: str) -> None:
    stand.break_batch("slow", jobName=name, seconds=2.5)
    began = time.monotonic()
    ids = {gateway.submit_service_job(**request(name))["jobId"] for _ in range(5)}
    # The first waits for its call, `http.wait_seconds`; while that has no answer the others don't.
    assert time.monotonic() - began < 4
    assert len(ids) == 5
    eventually(lambda: len(stand.jobs(name)) == 5)


def test_both_kinds_of_id_and_arn_find_a_job(stand: Stand, gateway: Any, name: str) -> None:
    stand.set_share("training", name, paused=True)
    own = gateway.submit_service_job(**request(name, shareIdentifier=name))
    for wanted in (own["jobId"], own["jobArn"]):
        queued = gateway.describe_service_job(jobId=wanted)
        assert (queued["jobId"], queued["jobArn"]) == (own["jobId"], own["jobArn"])
        assert (queued["status"], queued["startedAt"], queued["shareIdentifier"]) == ("SUBMITTED", 0, name)
    stand.set_share("training", name, paused=False)
    eventually(lambda: len(stand.jobs(name)) == 1)
    (job,) = stand.jobs(name)
    for wanted in (own["jobId"], own["jobArn"]):
        described = gateway.describe_service_job(jobId=wanted)
        assert (described["jobId"], described["jobArn"]) == (own["jobId"], own["jobArn"])
        assert described["serviceRequestPayload"] == request(name)["serviceRequestPayload"]
        assert described["ResponseMetadata"]["HTTPHeaders"]["x-gateway-job-arn"] == job["jobArn"]
    for wanted in (job["jobId"], job["jobArn"]):
        described = gateway.describe_service_job(jobId=wanted)
        assert (described["jobId"], described["jobArn"]) == (job["jobId"], job["jobArn"])


def test_a_description_has_what_was_asked_for(batch: Any, name: str) -> None:
    asked = request(
        name,
        schedulingPriority=3,
        retryStrategy={"attempts": 2, "evaluateOnExit": [{"action": "EXIT", "onStatusReason": "*"}]},
        timeoutConfig={"attemptDurationSeconds": 86400},
        tags={"team": "vision"},
    )
    submitted = batch.submit_service_job(**asked)
    described = batch.describe_service_job(jobId=submitted["jobArn"])
    echoed = asked.keys() - {"jobQueue", "tags"}
    assert {member: described[member] for member in echoed} == {member: asked[member] for member in echoed}
    assert described["jobQueue"].endswith(":job-queue/training")
    assert described["tags"]["team"] == "vision"
    assert described["isTerminated"] is False


def test_a_job_that_only_batch_knows_is_found_through_the_gateway(
    stand: Stand, connect: Connect, gateway: Any, name: str
) -> None:
    submitted = connect(stand.batch).submit_service_job(**request(name))
    for wanted in (submitted["jobId"], submitted["jobArn"]):
        assert gateway.describe_service_job(jobId=wanted)["jobArn"] == submitted["jobArn"]
    gateway.terminate_service_job(jobId=submitted["jobArn"], reason="not wanted")
    assert stand.jobs(name)[0]["status"] == "FAILED"


def test_the_paginator_lists_every_job_once_newest_first(batch: Any, name: str) -> None:
    submitted = [batch.submit_service_job(**request(f"{name}-{number}", jobQueue=name)) for number in range(7)]
    newest_first = [one["jobArn"] for one in reversed(submitted)]
    filters = [{"name": "JOB_NAME", "values": [f"{name}-*"]}]
    pages = batch.get_paginator("list_service_jobs").paginate(
        jobQueue=name, filters=filters, PaginationConfig={"PageSize": 3}
    )
    listed = [job["jobArn"] for page in pages for job in page["jobSummaryList"]]
    assert listed == newest_first
    assert (
        batch.list_service_jobs(jobQueue=name, filters=[{"name": "JOB_NAME", "values": ["nobody"]}])["jobSummaryList"]
        == []
    )


def test_a_list_has_what_waits_and_what_batch_has(stand: Stand, gateway: Any, name: str) -> None:
    asked = request(name, jobQueue=name, shareIdentifier="vision")
    forwarded = gateway.submit_service_job(**asked)
    eventually(lambda: len(stand.jobs(name)) == 1)
    stand.set_share(name, "vision", paused=True)
    queued = [gateway.submit_service_job(**asked) for _ in range(5)]
    expected = [one["jobArn"] for one in [*reversed(queued), forwarded]]
    for query in ({"filters": [{"name": "JOB_NAME", "values": [name]}]}, {"jobStatus": "SUBMITTED"}):
        pages = gateway.get_paginator("list_service_jobs").paginate(
            jobQueue=name, PaginationConfig={"PageSize": 2}, **query
        )
        jobs = [job for page in pages for job in page["jobSummaryList"]]
        assert [job["jobArn"] for job in jobs] == expected
        assert {job["status"] for job in jobs} == {"SUBMITTED"}
        assert {job["shareIdentifier"] for job in jobs} == {"vision"}


def test_walks_while_jobs_leave_for_batch_show_each_once(stand: Stand, gateway: Any, name: str) -> None:
    stand.set_share(name, "vision", paused=True)
    asked = request(name, jobQueue=name)
    submitted = {gateway.submit_service_job(**asked)["jobId"] for _ in range(60)}
    filters = [{"name": "JOB_NAME", "values": [name]}]
    stand.set_share(name, "vision", paused=False)
    walks, forwarded = [], 0
    while forwarded < len(submitted):
        forwarded = len(stand.jobs(name))
        pages = gateway.get_paginator("list_service_jobs").paginate(
            jobQueue=name, filters=filters, PaginationConfig={"PageSize": 7}
        )
        walks.append([job["jobId"] for page in pages for job in page["jobSummaryList"]])
    # Before it was forwarded it was listed by its own id, afterwards by Batch's.
    own_ids = {one: one for one in submitted} | {_job_id(gateway, one): one for one in submitted}
    for walk in walks:
        shown = [own_ids[one] for one in walk]
        assert (len(shown), set(shown)) == (len(submitted), submitted)


def test_terminate_ends_a_job(stand: Stand, batch: Any, name: str) -> None:
    submitted = batch.submit_service_job(**request(name))
    assert _members(batch.terminate_service_job(jobId=submitted["jobArn"], reason="not wanted")) == {}
    eventually(lambda: stand.jobs(name)[0]["status"] == "FAILED")
    eventually(lambda: batch.describe_service_job(jobId=submitted["jobId"])["status"] == "FAILED")
    described = batch.describe_service_job(jobId=submitted["jobId"])
    assert (described["statusReason"], described["isTerminated"]) == ("not wanted", True)
    assert _members(batch.terminate_service_job(jobId=submitted["jobArn"], reason="again")) == {}


def test_terminate_of_a_queued_one_makes_no_job(stand: Stand, gateway: Any, name: str) -> None:
    stand.set_share("training", name, paused=True)
    submitted = gateway.submit_service_job(**request(name, shareIdentifier=name))
    assert _members(gateway.terminate_service_job(jobId=submitted["jobArn"], reason="not wanted")) == {}
    described = gateway.describe_service_job(jobId=submitted["jobArn"])
    assert (described["status"], described["isTerminated"]) == ("FAILED", True)
    assert "not wanted" in described["statusReason"]
    stand.set_share("training", name, paused=False)
    assert stand.calls(name) == []


def test_update_changes_the_priority(stand: Stand, batch: Any, name: str) -> None:
    submitted = batch.submit_service_job(**request(name, schedulingPriority=1))
    updated = batch.update_service_job(jobId=submitted["jobArn"], schedulingPriority=42)
    assert _members(updated) == _members(submitted)
    eventually(lambda: stand.jobs(name)[0]["schedulingPriority"] == 42)


def test_update_of_a_queued_one_is_what_batch_gets(stand: Stand, gateway: Any, name: str) -> None:
    stand.set_share("training", name, paused=True)
    submitted = gateway.submit_service_job(**request(name, shareIdentifier=name, schedulingPriority=1))
    updated = gateway.update_service_job(jobId=submitted["jobId"], schedulingPriority=42)
    assert _members(updated) == _members(submitted)
    stand.set_share("training", name, paused=False)
    eventually(lambda: [job["schedulingPriority"] for job in stand.jobs(name)] == [42])


def test_queues_policies_and_shares_are_told_as_batch_tells_them(stand: Stand, connect: Connect, gateway: Any) -> None:
    told = [_queue_answers(client) for client in (connect(stand.batch), gateway)]
    assert told[0] == told[1]
    assert len(told[0]["shares"]) == len(QUOTA_SHARES)
    assert [queue["jobQueueName"] for queue in told[0]["queues"]] == ["fair", "quota", "plain"]


def test_a_snapshot_shows_the_front_of_the_queue(batch: Any) -> None:
    snapshot = batch.get_job_queue_snapshot(jobQueue="plain")
    assert snapshot["frontOfQueue"]["jobs"] == []
    assert snapshot["queueUtilization"]["totalCapacityUsage"]


@pytest.mark.parametrize(
    ("members", "named"),
    [
        ({"jobName": "no spaces"}, "jobName"),
        ({"schedulingPriority": 10_000}, "schedulingPriority"),
        ({"quotaShareName": "gold"}, "quotaShareName"),
        ({"jobQueue": "plain"}, "shareIdentifier"),
        ({"jobQueue": "fair", "shareIdentifier": None}, "shareIdentifier"),
        ({"jobQueue": "quota", "shareIdentifier": None, "quotaShareName": "none-such"}, "quotaShareName"),
        ({"retryStrategy": {"attempts": 11}}, "retryStrategy"),
        ({"tags": {"aws:mine": "1"}}, "tags"),
        ({"serviceRequestPayload": "x" * 11_000}, "serviceRequestPayload"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_input_is_a_client_exception_that_names_the_member(
    stand: Stand, batch: Any, name: str, members: dict[str, Any], named: str
) -> None:
    with pytest.raises(batch.exceptions.ClientException) as refused:
        batch.submit_service_job(**request(name, **members))
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert refused.value.response["ResponseMetadata"]["RetryAttempts"] == 0
    assert named in refused.value.response["Error"]["Message"]
    assert stand.jobs(name) == []


def test_an_unknown_job_is_a_client_exception(batch: Any) -> None:
    unknown = "11111111-2222-8333-8444-555555555555"
    for wanted in (unknown, f"arn:aws:batch:us-east-1:123456789012:service-job/{unknown}"):
        for call in (
            lambda wanted: batch.describe_service_job(jobId=wanted),
            lambda wanted: batch.terminate_service_job(jobId=wanted, reason="none"),
            lambda wanted: batch.update_service_job(jobId=wanted, schedulingPriority=1),
        ):
            with pytest.raises(batch.exceptions.ClientException) as refused:
                call(wanted)
            assert refused.value.response["ResponseMetadata"]["RetryAttempts"] == 0


def test_a_token_with_another_request_is_refused(gateway: Any, name: str) -> None:
    gateway.submit_service_job(**request(name, clientToken=name))
    with pytest.raises(gateway.exceptions.ClientException, match="schedulingPriority"):
        gateway.submit_service_job(**request(name, clientToken=name, schedulingPriority=5))


def _queue_answers(client: Any) -> dict[str, Any]:
    queues = client.describe_job_queues(jobQueues=["fair", "quota", "plain"])["jobQueues"]
    arns = [queue["schedulingPolicyArn"] for queue in queues if "schedulingPolicyArn" in queue]
    pages = client.get_paginator("list_quota_shares").paginate(jobQueue="quota", PaginationConfig={"PageSize": 2})
    shares = [share for page in pages for share in page["quotaShares"]]
    return {
        "queues": queues,
        "policies": _members(client.describe_scheduling_policies(arns=arns)),
        "shares": shares,
        "share": _members(client.describe_quota_share(quotaShareArn=shares[0]["quotaShareArn"])),
    }


def _members(answer: dict[str, Any]) -> dict[str, Any]:
    return {member: value for member, value in answer.items() if member != "ResponseMetadata"}


def _job_id(client: Any, wanted: str) -> str:
    """Batch's id of the job, by what the gateway says beside its own."""
    headers = client.describe_service_job(jobId=wanted)["ResponseMetadata"]["HTTPHeaders"]
    return str(headers["x-gateway-job-arn"].rpartition("/")[2])


def _tokens_sent(client: Any) -> list[str]:
    """The clientToken of every submission that the client sends from now on, its own repeats too."""
    tokens: list[str] = []
    client.meta.events.register(
        "before-send.batch.SubmitServiceJob",
        lambda request, **_: tokens.append(json.loads(request.body)["clientToken"]) and None,
    )
    return tokens


@cache
def _session() -> boto3.Session:
    return boto3.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1")
