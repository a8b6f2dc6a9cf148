"""Shares as operators see them, fifty a round trip."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.core.ports import ShareStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.core.share import Share
    from gateway.store.keys import Keys

# Fields of a share's hash, by the names that operators use.
OVERRIDES = {
    "rate": "o_rate",
    "burst": "o_burst",
    "weight": "o_weight",
    "maxQueued": "o_max_queued",
    "overLimit": "o_over_limit",
}
WORDS = frozenset({"overLimit"})  # the others are numbers
_FIELDS = ("weight", "paused", "paused_because", *OVERRIDES.values())

# So many shares a round trip: a lease that arrives meanwhile waits a millisecond.
AT_ONCE = 50


async def share_statuses(client: Any, keys: Keys, shares: Sequence[Share]) -> list[ShareStatus]:
    """In the order of `shares`. Raises redis-py's errors."""
    found = []
    for group in (shares[start : start + AT_ONCE] for start in range(0, len(shares), AT_ONCE)):
        async with client.pipeline(transaction=False) as asked:
            asked.time()
            for share in group:
                asked.hmget(keys.share(share), _FIELDS)
                asked.zscore(keys.backlog, str(share))
                asked.zrange(keys.waiting(share), 0, 0, withscores=True)
            (seconds, microseconds), *answers = await asked.execute()
        now = float(seconds) + float(microseconds) / 1e6
        for share, fields, queued, oldest in zip(group, answers[::3], answers[1::3], answers[2::3], strict=True):
            age = now - oldest[0][1] / 1000 if oldest else None
            found.append(_status(share, fields, queued, age))
    return found


def _status(share: Share, fields: list[bytes | None], queued: float | None, age: float | None) -> ShareStatus:
    weight, paused, because, *overrides = fields
    set_over: dict[str, Any] = {
        name: value.decode() if name in WORDS else float(value)
        for name, value in zip(OVERRIDES, overrides, strict=True)
        if value is not None
    }
    return ShareStatus(
        share=share,
        queued=int(queued or 0),
        weight=set_over.get("weight", float(weight or 1)),
        paused=paused == b"1",
        paused_because=because.decode() if because else None,
        oldest_seconds=None if age is None else max(0.0, age),
        overrides=set_over,
    )
