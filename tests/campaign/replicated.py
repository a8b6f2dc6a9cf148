"""Stores of more than one server: a primary under Sentinel, and a cluster; whichever it is, one replica takes over.

One, so that it has all that was confirmed: of two, the one that is behind might be chosen.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.sentinel import Sentinel

from tests.servers import StoreServer, valkey_binary
from tests.topologies import MASTER, RunningCluster, RunningSentinel, running_cluster, running_sentinel, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
    from pathlib import Path

KINDS = ("kill_primary", "failover", "stop_store", "stop_replica", "lose_unreplicated")
READ_SECONDS = 5.0
# Between two takeovers the store is whole for a while, so that there is something to lose by the next.
CALM_SECONDS = 3.0
# A stopped replica would find all that it missed in its socket; one that is away for longer would be called down.
AWAY_SECONDS = 1.0


class Topology(Protocol):
    """What a store of several servers is asked for; all but `client` blocks."""

    @property
    def url(self) -> str: ...

    def client(self) -> Any: ...

    def primary(self) -> StoreServer:
        """Who has the submissions now; waits while nobody does."""
        ...

    def replica(self) -> StoreServer:
        """Its replica, in step with it."""
        ...

    def failover(self) -> None:
        """A planned one."""
        ...

    def back(self, former: StoreServer) -> None:
        """Starts a killed primary, which is a replica now."""
        ...


class UnderSentinel:
    """A primary, its replica and three Sentinels."""

    def __init__(self, running: RunningSentinel) -> None:
        self._running = running
        self.url = running.url

    def client(self) -> Redis:
        sentinels = [("127.0.0.1", one.port) for one in self._running.sentinels]
        client: Redis = Sentinel(sentinels, socket_timeout=READ_SECONDS).master_for(MASTER)
        return client

    def primary(self) -> StoreServer:
        return self._running.primary()

    def replica(self) -> StoreServer:
        self._running.healthy()
        primary = self.primary()
        return next(node for node in self._running.nodes if node is not primary)

    def failover(self) -> None:
        self._running.healthy()
        self._running.failover()

    def back(self, former: StoreServer) -> None:
        self.primary()  # first the other one takes over: started again at once, it would have lost nothing
        former.start()
        self._running.demote(former)


class InCluster:
    """Three primaries with a replica each, of which one has the slot of the upstream's keys."""

    def __init__(self, running: RunningCluster) -> None:
        self._running = running
        self.url = running.url
        self._found: str | None = None

    def client(self) -> RedisCluster:
        nodes = [ClusterNode("127.0.0.1", node.port) for node in self._running.nodes]
        return RedisCluster(startup_nodes=nodes, socket_timeout=READ_SECONDS)

    @property
    def _key(self) -> str:
        """One of the upstream's keys, which share a slot; waits until there is one."""
        if self._found is None:
            self._found = until(self._find_key, "a gateway writes")
        return self._found

    def _find_key(self) -> str | None:
        keys = (key for node in self._running.nodes for key in node.ask("KEYS", "*:{*}:upstream"))
        return next((str(key) for key in keys), None)

    def primary(self) -> StoreServer:
        return self._running.primary_of(self._key)

    def replica(self) -> StoreServer:
        return self._running.replica_of(self.primary())

    def failover(self) -> None:
        self._running.failover(self._key)

    def back(self, former: StoreServer) -> None:
        self.primary()
        former.start()


class Replicated:
    """A store whose promise outlives its primary: what is confirmed is on the replica too."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._turn = asyncio.Lock()  # one fault at a time: two could take the last copy away

    @property
    def settings(self) -> str:
        return f'url = "{self._topology.url}"\ndurability = "replicated"\nreplicas = 1'

    @property
    def busy(self) -> bool:
        return self._turn.locked()

    @property
    def faults(self) -> Mapping[str, Callable[[float], Awaitable[None]]]:
        done = (self._kill_primary, self._failover, self._stop_primary, self._stop_replica, self._lose_unreplicated)
        return {kind: partial(self._in_turn, fault) for kind, fault in zip(KINDS, done, strict=True)}

    def client(self) -> Any:
        return self._topology.client()

    async def _in_turn(self, fault: Callable[[float], Awaitable[None]], seconds: float) -> None:
        async with self._turn:
            await fault(seconds)
            await asyncio.sleep(CALM_SECONDS)

    async def _kill_primary(self, seconds: float) -> None:
        await asyncio.to_thread(self._topology.replica)
        primary = await asyncio.to_thread(self._topology.primary)
        primary.kill()
        await asyncio.sleep(seconds)
        await asyncio.to_thread(self._topology.back, primary)

    async def _failover(self, _: float) -> None:
        await asyncio.to_thread(self._topology.failover)

    async def _stop_primary(self, seconds: float) -> None:
        with stopped(await asyncio.to_thread(self._topology.primary)):
            await asyncio.sleep(seconds)

    async def _stop_replica(self, seconds: float) -> None:
        with stopped(await asyncio.to_thread(self._topology.replica)):
            await asyncio.sleep(seconds)

    async def _lose_unreplicated(self, _: float) -> None:
        """The replica is away for a while, then the primary dies: what only that one had is gone."""
        replica = await asyncio.to_thread(self._topology.replica)
        primary = await asyncio.to_thread(self._topology.primary)
        replica.kill()
        await asyncio.sleep(AWAY_SECONDS)
        primary.kill()
        await asyncio.to_thread(replica.start)
        await asyncio.to_thread(self._topology.back, primary)


@contextmanager
def stopped(server: StoreServer) -> Iterator[None]:
    server.pause()
    try:
        yield
    finally:
        server.resume()


@asynccontextmanager
async def sentinel(folder: Path) -> AsyncIterator[Replicated]:
    opening = running_sentinel(valkey_binary(), folder, replicas=1)
    running = await asyncio.to_thread(opening.__enter__)
    try:
        yield Replicated(UnderSentinel(running))
    finally:
        await asyncio.to_thread(opening.__exit__, None, None, None)


@asynccontextmanager
async def cluster(folder: Path) -> AsyncIterator[Replicated]:
    opening = running_cluster(valkey_binary(), folder)
    running = await asyncio.to_thread(opening.__enter__)
    try:
        yield Replicated(InCluster(running))
    finally:
        await asyncio.to_thread(opening.__exit__, None, None, None)
