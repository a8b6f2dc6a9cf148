"""Keeps lists of submissions as short as what they list: entries go some time after their records have expired."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from gateway.core.errors import StoreUnavailableError

if TYPE_CHECKING:
    from gateway.store.index import SubmissionIndex

EVERY_SECONDS = 10.0
# In one round and list: a hundred times more than Batch takes in that time.
SCRIPTS_A_ROUND = 10


class IndexSweep:
    """Sweeps one upstream's lists, each from where the last round stopped: dead letters stand in the way for long.

    Several processes may do it at once: what one has taken out the others do not find.
    """

    def __init__(self, index: SubmissionIndex, *, retention_seconds: float) -> None:
        self._index = index
        self._retention_ms = round(retention_seconds * 1000)
        self._passed_over: dict[str, int] = {}

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), EVERY_SECONDS)
                return
            with suppress(StoreUnavailableError):  # the store's own watch tells of it
                await self.sweep()

    async def sweep(self) -> None:
        """One round."""
        before = await self._index.now_ms() - self._retention_ms  # nothing accepted since can have expired
        for name in await self._index.lists():
            await self._sweep_list(name, before)

    async def _sweep_list(self, name: str, before: int) -> None:
        passed_over = self._passed_over.get(name, 0)
        for _ in range(SCRIPTS_A_ROUND):
            looked_at, gone = await self._index.sweep(name, accepted_before_ms=before, passed_over=passed_over)
            passed_over += looked_at - gone
            if looked_at == 0:
                passed_over = 0
                break
        self._passed_over[name] = passed_over
