"""What callers and operators change of a submission: a script each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.core.identity import SubmissionId
from gateway.core.ports import Change
from gateway.core.reconcile import LOOK_AFTER_SECONDS
from gateway.store.confirming import Confirmer
from gateway.store.records import unpack
from gateway.store.redis_store import IDLE_SHARE_MS
from gateway.store.scripts import Scripts

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from gateway.store.bounds import StoreBounds
    from gateway.store.keys import Keys


class SubmissionChanges:
    """ChangeStore over one upstream's keys."""

    def __init__(self, client: Redis, keys: Keys, *, bounds: StoreBounds, confirmer: Confirmer | None = None) -> None:
        """`confirmer` as store/redis_store.py has it: who hears of a change may count on it."""
        self._client: Any = client
        self._keys = keys
        self._confirmer = confirmer or Confirmer(client, keys, lambda: None)
        self._retention_ms = round(bounds.retention_seconds * 1000)
        self._alias_retention_ms = round(bounds.alias_retention_seconds * 1000)
        self._scripts = Scripts()

    async def cancel(self, wanted: SubmissionId, reason: str) -> Change:
        look_ms = round(LOOK_AFTER_SECONDS[0] * 1000)
        args = [reason, look_ms, self._retention_ms, IDLE_SHARE_MS, self._keys.ends]
        return await self._run("cancel", wanted, args)

    async def reprioritize(self, wanted: SubmissionId, priority: int) -> Change:
        return await self._run("priority", wanted, [priority, self._retention_ms])

    async def redrive(self, wanted: SubmissionId) -> Change:
        return await self._run("redrive", wanted, [self._keys.wake])

    async def resolve(
        self, wanted: SubmissionId, job_id: str | None, job_arn: str | None, *, close: bool = False
    ) -> Change:
        args = [job_id or "", job_arn or "", self._retention_ms, self._alias_retention_ms, int(close)]
        return await self._run("resolve", wanted, args, self._keys.job(job_id or "-"))

    async def _run(self, command: str, wanted: SubmissionId, args: list[Any], *keys: str) -> Change:
        (verdict, *rest), confirmed = await self._confirmer.run_one(
            self._scripts[command], [self._keys.record(wanted), *keys], [wanted, self._keys.root, *args]
        )
        if verdict == b"owned":
            return Change(verdict="owned", owner=SubmissionId(rest[0].decode()), confirmed=confirmed)
        submission = unpack(wanted, rest[0]) if rest else None
        return Change(verdict=verdict.decode(), submission=submission, confirmed=confirmed)
