"""In the middle of a slot's migration a script runs whole or not at all, whichever of its keys have gone ahead."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from gateway.core.errors import StoreUnavailableError
from gateway.core.ports import ErrandReport
from gateway.core.share import Share, ShareLimits
from gateway.store.connection import connect
from tests.store.world import DENIED, NO_PACE, World, forwarded, refused, transient, unclear
from tests.stores.soundness import read_all, unsound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from redis.asyncio import Redis

    from gateway.core.attempt import Leased
    from gateway.core.identity import SubmissionId
    from gateway.core.ports import Errand
    from tests.topologies import RunningCluster

pytestmark = pytest.mark.asyncio(loop_scope="session")

VISION = Share("training", "vision")
SLOW = ShareLimits(rate=0.001, burst=1, over_limit="delay")


class Crowd(World):
    """Submissions in every state and place, by the store's own clock: the key of a set one would be in another slot."""

    queued: SubmissionId
    forwarded: SubmissionId
    rejected: SubmissionId
    unknown: SubmissionId
    leased: Leased
    errand: Errand

    def _clocked(self, part: Any) -> Any:
        return part

    async def set_clock(self, now_us: int) -> None:
        """Time passes by itself."""

    async def gather(self) -> Crowd:
        await self.queue(1, role_arn="denied")
        await self.attempt(DENIED)
        await self.queue(4)
        self.forwarded = (await self.attempt(forwarded("job"))).submission.submission_id
        self.rejected = (await self.attempt(refused())).submission.submission_id
        self.unknown = (await self.attempt(refused(maybe_sent=True))).submission.submission_id
        sought = await self.lease()
        await self.changes.cancel(sought.submission.submission_id, "why")
        await self.settle(sought, unclear())
        await self.client.zadd(self.keys.errands, {sought.submission.submission_id: 1})  # its look is due now
        self.errand = await self.next_errand()
        await self.queue(2, SLOW, share="slow")
        await self.queue(1, role_arn="another", deadline=datetime.now(UTC) + timedelta(days=1))
        await self.store.set_share(Share("training", "slow"), {"weight": "2"})
        self.leased = await self.lease()
        self.queued, *_ = await self.queue(2, role_arn="another")
        return self

    async def hurry(self) -> None:
        """Something is to be brought back at once."""
        await self.settle(self.leased, transient(delay_seconds=0.001))


COMMANDS: dict[str, Callable[[Crowd], Awaitable[object]]] = {
    "admits": lambda crowd: crowd.admit("new"),
    "admits the first of a share": lambda crowd: crowd.admit("new", share="new", queue="other", namespace="new"),
    "leases": lambda crowd: crowd.store.lease(),
    "settles what Batch has": lambda crowd: crowd.settle(crowd.leased, forwarded("new-job")),
    "settles what is rejected": lambda crowd: crowd.settle(crowd.leased, refused()),
    "brings back": lambda crowd: crowd.store.reclaim(),
    "cancels a queued one": lambda crowd: crowd.changes.cancel(crowd.queued, "why"),
    "cancels a forwarded one": lambda crowd: crowd.changes.cancel(crowd.forwarded, "why"),
    "redrives": lambda crowd: crowd.changes.redrive(crowd.rejected),
    "resolves": lambda crowd: crowd.changes.resolve(crowd.unknown, "new-job", "arn"),
    "settles an errand": lambda crowd: crowd.errands.settle(
        crowd.errand, ErrandReport(verdict="found", job_id="new-job", job_arn="arn")
    ),
    "pauses a share": lambda crowd: crowd.store.set_share(VISION, {"paused": "1"}),
}


@pytest_asyncio.fixture(loop_scope="session")
async def client(cluster: RunningCluster) -> AsyncIterator[Redis]:
    async with connect(cluster.url, World(None).keys.upstream) as client:
        yield client


@pytest.mark.parametrize("command", COMMANDS)
async def test_half_way_a_script_runs_whole_or_not_at_all(cluster: RunningCluster, client: Redis, command: str) -> None:
    """One key after another is the only one that has gone ahead; those that there are not yet are missed everywhere."""
    crowd = await _crowd(client, command)
    key = crowd.keys.upstream
    primary = cluster.primary_of(key)
    migration = cluster.migration(key, cluster.other_primary(key))
    refused_at = set()
    for number in range(len(read_all(primary, crowd.keys).values) + 1):
        before = read_all(primary, crowd.keys)
        ahead = sorted(before.values)[number - 1 : number]  # at first none
        migration.begin()
        migration.move([crowd.keys.root + name for name in ahead])
        try:
            await COMMANDS[command](crowd)
        except StoreUnavailableError:
            refused_at.add(number)
        migration.give_up()
        after = read_all(primary, crowd.keys)
        if number in refused_at:
            assert after == before, ahead
        else:
            assert unsound(after) == [], ahead
            crowd = await _crowd(client, command)
    assert refused_at, "it noticed nothing of the migration"


async def _crowd(client: Redis, command: str) -> Crowd:
    crowd = await Crowd(client, pace=NO_PACE).gather()
    if command == "brings back":
        await crowd.hurry()
    return crowd
