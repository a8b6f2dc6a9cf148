"""The AWS CLI from a shell, on Batch and on the gateway: what it prints, what it says of errors, how it exits."""

from __future__ import annotations

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.clients.environments import AWS_CLI, built
from tests.clients.stand import QUOTA_SHARES, client_environment, eventually, request, submit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.clients.stand import Stand

# What version 1 exits with where the service refuses.
REFUSED = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Aws:
    """`aws batch …` with an endpoint in its environment."""

    url: str

    def __call__(self, command: str, *arguments: str) -> Any:
        """What it prints, as JSON; nothing is None. It must succeed."""
        done = self.run(command, *arguments)
        assert (done.returncode, done.stderr) == (0, "")
        return json.loads(done.stdout) if done.stdout else None

    def refused(self, command: str, *arguments: str) -> str:
        """The message of a failure, which it must be."""
        done = self.run(command, *arguments)
        assert (done.returncode, done.stdout) == (REFUSED, "")
        return done.stderr.strip()

    def run(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [AWS_CLI.command("aws"), "batch", command, *arguments],
            env=client_environment(self.url, AWS_PAGER=""),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@pytest.fixture(scope="session", autouse=True)
def _installed() -> None:
    built(AWS_CLI)


@pytest.fixture
def aws(endpoint: str) -> Aws:
    return Aws(url=endpoint)


@pytest.fixture
def aws_at_gateway(stand: Stand) -> Aws:
    return Aws(url=stand.gateway.url)


def test_a_job_from_its_submission_to_its_end(stand: Stand, aws: Aws, name: str) -> None:
    asked = request(name)
    submitted = aws(
        "submit-service-job",
        *_options(asked),
        *("--scheduling-priority", "5"),
        *("--retry-strategy", "attempts=2"),
        *("--timeout-config", "attemptDurationSeconds=3600"),
        *("--tags", "team=vision"),
    )
    (job,) = stand.jobs(name)
    assert submitted == {"jobArn": job["jobArn"], "jobName": name, "jobId": job["jobId"]}

    described = aws("describe-service-job", "--job-id", submitted["jobArn"])
    assert {member: described[member] for member in submitted} == submitted
    assert (described["schedulingPriority"], described["tags"]["team"]) == (5, "vision")
    assert described["serviceRequestPayload"] == asked["serviceRequestPayload"]

    assert aws("update-service-job", "--job-id", job["jobId"], "--scheduling-priority", "9") == submitted
    eventually(lambda: stand.jobs(name)[0]["schedulingPriority"] == 9)

    assert aws("terminate-service-job", "--job-id", job["jobId"], "--reason", "not wanted") is None
    eventually(lambda: stand.jobs(name)[0]["status"] == "FAILED")
    query = ("--query", "[status, statusReason, isTerminated]")
    ended = ["FAILED", "not wanted", True]
    eventually(lambda: aws("describe-service-job", "--job-id", job["jobArn"], *query) == ended)


def test_no_fault_of_batch_reaches_the_shell(stand: Stand, aws_at_gateway: Aws, name: str) -> None:
    """All at once: after most of them the gateway looks for a job for seconds before it calls again."""
    names = {f"{name}-{fault}": fault for fault in ("throttle", "throttle_bare", "error_500", "lost_answer")}
    for job_name, fault in names.items():
        stand.break_batch(fault, jobName=job_name, times=1)

    def submitted(job_name: str) -> str:
        return str(aws_at_gateway("submit-service-job", *_options(request(job_name)))["jobId"])

    with ThreadPoolExecutor(len(names)) as pool:
        ids = list(pool.map(submitted, names))
    for job_name, job_id in zip(names, ids, strict=True):
        eventually(lambda job_name=job_name: len(stand.jobs(job_name)) == 1)  # type: ignore[misc]
        assert aws_at_gateway("describe-service-job", "--job-id", job_id)["jobName"] == job_name
    assert [len(stand.jobs(job_name)) for job_name in names] == [1] * len(names)


def test_what_waits_looks_like_a_job_that_batch_has_not_begun(stand: Stand, aws_at_gateway: Aws, name: str) -> None:
    aws = aws_at_gateway
    stand.set_share("training", name, paused=True)
    submitted = submit(aws.url, **request(name, shareIdentifier=name))
    described = aws("describe-service-job", "--job-id", submitted["jobArn"])
    assert {member: described[member] for member in submitted} == submitted
    assert described["status"] == "SUBMITTED"
    assert aws("terminate-service-job", "--job-id", submitted["jobArn"], "--reason", "not wanted") is None
    assert aws("describe-service-job", "--job-id", submitted["jobId"], "--query", "status") == "FAILED"
    assert stand.calls(name) == []


def test_a_list_goes_on_by_itself_and_stops_where_it_is_told(aws: Aws, name: str) -> None:
    submitted = [submit(aws.url, **request(name, jobQueue=name)) for _ in range(5)]
    newest_first = [one["jobId"] for one in reversed(submitted)]
    wanted = ("--job-queue", name, "--filters", f"name=JOB_NAME,values={name}", "--page-size", "2")
    everything = aws("list-service-jobs", *wanted)
    assert [job["jobId"] for job in everything["jobSummaryList"]] == newest_first
    assert "NextToken" not in everything

    first = aws("list-service-jobs", *wanted, "--max-items", "3")
    assert [job["jobId"] for job in first["jobSummaryList"]] == newest_first[:3]
    rest = aws("list-service-jobs", *wanted, "--starting-token", first["NextToken"])
    assert [job["jobId"] for job in rest["jobSummaryList"]] == newest_first[3:]


def test_a_list_that_stops_goes_on_with_what_waits(stand: Stand, aws_at_gateway: Aws, name: str) -> None:
    """`--max-items` cuts a page in two: its other half is asked for by the page's own token, and must be the same."""
    aws = aws_at_gateway
    asked = request(name, jobQueue=name, shareIdentifier="vision")
    submitted = [submit(aws.url, **asked)]
    stand.set_share(name, "vision", paused=True)
    submitted += [submit(aws.url, **asked) for _ in range(4)]
    newest_first = [one["jobId"] for one in reversed(submitted)]
    wanted = ("--job-queue", name, "--job-status", "SUBMITTED", "--page-size", "2", "--max-items", "1")
    listed, token = [], ()
    while len(listed) < 2 * len(submitted):
        page = aws("list-service-jobs", *wanted, *token)
        listed += [job["jobId"] for job in page["jobSummaryList"]]
        if "NextToken" not in page:
            break
        token = ("--starting-token", page["NextToken"])
    assert [newest_first.index(one) for one in listed] == list(range(5))


def test_queues_policies_and_shares_are_printed_alike(stand: Stand) -> None:
    with ThreadPoolExecutor() as threads:
        told = list(threads.map(_queues, [Aws(url=stand.batch), Aws(url=stand.gateway.url)]))
    assert told[0] == told[1]
    assert [len(part) for part in told[0][:3]] == [3, 1, len(QUOTA_SHARES)]


def test_a_snapshot_is_printed(aws: Aws) -> None:
    assert aws("get-job-queue-snapshot", "--job-queue", "plain", "--query", "frontOfQueue.jobs") == []


@pytest.mark.parametrize(
    ("members", "named"),
    [
        ({"jobName": "two words"}, "jobName"),
        ({"jobQueue": "fair", "shareIdentifier": None}, "shareIdentifier"),
    ],
    ids=["jobName", "shareIdentifier"],
)
def test_wrong_input_is_an_error_that_names_the_member(
    aws: Aws, name: str, members: dict[str, Any], named: str
) -> None:
    said = aws.refused("submit-service-job", "--cli-input-json", json.dumps(request(name, **members)))
    assert said.startswith("An error occurred (ClientException) when calling the SubmitServiceJob operation: ")
    assert named in said


def test_an_unknown_job_is_an_error(aws: Aws) -> None:
    said = aws.refused("describe-service-job", "--job-id", "11111111-2222-8333-8444-555555555555")
    assert said.startswith("An error occurred (ClientException) when calling the DescribeServiceJob operation: ")


def _queues(aws: Aws) -> list[Any]:
    queues = aws("describe-job-queues", "--job-queues", "fair", "plain", "quota")["jobQueues"]
    arns = [queue["schedulingPolicyArn"] for queue in queues if "schedulingPolicyArn" in queue]
    shares = aws("list-quota-shares", "--job-queue", "quota", "--page-size", "2")["quotaShares"]
    return [
        queues,
        aws("describe-scheduling-policies", "--arns", *arns),
        shares,
        aws("describe-quota-share", "--quota-share-arn", shares[0]["quotaShareArn"]),
    ]


def _options(asked: dict[str, str]) -> Sequence[str]:
    """`--job-name NAME` for each member."""
    dashed = {"".join(f"-{c.lower()}" if c.isupper() else c for c in member): asked[member] for member in asked}
    return [part for option, value in dashed.items() for part in (f"--{option}", value)]
