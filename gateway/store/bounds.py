"""What one upstream's store takes, and how long it keeps it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreBounds:
    """What the store takes and how long it keeps it: counts in submissions, sizes in bytes, times in seconds."""

    max_queued: int = 1_000_000
    max_queued_bytes: int = 4_000_000_000
    max_shares_per_queue: int = 500
    retention_seconds: float = 604_800
    alias_retention_seconds: float = 2_592_000
    lease_seconds: float = 60
    max_attempts: int = 10
    attempt_window_seconds: float = 600
