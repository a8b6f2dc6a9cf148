"""The SageMaker SDK's TrainingQueue, versions 2 and 3, on Batch and on the gateway. Not in CI: `make test-clients`."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from tests.clients.environments import SAGEMAKER_V2, SAGEMAKER_V3, Environment
from tests.clients.stand import client_environment, eventually, standing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.clients.stand import Stand
    from tests.servers import StoreServer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(bool(os.environ.get("CI")), reason="environments of 900 MB are not for CI"),
]

# So short that a test can wait for a job's end, and long enough that one is terminated before it.
JOB_SECONDS = 8
FAULTS = ("throttle", "throttle_bare", "error_500", "lost_answer")
OWN_TAG = "gateway:submission-id"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sdk:
    """A version of the SDK: its environment, the script that uses it, and what its users can do with it."""

    environment: Environment
    script: str
    kinds: tuple[str, ...]
    share: str
    updates: bool


VERSIONS = {
    "v2": Sdk(
        environment=SAGEMAKER_V2,
        script="sagemaker_v2_calls.py",
        kinds=("trainer", "estimator", "pytorch"),
        share="shareIdentifier",
        updates=False,
    ),
    "v3": Sdk(
        environment=SAGEMAKER_V3,
        script="sagemaker_v3_calls.py",
        kinds=("trainer",),
        share="quotaShareName",
        updates=True,
    ),
}


@pytest.fixture(scope="module")
def quick_stand(tmp_path_factory: pytest.TempPathFactory, valkey: StoreServer) -> Iterator[Stand]:
    folder, prefix = tmp_path_factory.mktemp("sagemaker"), f"s{uuid4().hex[:12]}"
    with standing(folder, valkey.url, prefix=prefix, job_seconds=JOB_SECONDS) as stand:
        yield stand


@pytest.fixture(params=VERSIONS)
def sdk(request: pytest.FixtureRequest) -> Sdk:
    """Skips where its environment is not built."""
    sdk = VERSIONS[request.param]
    if not sdk.environment.is_built:
        pytest.skip(f"no environment {sdk.environment.name}: make test-clients builds it")
    return sdk


@pytest.mark.parametrize("where", ["batch", "gateway"])
def test_a_training_queue_lives_through_its_jobs(quick_stand: Stand, sdk: Sdk, name: str, where: str) -> None:
    said = calls(sdk, quick_stand, where, name, name)
    assert said["mapped"] == [f"{name}-map-{number}" for number in range(4)]
    assert said["unnamed"] == 4
    assert said["listed"] == said["mapped"][::-1]
    assert said["got"] == f"{name}-map-1"
    assert said["unknown"] == "ValueError: Cannot find job: nobody"
    assert (said["terminated"], said["terminated_result"]) == ("FAILED", "RuntimeError: enough")
    assert said["result"] == "SUCCEEDED"
    # It has found the training job's name in the answer and gone on to SageMaker, of which there is nothing here.
    assert "when calling the DescribeTrainingJob operation" in said["attached"]
    assert said["succeeded"] + said["running"] == len(sdk.kinds) + 7
    assert said.get("by_share", 1) == 1
    assert said["described"].keys() == set(sdk.kinds)
    for kind, described in said["described"].items():
        assert described["jobName"] == f"{name}-{kind}"
        assert described[sdk.share] == name
        assert (described["schedulingPriority"], described["timeoutConfig"]) == (5, {"attemptDurationSeconds": 3600})
        assert described["retryStrategy"]["attempts"] == 2
        assert described["tags"].keys() - {OWN_TAG} == {"owner", *(["team"] if kind == "estimator" else [])}
        assert json.loads(described["serviceRequestPayload"])["ResourceConfig"]["InstanceType"] == "ml.g5.xlarge"
    assert len(quick_stand.jobs(f"{name}-map-0")) == 1


def test_jobs_that_wait_in_the_gateway_are_jobs_to_the_sdk(quick_stand: Stand, sdk: Sdk, name: str) -> None:
    quick_stand.set_share(name, name, paused=True)
    said = calls(sdk, quick_stand, "gateway", name, name, "held")
    assert said["statuses"] == ["SUBMITTED"] * 3
    assert said["listed"] is True
    assert said["got"] is True
    assert said["attached"].startswith("NoTrainingJob")
    assert said["terminated"] == "FAILED"
    assert said["result"].startswith("RuntimeError: ")
    assert "enough" in said["result"]
    assert said.get("by_share", 2) == 2
    quick_stand.set_share(name, name, paused=False)
    eventually(lambda: len(quick_stand.jobs(f"{name}-1") + quick_stand.jobs(f"{name}-2")) == 2)
    assert quick_stand.jobs(f"{name}-0") == []
    if sdk.updates:
        assert said["updated"] == f"{name}-1"
        eventually(lambda: quick_stand.jobs(f"{name}-1")[0]["schedulingPriority"] == 9)


def test_no_fault_of_batch_reaches_the_sdk(quick_stand: Stand, sdk: Sdk, name: str) -> None:
    names = [f"{name}-{fault.replace('_', '-')}" for fault in FAULTS]
    for job_name, fault in zip(names, FAULTS, strict=True):
        quick_stand.break_batch(fault, jobName=job_name, times=1)
    said = calls(sdk, quick_stand, "gateway", name, name, *names)
    assert said["ended"] == ["SUCCEEDED"] * len(FAULTS)
    assert [len(quick_stand.jobs(job_name)) for job_name in names] == [1] * len(FAULTS)


def calls(sdk: Sdk, stand: Stand, where: str, *arguments: str) -> dict[str, Any]:
    """What the script of the version says, run in its environment."""
    environment = client_environment(
        stand.batch if where == "batch" else stand.gateway.url,
        AWS_ENDPOINT_URL=stand.batch,  # calls of other services get an error at once, and are not tried for long
        SAGEMAKER_VALIDATE_ROLE="false",  # version 3 would ask IAM
        SAGEMAKER_SUPPRESS_V2_WARNING="1",
        HOME=os.devnull,
    )
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [sdk.environment.python, Path(__file__).with_name(sdk.script), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said
