"""The shares of an upstream as the forecast needs them: two round trips, at most once a second a process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.core.forecast import ShareLoad, Snapshot
from gateway.core.share import Share
from gateway.store.connection import store_errors

if TYPE_CHECKING:
    from gateway.core.pace import PaceRules
    from gateway.store.keys import Keys

_PACE = ("virtual", "pace", "slot", "outage", "held_until", "not_before", "o_rate", "forwarding")


async def take_snapshot(client: Any, keys: Keys, pace: PaceRules) -> Snapshot:
    """Raises StoreUnavailableError. Not atomic: a submission more or less moves a forecast by one call."""
    with store_errors():
        async with client.pipeline(transaction=False) as first:
            first.time()
            first.hmget(keys.upstream, _PACE)
            first.zrange(keys.active, 0, -1, withscores=True)
            first.zrange(keys.backlog, 0, -1)
            (seconds, microseconds), fields, active, backlog = await first.execute()
        starts = {Share.parse(name.decode()): float(start) for name, start in active}
        aside = [share for share in (Share.parse(name.decode()) for name in backlog) if share not in starts]
        async with client.pipeline(transaction=False) as second:
            for share in starts:
                second.zcard(keys.ready(share))
                second.hmget(keys.share(share), ("o_weight", "weight"))
            for share in aside:
                second.hget(keys.share(share), "paused")
            answers = await second.execute()
    now = float(seconds) + float(microseconds) / 1e6
    virtual, rate, slot, outage, held_until, not_before, limit, forwarding = fields
    limit = float(limit or pace.rate)
    waits = (float(slot or 0) / 1e6, float(not_before or 0) / 1e3)
    counts, weights = answers[: 2 * len(starts) : 2], answers[1 : 2 * len(starts) : 2]
    return Snapshot(
        taken_at=now,
        shares={
            share: ShareLoad(start=start, weight=float(weight[0] or weight[1] or 1), ready=int(count))
            for (share, start), count, weight in zip(starts.items(), counts, weights, strict=True)
        },
        rate=min(float(rate or limit), limit),
        limit=limit,
        wait_seconds=max(0.0, *(moment - now for moment in waits)),
        calling=outage != b"1" and forwarding != b"0" and float(held_until or 0) / 1e3 <= now,
        virtual=float(virtual or 0),
        paused=frozenset(share for share, flag in zip(aside, answers[2 * len(starts) :], strict=True) if flag == b"1"),
    )
