"""How often the fleet asks Batch for what it only reads: one token bucket an upstream, by the store's clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.store.connection import store_errors
from gateway.store.scripts import Scripts

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from gateway.store.keys import Keys

# A third of a second's worth may go at once: beside it errands and submissions stay below what Batch allows in all.
BURST_SECONDS = 1 / 3


class StoreReadBudget:
    """The core's ReadBudget; `rate` is the upstream's `describe_rate`, in calls a second."""

    def __init__(self, client: Redis, keys: Keys, *, rate: float) -> None:
        self._client: Any = client
        self._keys = keys
        self._rate = rate
        self._burst = max(1, round(rate * BURST_SECONDS))
        self._script = Scripts()["read"]

    async def take(self) -> float:
        with store_errors():
            verdict, *rest = await self._script.run(self._client, [self._keys.upstream], [self._rate, self._burst])
        return 0.0 if verdict == b"taken" else rest[0] / 1000
