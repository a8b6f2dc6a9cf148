"""The shares of an upstream as the forecast needs them, read a few at a time however many they are."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from gateway.core.forecast import ShareLoad, Snapshot
from gateway.core.share import Share
from gateway.store.connection import store_errors

if TYPE_CHECKING:
    from gateway.core.pace import PaceRules
    from gateway.store.keys import Keys

_UPSTREAM = (
    "virtual", "pace", "slot", "outage", "held_until", "not_before", "o_rate", "forwarding",
    "ceiling", "ceiling_at", "ceiling_for",
)  # fmt: skip
_SHARE = ("weight", "o_weight")

# About so many shares a round trip: a lease that arrives meanwhile waits a millisecond.
AT_ONCE = 50


async def take_snapshot(client: Any, keys: Keys, pace: PaceRules) -> Snapshot:
    """Raises StoreUnavailableError. Not atomic: a submission more or less moves a forecast by one call.

    The upstream is read first: what the store serves meanwhile is ahead of the forecast, not behind it.
    """
    with store_errors():
        async with client.pipeline(transaction=False) as first:
            first.time()
            first.hmget(keys.upstream, _UPSTREAM)
            first.zscan(keys.active, 0, count=AT_ONCE)
            first.sscan(keys.marked, 0, count=AT_ONCE)
            (seconds, microseconds), fields, active, marked = await first.execute()
        shares = await _loads(client, keys, active)
        paused = await _paused(client, keys, marked)
    now = float(seconds) + float(microseconds) / 1e6
    return Snapshot(
        taken_at=now,
        shares={share: load for share, load in shares.items() if share not in paused},
        paused=frozenset(paused),
        **_pace(dict(zip(_UPSTREAM, fields, strict=True)), pace, now),
    )


async def _loads(client: Any, keys: Keys, page: tuple[int, list[tuple[bytes, float]]]) -> dict[Share, ShareLoad]:
    """The active shares; `page` is the first of them. A share that is served meanwhile may be there twice."""
    loads: dict[Share, ShareLoad] = {}
    cursor, members = page
    while members or cursor:
        starts = {Share.parse(name.decode()): start for name, start in members[:AT_ONCE]}
        members = members[AT_ONCE:]  # a small set comes whole
        ask = cursor and not members
        async with client.pipeline(transaction=False) as some:
            for share in starts:
                some.zcard(keys.ready(share))
                some.hmget(keys.share(share), _SHARE)
            if ask:
                some.zscan(keys.active, cursor, count=AT_ONCE)
            answers = await some.execute()
        if ask:
            cursor, members = answers.pop()
        for (share, start), ready, (weight, over) in zip(starts.items(), answers[::2], answers[1::2], strict=True):
            if ready:
                loads[share] = ShareLoad(start=start, weight=float(over or weight or 1), ready=ready)
    return loads


async def _paused(client: Any, keys: Keys, page: tuple[int, list[bytes]]) -> set[Share]:
    """Those of the marked shares that are paused, also where nothing waits in them yet."""
    paused: set[Share] = set()
    cursor, members = page
    while members or cursor:
        shares = [Share.parse(name.decode()) for name in members[:AT_ONCE]]
        members = members[AT_ONCE:]
        ask = cursor and not members
        async with client.pipeline(transaction=False) as some:
            for share in shares:
                some.hget(keys.share(share), "paused")
            if ask:
                some.sscan(keys.marked, cursor, count=AT_ONCE)
            flags = await some.execute()
        if ask:
            cursor, members = flags.pop()
        paused |= {share for share, flag in zip(shares, flags, strict=True) if flag == b"1"}
    return paused


def _pace(fields: dict[str, bytes | None], pace: PaceRules, now: float) -> dict[str, Any]:
    """The Snapshot's members about the upstream, from the fields that lua/lease.lua and lua/pace.lua keep."""

    def number(name: str, default: float = 0.0) -> float:
        return float(fields[name] or default)

    limit = number("o_rate", pace.rate)
    return {
        "virtual": number("virtual"),
        "rate": min(number("pace", limit), limit),
        "limit": limit,
        "ceiling": max(number("ceiling", math.inf), pace.floor),
        "ceiling_seconds": (number("ceiling_at") + number("ceiling_for", pace.ceiling_ms)) / 1e3 - now,
        "wait_seconds": number("not_before") / 1e3 - now,
        "slot_seconds": number("slot") / 1e6 - now,
        "burst": pace.burst,
        "calling": fields["outage"] != b"1" and fields["forwarding"] != b"0" and number("held_until") / 1e3 <= now,
    }
