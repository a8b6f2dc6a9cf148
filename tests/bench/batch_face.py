"""Batch's own face: a serial loop of submits as SDKs make it, and many pollers of few jobs."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import boto3
from botocore.config import Config

from gateway.emulator import Emulator, EmulatorConfig
from tests.bench.main_job import BATCH_TPS, DURABLE
from tests.examples import batch_submission, settings
from tests.processes import gateway_process, submits
from tests.servers import running, valkey_binary

if TYPE_CHECKING:
    from tests.bench.figures import Figures
    from tests.processes import GatewayProcess

SERIAL, SERIAL_SECONDS = 500, 20
POLLERS, POLLED, POLL_SECONDS = 1000, 50, 20.0
DESCRIBE_RATE, DESCRIBE_BURST = 30, 10


def submit_serially(url: str) -> tuple[float, list[str], int]:
    """(seconds, the ids answered, how many of them could be described right after) of a loop of boto3's."""
    batch = boto3.client(
        "batch",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(retries={"mode": "standard"}),
    )
    began, ids, described = time.perf_counter(), [], 0
    spent = 0.0
    for number in range(SERIAL):
        ids.append(batch.submit_service_job(**batch_submission(jobName=f"serial-{number}"))["jobId"])
        asked = time.perf_counter()
        described += batch.describe_service_job(jobId=ids[-1])["jobId"] == ids[-1]
        spent += time.perf_counter() - asked
    return time.perf_counter() - began - spent, ids, described


async def serial(gateway: GatewayProcess, emulator: Emulator, figures: Figures) -> None:
    seconds, ids, described = await asyncio.to_thread(submit_serially, gateway.url)
    name = f"{SERIAL} serial boto3 submits on one share"
    figures.show(f"{name}: seconds", seconds, f"<= {SERIAL_SECONDS}", holds=seconds <= SERIAL_SECONDS)
    figures.show(
        f"{name}: described right after", described, f"== {SERIAL}", holds=described == SERIAL == len(set(ids))
    )
    while len(emulator.jobs) < SERIAL:  # noqa: ASYNC110 - the emulator tells nobody of its jobs
        await asyncio.sleep(0.1)
    await asyncio.sleep(1)
    calls = submits(emulator)
    names = {job.name for job in emulator.jobs}
    once = len(calls) == len(emulator.jobs) == len(names) == SERIAL
    figures.show(f"{name}: calls of SubmitServiceJob", len(calls), f"== {SERIAL}", holds=once)


async def pollers(gateway: GatewayProcess, emulator: Emulator, figures: Figures) -> None:
    emulator.set_rates(submit_tps=0)
    async with aiohttp.ClientSession(gateway.url, connector=aiohttp.TCPConnector(limit=0)) as http:

        async def call(operation: str, body: dict[str, Any]) -> tuple[dict[str, Any], int]:
            async with http.post(f"/v1/{operation}", data=json.dumps(body)) as answer:
                assert answer.status == 200, await answer.text()
                return await answer.json(), int(answer.headers.get("Age", "0"))

        ids = [(await call("submitservicejob", batch_submission(jobName=f"polled-{n}")))[0] for n in range(POLLED)]
        while len(emulator.jobs) < POLLED:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        before, deadline = len(emulator.ledger()), time.perf_counter() + POLL_SECONDS
        ages: list[int] = []
        waits: list[float] = []

        async def poll(number: int) -> None:
            while (asked := time.perf_counter()) < deadline:
                job, age = await call("describeservicejob", {"jobId": ids[number % POLLED]["jobArn"]})
                assert job["jobArn"] == ids[number % POLLED]["jobArn"]
                ages.append(age)
                waits.append(time.perf_counter() - asked)
                await asyncio.sleep(1)

        await asyncio.gather(*(poll(number) for number in range(POLLERS)))
    calls = emulator.ledger()[before:]
    most = DESCRIBE_RATE * POLL_SECONDS + DESCRIBE_BURST
    name = f"{POLLERS} pollers of {POLLED} ids"
    figures.show(f"{name}: answers", len(ages))
    figures.show(
        f"{name}: calls of Batch in {POLL_SECONDS:.0f} s", len(calls), f"<= {most:.0f}", holds=len(calls) <= most
    )
    lists = sum(call.operation == "ListServiceJobs" for call in calls)
    figures.show(f"{name}: of these, pages of lists", lists)
    figures.show(f"{name}: the oldest answer, seconds", max(ages), "<= 2", holds=max(ages) <= 2)
    figures.show(f"{name}: slowest answer, seconds", max(waits))


async def measure(figures: Figures) -> None:
    """A gateway and a Valkey with AOF `always` as processes, the emulator in this one; everything on loopback."""
    with tempfile.TemporaryDirectory(prefix="gw") as folder:
        (Path(folder) / "store").mkdir()
        with running(valkey_binary(), Path(folder) / "store", *DURABLE) as store:
            for part in (serial, pollers):
                emulator = Emulator(EmulatorConfig(submit_tps=BATCH_TPS, job_seconds=30))
                async with emulator.serving() as endpoint:
                    config = settings(store_url=store.url, endpoint_url=endpoint, prefix=part.__name__)
                    if part is pollers:
                        config += "rate = 100.0\n"
                    config = config.replace('"memory"', '"fsync"')
                    with gateway_process(Path(folder) / part.__name__, config) as gateway:
                        await part(gateway, emulator, figures)
