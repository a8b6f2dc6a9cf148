"""What Batch is to be asked for beside submitting, durable in the store: leased and settled like submissions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.core.identity import SubmissionId
from gateway.core.ports import Errand, ErrandEnd, ErrandReport, Wait
from gateway.store.connection import store_errors
from gateway.store.index import owners_of
from gateway.store.records import errand_fields, unpack
from gateway.store.redis_store import IDLE_SHARE_MS
from gateway.store.scripts import Scripts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from redis.asyncio import Redis

    from gateway.store.bounds import StoreBounds
    from gateway.store.keys import Keys

# Of the 50 calls a second that Batch allows beside submissions readers have 30. A termination or update is one call, a
# look two as a rule.
ERRANDS_PER_SECOND = 10.0
# How many answers in a row may say that nothing was owed after all.
LEASE_ROUNDS = 20


class ErrandQueue:
    """ErrandStore over one upstream's keys."""

    def __init__(self, client: Redis, keys: Keys, *, bounds: StoreBounds) -> None:
        self._client: Any = client
        self._keys = keys
        self._bounds = bounds
        self._scripts = Scripts()

    async def lease(self) -> Errand | Wait:
        keys = self._keys
        for _ in range(LEASE_ROUNDS):
            with store_errors():
                verdict, *rest = await self._scripts["lease_errand"].run(
                    self._client,
                    [keys.upstream, keys.errands],
                    [keys.root, round(self._bounds.lease_seconds * 1000), ERRANDS_PER_SECOND],
                )
            if verdict == b"wait":
                return Wait(seconds=None if rest[0] < 0 else rest[0] / 1000, reason="errands")
            if verdict == b"leased":
                raw_id, value, number, kind = rest
                looks, since, tries = errand_fields(value)
                return Errand(
                    submission=unpack(SubmissionId(raw_id.decode()), value),
                    number=number,
                    kind=kind.decode(),
                    looks=looks,
                    maybe_sent_since=since,
                    tries=tries,
                )
        return Wait(seconds=0.0, reason="dropped")

    async def settle(self, errand: Errand, report: ErrandReport) -> ErrandEnd:
        keys, bounds, wanted = self._keys, self._bounds, errand.submission.submission_id
        failure = report.failure
        with store_errors():
            verdict, *rest = await self._scripts["settle_errand"].run(
                self._client,
                [keys.record(wanted), keys.job(report.job_id or "-")],
                [
                    wanted,
                    keys.root,
                    errand.number,
                    report.verdict,
                    errand.kind,
                    round(report.delay_seconds * 1000),
                    report.job_id or "",
                    report.job_arn or "",
                    failure.code if failure else "",
                    failure.message if failure else "",
                    round(bounds.retention_seconds * 1000),
                    round(bounds.alias_retention_seconds * 1000),
                    IDLE_SHARE_MS,
                    keys.ends,
                ],
            )
        settled = verdict in (b"settled", b"stale")
        return ErrandEnd(verdict=verdict.decode(), submission=unpack(wanted, rest[0]) if settled else None)

    async def owners(self, job_ids: Sequence[str]) -> Mapping[str, SubmissionId]:
        with store_errors():
            return await owners_of(self._client, self._keys, job_ids)
