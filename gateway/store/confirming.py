"""What was written is as durable as promised before anybody acts on it: one wait for all who ask at the same time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.core.errors import DurabilityUnconfirmedError
from gateway.store.connection import store_errors
from gateway.store.group_commit import GroupCommit
from gateway.store.scripts import Scripts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from redis.asyncio import Redis

    from gateway.store.durability import Confirmation
    from gateway.store.keys import Keys

UNCONFIRMED = (
    "It is written, and the store has not confirmed in time that it is as durable as promised. "
    "A retry finds it and waits for it too."
)
MOST_AT_ONCE = 10_000


class Confirmer:
    """Waits until one upstream's writes are as durable as the settings promise.

    `how` tells what to wait for, None where the store's own answer says all; it raises StoreUnavailableError where the
    promise cannot be kept at all.
    """

    def __init__(self, client: Redis, keys: Keys, how: Callable[[], Confirmation | None]) -> None:
        self._client = client
        self._key = keys.touched
        self._touch = Scripts()["touch"]
        self._waits: GroupCommit[None, bool] = GroupCommit(self._wait, most=MOST_AT_ONCE)
        self.how = how

    async def confirm(self) -> None:
        """Back once all that the store has answered so far is durable, whichever connection wrote it.

        Raises DurabilityUnconfirmedError where that is not known in time, and StoreUnavailableError.
        """
        if self.how() is not None and not await self._waits.add(None):
            raise DurabilityUnconfirmedError(UNCONFIRMED)

    async def _wait(self, asked: Sequence[None]) -> Sequence[bool]:
        with store_errors():
            (answer,), confirmed = await self._touch.run_all(self._client, [([self._key], [])], self.how())
            if isinstance(answer, Exception):
                raise answer
        return [confirmed] * len(asked)
