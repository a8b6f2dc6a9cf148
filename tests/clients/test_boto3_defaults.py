"""boto3 from 1.44 on, whose defaults are other than those of what fits beside the gateway, which `test_boto3` uses."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.clients.cut import cutting
from tests.clients.environments import BOTO3, built
from tests.clients.stand import LIMITED_QUEUE, client_environment, eventually, request

if TYPE_CHECKING:
    from tests.clients.stand import Stand


@pytest.fixture(scope="session", autouse=True)
def _installed() -> None:
    built(BOTO3)


def test_a_share_over_its_rate_is_waited_for_as_long_as_it_says(stand: Stand, name: str) -> None:
    asked = request(name, jobQueue=LIMITED_QUEUE, shareIdentifier=name)
    said = calls(stand.gateway.url, *[("submit_service_job", asked)] * 4)
    assert said["mode"] == "standard"
    first, *others = said["calls"]
    assert first["repeats"] == 0
    # Two a second: the header, not chance, says when.
    assert [(one["repeats"], one["seconds"] > 0.4) for one in others] == [(1, True)] * 3
    eventually(lambda: len(stand.jobs(name)) == 4)


def test_a_repeat_after_a_lost_answer_gets_the_same_submission(stand: Stand, name: str) -> None:
    with cutting(stand.gateway.url, cuts=2) as cut:
        (submitted,) = calls(cut.url, ("submit_service_job", request(name)))["calls"]
    assert submitted["repeats"] == 2
    assert {answer["jobId"] for answer in cut.answers} == {submitted["jobId"]}
    assert [job["jobId"] for job in stand.jobs(name)] == [submitted["jobId"]]


def test_what_is_refused_is_not_repeated(stand: Stand, name: str) -> None:
    said = calls(
        stand.gateway.url,
        ("submit_service_job", request(name, jobQueue="fair", shareIdentifier=None)),
        ("describe_service_job", {"jobId": "11111111-2222-8333-8444-555555555555"}),
    )
    assert [(one["Error"]["Code"], one["repeats"]) for one in said["calls"]] == [("ClientException", 0)] * 2


def calls(url: str, *operations: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    done = subprocess.run(
        [BOTO3.python, Path(__file__).with_name("boto3_calls.py")],
        env=client_environment(url),
        input=json.dumps(operations),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    said: dict[str, Any] = json.loads(done.stdout)
    return said
