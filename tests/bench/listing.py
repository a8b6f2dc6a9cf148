"""The newest page of the list, at a thousand records and at a million."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp

from gateway.core.identity import upstream_tag
from gateway.core.pace import PaceRules
from gateway.core.share import ShareLimits
from gateway.store.bounds import StoreBounds
from gateway.store.connection import connect
from gateway.store.keys import Keys
from gateway.store.redis_store import RedisStore
from tests.examples import ACCOUNT, REGION, settings
from tests.processes import gateway_process
from tests.servers import running, valkey_binary
from tests.store.world import new_submission

if TYPE_CHECKING:
    from tests.bench.figures import Figures

FEW, MANY = 1_000, 1_000_000
AT_ONCE = 5_000
PAGES = 200
LIMITS = ShareLimits(max_queued=10_000_000)


async def measure(figures: Figures) -> None:
    with tempfile.TemporaryDirectory(prefix="gw") as folder:
        (Path(folder) / "store").mkdir()
        with running(valkey_binary(), Path(folder) / "store") as server:
            config = settings(store_url=server.url, endpoint_url="http://127.0.0.1:9", prefix="l")
            with gateway_process(Path(folder) / "one", config, "--role", "api") as gateway:
                await _fill(server.url, 0, FEW)
                few = await _median_ms(gateway.url)
                print(f"filling up to {MANY} records; some minutes", flush=True)
                await _fill(server.url, FEW, MANY)
                many = await _median_ms(gateway.url)
                async with connect(server.url) as client:
                    memory = (await client.info("memory"))["used_memory"] / MANY
    figures.show(f"the newest page of 50 at {FEW} records, median ms", few)
    figures.show(f"the newest page of 50 at {MANY} records, median ms", many)
    figures.show("a million records against a thousand", many / few, "<= 1.3", holds=many / few <= 1.3)
    figures.show("the store's bytes a queued submission, payloads of 21 bytes", memory, "<= 1024", holds=memory <= 1024)


async def _fill(url: str, have: int, number: int) -> None:
    async with connect(url) as client:
        bounds = StoreBounds(max_queued=10 * MANY)
        store = RedisStore(client, Keys("l", upstream_tag(ACCOUNT, REGION)), pace=PaceRules(), bounds=bounds)
        for start in range(have, number, AT_ONCE):
            group = range(start, min(start + AT_ONCE, number))
            await asyncio.gather(
                *(store.admit(new_submission(f"t{one}", namespace="anonymous"), LIMITS) for one in group)
            )


async def _median_ms(url: str) -> float:
    waits = []
    async with aiohttp.ClientSession(url) as http:
        for _ in range(PAGES):
            began = time.perf_counter()
            async with http.get("/v1/submissions?limit=50") as answer:
                page = await answer.json()
            waits.append((time.perf_counter() - began) * 1000)
            assert len(page["items"]) == 50
            assert page["nextCursor"]
    return statistics.median(waits)
