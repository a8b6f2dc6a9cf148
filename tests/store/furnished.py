"""A store with something of everything in it and nothing wrong, and what an audit tells of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgpack

from gateway.core.audit import Audited, whole_round
from gateway.core.share import Share, ShareLimits
from gateway.store.audit import StoreAudit
from tests.store.world import (
    NO_PACE,
    World,
    clocked,
    forwarded,
    refused,
    transient,
    unclear,
)

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from gateway.core.identity import SubmissionId
    from gateway.store.keys import Keys


SHARE = Share("training", "vision")
SLOW = Share("training", "slow")


def audit_of(world: World) -> StoreAudit:
    """By the world's clock."""
    audit = StoreAudit(world.client, world.keys, bounds=world.bounds)
    for name in ("audit", "audit_share", "audit_job"):
        audit._scripts[name] = clocked(name)

    async def now_ms() -> int:
        return world.now_us // 1000

    audit._now_ms = now_ms  # type: ignore[method-assign]
    return audit


async def audited(world: World) -> Audited:
    """A whole round, as if the settings had always been the same."""
    await world.client.hset(
        f"{world.keys.root}audit",
        "memory",
        msgpack.packb(
            [round(world.bounds.retention_seconds * 1000), round(world.bounds.alias_retention_seconds * 1000), 0]
        ),
    )
    audit = audit_of(world)
    await audit.open()
    return await whole_round(audit)


async def told(world: World) -> set[tuple[str, str]]:
    """(kind, what it is about) of all that is wrong."""
    return {(drift.kind, drift.about) for drift in (await audited(world)).drifts}


@dataclass
class Furnished:
    """A store with something of everything in it, and nothing wrong."""

    world: World
    ready: SubmissionId
    delayed: SubmissionId
    held: SubmissionId
    leased: SubmissionId
    sought: SubmissionId
    due: SubmissionId
    forwarded: SubmissionId
    owing: SubmissionId
    rejected: SubmissionId
    unknown: SubmissionId
    canceled: SubmissionId

    @property
    def client(self) -> Any:
        return self.world.client

    @property
    def keys(self) -> Keys:
        return self.world.keys

    async def rewrite(self, wanted: SubmissionId, **members: Any) -> None:
        """The record with other members; None takes one out."""
        key = self.keys.record(wanted)
        value = await self.client.get(key)
        unpacker = msgpack.Unpacker(raw=False, strict_map_key=False)
        unpacker.feed(value)
        record = unpacker.unpack()
        rest = value[unpacker.tell() :]
        record = {name: member for name, member in {**record, **members}.items() if member is not None}
        await self.client.set(key, msgpack.packb(record) + rest, keepttl=True)


async def furnish(client: Redis) -> Furnished:
    world = await World(client, pace=NO_PACE).open()

    async def one(**members: Any) -> SubmissionId:
        (wanted,) = await world.queue(1, **members)
        return wanted

    async def settled(report: Any, **members: Any) -> SubmissionId:
        wanted = await one(**members)
        leased = await world.lease()
        assert leased.submission.submission_id == wanted
        await world.settle(leased, report)
        return wanted

    there: dict[str, SubmissionId] = {
        "forwarded": await settled(forwarded("job-1")),
        "owing": await settled(forwarded("job-2")),
        "rejected": await settled(refused()),
        "unknown": await settled(refused(maybe_sent=True)),
        "delayed": await settled(transient(30)),
        "sought": await settled(unclear(30)),
    }
    there["leased"] = await one()
    assert (await world.lease()).submission.submission_id == there["leased"]
    there["canceled"] = await one()
    for wanted in ("owing", "canceled", "sought"):
        await world.changes.cancel(there[wanted], "why")
    there["ready"] = await one(namespace="m")
    there["due"] = await one(share="other", deadline=world.now + timedelta(hours=1))
    slow = ShareLimits(rate=0.01, burst=1, over_limit="delay")
    _, there["held"] = await world.queue(2, slow, share=SLOW.name)
    await world.store.set_share(Share("training", "paused"), {"paused": "1"})
    await world.store.set_share(Share("other", "heavy"), {"weight": "3"})
    await one(share="paused")
    return Furnished(world=world, **there)


class Beside:
    """A client beside which something else happens before one of its commands."""

    def __init__(self, client: Any, **instead: Any) -> None:
        self._client, self._instead = client, instead

    def __getattr__(self, name: str) -> Any:
        return self._instead.get(name) or getattr(self._client, name)
