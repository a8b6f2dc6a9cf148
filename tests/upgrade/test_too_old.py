"""Beside a gateway that writes a version which this one cannot read: it stops, says so, and spoils nothing."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import aiohttp

from gateway.emulator import Emulator, EmulatorConfig
from tests.examples import settings, submission
from tests.processes import gateway_process
from tests.upgrade.releases import WRITES_2, changed

if TYPE_CHECKING:
    from pathlib import Path

    from tests.processes import GatewayProcess
    from tests.servers import StoreServer

TOLD = "newer gateway (version 2, this one knows 1)"
UNAVAILABLE = 503


async def post(http: aiohttp.ClientSession, gateway: GatewayProcess, number: int) -> tuple[int, dict[str, Any]]:
    """Status and body, once it has left `queued`; a refusal says when to come back."""
    asked = submission(clientToken=f"token-{number}", jobName=f"job-{number}")
    headers = {"Prefer": "wait=10"}
    async with http.post(f"{gateway.url}/v1/submissions", json=asked, headers=headers) as answer:
        assert (answer.status == UNAVAILABLE) == ("Retry-After" in answer.headers)
        return answer.status, await answer.json()


async def missing(http: aiohttp.ClientSession, gateway: GatewayProcess) -> str:
    async with http.get(f"{gateway.url}/readyz") as answer:
        return await answer.text() if answer.status == UNAVAILABLE else ""


def run(command: str, config: Path) -> subprocess.CompletedProcess[str]:
    """A command of this checkout's gateway that ends."""
    return subprocess.run(
        [sys.executable, "-m", "gateway", command, "--config", str(config)],
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip


async def test_a_gateway_that_is_too_old_stops_loudly_and_leaves_all_to_the_newer_one(
    valkey: StoreServer, prefix: str, tmp_path: Path
) -> None:
    emulator = Emulator(EmulatorConfig(submit_tps=0))
    newer = changed(tmp_path / "newer", *WRITES_2)
    async with emulator.serving() as endpoint, aiohttp.ClientSession() as http:
        config = settings(store_url=valkey.url, endpoint_url=endpoint, prefix=prefix, upstream="rate = 50.0")
        with (
            gateway_process(tmp_path / "old", config) as old,
            gateway_process(tmp_path / "new", config, package=newer) as new,
        ):
            assert [one.event("started")["record_version"] for one in (old, new)] == [1, 2]
            assert (await post(http, old, 0))[1]["state"] == "forwarded"
            assert (await post(http, new, 1))[1]["state"] == "forwarded"
            for number in (1, 2):  # a repeat of what it cannot read, and a new one
                status, problem = await post(http, old, number)
                assert (status, problem["type"]) == (UNAVAILABLE, "/problems/store-unavailable")
            told = await asyncio.to_thread(old.event, "store_unavailable")
            assert (told["level"], TOLD in told["missing"][0]) == ("error", True)
            assert TOLD in await missing(http, old)
            assert old.process.poll() is None
            answers = await asyncio.gather(*(post(http, new, number) for number in range(20)))
            forwards = [line for line in old.events if line["event"] == "forward"]
        check, serve = [run(command, tmp_path / "old" / "gateway.toml") for command in ("check", "serve")]
    assert {answer["state"] for _, answer in answers} == {"forwarded"}
    assert sorted(job.name for job in emulator.jobs) == sorted(f"job-{number}" for number in range(20))
    assert len(forwards) <= 1, "it hands nothing out any more"
    assert (check.returncode, serve.returncode) == (1, 1)
    assert TOLD in check.stdout + check.stderr
    assert TOLD in serve.stderr
