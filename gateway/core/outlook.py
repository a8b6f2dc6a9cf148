"""When queued submissions will be forwarded: forecasts from a snapshot that is at most a second old."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from gateway.core.errors import StoreUnavailableError
from gateway.core.forecast import forward_at
from gateway.core.submission import State

if TYPE_CHECKING:
    from gateway.core.forecast import Snapshot
    from gateway.core.share import Share
    from gateway.core.submission import Submission

FRESH_SECONDS = 1.0


class SnapshotStore(Protocol):
    """Raises StoreUnavailableError."""

    async def snapshot(self) -> Snapshot: ...


class Outlook:
    """Forecasts of one upstream.

    Whoever asks first in a second has the snapshot renewed; who asks meanwhile waits for it.
    """

    def __init__(self, store: SnapshotStore) -> None:
        self._store = store
        self._snapshot: Snapshot | None = None
        self._taken = -FRESH_SECONDS
        self._renewing = asyncio.Lock()

    async def with_forecast(self, submission: Submission) -> Submission:
        """A queued one with `estimated_forward_at`, where that can be said; any other as it is."""
        if submission.state is not State.QUEUED or submission.position is None:
            return submission
        expected_at = await self.expected_at(submission.share, submission.position)
        if expected_at is not None and submission.not_before is not None:
            expected_at = max(expected_at, submission.not_before)
        return replace(submission, estimated_forward_at=expected_at)

    async def expected_at(self, share: Share, position: int) -> datetime | None:
        """When the one at this position of the share goes to Batch; None if nobody can say."""
        snapshot = await self.snapshot()
        expected = forward_at(snapshot, share, position) if snapshot else None
        return None if expected is None else datetime.fromtimestamp(expected, UTC)

    async def snapshot(self) -> Snapshot | None:
        """At most a second old; None while the store is away."""
        return await self._current()

    async def _current(self) -> Snapshot | None:
        if time.monotonic() - self._taken < FRESH_SECONDS:
            return self._snapshot
        async with self._renewing:
            if time.monotonic() - self._taken >= FRESH_SECONDS:
                self._snapshot = await self._renewed()
                self._taken = time.monotonic()
        return self._snapshot

    async def _renewed(self) -> Snapshot | None:
        try:
            return await self._store.snapshot()
        except StoreUnavailableError:
            return None  # an answer without a forecast is better than none
