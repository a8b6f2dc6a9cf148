"""Keeps the indexes as short as what they list: entries go some time after their records have expired."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from gateway.core.errors import StoreUnavailableError

if TYPE_CHECKING:
    from gateway.store.index import SubmissionIndex

EVERY_SECONDS = 10.0
# In one round and namespace: a hundred times more than Batch takes in that time.
SCRIPTS_A_ROUND = 10


class IndexSweep:
    """Sweeps one upstream's indexes, each from where the last round stopped: dead letters stand in the way for long.

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
        for namespace in await self._index.namespaces():
            await self._sweep_namespace(namespace, before)

    async def _sweep_namespace(self, namespace: str, before: int) -> None:
        passed_over = self._passed_over.get(namespace, 0)
        for _ in range(SCRIPTS_A_ROUND):
            looked_at, gone = await self._index.sweep(namespace, accepted_before_ms=before, passed_over=passed_over)
            passed_over += looked_at - gone
            if looked_at == 0:
                passed_over = 0
                break
        self._passed_over[namespace] = passed_over
