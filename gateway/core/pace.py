"""How fast an upstream is called, and when calling it is given up for a while: the figures behind the scripts.

The arithmetic runs in `store/lua/lease.lua` and `settle.lua`, where the whole fleet shares it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PaceRules:
    """Rates in calls a second, times in milliseconds."""

    rate: float = 5.0
    burst: int = 1
    floor: float = 0.2  # slower would look like an outage, and notice its end late
    decrease: float = 0.7  # on a throttle; the usual cut of additive-increase schemes that share a budget
    decrease_every_ms: int = 1000  # calls that were under way together tell the same news once
    ceiling: float = 0.98  # of the rate that was throttled: a hair below what Batch was seen to refuse
    ceiling_ms: int = 600_000  # then the ceiling is forgotten, for budgets change
    lateness_ms: int = 20  # a timer's and a round trip's delay, made up for by keeping to the timetable
    outage_failures: int = 5
    outage_submissions: int = 3
    probe_every_ms: int = 1000
    credentials_hold_ms: int = 5000  # rotated credentials are usually back within seconds
    denied_hold_ms: int = 60_000
    poison_returns: int = 20  # given back so often while others passed: it is this one, not the service
    like_rejections: int = 5  # in a row: the share sends the same mistake, so it is paused
