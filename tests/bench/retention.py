"""The store's memory at a steady stream: level once the first records expire. With short settings, so that it shows."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp

from gateway.emulator import Emulator, EmulatorConfig
from gateway.store.connection import connect
from tests.examples import settings, submission
from tests.processes import gateway_process
from tests.servers import running, valkey_binary

if TYPE_CHECKING:
    from tests.bench.figures import Figures

# Ten times the stream of an account and one 60,000th of its retention: what is kept is some 500 records.
RATE = 50.0
RETENTION_SECONDS = 10
SWEEP_SECONDS = 10  # an index is as long as its records live, and until the next sweep
ROUNDS = 12
ROUND_SECONDS = 5.0


async def measure(figures: Figures) -> None:
    with tempfile.TemporaryDirectory(prefix="gw") as folder:
        (Path(folder) / "store").mkdir()
        emulator = Emulator(EmulatorConfig(submit_tps=0))
        with running(valkey_binary(), Path(folder) / "store") as server:
            async with emulator.serving() as endpoint:
                config = settings(
                    store_url=server.url,
                    endpoint_url=endpoint,
                    prefix="r",
                    extra=f"retention_seconds = {RETENTION_SECONDS}\nalias_retention_seconds = {RETENTION_SECONDS}",
                    upstream=f"rate = {2 * RATE}\nburst = 20",
                )
                with gateway_process(Path(folder) / "one", config) as gateway:
                    levels = await _levels(gateway.url, server.url)
    settled = levels[int((RETENTION_SECONDS + SWEEP_SECONDS) / ROUND_SECONDS) :]
    for number, (keys, size) in enumerate(levels, 1):
        print(f"  after {number * ROUND_SECONDS:3.0f} s: {keys:6} keys, {size / 1e6:7.3f} MB", flush=True)
    growth = max(size for _, size in settled[-4:]) / max(size for _, size in settled[:4])
    figures.show(
        "memory of the last 20 s against the first 20 s after expiry began", growth, "<= 1.05", holds=growth <= 1.05
    )


async def _levels(url: str, store_url: str) -> list[tuple[int, int]]:
    """(keys, bytes of data) after each round."""
    levels = []
    async with aiohttp.ClientSession(url) as http, connect(store_url) as client:
        began, sent = time.monotonic(), 0
        for number in range(1, ROUNDS + 1):
            while time.monotonic() - began < number * ROUND_SECONDS:
                async with http.post("/v1/submissions", json=submission(jobName=f"job-{sent}")) as answer:
                    assert answer.status == 202, await answer.text()
                sent += 1
                await asyncio.sleep(max(0.0, began + sent / RATE - time.monotonic()))
            info = await client.info("memory")
            levels.append((await client.dbsize(), int(info["used_memory_dataset"])))
    return levels
