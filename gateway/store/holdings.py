"""Which upstreams a store was ever used for, and what they still hold that new settings would move."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from gateway.core.errors import StoreUnavailableError
from gateway.core.identity import SubmissionId
from gateway.core.moves import move_of
from gateway.core.share import Share
from gateway.core.submission import State
from gateway.core.upstream import Upstream
from gateway.store.connection import store_errors
from gateway.store.keys import Keys, noted_upstreams
from gateway.store.records import unpack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis

    from gateway.core.upstream import Routes
    from gateway.store.connection import Connections

RETRY_SECONDS = 2.0
# Submissions looked at for one that was sent by its queue's name: of each place where they wait, and a round trip.
LOOKS_AT = 200
AT_ONCE = 50


class UpstreamNote:
    """Notes in the store, once, which upstreams it is used for: later settings may not have them any more."""

    def __init__(self, client: Redis, prefix: str, upstreams: Sequence[Upstream]) -> None:
        self._client: Any = client
        self._key = noted_upstreams(prefix)
        self._values = {one.tag: f"{one.name} {one.account} {one.region}" for one in upstreams}

    async def run(self, stop: asyncio.Event) -> None:
        """Back once it is written; a store that is away is asked again."""
        while not stop.is_set():
            with suppress(StoreUnavailableError):
                await self.write()
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), RETRY_SECONDS)

    async def write(self) -> None:
        with store_errors():
            await self._client.hset(self._key, mapping=self._values)


async def moved_queues(connections: Connections, prefix: str, routes: Routes) -> list[str]:
    """What must drain before these routes may hold, a sentence each; empty where nothing moves.

    Raises StoreUnavailableError.
    """
    found = []
    with store_errors():
        for upstream in await _known(connections.to(noted_upstreams(prefix)), prefix, routes):
            keys = Keys(prefix, upstream.tag)
            client: Any = connections.to(keys.root)
            owed = await client.zcard(keys.errands)
            if owed and upstream.tag not in {one.tag for one in routes}:
                found.append(
                    f"upstream: {upstream.name} ({upstream.account}, {upstream.region}) is gone from the settings, and "
                    f"{owed} looks, terminations or updates are still owed there; let them be done first"
                )
            for queue, shares in sorted((await _backlog(client, keys)).items()):
                move = move_of(upstream, queue, routes)
                if move and (not move.by_arn_it_stays or await _any_by_name(client, keys, queue, list(shares))):
                    found.append(move.sentence(sum(shares.values())))
    return found


async def _known(client: Any, prefix: str, routes: Routes) -> list[Upstream]:
    """Those of the settings and those that were noted, these under the names that they had then."""
    known = {one.tag: one for one in routes}
    for value in (await client.hgetall(noted_upstreams(prefix))).values():
        name, account, region, *_ = value.decode().split(" ")  # a later release may note more
        noted = Upstream(name=name, account=account, region=region)
        known[noted.tag] = noted
    return sorted(known.values(), key=lambda one: one.name)


async def _backlog(client: Any, keys: Keys) -> dict[str, dict[Share, int]]:
    """How many submissions are queued, by queue and share."""
    shares: defaultdict[str, dict[Share, int]] = defaultdict(dict)
    for name, queued in await client.zrange(keys.backlog, 0, -1, withscores=True):
        share = Share.parse(name.decode())
        shares[share.queue][share] = int(queued)
    return shares


async def _any_by_name(client: Any, keys: Keys, queue: str, shares: Sequence[Share]) -> bool:
    """Whether a queued submission of this queue was sent by the queue's name, as far as a bounded look can say."""
    async with client.pipeline(transaction=False) as asked:
        for share in shares[:LOOKS_AT]:
            asked.zrange(keys.ready(share), 0, max(1, LOOKS_AT // len(shares)) - 1)
        for place in (keys.delayed, keys.leased, keys.errands):  # these hold other queues' submissions too
            asked.zrange(place, 0, LOOKS_AT - 1)
        ids = [SubmissionId(one.decode()) for answer in await asked.execute() for one in answer]
    for group in (ids[start : start + AT_ONCE] for start in range(0, len(ids), AT_ONCE)):
        values = await client.mget([keys.record(one) for one in group])
        for one in (unpack(name, value) for name, value in zip(group, values, strict=True) if value):
            if one.state is State.QUEUED and one.share.queue == queue and not one.job_queue.startswith("arn:"):
                return True
    return False
