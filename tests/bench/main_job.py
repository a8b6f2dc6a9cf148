"""The main job: how fast it is taken, how well Batch's five calls a second are used, how fair the order is."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

from gateway.emulator import Emulator, EmulatorConfig
from tests.examples import settings, submission
from tests.processes import GatewayProcess, gateway_process, submits
from tests.servers import running, valkey_binary

if TYPE_CHECKING:
    from tests.bench.figures import Figures

BATCH_TPS = 5.0
FLOOD, SMALL_SHARES, SMALL = 200, 7, 5
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


async def submit(http: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> tuple[str, float]:
    """(submissionId, seconds until its answer)."""
    began = time.perf_counter()
    async with http.post(f"{url}/v1/submissions", json=body) as answer:
        accepted = await answer.json()
        assert answer.status == 202, accepted
    return accepted["submissionId"], time.perf_counter() - began


async def burst(gateways: list[GatewayProcess], emulator: Emulator, figures: Figures) -> None:
    """One share floods with 200, seven send 5 each, all at once into two gateways; Batch takes 5 a second."""
    bodies = [submission(shareIdentifier="flood", jobName=f"flood-{n}") for n in range(FLOOD)]
    bodies += [
        submission(shareIdentifier=f"small-{share}", jobName=f"small-{share}-{n}")
        for share in range(SMALL_SHARES)
        for n in range(SMALL)
    ]
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        began = time.time()
        answers = await asyncio.gather(
            *(submit(http, gateways[number % len(gateways)].url, body) for number, body in enumerate(bodies))
        )
        acknowledged = time.time() - began
    while len(emulator.jobs) < len(bodies):
        await asyncio.sleep(0.05)
        assert time.time() - began < 120, f"{len(emulator.jobs)} of {len(bodies)} after two minutes"
    calls = [call for call in submits(emulator) if call.at / 1000 >= began - 1]
    first, last = (pick(call.at for call in calls if call.created) / 1000 for pick in (min, max))
    small = max(call.at for call in calls if call.created and str(call.share).startswith("small")) / 1000 - began
    goodput = (len(bodies) - 1) / (last - first)
    ideal_seconds = SMALL_SHARES * SMALL / BATCH_TPS * (SMALL_SHARES + 1) / SMALL_SHARES
    figures.show("235 at once: goodput, jobs a second", goodput, f">= {0.97 * 5:.2f}", holds=goodput >= 0.97 * 5)
    per_job = len(calls) / len(bodies)
    figures.show("235 at once: calls a job", per_job, "<= 1.02", holds=per_job <= 1.02)
    bar = 1.1 * ideal_seconds
    figures.show("235 at once: the last of the 35 small ones, seconds", small, f"<= {bar:.1f}", holds=small <= bar)
    figures.show("235 at once: all acknowledged, seconds", acknowledged, "<= 1", holds=acknowledged <= 1)
    slowest = max(seconds for _, seconds in answers)
    figures.show("235 at once: the slowest acknowledgement, seconds", slowest, "", holds=True)
    assert len({one for one, _ in answers}) == len(emulator.jobs) == len(bodies)


async def idle(gateway: GatewayProcess, emulator: Emulator, figures: Figures) -> None:
    """From POST to Batch's answer, one at a time, on a gateway with nothing else to do."""
    waits = []
    async with aiohttp.ClientSession(gateway.url) as http:
        for number in range(40):
            began = time.perf_counter()
            body = submission(jobName=f"idle-{number}", shareIdentifier="idle")
            async with http.post("/v1/submissions", json=body, headers={"Prefer": "wait=10"}) as answer:
                assert (await answer.json())["state"] == "forwarded"
            waits.append(time.perf_counter() - began)
            await asyncio.sleep(1 / BATCH_TPS)
    median = statistics.median(waits) * 1000
    figures.show("idle: POST to Batch's answer, median ms", median, "< 50", holds=median < 50)
    figures.show("idle: POST to Batch's answer, slowest ms", max(waits) * 1000, "", holds=True)
    assert emulator.jobs


async def measure(figures: Figures) -> None:
    """Two gateways and a Valkey with AOF `always` as processes, the emulator in this one; everything on loopback."""
    with tempfile.TemporaryDirectory(prefix="gw") as folder:
        (Path(folder) / "store").mkdir()
        with running(valkey_binary(), Path(folder) / "store", *DURABLE) as store:
            for part in (idle, burst):
                emulator = Emulator(EmulatorConfig(submit_tps=BATCH_TPS))
                async with emulator.serving() as endpoint:
                    config = settings(store_url=store.url, endpoint_url=endpoint, prefix=part.__name__)
                    config = config.replace('"memory"', '"fsync"')
                    with (
                        gateway_process(Path(folder) / "one", config) as one,
                        gateway_process(Path(folder) / "two", config) as two,
                    ):
                        if part is idle:
                            await idle(one, emulator, figures)
                        else:
                            await burst([one, two], emulator, figures)
