"""A gateway process over a real store and an emulated Batch, and the proof that a fault of the store did no harm."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import aiohttp

from gateway.core.upstream import Upstream
from gateway.emulator import Fault
from gateway.store.keys import Keys
from tests.conftest import eventually
from tests.examples import ACCOUNT, REGION, settings
from tests.processes import gateway_process
from tests.stores.callers import Callers
from tests.stores.soundness import Contents, read_all, unsound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from gateway.emulator import Emulator
    from tests.processes import GatewayProcess
    from tests.servers import StoreServer

# What the gateway promises: it serves again this long after its store does, and is not restarted for it.
RECOVERY_SECONDS = 5.0
# About what the callers send: some are always queued, some are always being called for, none waits for long.
RATE = 60.0
CALL_TAKES_SECONDS = 0.1
# A lease whose answer is lost is over after this long, and its submission is tried again.
LEASE_SECONDS = 4
CALL_TIMEOUT_SECONDS = 1.5
DRAIN_SECONDS = 30.0


@dataclass(kw_only=True)
class Stage:
    """One gateway, and who has the upstream's keys now."""

    gateway: GatewayProcess
    emulator: Emulator
    keys: Keys
    primary: Callable[[], StoreServer]

    @asynccontextmanager
    async def under_load(self) -> AsyncIterator[Callers]:
        """Callers go on inside the block. At its end every one of their submissions is one job, and seen as that."""
        self.emulator.reset()
        self.emulator.set_faults(Fault(kind="slow", seconds=CALL_TAKES_SECONDS))
        callers = Callers(url=self.gateway.url, name=uuid4().hex[:8])
        async with callers.calling():
            yield callers
        assert callers.wrong == []
        assert await self.unsound() == []
        await self.has_forwarded(callers)
        assert await self.unsound() == []
        assert self.gateway.process.poll() is None, "it has ended by itself"

    async def unsound(self) -> list[str]:
        """What is half-done in the store now."""
        return unsound(await self.contents())

    async def contents(self) -> Contents:
        return await asyncio.to_thread(lambda: read_all(self.primary(), self.keys))

    async def recovers(self, callers: Callers) -> None:
        """From now on, in time: submissions are taken, and jobs are made."""
        since, jobs = time.monotonic(), len(self.emulator.jobs)
        await callers.acknowledges_again(since, seconds=RECOVERY_SECONDS)
        left = since + RECOVERY_SECONDS - time.monotonic()
        await eventually(lambda: asyncio.sleep(0, len(self.emulator.jobs) > jobs), left)

    async def has_forwarded(self, callers: Callers) -> None:
        """Every acknowledged one is exactly one job, and each caller is told its own."""
        wanted = set(callers.ids.values())
        with suppress(AssertionError):  # what is told below says more
            await eventually(lambda: asyncio.sleep(0, len(self.jobs(callers)) >= len(wanted)), DRAIN_SECONDS)
            await eventually(self.is_drained, DRAIN_SECONDS)
        made = self.jobs(callers)
        told = {one: await self.ask("GET", f"/v1/submissions/{one}") for one in wanted}
        assert [told[one] for one in wanted - {one for one, _ in made}] == [], "acknowledged, and no job was made"
        assert sorted(one for one, _ in made) == sorted(wanted), "each is one job, and there is no other"
        for submission_id, job_id in made:
            status, answer = told[submission_id]
            assert (status, answer.get("state"), answer.get("jobId")) == (200, "forwarded", job_id)

    def jobs(self, callers: Callers) -> list[tuple[str, str]]:
        """(submissionId, jobId) of every job that these callers asked for."""
        return [
            (str(job.tags["gateway:submission-id"]), job.job_id)
            for job in self.emulator.jobs
            if job.name.startswith(callers.name)
        ]

    async def is_drained(self) -> bool:
        return (await self.contents()).hash("upstream").get("queued") == "0"

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, dict[str, Any]]:
        """(status, answer) of one request beside the callers'."""
        async with (
            aiohttp.ClientSession(self.gateway.url) as http,
            http.request(method, path, json=body) as response,
        ):
            return response.status, await response.json(content_type=None)


def said(server: StoreServer, error: str) -> int:
    """How often it has answered with this error since it was started."""
    counted: dict[str, int] = server.ask("INFO", "errorstats").get(f"errorstat_{error}", {})
    return counted.get("count", 0)


@contextmanager
def staged(
    folder: Path, emulator: Emulator, store_url: str, primary: Callable[[Keys], StoreServer], *, promise: str
) -> Iterator[Stage]:
    """A gateway over this store; `primary` finds the server that has these keys, `promise` is what the settings say."""
    prefix = f"t{uuid4().hex[:12]}"
    keys = Keys(prefix, Upstream(name="main", region=REGION, account=ACCOUNT).tag)
    config = settings(
        store_url=store_url,
        endpoint_url=emulator.url,
        prefix=prefix,
        upstream=f"rate = {RATE}",
        extra=f"[forward]\ncall_timeout_seconds = {CALL_TIMEOUT_SECONDS}\nlease_seconds = {LEASE_SECONDS}",
    ).replace('durability = "memory"', promise)
    with gateway_process(folder, config) as gateway:
        yield Stage(gateway=gateway, emulator=emulator, keys=keys, primary=lambda: primary(keys))
