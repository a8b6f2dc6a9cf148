"""Gateways whose clocks are an hour wrong, both ways: only the store's time counts, and Batch's for its own jobs.

Their wall clocks are faked by libfaketime, their monotonic ones run as ever; store, Batch and this test have the right
time.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from gateway.emulator import Emulator, EmulatorConfig, Fault
from tests.batch.wire import error_body, peer, read_request, write_answer
from tests.conftest import eventually
from tests.examples import settings, submission
from tests.processes import gateway_process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.processes import GatewayProcess
    from tests.servers import StoreServer

    OpenTwo = Callable[[str], AbstractContextManager[tuple[GatewayProcess, GatewayProcess]]]

HOUR = timedelta(hours=1)
LEASE_SECONDS = 2
LIMITS = f"""
[forward]
call_timeout_seconds = 1
lease_seconds = {LEASE_SECONDS}
[[share]]
queue = "training"
share = "limited"
rate = 0.1
burst = 2
[[share]]
queue = "training"
share = "delayed"
rate = 0.5
burst = 1
over_limit = "delay"
"""
# How far two readings of one moment may lie apart on a busy machine: far less than an hour.
BUSY = timedelta(seconds=5)


@pytest.fixture(scope="module")
def library() -> str:
    """libfaketime, where its own command has it: skips at home, fails in CI."""
    if shutil.which("faketime") is None:
        if os.environ.get("CI"):
            pytest.fail("faketime is not installed: .ci/run installs it")
        pytest.skip("faketime is not installed")
    command = ["faketime", "-m", "-f", "+0", "printenv", "LD_PRELOAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@contextmanager
def gateway_off_by(
    offset: timedelta, library: str, folder: Path, config: str, *arguments: str
) -> Iterator[GatewayProcess]:
    """A gateway whose wall clock is wrong by so much."""
    with ExitStack() as opened, pytest.MonkeyPatch.context() as environment:
        environment.setenv("LD_PRELOAD", library)
        environment.setenv("FAKETIME", f"{offset.total_seconds():+.0f}")
        environment.setenv("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        gateway = opened.enter_context(gateway_process(folder, config, *arguments))
        environment.undo()
        its_time = datetime.fromisoformat(gateway.event("started")["timestamp"])
        assert abs(its_time - datetime.now(UTC) - offset) < BUSY, "its clock is not wrong"
        yield gateway


async def ask(gateway: GatewayProcess, method: str, path: str, **options: Any) -> tuple[Any, aiohttp.ClientResponse]:
    async with aiohttp.ClientSession(gateway.url) as http, http.request(method, path, **options) as answer:
        return await answer.json(), answer


async def post(gateway: GatewayProcess, name: str, **options: Any) -> tuple[Any, aiohttp.ClientResponse]:
    """A submission with this token, to the share before the token's dash."""
    asked = submission(clientToken=name, jobName=name, shareIdentifier=name.partition("-")[0])
    return await ask(gateway, "POST", "/v1/submissions", json=asked, headers=options)


