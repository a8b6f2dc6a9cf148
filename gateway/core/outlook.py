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
        snapshot = await self._current()
        expected = forward_at(snapshot, submission.share, submission.position) if snapshot else None
        if expected is None:
            return submission
        return replace(submission, estimated_forward_at=datetime.fromtimestamp(expected, UTC))

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
