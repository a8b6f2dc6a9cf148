"""Gateways as processes over a real store and the emulator: faults of Batch, kill -9, two at once, SIGTERM."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from gateway.emulator import Emulator, EmulatorConfig, Fault
from tests.conftest import eventually
from tests.examples import settings, submission
from tests.processes import GatewayProcess, gateway_process, submits

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers import StoreServer

FAST = EmulatorConfig(submit_tps=0)
QUICK_UPSTREAM = "rate = 200.0"


async def post(gateway: GatewayProcess, *, wait: int = 0, **members: Any) -> dict[str, Any]:
    headers = {"Prefer": f"wait={wait}"} if wait else {}
    async with (
        aiohttp.ClientSession(gateway.url) as http,
        http.post("/v1/submissions", json=submission(**members), headers=headers) as answer,
    ):
        body: dict[str, Any] = await answer.json()
        assert answer.status in (200, 202), body
        return body


async def get(gateway: GatewayProcess, submission_id: str, *, wait: int = 0) -> dict[str, Any]:
    headers = {"Prefer": f"wait={wait}"} if wait else {}
    async with (
        aiohttp.ClientSession(gateway.url) as http,
        http.get(f"/v1/submissions/{submission_id}", headers=headers) as answer,
    ):
        body: dict[str, Any] = await answer.json()
        return body


def made(emulator: Emulator) -> list[str]:
    return sorted(str(job.tags["gateway:submission-id"]) for job in emulator.jobs)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(kind="throttle", times=2),
        Fault(kind="throttle_bare", times=2),
        Fault(kind="throttle", times=1, retry_after_ms=200),
        Fault(kind="error_500", times=1),
        Fault(kind="drop", times=1),
        Fault(kind="first_share_500", times=1),
        Fault(kind="slow", times=1, seconds=0.3),
        Fault(kind="credentials", times=1),
    ],
    ids=lambda fault: fault.kind,
)
async def test_a_passing_fault_of_batch_ends_in_exactly_one_job(
    valkey: StoreServer, prefix: str, tmp_path: Path, fault: Fault
) -> None:
    emulator = Emulator(FAST)
    emulator.set_faults(fault)
    async with emulator.serving() as endpoint:
        config = settings(store_url=valkey.url, endpoint_url=endpoint, prefix=prefix, upstream=QUICK_UPSTREAM)
        with gateway_process(tmp_path, config) as gateway:
            first = await post(gateway, wait=20)
            assert first["state"] == "forwarded", first
    assert made(emulator) == [first["submissionId"]]
    assert len({call.body_sha256 for call in submits(emulator)}) == 1, "every attempt sends the same bytes"


@pytest.mark.parametrize("repeats", ["replay", "reject", "forgotten"])
async def test_a_lost_answer_is_never_submitted_twice(
    valkey: StoreServer, prefix: str, tmp_path: Path, repeats: Any
) -> None:
    emulator = Emulator(EmulatorConfig(submit_tps=0, repeats=repeats))
    emulator.set_faults(Fault(kind="lost_answer", times=1))
    async with emulator.serving() as endpoint:
        config = settings(store_url=valkey.url, endpoint_url=endpoint, prefix=prefix, upstream=QUICK_UPSTREAM)
        with gateway_process(tmp_path, config) as gateway:
            assert (await post(gateway, wait=20))["state"] == "forwarded"
    assert len(emulator.jobs) == 1


async def test_a_forwarder_killed_in_mid_call_leaves_its_submission_to_another(
    any_store: StoreServer, prefix: str, tmp_path: Path
) -> None:
    emulator = Emulator(EmulatorConfig(submit_tps=0, repeats="replay"))
    emulator.set_faults(Fault(kind="lost_answer_hang", times=1, seconds=30))
    async with emulator.serving() as endpoint:
        config = settings(
            store_url=any_store.url,
            endpoint_url=endpoint,
            prefix=prefix,
            upstream=QUICK_UPSTREAM,
            extra="[forward]\ncall_timeout_seconds = 1\nlease_seconds = 2",
        )
        with (
            gateway_process(tmp_path / "one", config) as one,
            gateway_process(tmp_path / "two", config, "--role", "api") as two,
        ):
            accepted = await post(one)
            await eventually(lambda: asyncio.sleep(0, len(emulator.jobs) == 1))
            one.kill()
            queued = await get(two, accepted["submissionId"])
            assert queued["state"] == "queued"
            with gateway_process(tmp_path / "three", config, "--role", "forwarder"):
                final = await get(two, accepted["submissionId"], wait=20)
    assert final["state"] == "forwarded"
    assert [one["outcome"] for one in final["attempts"]] == ["lease_ended", "found"]
    assert made(emulator) == [accepted["submissionId"]]


async def test_two_gateways_on_one_store_make_one_job_of_one_token_and_share_the_pace(
    valkey: StoreServer, prefix: str, tmp_path: Path
) -> None:
    emulator = Emulator(EmulatorConfig(submit_tps=20))
    async with emulator.serving() as endpoint:
        config = settings(store_url=valkey.url, endpoint_url=endpoint, prefix=prefix, upstream="rate = 20.0")
        with gateway_process(tmp_path / "one", config) as one, gateway_process(tmp_path / "two", config) as two:
            both = [
                post(gateway, clientToken=f"t{number}", jobName=f"j{number}", wait=30)
                for number in range(30)
                for gateway in (one, two)
            ]
            answers = await asyncio.gather(*both)
    assert {answer["state"] for answer in answers} == {"forwarded"}
    assert made(emulator) == sorted({answer["submissionId"] for answer in answers})
    assert len(emulator.jobs) == 30
    assert len(submits(emulator)) <= 31, "together they call no faster than one may"


async def test_sigterm_answers_long_polls_finishes_calls_and_loses_nothing(
    valkey: StoreServer, prefix: str, tmp_path: Path
) -> None:
    emulator = Emulator(FAST)
    emulator.set_faults(Fault(kind="slow", seconds=0.5))
    async with emulator.serving() as endpoint:
        config = settings(store_url=valkey.url, endpoint_url=endpoint, prefix=prefix, upstream="rate = 2.0")
        with gateway_process(tmp_path, config) as gateway:
            accepted = await asyncio.gather(*(post(gateway, jobName=f"j{number}") for number in range(5)))
            polls = [asyncio.create_task(get(gateway, one["submissionId"], wait=30)) for one in accepted]
            await eventually(lambda: asyncio.sleep(0, bool(emulator.jobs)))
            os.kill(gateway.process.pid, signal.SIGTERM)
            answers = await asyncio.gather(*polls)
            assert {answer["state"] for answer in answers} <= {"queued", "forwarded"}
            assert await asyncio.to_thread(gateway.process.wait, 15) == 0
            stopped = gateway.event("stopped")
            assert stopped["seconds"] < 10
            done = {line["submission_id"] for line in gateway.events if line["event"] == "submission_settled"}
            assert done == set(made(emulator)), "what was called was settled, what was not called stays queued"
        with gateway_process(tmp_path / "next", config) as following:
            finals = [await get(following, one["submissionId"], wait=30) for one in accepted]
    assert {final["state"] for final in finals} == {"forwarded"}
    assert made(emulator) == sorted(one["submissionId"] for one in accepted)


async def test_a_draining_gateway_is_unready_first_and_still_serves(
    valkey: StoreServer, prefix: str, tmp_path: Path
) -> None:
    emulator = Emulator(FAST)
    async with emulator.serving() as endpoint:
        config = settings(store_url=valkey.url, endpoint_url=endpoint, prefix=prefix)
        config = config.replace("drain_seconds = 10", "drain_seconds = 60").replace(
            "unready_seconds = 0", "unready_seconds = 30"
        )
        with gateway_process(tmp_path, config) as gateway:
            async with aiohttp.ClientSession(gateway.url) as http:
                async with http.get("/readyz") as ready:
                    assert ready.status == 200
                gateway.process.send_signal(signal.SIGTERM)
                await asyncio.to_thread(gateway.event, "draining")
                async with http.get("/readyz") as ready:
                    assert ready.status == 503
                assert (await post(gateway))["state"] == "queued"
            gateway.process.send_signal(signal.SIGTERM)  # a second one: nobody asks for requests any more
            assert await asyncio.to_thread(gateway.process.wait, 15) == 0
            assert gateway.event("stopped")["seconds"] < 20


async def test_batch_being_down_stops_no_acceptance_and_charges_nobody(
    valkey: StoreServer, prefix: str, tmp_path: Path
) -> None:
    emulator = Emulator(FAST)
    async with emulator.serving() as endpoint:
        config = settings(store_url=valkey.url, endpoint_url=endpoint, prefix=prefix, upstream=QUICK_UPSTREAM)
        with gateway_process(tmp_path, config) as gateway:
            emulator.close_listener()
            accepted = [await post(gateway, jobName=f"j{number}") for number in range(3)]
            await asyncio.to_thread(gateway.event, "upstream_held")
            async with aiohttp.ClientSession(gateway.url) as http, http.get("/readyz") as ready:
                assert ready.status == 200
            await emulator.open_listener()
            finals = [await get(gateway, one["submissionId"], wait=20) for one in accepted]
            forwards = [line for line in gateway.events if line["event"] == "forward"]
    assert {final["state"] for final in finals} == {"forwarded"}
    assert not any(line["charged"] for line in forwards)
    assert len(made(emulator)) == 3


async def test_a_gateway_refuses_to_start_on_a_store_that_cannot_keep_the_promise(
    valkey: StoreServer, prefix: str, tmp_path: Path
) -> None:
    config = settings(store_url=valkey.url, endpoint_url="http://127.0.0.1:9", prefix=prefix).replace("memory", "fsync")
    (tmp_path / "gateway.toml").write_text(config)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", "serve", "--config", str(tmp_path / "gateway.toml"),
        stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    _, complaint = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 1
    assert b"append-only file" in complaint


async def test_workers_share_a_port_and_drain_together(valkey: StoreServer, prefix: str, tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    emulator = Emulator(FAST)
    async with emulator.serving() as endpoint:
        config = settings(store_url=valkey.url, endpoint_url=endpoint, prefix=prefix)
        with gateway_process(tmp_path, config, "--workers", "2", port=port) as gateway:
            await eventually(lambda: asyncio.sleep(0, [line["event"] for line in gateway.events].count("started") == 2))
            assert (await post(gateway, wait=10))["state"] == "forwarded"
            assert await asyncio.to_thread(gateway.terminate) == 0
            await eventually(lambda: asyncio.sleep(0, [line["event"] for line in gateway.events].count("stopped") == 2))


async def test_a_taken_port_is_refused_with_a_sentence(valkey: StoreServer, prefix: str, tmp_path: Path) -> None:
    config = settings(store_url=valkey.url, endpoint_url="http://127.0.0.1:9", prefix=prefix)
    with gateway_process(tmp_path, config) as gateway:
        port = gateway.event("started")["port"]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gateway", "serve", "--config", str(tmp_path / "gateway.toml"),
            env={**os.environ, "GATEWAY_HTTP__PORT": str(port)},
            stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        _, complaint = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}".encode() in complaint


async def test_an_upstream_that_is_down_does_not_touch_another(
    valkey: StoreServer, prefix: str, tmp_path: Path
) -> None:
    here, there = Emulator(FAST), Emulator(EmulatorConfig(submit_tps=0, region="eu-west-1"))
    async with here.serving() as one, there.serving() as two:
        config = settings(
            store_url=valkey.url, endpoint_url=one, prefix=prefix, upstream='rate = 200.0\nqueues = ["training*"]'
        )
        config += f"""
[[upstream]]
name = "europe"
region = "eu-west-1"
account = "123456789012"
endpoint_url = "{two}"
rate = 200.0
"""
        with gateway_process(tmp_path, config) as gateway:
            here.close_listener()
            stuck = await post(gateway, jobQueue="training-gpu")
            passes = await post(gateway, jobQueue="speech", wait=10)
            by_arn = await post(
                gateway, jobQueue="arn:aws:batch:eu-west-1:123456789012:job-queue/speech", jobName="b", wait=10
            )
            assert (passes["state"], by_arn["state"]) == ("forwarded", "forwarded")
            assert (await get(gateway, stuck["submissionId"]))["state"] == "queued"
            assert stuck["submissionId"][:4] != passes["submissionId"][:4]
            await here.open_listener()
            assert (await get(gateway, stuck["submissionId"], wait=20))["state"] == "forwarded"
    assert made(here) == [stuck["submissionId"]]
    assert made(there) == sorted([passes["submissionId"], by_arn["submissionId"]])
