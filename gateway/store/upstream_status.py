"""An upstream as operators see it, in one round trip."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from gateway.core.ports import UpstreamStatus

if TYPE_CHECKING:
    from gateway.core.ports import Condition
    from gateway.store.keys import Keys

# Fields of the upstream's hash, by the names that operators use.
OVERRIDES = {"rate": "o_rate"}
_SWITCHES = ("accepting", "forwarding", "outage", *OVERRIDES.values())
_NUMBERS = ("pace", "queued", "bytes", "passed", "throttled", "held_until", "not_before")


async def upstream_status(client: Any, keys: Keys, rate: float) -> UpstreamStatus:
    """`rate` is the settings', in calls a second. Raises redis-py's errors."""
    async with client.pipeline(transaction=False) as asked:
        asked.time()
        asked.hmget(keys.upstream, _SWITCHES)
        asked.hmget(keys.upstream, _NUMBERS)
        asked.zcard(keys.leased)
        asked.zcard(keys.delayed)
        asked.zcard(keys.errands)
        asked.hvals(keys.denied)
        (seconds, microseconds), switches, numbers, leased, delayed, errands, denied = await asked.execute()
    now = float(seconds) + float(microseconds) / 1e6
    accepting, forwarding, outage, *overrides = switches
    number = {name: float(value or 0) for name, value in zip(_NUMBERS, numbers, strict=True)}
    set_over = {name: float(value) for name, value in zip(OVERRIDES, overrides, strict=True) if value is not None}
    limit = set_over.get("rate", rate)
    held_until, not_before = number["held_until"] / 1000, number["not_before"] / 1000
    waits_until = max(held_until, not_before)
    return UpstreamStatus(
        rate=limit,
        pace=min(number["pace"] or limit, limit),
        accepting=accepting != b"0",
        forwarding=forwarding != b"0",
        condition=_condition(
            stopped=forwarding == b"0", outage=outage == b"1", held=held_until > now, throttled=not_before > now
        ),
        held_until=datetime.fromtimestamp(waits_until, UTC) if waits_until > now else None,
        queued=int(number["queued"]),
        queued_bytes=int(number["bytes"]),
        leased=leased,
        delayed=delayed,
        errands=errands,
        forwarded=int(number["passed"]),
        throttled=int(number["throttled"]),
        credentials_held=held_until > now,
        denied_pairs=sum(float(until) / 1000 > now for until in denied),
        overrides=set_over,
    )


def _condition(*, stopped: bool, outage: bool, held: bool, throttled: bool) -> Condition:
    """What lasts longest without anybody's doing comes first."""
    if stopped:
        return "stopped"
    if outage:
        return "outage"
    if held:
        return "held"
    return "throttled" if throttled else "calling"