async def final(gateway: GatewayProcess, submission_id: str) -> Any:
    body, _ = await ask(gateway, "GET", f"/v1/submissions/{submission_id}", headers={"Prefer": "wait=20"})
    return body


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def deadline(seconds: float) -> str:
    """As callers send it: by the right time."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


@pytest.fixture
def two_gateways(library: str, valkey: StoreServer, prefix: str, tmp_path: Path) -> OpenTwo:
    """What opens one that is an hour ahead and one that is an hour behind."""

    @contextmanager
    def open_two(endpoint: str) -> Iterator[tuple[GatewayProcess, GatewayProcess]]:
        config = settings(store_url=valkey.url, endpoint_url=endpoint, prefix=prefix, extra=LIMITS)
        with (
            gateway_off_by(HOUR, library, tmp_path / "ahead", config) as ahead,
            gateway_off_by(-HOUR, library, tmp_path / "behind", config) as behind,
        ):
            yield ahead, behind

    return open_two


async def test_tokens_limits_delays_and_what_is_told_are_the_same_at_all(two_gateways: OpenTwo) -> None:
    emulator = Emulator(EmulatorConfig(submit_tps=0))
    async with emulator.serving() as endpoint:
        with two_gateways(endpoint) as (ahead, behind):
            both = (ahead, behind)
            began = datetime.now(UTC)
            accepted = [await post(both[number % 2], f"vision-{number}") for number in range(8)]
            repeated, answer = await post(behind, "vision-0")
            assert (repeated["submissionId"], answer.headers["Idempotent-Replayed"]) == (
                accepted[0][0]["submissionId"],
                "true",
            )
            times = [moment(body["acceptedAt"]) for body, _ in accepted]
            assert times == sorted(times)
            assert began - BUSY < times[0] < times[-1] < datetime.now(UTC) + BUSY
            assert moment(repeated["acceptedAt"]) == times[0]

            forecasts = [moment(one["estimatedForwardAt"]) for one, _ in accepted if one.get("estimatedForwardAt")]
            assert forecasts
            assert all(began - BUSY < one < began + 2 * BUSY for one in forecasts)

            limited = [(await post(both[number % 2], f"limited-{number}"))[1] for number in range(4)]
            assert [answer.status for answer in limited] == [202, 202, 429, 429]
            waits = [int(answer.headers["Retry-After"]) for answer in limited[2:]]
            assert all(1 <= wait <= 10 for wait in waits), waits

            first, _ = await post(ahead, "delayed-1")
            second, _ = await post(behind, "delayed-2")
            for gateway in both:
                share, _ = await ask(gateway, "GET", "/v1/shares/training/delayed")
                assert 0 <= share["oldestSeconds"] < BUSY.total_seconds()
            waited = moment((await final(ahead, second["submissionId"]))["forwardedAt"]) - moment(first["acceptedAt"])
            assert timedelta(seconds=2) <= waited < timedelta(seconds=2) + BUSY

            ids = {body["submissionId"] for body, _ in accepted}
            states = [(await final(behind, one))["state"] for one in ids]
            forwarding = [
                {line["submission_id"] for line in gateway.events if line["event"] == "forward"} for gateway in both
            ]
    assert set(states) == {"forwarded"}
    assert all(forwarding), "both have forwarded"
    jobs = [job.tags["gateway:submission-id"] for job in emulator.jobs]
    assert len(jobs) == len(set(jobs)) == 8 + 2 + 2


async def test_what_comes_due_comes_by_the_stores_time_and_lost_answers_are_found_by_batchs(
    two_gateways: OpenTwo,
) -> None:
    emulator = Emulator(EmulatorConfig(submit_tps=0))
    emulator.set_faults(Fault(kind="lost_answer", times=2, job_name="lost"))
    async with emulator.serving() as endpoint:
        with two_gateways(endpoint) as (ahead, behind):
            await ask(ahead, "PATCH", "/v1/shares/training/paused", json={"paused": True})
            lost = [(await post(gateway, f"lost-{n}"))[0] for n, gateway in enumerate((ahead, behind))]
            looking = [asyncio.create_task(final(behind, one["submissionId"])) for one in lost]
            for number, gateway in enumerate((ahead, behind)):
                missed, _ = await post(gateway, f"past-{number}", Deadline=deadline(-60))
                assert missed["type"] == "/problems/deadline-unreachable"
                taken, _ = await post(gateway, f"later-{number}", Deadline=deadline(1800))
                assert (await final(gateway, taken["submissionId"]))["state"] == "forwarded"
            for number, (gateway, other) in enumerate(((ahead, behind), (behind, ahead))):
                soon, _ = await post(gateway, f"paused-{number}", Deadline=deadline(1))
                expired = await final(other, soon["submissionId"])
                assert expired["state"] == "expired"
                late = moment(expired["endedAt"]) - moment(expired["deadline"])
                assert timedelta(0) <= late < BUSY
            found = await asyncio.gather(*looking)
    assert [one["state"] for one in found] == ["forwarded", "forwarded"]
    assert sorted(job.name for job in emulator.jobs) == ["later-0", "later-1", "lost-0", "lost-1"]


@pytest.mark.parametrize("offset", [HOUR, -HOUR], ids=["ahead", "behind"])
async def test_a_lease_ends_neither_early_nor_late_for_the_one_that_takes_over(
    offset: timedelta, library: str, valkey: StoreServer, prefix: str, tmp_path: Path
) -> None:
    emulator = Emulator(EmulatorConfig(submit_tps=0, repeats="replay"))
    emulator.set_faults(Fault(kind="lost_answer_hang", times=1, seconds=30))
    async with emulator.serving() as endpoint:
        config = settings(store_url=valkey.url, endpoint_url=endpoint, prefix=prefix, extra=LIMITS)
        with gateway_off_by(offset, library, tmp_path / "one", config) as holder:
            accepted, _ = await post(holder, "vision-1")
            await eventually(lambda: asyncio.sleep(0, len(emulator.jobs) == 1))
            holder.kill()
        with gateway_off_by(-offset, library, tmp_path / "other", config) as taker:
            forwarded = await final(taker, accepted["submissionId"])
    assert (forwarded["state"], forwarded["attempts"][0]["outcome"]) == ("forwarded", "lease_ended")
    held, taken = (moment(one["at"]) for one in forwarded["attempts"])
    assert timedelta(seconds=LEASE_SECONDS) <= taken - held < timedelta(seconds=LEASE_SECONDS) + BUSY
    assert len(emulator.jobs) == 1


async def test_a_clock_that_aws_refuses_holds_the_upstream_loudly_and_rejects_nothing(
    library: str, valkey: StoreServer, prefix: str, tmp_path: Path
) -> None:
    """AWS refuses signatures five minutes old or early; botocore signs by the local clock, whatever AWS says."""
    off: list[timedelta] = []

    async def aws(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        signed_at = (await read_request(reader)).headers["x-amz-date"]
        off.append(datetime.strptime(signed_at, "%Y%m%dT%H%M%S%z") - datetime.now(UTC))
        message = f"Signature not yet current: {signed_at} is still later than now (now + 5 min.)"
        write_answer(writer, 403, error_body(message), "x-amzn-errortype: InvalidSignatureException")
        await writer.drain()

    async with peer(aws) as endpoint:
        config = settings(store_url=valkey.url, endpoint_url=endpoint, prefix=prefix)
        with gateway_off_by(HOUR, library, tmp_path, config) as ahead:
            await post(ahead, "vision-1")
            held = await asyncio.to_thread(ahead.event, "upstream_held")
            forward = ahead.event("forward")
            upstreams, _ = await ask(ahead, "GET", "/v1/upstreams")
    assert (held["level"], held["reason"], held["held"]) == ("error", "credentials", True)
    assert held["message"].startswith("Signature not yet current")
    assert (forward["charged"], forward["maybe_sent"], forward["state"]) == (False, False, "queued")
    assert upstreams["items"][0]["condition"] == "held"
    assert abs(off[0] - HOUR) < BUSY
