"""What was written is as durable as promised before anybody acts on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.core.errors import DurabilityUnconfirmedError
from gateway.store.connection import store_errors
from gateway.store.group_commit import GroupCommit
from gateway.store.scripts import Scripts, run_all

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from redis.asyncio import Redis

    from gateway.core.attempt import Leased
    from gateway.store.durability import Confirmation
    from gateway.store.keys import Keys
    from gateway.store.scripts import Argument, Call, Script

# A process has no more leases in hand than calls in flight, and waits for most of them once.
MOST_AT_ONCE = 100


class Confirmer:
    """Waits until one upstream's writes are as durable as the settings promise.

    `how` tells what to wait for, None where the store's own answer says all; it raises StoreUnavailableError where the
    promise cannot be kept at all.
    """

    def __init__(self, client: Redis, keys: Keys, how: Callable[[], Confirmation | None]) -> None:
        self._client = client
        self._keys = keys
        self._touch = Scripts()["touch"]
        self._waits: GroupCommit[Leased | None, bool] = GroupCommit(self._wait, most=MOST_AT_ONCE)
        self.how = how

    async def run(self, calls: Sequence[Call]) -> tuple[list[Any], bool]:
        """(an answer or an error each, in order; whether what they wrote, or found, is confirmed), in one round trip.

        What they only found may be as young as what they write: so something is written behind them to wait for.
        Raises StoreUnavailableError.
        """
        confirmation = self.how()
        touch: list[Call] = [] if confirmation is None else [(self._touch, [self._keys.touched], [])]
        with store_errors():
            answers, confirmed = await run_all(self._client, [*calls, *touch], confirmation)
        return answers[: len(calls)], confirmed and not any(isinstance(one, Exception) for one in answers[len(calls) :])

    async def run_one(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> tuple[Any, bool]:
        """(its answer, whether what it wrote, or found, is confirmed). Raises StoreUnavailableError."""
        (answer,), confirmed = await self.run([(script, keys, args)])
        if isinstance(answer, Exception):
            with store_errors():
                raise answer
        return answer, confirmed

    async def confirm(self, leased: Leased | None = None) -> None:
        """Back once all that the store has answered so far is durable, whichever connection wrote it: one wait for all
        who ask at the same time.

        With a lease only if the store that confirms it has it, too: it may be another one by now. Raises
        DurabilityUnconfirmedError where that is not so, or not known in time, and StoreUnavailableError.
        """
        if self.how() is not None and not await self._waits.add(leased):
            raise DurabilityUnconfirmedError

    async def _wait(self, asked: Sequence[Leased | None]) -> Sequence[bool]:
        leases = [one for one in asked if one is not None]
        keys = [self._keys.touched, *(self._keys.record(one.submission.submission_id) for one in leases)]
        with store_errors():
            (answer,), confirmed = await run_all(
                self._client, [(self._touch, keys, [one.number for one in leases])], self.how()
            )
            if isinstance(answer, Exception):
                raise answer
        held = iter(answer[1:])
        return [confirmed and (one is None or next(held) == 1) for one in asked]
