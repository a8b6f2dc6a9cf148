"""The stores that a campaign can run on, and what can be done to each: a second kind plugs in here."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

from redis.asyncio import Redis

from tests.campaign import replicated
from tests.servers import StoreServer, running, valkey_binary

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path


class CampaignStore(Protocol):
    """A running store."""

    @property
    def settings(self) -> str:
        """The lines of the section `[store]` that name it and what it promises; the campaign adds the prefix."""
        ...

    @property
    def busy(self) -> bool:
        """Whether something is being done to it: one thing at a time."""
        ...

    @property
    def faults(self) -> Mapping[str, Callable[[float], Awaitable[None]]]:
        """What can be done to it, by kind: each lasts so many seconds, and leaves it serving."""
        ...

    def client(self) -> Any:
        """A redis-py client of its own that reads what is acknowledged: of the primary, where there are replicas."""
        ...


class Standalone:
    """One server that syncs its file before it answers."""

    def __init__(self, server: StoreServer) -> None:
        self._server = server
        self._whole = asyncio.Lock()  # a killed server cannot be stopped as well

    @property
    def settings(self) -> str:
        return f'url = "{self._server.url}"\ndurability = "fsync"'

    @property
    def busy(self) -> bool:
        return self._whole.locked()

    @property
    def faults(self) -> Mapping[str, Callable[[float], Awaitable[None]]]:
        return {"kill_store": self._kill, "stop_store": self._stop}

    def client(self) -> Redis:
        return Redis.from_url(self._server.url)

    async def _kill(self, seconds: float) -> None:
        async with self._whole:
            self._server.kill()
            await asyncio.sleep(seconds)
            await asyncio.to_thread(self._server.start)

    async def _stop(self, seconds: float) -> None:
        async with self._whole:
            with replicated.stopped(self._server):
                await asyncio.sleep(seconds)


@asynccontextmanager
async def standalone(folder: Path) -> AsyncIterator[Standalone]:
    with running(valkey_binary(), folder, "--appendonly", "yes", "--appendfsync", "always") as server:
        yield Standalone(server)


STORES: dict[str, Callable[[Path], AbstractAsyncContextManager[CampaignStore]]] = {
    "standalone": standalone,
    "sentinel": replicated.sentinel,
    "cluster": replicated.cluster,
}
"""How each is opened in a folder of its own, whose path must be short: sockets lie in it."""

STORE_KINDS: dict[str, tuple[str, ...]] = {
    "standalone": ("kill_store", "stop_store"),
    "sentinel": replicated.KINDS,
    "cluster": replicated.KINDS,
}
"""What can be done to each, known before it is opened: a schedule is drawn first."""
