"""When a submission will be forwarded, if nothing more arrives: from a snapshot of the shares, in closed form.

Start-time fair queueing serves start tags in order. The submission at position p of a share has the start tag
S + (p - 1) / weight, so what goes before it is, for every share, however many of its tags are smaller.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.core.share import Share

# After so many calls a pace that recovers is within one per cent of its limit (see lua/settle.lua).
RECOVERY_CALLS = 50
RECOVERY_OF_GAP, RECOVERY_OF_LIMIT = 0.1, 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareLoad:
    """A share that has something ready: its next start tag, its weight, and how many submissions are ready."""

    start: float
    weight: float
    ready: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What the forecast rests on. `shares` are the active ones: a paused share is not among them.

    `virtual` is where the fair order stands: a share that has nothing ready would enter it there. `paused` shares wait
    aside. `rate` is in calls a second now, `limit` what it grows back to; the next call may go `wait_seconds` after
    `taken_at` (seconds of the store's clock). `calling` is False while an outage or a hold has stopped the calls.
    """

    taken_at: float
    shares: Mapping[Share, ShareLoad]
    rate: float
    limit: float
    wait_seconds: float = 0.0
    calling: bool = True
    virtual: float = 0.0
    paused: frozenset[Share] = frozenset()


def calls_before(snapshot: Snapshot, share: Share, position: int) -> int | None:
    """How many submissions go before the one at this position (from 1) of its share; None while it waits aside."""
    ahead = shares_ahead(snapshot, share, position)
    return None if ahead is None else sum(ahead.values())


def shares_ahead(snapshot: Snapshot, share: Share, position: int) -> dict[Share, int] | None:
    """How many submissions of each share go before that one, its own among them; None while it waits aside."""
    if share in snapshot.paused:
        return None
    own = snapshot.shares.get(share) or ShareLoad(start=snapshot.virtual, weight=1.0, ready=0)  # arrived since
    tag = own.start + (position - 1) / own.weight
    ahead = {share: position - 1}
    for other, load in snapshot.shares.items():
        if other != share:
            # tags smaller than ours, and of equal ones those of the share that the store sorts first
            tags = (tag - load.start) * load.weight
            count = math.ceil(tags - 1e-9) if str(other) > str(share) else math.floor(tags + 1e-9) + 1
            ahead[other] = min(load.ready, max(0, count))
    return ahead


def forward_at(snapshot: Snapshot, share: Share, position: int) -> float | None:
    """When the one at this position goes to Batch, in seconds of the store's clock; None if nobody can say.

    Positions count from 1; 0 is being handed over now.
    """
    if position == 0:
        return snapshot.taken_at  # it is being called
    before = calls_before(snapshot, share, position)
    if before is None or not snapshot.calling:
        return None
    return snapshot.taken_at + snapshot.wait_seconds + _seconds_of_calls(before, snapshot.rate, snapshot.limit)


def _seconds_of_calls(calls: int, rate: float, limit: float) -> float:
    """How long so many calls take at a pace that grows back to its limit with each."""
    seconds = 0.0
    for _ in range(min(calls, RECOVERY_CALLS)):
        if rate >= limit:
            break
        seconds += 1 / rate
        rate = min(limit, rate + RECOVERY_OF_GAP * (limit - rate) + RECOVERY_OF_LIMIT * limit)
        calls -= 1
    return seconds + calls / rate
