"""One campaign, from an empty folder to its evidence: open all, let things go wrong, let all drain, gather."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import aiohttp
from redis.exceptions import RedisError

from tests.campaign import keyspace
from tests.campaign.batch import Batch, emulator
from tests.campaign.callers import Caller
from tests.campaign.evidence import HISTORY, Evidence, keep, keep_snapshot, load
from tests.campaign.fleet import Gateway, fleet
from tests.campaign.history import History
from tests.campaign.package import HURRY, copy_package
from tests.campaign.plan import CALL_SECONDS, DRAIN_SECONDS, GATEWAYS, LEASE_SECONDS, Plan
from tests.campaign.stores import STORES, CampaignStore
from tests.campaign.trouble import Troubles

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tests.campaign.package import Edit

PREFIX = "gw"
PROGRESS_SECONDS = 5.0
SNAPSHOT_SECONDS = 3.0
GETS_AT_ONCE = 16
# Two minutes of looks for a job, and a last backoff of a minute: what takes longer will never end. In a hurry it is
# seconds, and what a share has put off.
DRAINED_SECONDS = 240.0
HURRIED_SECONDS = 45.0


class Stage:
    """The parts of a running campaign."""

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        *,
        gateways: list[Gateway],
        store: CampaignStore,
        batch: Batch,
        history: History,
        tell: Callable[[str], None],
        drained_seconds: float,
    ) -> None:
        self._plan = plan
        self._drained_seconds = drained_seconds
        self._folder = folder
        self._gateways = gateways
        self._store = store
        self._batch = batch
        self._history = history
        self._tell = tell
        self._began = time.monotonic()
        self._root: str | None = None

    async def run(self) -> None:
        """The whole of it; the evidence is in the folder afterwards."""
        watchers = [asyncio.create_task(self._show_progress()), asyncio.create_task(self._take_snapshots())]
        try:
            await self._let_things_go_wrong()
            self._tell("  no more faults: draining")
            await self._batch.clear_faults()
            await self._drain()
        finally:
            for watcher in watchers:
                watcher.cancel()
            await asyncio.gather(*watchers, return_exceptions=True)
        await self._gather()

    async def _let_things_go_wrong(self) -> None:
        stop = asyncio.Event()
        callers = [
            asyncio.create_task(Caller(number, self._plan, self._gateways, self._history).run(stop))
            for number in range(self._plan.callers)
        ]
        troubles = Troubles(
            self._plan, gateways=self._gateways, store=self._store, batch=self._batch, history=self._history
        )
        await asyncio.gather(troubles.run(), asyncio.sleep(self._plan.seconds))
        stop.set()
        await asyncio.gather(*callers)

    async def _drain(self) -> None:
        """Until nothing is queued or owed, and no call to Batch is under way; what stays is for the checker.

        However many are queued: what bounds it is how long nothing at all may happen.
        """
        changed_at, last = time.monotonic(), -1
        while time.monotonic() - changed_at < self._drained_seconds:
            snapshot = await self._snapshot()
            called = await self._batch.last_call()
            if called != last:
                changed_at, last = time.monotonic(), called
            still = time.monotonic() - changed_at > CALL_SECONDS + LEASE_SECONDS
            if still and snapshot is not None and keyspace.is_drained(snapshot):
                return
            await asyncio.sleep(0.25)

    async def _gather(self) -> None:
        """What GET says first, then an orderly end of the gateways, then what they have left."""
        calls, jobs = await self._batch.calls(), await self._batch.jobs()
        snapshot = await self._snapshot(everything=True)
        known = set(snapshot["records"]) if snapshot else set()
        known |= {job["tags"].get("gateway:submission-id", "") for job in jobs}
        known |= self._history.acknowledged
        resources = await self._resources(sorted(known - {""}))
        for gateway in self._gateways:
            async with gateway.turn:
                await gateway.terminate(DRAIN_SECONDS)
        last = await self._snapshot(everything=True)
        if last is None:
            raise RuntimeError("the store does not answer, though nothing is done to it any more")
        keep_snapshot(self._folder, last)
        self._history.close()
        keep(self._folder, facts=self._plan.facts(), calls=calls, jobs=jobs, resources=resources)

    async def _resources(self, ids: Sequence[str]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        slots = asyncio.Semaphore(GETS_AT_ONCE)

        async def look(http: aiohttp.ClientSession, number: int, one: str) -> None:
            gateway = self._gateways[number % len(self._gateways)]
            async with slots, http.get(f"{gateway.url}/v1/submissions/{one}") as answer:
                found[one] = {"status": answer.status, "body": await answer.json()}

        async with aiohttp.ClientSession() as http:
            await asyncio.gather(*(look(http, number, one) for number, one in enumerate(ids)))
        return found

    async def _snapshot(self, *, everything: bool = False) -> dict[str, Any] | None:
        """None where the store does not answer now, or holds nothing yet."""
        client = self._store.client()
        try:
            async with asyncio.timeout(2 if not everything else 60):
                if self._root is None:
                    found = await keyspace.roots(client, PREFIX)
                    self._root = found[0] if found else None
                if self._root is None:
                    return None
                return await keyspace.read_keys(client, self._root, everything=everything)
        except (RedisError, OSError, TimeoutError):
            return None
        finally:
            await client.aclose()

    async def _take_snapshots(self) -> None:
        while True:
            await asyncio.sleep(SNAPSHOT_SECONDS)
            snapshot = await self._snapshot()
            if snapshot is not None:
                keep_snapshot(self._folder, snapshot)

    async def _show_progress(self) -> None:
        while True:
            await asyncio.sleep(PROGRESS_SECONDS)
            counts, snapshot = self._history.counts, await self._snapshot()
            kills = sum(count for name, count in counts.items() if name.startswith("kill_"))
            queued = snapshot["hashes"].get("upstream", {}).get("queued", "0") if snapshot else "?"
            self._tell(
                f"{time.monotonic() - self._began:6.0f} s  calls {counts['call']}"
                f"  acknowledged {len(self._history.acknowledged)}  queued {queued}"
                f"  faults {counts['fault']}  kills {kills}  ended {counts['ended']}"
            )


async def run(
    plan: Plan,
    folder: Path,
    *,
    hurry: bool = False,
    edits: Sequence[Edit] = (),
    tell: Callable[[str], None] = lambda _: None,
) -> Evidence:
    """Runs the plan in a new, empty folder, which keeps the evidence.

    `edits` change the copied package; in a `hurry` its waits for Batch are shortened too. The folder's path must be
    short, for the store's socket lies in it.
    """
    package = copy_package(folder / "package", (*HURRY, *edits) if hurry else edits)
    history = History(folder / HISTORY)
    async with AsyncExitStack() as opened:
        (folder / "store").mkdir()
        store = await opened.enter_async_context(STORES[plan.store](folder / "store"))
        batch = await opened.enter_async_context(emulator(package, tps=plan.tps, repeats=plan.repeats, seed=plan.seed))
        settings = plan.settings(store=store.settings, endpoint=batch.url)
        gateways = await opened.enter_async_context(
            fleet(range(GATEWAYS), folder, settings=settings, package=package, history=history)
        )
        stage = Stage(
            plan,
            folder,
            gateways=gateways,
            store=store,
            batch=batch,
            history=history,
            tell=tell,
            drained_seconds=HURRIED_SECONDS if hurry else DRAINED_SECONDS,
        )
        await stage.run()
    return await asyncio.to_thread(load, folder)
