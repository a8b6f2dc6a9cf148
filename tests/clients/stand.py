"""Batch (the emulator) and a gateway before it, as processes, and what a client must be told to find them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from urllib.request import Request, urlopen

from tests.examples import REGION, settings, training_job
from tests.processes import GatewayProcess, gateway_process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# Queues of each kind; any other name is a queue that takes whatever comes.
QUEUES = ("--queue", "fair:fairshare", "--queue", "plain", "--queue", "quota:quota")
QUOTA_SHARES = ("gold", "silver", "tin")
# Twenty times Batch's own rate: what these tests are about is not how long a queue takes.
PACE = "rate = 100\nburst = 20\n"
# Each share of this queue takes two submissions a second, one at a time.
LIMITED_QUEUE = "limited"
LIMITED = f'[[share]]\nqueue = "{LIMITED_QUEUE}"\nshare = "*"\nrate = 2.0\nburst = 1\n'
# Long enough that no job ends while a test looks at it.
JOB_SECONDS = 900
EVENTUALLY_SECONDS = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stand:
    """`batch` is the emulator's URL, `gateway` a `gateway serve` over it."""

    batch: str
    gateway: GatewayProcess

    def jobs(self, name: str) -> list[dict[str, Any]]:
        """What Batch has of this name, oldest first."""
        jobs: list[dict[str, Any]] = _http("GET", f"{self.batch}/_emulator/jobs")["jobs"]
        return [job for job in jobs if job["jobName"] == name]

    def calls(self, name: str) -> list[dict[str, Any]]:
        """The submissions of this name that reached Batch, in their order."""
        calls: list[dict[str, Any]] = _http("GET", f"{self.batch}/_emulator/ledger")["calls"]
        return [call for call in calls if call["operation"] == "SubmitServiceJob" and call["jobName"] == name]

    def break_batch(self, kind: str, **members: Any) -> None:
        """One more fault, see `gateway emulator --help`."""
        _http("POST", f"{self.batch}/_emulator/faults", {"kind": kind, **members})

    def mend_batch(self) -> None:
        _http("DELETE", f"{self.batch}/_emulator/faults")

    def is_calm(self) -> bool:
        """Nothing is under way from the gateway to Batch, nor to be tried again: a submission can go at once."""
        upstream = _http("GET", f"{self.gateway.url}/v1/upstreams/main")
        busy = upstream["leased"] or upstream["delayed"] or upstream["errands"]
        return upstream["condition"] == "calling" and not busy

    def set_share(self, queue: str, share: str, **changes: Any) -> None:
        _http("PATCH", f"{self.gateway.url}/v1/shares/{quote(queue, safe='')}/{quote(share, safe='')}", changes)


@contextmanager
def standing(folder: Path, store_url: str, *, prefix: str, job_seconds: float = JOB_SECONDS) -> Iterator[Stand]:
    with emulator_process(job_seconds) as batch:
        config = settings(store_url=store_url, endpoint_url=batch, prefix=prefix, upstream=PACE + LIMITED)
        with gateway_process(folder, config) as gateway:
            yield Stand(batch=batch, gateway=gateway)


@contextmanager
def emulator_process(job_seconds: float) -> Iterator[str]:
    """`gateway emulator` without a call rate, on a free port; gives its URL."""
    shares = [option for share in QUOTA_SHARES for option in ("--quota-share", f"quota/{share}")]
    process = subprocess.Popen(
        [
            sys.executable, "-m", "gateway", "emulator", "--port", "0", "--json",
            "--tps", "0", "--read-tps", "0", "--job-seconds", str(job_seconds), *QUEUES, *shares,
        ],
        stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())["url"]
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def client_environment(endpoint_url: str, **more: str) -> dict[str, str]:
    """What a user sets so that Batch's clients call another address; every other service of AWS is out of reach."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "GATEWAY_"))}
    nowhere = "http://127.0.0.1:9"
    return inherited | {
        "AWS_ENDPOINT_URL_BATCH": endpoint_url,
        "AWS_ENDPOINT_URL": nowhere,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        **more,
    }


def request(name: str, **members: Any) -> dict[str, Any]:
    """The parameters of SubmitServiceJob, with members changed, added or (by None) taken out."""
    asked = {
        "jobName": name,
        "jobQueue": "training",
        "serviceJobType": "SAGEMAKER_TRAINING",
        "shareIdentifier": "vision",
        "serviceRequestPayload": json.dumps(training_job()),
        **members,
    }
    return {member: value for member, value in asked.items() if value is not None}


def submit(url: str, **asked: Any) -> dict[str, Any]:
    """A submission by no client at all, for tests that are about what comes after it."""
    answer: dict[str, Any] = _http("POST", f"{url}/v1/submitservicejob", asked)
    return answer


def eventually(condition: Callable[[], bool], seconds: float = EVENTUALLY_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.02)


def _http(method: str, url: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    asked = Request(url, data=data, method=method, headers={"Content-Type": "application/json"})
    with urlopen(asked, timeout=10) as answer:
        return json.loads(answer.read() or b"null")
