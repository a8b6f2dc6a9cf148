"""What each level of durability costs: acceptances a second and their times, side by side, in turns."""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from redis.asyncio import Redis

from tests.bench.batches import Calls
from tests.examples import settings, submission
from tests.processes import gateway_process
from tests.servers import free_port, running, valkey_binary

if TYPE_CHECKING:
    from tests.bench.figures import Figures

CONNECTIONS = 32
ROUNDS = 3
ROUND_SECONDS = 3.0
FILE = ("--appendonly", "yes")
ALWAYS = (*FILE, "--appendfsync", "always")
EVERYSEC = (*FILE, "--appendfsync", "everysec")


@dataclass(frozen=True, kw_only=True)
class Level:
    """A setting of `store.durability`, on a store of this kind; `replica` is a second server's options."""

    name: str
    durability: str
    store: tuple[str, ...]
    replica: tuple[str, ...] | None = None


LEVELS = (
    Level(name="memory: no file", durability="memory", store=()),
    Level(name="fsync: file, always", durability="fsync", store=ALWAYS),
    Level(name="fsync: file, everysec and WAITAOF", durability="fsync", store=EVERYSEC),
    Level(name="replicated: WAIT, no file", durability="replicated", store=(), replica=()),
    Level(name="replicated: WAITAOF, always here and there", durability="replicated", store=ALWAYS, replica=ALWAYS),
)


@dataclass
class Measured:
    a_second: list[float] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)


class TimedCalls(Calls):
    """As many as fit into a time, each with how long it took."""

    async def run(self, seconds: float) -> tuple[float, list[float]]:
        """(calls a second, milliseconds of each)"""
        took: list[float] = []
        began = time.perf_counter()
        await asyncio.gather(*(self._timed(began + seconds, took) for _ in range(CONNECTIONS)))
        return len(took) / (time.perf_counter() - began), took

    async def _timed(self, until: float, took: list[float]) -> None:
        reader, writer = await asyncio.open_connection(self._host, self._port, limit=2**24)
        while time.perf_counter() < until:
            began = time.perf_counter()
            await self._call(reader, writer)
            took.append((time.perf_counter() - began) * 1000)
        writer.close()


async def measure(figures: Figures) -> None:
    measured = {level.name: Measured() for level in LEVELS}
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="gw")))
        calls = {level.name: await _gateway(opened, folder / str(number), level) for number, level in enumerate(LEVELS)}
        for _ in range(ROUNDS):
            for level in LEVELS:
                rate, took = await calls[level.name].run(ROUND_SECONDS)
                measured[level.name].a_second.append(rate)
                measured[level.name].milliseconds += took
    base = max(measured[LEVELS[0].name].a_second)
    for name, one in measured.items():
        p50, p99 = statistics.median(one.milliseconds), statistics.quantiles(one.milliseconds, n=100)[98]
        figures.show(f"{name}: acceptances a second, best of {ROUNDS}", max(one.a_second))
        figures.show(f"{name}: of memory's", max(one.a_second) / base)
        figures.show(f"{name}: p50, ms", p50)
        figures.show(f"{name}: p99, ms", p99)


async def _gateway(opened: ExitStack, folder: Path, level: Level) -> TimedCalls:
    """A store, its replica where the level has one, and a gateway that only accepts."""
    (folder / "store").mkdir(parents=True)
    port = free_port()
    store = opened.enter_context(
        running(valkey_binary(), folder / "store", "--port", str(port), "--repl-diskless-sync-delay", "0", *level.store)
    )
    if level.replica is not None:
        (folder / "replica").mkdir()
        opened.enter_context(
            running(valkey_binary(), folder / "replica", "--replicaof", f"127.0.0.1 {port}", *level.replica)
        )
        async with Redis.from_url(store.url) as client, asyncio.timeout(20):
            while not await client.wait(1, 100):
                await client.set("something", "to wait for")
    share = '[[share]]\nqueue = "training"\nshare = "*"\nmax_queued = 1000000\n'
    config = settings(store_url=store.url, endpoint_url="http://127.0.0.1:9", prefix="b", upstream=share)
    config = config.replace('"memory"', f'"{level.durability}"')
    gateway = opened.enter_context(gateway_process(folder / "gateway", config, "--role", "api"))
    return TimedCalls(gateway.url, "/v1/submissions", json.dumps(submission()).encode())
