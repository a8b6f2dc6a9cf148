"""boto3 while the gateway loses its store or is replaced: its own retries get over it, and each job is there once."""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.config import Config

from gateway.emulator import Emulator, EmulatorConfig
from tests.clients.stand import request
from tests.conftest import eventually
from tests.examples import REGION, settings
from tests.processes import gateway_process
from tests.servers import free_port, running, valkey_binary

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

    from tests.servers import StoreServer

pytestmark = pytest.mark.skipif(
    bool(os.environ.get("CI")),
    reason="how long restarts and retries take together is chance: make test-clients runs it",
)

# More than the default three: how long a restart takes is not what this is about.
MANY_TRIES = {"mode": "standard", "total_max_attempts": 12}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StoreServer]:
    """One of its own, to be killed: it keeps what it has on its disk."""
    (tmp_path / "s").mkdir()
    with running(valkey_binary(), tmp_path / "s", "--appendonly", "yes", "--appendfsync", "always") as store:
        yield store


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    emulator = Emulator(EmulatorConfig(submit_tps=0))
    async with emulator.serving():
        yield emulator


def config_of(store: StoreServer, emulator: Emulator) -> str:
    config = settings(store_url=store.url, endpoint_url=emulator.url, prefix="o", upstream="rate = 100.0")
    return config.replace('"memory"', '"fsync"')


def client_of(url: str) -> Any:
    return boto3.client(
        "batch",
        endpoint_url=url,
        region_name=REGION,
        aws_access_key_id="any",
        aws_secret_access_key="any",
        config=Config(retries=MANY_TRIES),
    )


def is_made(emulator: Emulator, names: list[str]) -> Callable[[], Awaitable[bool]]:
    """Whether Batch has a job of each name; two of one are one too many, whenever they come."""

    async def made() -> bool:
        found = [job.name for job in emulator.jobs]
        assert len(found) == len(set(found))
        return sorted(found) == sorted(names)

    return made


async def in_thread(pool: ThreadPoolExecutor, function: Any, *arguments: Any) -> Any:
    return await asyncio.get_running_loop().run_in_executor(pool, function, *arguments)


async def test_a_store_that_is_away_is_waited_for(store: StoreServer, emulator: Emulator, tmp_path: Path) -> None:
    config = config_of(store, emulator)
    with gateway_process(tmp_path / "g", config) as gateway, ThreadPoolExecutor(2) as pool:
        batch = client_of(gateway.url)
        store.kill()
        submitting = pool.submit(batch.submit_service_job, **request("away"))

        def refused(line: dict[str, Any]) -> bool:
            return line["event"] == "request" and line["status"] == 503 and line["problem"] == "store-unavailable"

        refusal = await in_thread(pool, gateway.find, refused)
        assert refusal["amz_sdk_request"].startswith("attempt=1")
        store.start()
        submitted = await in_thread(pool, submitting.result, 60)
        assert submitted["ResponseMetadata"]["RetryAttempts"] >= 1
        described = await in_thread(pool, lambda: batch.describe_service_job(jobId=submitted["jobId"]))
        assert described["jobName"] == "away"
        batch.close()
        await eventually(is_made(emulator, ["away"]))


async def test_a_gateway_that_drains_is_got_over(store: StoreServer, emulator: Emulator, tmp_path: Path) -> None:
    config = config_of(store, emulator)
    port, replaced = free_port(), threading.Event()
    names: list[str] = []
    with ThreadPoolExecutor(2) as pool:
        with gateway_process(tmp_path / "one", config, port=port) as first:
            batch = client_of(first.url)

            def submit_all() -> list[str]:
                """One after the other, until some have come to the second gateway."""
                ids: list[str] = []
                after = 0
                while after < 5:
                    after += replaced.is_set()
                    names.append(f"job-{len(names)}")
                    ids.append(batch.submit_service_job(**request(names[-1]))["jobId"])
                return ids

            submitting = pool.submit(submit_all)
            await in_thread(pool, first.event, "submission_settled")
            assert await in_thread(pool, first.terminate) == 0
        with gateway_process(tmp_path / "two", config, port=port) as second:
            replaced.set()
            ids = await in_thread(pool, submitting.result, 60)
            found = await in_thread(pool, lambda: [batch.describe_service_job(jobId=one)["jobName"] for one in ids])
            batch.close()
            await eventually(is_made(emulator, names))
            assert any(line.get("route") == "/v1/submitservicejob" for line in second.events)
    assert found == names
