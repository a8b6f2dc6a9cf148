"""When queued submissions will be forwarded: forecasts from a snapshot that is at most a second old."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from gateway.core.errors import StoreUnavailableError
from gateway.core.forecast import Forecast
from gateway.core.share import ShareRules
from gateway.core.submission import State

if TYPE_CHECKING:
    from gateway.core.forecast import Snapshot
    from gateway.core.share import Share
    from gateway.core.submission import Submission

FRESH_SECONDS = 1.0
# While callers come, half its life is enough to have the next one before it ends.
RENEW_AFTER_SECONDS = 0.5


class SnapshotStore(Protocol):
    """Raises StoreUnavailableError."""

    async def snapshot(self) -> Snapshot: ...


class Outlook:
    """Forecasts of one upstream.

    Whoever asks gets the answer from the snapshot at hand; it is renewed beside them, and only who finds none that is
    young enough waits for it. Without a store there is no forecast, and the store is asked for one once a second.
    """

    def __init__(self, store: SnapshotStore, rules: ShareRules | None = None) -> None:
        """`rules` weigh shares that are new since the snapshot."""
        self._store = store
        self._rules = rules or ShareRules()
        self._forecast: Forecast | None = None
        self._begun = -FRESH_SECONDS  # when the reading of what is at hand began: it may be as old as that
        self._asked = -FRESH_SECONDS  # when the flight under way, or the last one, began
        self._renew_at = 0.0
        self._flight: asyncio.Task[None] | None = None

    async def with_forecast(self, submission: Submission) -> Submission:
        """A queued one with `estimated_forward_at`, where that can be said; any other as it is."""
        if submission.state is not State.QUEUED or submission.position is None or submission.sought:
            return submission
        expected_at = await self.expected_at(submission.share, submission.position)
        if expected_at is not None and submission.not_before is not None:
            expected_at = max(expected_at, submission.not_before)
        return replace(submission, estimated_forward_at=expected_at)

    async def expected_at(self, share: Share, position: int) -> datetime | None:
        """When the one at this position of the share goes to Batch; None if nobody can say."""
        forecast = await self._current()
        if forecast is None:
            return None
        expected = forecast.forward_at(share, position, time.monotonic() - self._begun)
        return None if expected is None else datetime.fromtimestamp(expected, UTC)

    async def snapshot(self) -> Snapshot | None:
        """At most a second old; None while the store is away."""
        forecast = await self._current()
        return forecast.snapshot if forecast else None

    async def aclose(self) -> None:
        """Ends a reading under way. Before the store's connections are closed, for nobody waits for it any more."""
        if self._flight is not None:
            self._flight.cancel()
            await asyncio.wait({self._flight})

    async def _current(self) -> Forecast | None:
        now = time.monotonic()
        if now >= self._renew_at and (self._flight is None or self._flight.done()):
            self._asked, self._renew_at = now, now + FRESH_SECONDS
            self._flight = asyncio.create_task(self._renew(now), name="outlook")
            self._flight.add_done_callback(_tell_of_bugs)
        if now - self._begun >= FRESH_SECONDS and self._flight is not None and not self._flight.done():
            # a reading that takes a second has nothing to say any more
            await asyncio.wait({self._flight}, timeout=max(0.0, self._asked + FRESH_SECONDS - now))
        return self._forecast if time.monotonic() - self._begun < FRESH_SECONDS else None

    async def _renew(self, began: float) -> None:
        try:
            snapshot = await self._store.snapshot()
        except StoreUnavailableError:
            return  # an answer without a forecast is better than none
        if self._forecast is not None:
            snapshot = snapshot.remembering(self._forecast.snapshot)
        forecast = Forecast(snapshot, lambda share: self._rules.limits(share).weight)
        for _ in forecast.prepared():
            await asyncio.sleep(0)  # others go on meanwhile
        self._forecast, self._begun, self._renew_at = forecast, began, began + RENEW_AFTER_SECONDS


def _tell_of_bugs(flight: asyncio.Task[None]) -> None:
    """Nobody waits for what fails beside the callers: the loop tells the log. Answers have no forecast meanwhile."""
    error = None if flight.cancelled() else flight.exception()
    if error is not None:
        flight.get_loop().call_exception_handler(
            {"message": "The forecast cannot be renewed.", "exception": error, "task": flight}
        )
