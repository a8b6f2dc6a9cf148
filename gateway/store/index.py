"""Submissions by when they were accepted, by namespace and by queue, and by Batch's job id."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from gateway.core.identity import SubmissionId
from gateway.core.ports import Indexed
from gateway.store.connection import store_errors
from gateway.store.keys import LISTS
from gateway.store.reading import read
from gateway.store.records import hold_in
from gateway.store.scripts import Scripts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from redis.asyncio import Redis

    from gateway.core.submission import Submission
    from gateway.store.keys import Keys

# A sweep looks at so many at a time: a millisecond of the store's.
SWEEP_AT_ONCE = 500


class SubmissionIndex:
    """LookupStore over one upstream's keys."""

    def __init__(self, client: Redis, keys: Keys) -> None:
        self._client: Any = client
        self._keys = keys
        self._scripts = Scripts()

    async def get(self, submission_id: SubmissionId) -> Submission | None:
        with store_errors():
            (found,) = await read(self._client, self._keys, [submission_id])
        return found

    async def get_many(self, wanted: Sequence[SubmissionId]) -> list[Submission | None]:
        with store_errors():
            return await read(self._client, self._keys, wanted, requests=False)

    async def of_job(self, job_id: str) -> SubmissionId | None:
        """Whose job it is, also after its record has expired."""
        with store_errors():
            owner = await self._client.get(self._keys.job(job_id))
        return SubmissionId(owner.decode()) if owner else None

    async def job_of(self, wanted: SubmissionId) -> str | None:
        """Batch's job id of a submission, also after its record has expired."""
        with store_errors():
            job_id = await self._client.get(self._keys.alias(wanted))
        return job_id.decode() if job_id else None

    async def owners(self, job_ids: Sequence[str]) -> Mapping[str, SubmissionId]:
        with store_errors():
            return await owners_of(self._client, self._keys, job_ids)

    async def denied_until(self, wanted: SubmissionId) -> datetime | None:
        """When the submission's queue and role, which IAM denies, are tried again; None where they are not denied."""
        with store_errors():
            value = await self._client.get(self._keys.record(wanted))
            held_ms = await self._client.hget(self._keys.denied, hold_in(value)) if value else None
            now_ms = await self.now_ms()
        return datetime.fromtimestamp(int(held_ms) / 1000, UTC) if held_ms and int(held_ms) > now_ms else None

    async def namespaces(self) -> list[str]:
        with store_errors():
            return sorted(name.decode() for name in await self._client.smembers(self._keys.namespaces))

    async def accepted_before(self, namespace: str, before: Indexed | None, limit: int) -> list[Indexed]:
        """The newest of a namespace that come after `before` in a list, at most so many; by time, then id, descending.

        Entries whose records have expired may be among them until they are swept.
        """
        return await self._listed_before(self._keys.index(namespace), before, limit)

    async def ended_before(self, queue: str, before: Indexed | None, limit: int) -> list[Indexed]:
        """As `accepted_before`, of a queue's submissions that ended without a job of Batch's.

        One that an older gateway redrove or forwarded may be among them too.
        """
        return await self._listed_before(self._keys.ended(queue), before, limit)

    async def _listed_before(self, key: str, before: Indexed | None, limit: int) -> list[Indexed]:
        highest, many = before.accepted_ms if before else "+inf", limit
        with store_errors():
            while True:  # in one range: between two of them entries would come and go
                rows = await self._client.zrevrangebyscore(key, highest, "-inf", start=0, num=many, withscores=True)
                entries = [Indexed(accepted_ms=int(ms), submission_id=SubmissionId(one.decode())) for one, ms in rows]
                found = [one for one in entries if before is None or one < before]
                if len(found) >= limit or len(rows) < many:
                    return found[:limit]
                many *= 2

    async def lists(self) -> list[str]:
        """All lists, by their keys without the upstream's prefix."""
        with store_errors():
            named = [await self._client.smembers(self._keys.root + names) for names in LISTS.values()]
        return [f"{kind}:{one.decode()}" for kind, ones in zip(LISTS, named, strict=True) for one in sorted(ones)]

    async def sweep(self, name: str, *, accepted_before_ms: int, passed_over: int) -> tuple[int, int]:
        """Take expired ones out of a list, past the first so many; (how many were looked at, how many went)."""
        keys, (kind, _, whose) = self._keys, name.partition(":")
        with store_errors():
            _, looked_at, gone = await self._scripts["sweep"].run(
                self._client,
                [keys.root + name, keys.root + LISTS[kind]],
                [keys.root, whose, accepted_before_ms, passed_over, SWEEP_AT_ONCE],
            )
        return int(looked_at), int(gone)

    async def now_ms(self) -> int:
        """The store's time."""
        with store_errors():
            seconds, microseconds = await self._client.time()
        return int(seconds) * 1000 + int(microseconds) // 1000


async def owners_of(client: Any, keys: Keys, job_ids: Sequence[str]) -> dict[str, SubmissionId]:
    """Whose jobs these are, as far as that is known. Raises redis-py's errors."""
    if not job_ids:
        return {}
    values = await client.mget([keys.job(job_id) for job_id in job_ids])
    return {job_id: SubmissionId(value.decode()) for job_id, value in zip(job_ids, values, strict=True) if value}
