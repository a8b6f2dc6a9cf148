"""The lines from which a monitor draws depth, age and pace: one a share with a backlog, one the upstream."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from gateway.core.errors import StoreUnavailableError

if TYPE_CHECKING:
    from gateway.core.ports import Log, ShareStatus

EVERY_SECONDS = 10.0


class StatusStore(Protocol):
    """Raises StoreUnavailableError."""

    async def shares(self) -> list[ShareStatus]: ...
    async def pace(self) -> dict[str, Any]: ...


class StatusReport:
    """Logs one upstream's state every ten seconds; skips a beat while the store is away, which is told elsewhere."""

    def __init__(self, *, upstream: str, store: StatusStore, log: Log) -> None:
        self._upstream = upstream
        self._store = store
        self._log = log

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), EVERY_SECONDS)
            with suppress(StoreUnavailableError):
                await self.report()

    async def report(self) -> None:
        for status in await self._store.shares():
            self._log.info(
                "share_status",
                upstream=self._upstream,
                share=str(status.share),
                queued=status.queued,
                oldest_seconds=None if status.oldest_seconds is None else round(status.oldest_seconds, 1),
                weight=status.weight,
                paused=status.paused,
            )
        self._log.info("upstream_status", upstream=self._upstream, **await self._store.pace())
