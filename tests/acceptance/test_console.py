"""The operators' command line against a running gateway."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING
from urllib.request import Request, urlopen

import pytest

from tests.examples import settings, submission
from tests.processes import GatewayProcess, gateway_process

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers import StoreServer


@pytest.fixture
def gateway(valkey: StoreServer, prefix: str, tmp_path: Path) -> Iterator[GatewayProcess]:
    """Takes submissions and forwards none."""
    config = settings(store_url=valkey.url, endpoint_url="http://127.0.0.1:9", prefix=prefix)
    with gateway_process(tmp_path, config, "--role", "api") as running:
        yield running


def run(gateway: GatewayProcess, *arguments: str) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "gateway", *arguments, "--url", gateway.url]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    return ended.returncode, ended.stdout, ended.stderr


def submit(gateway: GatewayProcess, **members: object) -> str:
    body = json.dumps(submission(**members)).encode()
    request = Request(f"{gateway.url}/v1/submissions", body, {"Content-Type": "application/json"})
    with urlopen(request) as answer:
        return str(json.load(answer)["submissionId"])


def test_an_operator_sees_pauses_weighs_and_resumes_a_share(gateway: GatewayProcess) -> None:
    assert run(gateway, "shares", "list") == (0, "No share has anything queued.\n", "")
    submit(gateway)
    submit(gateway)
    code, out, _ = run(gateway, "shares", "list")
    assert (code, out.splitlines()[-1].split()[:2]) == (0, ["training/vision", "2"])
    assert "paused" in run(gateway, "shares", "pause", "training/vision")[1]
    assert "weight 3" in run(gateway, "shares", "set", "training/vision", "--weight", "3", "--max-queued", "7")[1]
    code, out, _ = run(gateway, "shares", "list", "--json")
    (share,) = json.loads(out)["items"]
    assert (share["paused"], share["overrides"]) == (True, {"weight": 3.0, "maxQueued": 7.0})
    assert "paused" not in run(gateway, "shares", "resume", "training/vision")[1]
    assert "weight 3" not in run(gateway, "shares", "set", "training/vision", "--weight", "reset")[1]


def test_words_and_numbers_of_a_share_are_shown_and_reset(gateway: GatewayProcess) -> None:
    code, out, _ = run(gateway, "shares", "set", "training/vision", "--over-limit", "delay", "--rate", "0.5")
    assert (code, "rate 0.5, overLimit delay" in out) == (0, True)
    assert "overLimit delay" in run(gateway, "shares", "list")[1]
    assert "overLimit" not in run(gateway, "shares", "set", "training/vision", "--over-limit", "reset")[1]


def test_an_operator_sees_switches_and_paces_an_upstream(gateway: GatewayProcess) -> None:
    submit(gateway)
    code, out, err = run(gateway, "upstreams", "list")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1].split() == ["main", "calling", "5", "of", "5", "1", "0", "0"]
    code, out, _ = run(
        gateway, "upstreams", "set", "main", "--accepting", "off", "--forwarding", "off", "--rate", "2.5"
    )
    first, second = out.splitlines()[-2:]
    assert (code, first.split()[:5]) == (0, ["main", "stopped", "2.5", "of", "2.5"])
    assert (first.endswith("  refuses new"), second.split()) == (True, ["rate", "set"])
    (one,) = json.loads(run(gateway, "upstreams", "list", "--json")[1])["items"]
    assert (one["accepting"], one["forwarding"], one["overrides"]) == (False, False, {"rate": 2.5})
    on = ("upstreams", "set", "main", "--accepting", "on", "--forwarding", "on", "--rate", "reset", "--json")
    one = json.loads(run(gateway, *on)[1])
    assert (one["accepting"], one["forwarding"], one["overrides"], one["rate"]) == (True, True, {}, 5)


@pytest.mark.parametrize("noun", ["shares", "upstreams"])
def test_a_watch_draws_again_until_it_is_interrupted(gateway: GatewayProcess, noun: str) -> None:
    submit(gateway)
    watch = subprocess.Popen(
        [sys.executable, "-m", "gateway", noun, "list", "--watch", "--url", gateway.url],
        stdout=subprocess.PIPE,
        text=True,
    )

    def looked_at() -> int:
        return len([line for line in gateway.events if line.get("route") == f"/v1/{noun}"])

    gateway.find(lambda _: looked_at() > 1)
    watch.send_signal(signal.SIGINT)
    out, _ = watch.communicate(timeout=20)
    assert (watch.returncode, "queued" in out) == (0, True)


def test_one_submission_is_shown_to_people_and_to_scripts(gateway: GatewayProcess) -> None:
    wanted = submit(gateway, clientToken="nightly")
    code, out, _ = run(gateway, "submissions", "show", wanted)
    assert code == 0
    assert {"submissionId", wanted, "nightly", "queued"} <= set(out.split())
    code, out, _ = run(gateway, "submissions", "show", wanted, "--json")
    assert (code, json.loads(out)["state"]) == (0, "queued")


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (("submissions", "show", "fb8b5596-d40f-8a2b-8937-a9c8da8f26ae"), 1, "No submission"),
        (("shares", "set", "training/vision", "--weight", "0"), 1, "/weight should be greater"),
        (("shares", "set", "training/vision"), 2, "Say what to set"),
        (("shares", "set", "training/vision", "--weight", "heavy"), 2, "must be a number, or reset"),
        (("shares", "pause", "vision"), 2, "is written queue/share"),
        (("shares", "set", "training/vision", "--over-limit", "drop"), 2, "'drop' is not one of"),
        (("upstreams", "set", "other", "--rate", "1"), 1, "no upstream of that name"),
        (("upstreams", "set", "main", "--rate", "0"), 1, "/rate should be greater"),
        (("upstreams", "set", "main", "--rate", "fast"), 2, "must be a number, or reset"),
        (("upstreams", "set", "main", "--forwarding", "maybe"), 2, "is not one of"),
        (("upstreams", "set", "main"), 2, "Say what to set"),
    ],
)
def test_what_is_refused_and_what_is_used_wrongly_differ(
    gateway: GatewayProcess, arguments: tuple[str, ...], code: int, complaint: str
) -> None:
    found, _, err = run(gateway, *arguments)
    assert (found, complaint in err) == (code, True), err


@pytest.mark.parametrize("noun", ["shares", "upstreams"])
def test_a_gateway_that_is_not_there_is_told_apart(noun: str) -> None:
    command = [sys.executable, "-m", "gateway", noun, "list", "--url", "http://127.0.0.1:9"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 3
    assert ended.stderr == "http://127.0.0.1:9 is not reachable: [Errno 111] Connection refused\n"


def test_a_share_is_named_by_its_queues_arn_too(gateway: GatewayProcess) -> None:
    arn = "arn:aws:batch:us-east-1:123456789012:job-queue/training"
    assert "paused" in run(gateway, "shares", "pause", f"{arn}/vision")[1]
    assert "training/vision" in run(gateway, "shares", "list")[1]
