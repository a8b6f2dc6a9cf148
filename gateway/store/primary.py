"""Where the primary is that holds some keys: what Sentinels say of it, or whose slot it is in a cluster."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Protocol

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.store.store_url import Address

# A node that says nothing for a second is not asked for the way: the others know it.
ASK_SECONDS = 1.0


class Finder(Protocol):
    """Asks somebody who knows. Raises redis-py's errors and OSError where nobody answers."""

    async def __call__(self) -> Address: ...


class Primary:
    """The primary's address as it is known; looked for once for all who ask at the same time."""

    def __init__(self, find: Finder, *, trusted_seconds: float = math.inf) -> None:
        """What is older than `trusted_seconds` is still used, and looked for again meanwhile."""
        self._find = find
        self._trusted_seconds = trusted_seconds
        self._known: Address | None = None
        self._seen_at = 0.0
        self._looking: asyncio.Task[Address] | None = None

    async def address(self) -> Address:
        """Raises what the finder raises."""
        known = self._known
        if known is not None and time.monotonic() - self._seen_at <= self._trusted_seconds:
            return known
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())
            self._looking.add_done_callback(_heard)
        if known is not None:
            return known
        return await asyncio.shield(self._looking)  # who goes away takes the look from nobody else

    def doubt(self, address: Address | None) -> None:
        """Whoever was reached there does not serve as a primary does: it is looked for again."""
        if self._known == address:
            self._known = None

    def moved(self, address: Address) -> None:
        """A node of the cluster has said whose the keys are now."""
        self._known = address

    async def _look(self) -> Address:
        try:
            self._known = await self._find()
            self._seen_at = time.monotonic()
        finally:
            self._looking = None
        return self._known


def _heard(task: asyncio.Task[Any]) -> None:
    """What nobody waits for may fail: the next one asks again."""
    if not task.cancelled():
        task.exception()


class SentinelFinder:
    """Asks the Sentinels, one after another, until one knows a primary of this name."""

    def __init__(self, hosts: Sequence[Address], service: str, options: Mapping[str, str]) -> None:
        self._hosts = list(hosts)
        self._service = service
        self._options = dict(options)

    async def __call__(self) -> Address:
        options: dict[str, Any] = {**_ASKED_ONCE, **self._options}
        sentinel: Any = Sentinel(self._hosts, sentinel_kwargs=options)  # type: ignore[no-untyped-call]
        try:
            address: Address = await sentinel.discover_master(self._service)
        finally:
            for one in sentinel.sentinels:
                await one.aclose()
        return address


class SlotFinder:
    """Asks all nodes of the cluster that are known whose slot it is, and believes what most of them say.

    One that was cut off and has just come back may take itself for the owner still.
    """

    def __init__(self, seeds: Sequence[Address], key: str, options: Mapping[str, Any]) -> None:
        self._nodes = set(seeds)
        self._asked: set[asyncio.Task[tuple[Address | None, set[Address]]]] = set()
        self._slot = key_slot(key.encode())
        self._options = {**options, **_ASKED_ONCE}

    async def __call__(self) -> Address:
        votes: Counter[Address] = Counter()
        asked = [asyncio.create_task(self._ask(node)) for node in self._nodes]
        failure: Exception = RedisConnectionError("No node of the cluster answers.")
        learnt: set[Address] = set()
        for task in asked:  # stragglers end by themselves: a connection that is cut off while it opens stays open
            self._asked.add(task)
            task.add_done_callback(self._asked.discard)
            task.add_done_callback(_heard)
        for answer in asyncio.as_completed(asked):
            try:
                owner, nodes = await answer
            except (RedisError, OSError) as error:
                failure = error
                continue
            learnt |= nodes
            if owner is not None:
                votes[owner] += 1
                if 2 * votes[owner] > len(asked):
                    break
        self._nodes |= learnt
        if votes:
            return votes.most_common(1)[0][0]
        if learnt:
            raise RedisConnectionError(f"No node of the cluster has slot {self._slot}.")
        raise failure

    async def _ask(self, node: Address) -> tuple[Address | None, set[Address]]:
        """(who has the slot, all nodes), as this node sees it."""
        host, port = node
        pool = ConnectionPool(**{**self._options, "host": host, "port": port})
        client: Any
        async with Redis.from_pool(pool) as client:
            rows = await client.execute_command("CLUSTER SLOTS")
        owner, nodes = None, set()
        for first, last, *members in rows:
            # a node that does not know its own name leaves it out: it is the one that was asked
            addresses = [((name or b"").decode() or host, int(port)) for name, port, *_ in members]
            nodes.update(addresses)
            if first <= self._slot <= last:
                owner = addresses[0]
        return owner, nodes


_ASKED_ONCE: dict[str, Any] = {
    "socket_timeout": ASK_SECONDS,
    "socket_connect_timeout": ASK_SECONDS,
    "retry": Retry(NoBackoff(), 0),
}
