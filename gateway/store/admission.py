"""Acceptances on their way into the store: many submissions, one script, one verdict each."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gateway.core.errors import BacklogFullError, Limit, NotAcceptingError, RateLimitedError, TooManySharesError
from gateway.core.ports import Admission
from gateway.store.connection import store_errors
from gateway.store.records import hold_of, pack_identity, unpack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis

    from gateway.core.errors import GatewayError
    from gateway.core.share import ShareLimits
    from gateway.core.submission import NewSubmission
    from gateway.store.bounds import StoreBounds
    from gateway.store.keys import Keys
    from gateway.store.scripts import Scripts

# A script holds the whole store up: fifty submissions take it about two milliseconds.
MOST_AT_ONCE = 50


class AdmissionFlush:
    """Writes a group of new submissions with one call of admit.lua; `rate` is the upstream's, in calls a second."""

    def __init__(self, client: Redis, keys: Keys, scripts: Scripts, *, bounds: StoreBounds, rate: float) -> None:
        self._client = client
        self._keys = keys
        self._scripts = scripts
        self._bounds = bounds
        self._rate = rate

    async def __call__(self, group: Sequence[tuple[NewSubmission, ShareLimits]]) -> list[Admission | Exception]:
        """An admission or a refusal each, in order. Raises StoreUnavailableError for all."""
        bounds = self._bounds
        keys = [self._keys.upstream, self._keys.active, self._keys.backlog, self._keys.queues]
        args: list[Any] = [
            bounds.max_queued,
            bounds.max_queued_bytes,
            bounds.max_shares_per_queue,
            self._keys.wake,
        ]
        for new, limits in group:
            keys += [self._keys.record(new.submission_id), self._keys.share(new.share), self._keys.ready(new.share)]
            args += _arguments(new, limits)
        with store_errors():
            verdicts = await self._scripts.admit.run(self._client, keys, args)
        return [self._result(new, verdict) for (new, _), verdict in zip(group, verdicts, strict=True)]

    def _result(self, new: NewSubmission, verdict: list[Any]) -> Admission | Exception:
        word, *rest = verdict
        if word == b"refused":
            return self._refusal(rest)
        value, rank, *remaining = rest
        submission = unpack(new.submission_id, value)
        if rank >= 0 and submission.share == new.share:
            submission = replace(submission, position=rank + 1)
        return Admission(
            submission=submission,
            known=word == b"known",
            remaining=remaining[0] if remaining and remaining[0] >= 0 else None,
        )

    def _refusal(self, rows: list[list[bytes]]) -> GatewayError:
        limits = []
        for name, quota, window_ms, wait_ms in rows:
            if name == b"not-accepting":
                return NotAcceptingError("Submissions for this upstream are switched off by an operator.")
            wait = int(wait_ms) / 1000
            limits.append(
                Limit(
                    name=name.decode(),
                    quota=int(quota),
                    window_seconds=int(window_ms) / 1000,
                    # a backlog has room again when Batch has taken one more
                    retry_after_seconds=wait if wait >= 0 else 1 / self._rate,
                )
            )
        names = {limit.name for limit in limits}
        if "share-rate" in names:
            return RateLimitedError(limits)
        return TooManySharesError(limits) if "queue-shares" in names else BacklogFullError(limits)


def _arguments(new: NewSubmission, limits: ShareLimits) -> list[Any]:
    """As the header of admit.lua lists them."""
    return [
        new.submission_id,
        str(new.share),
        new.share.queue,
        new.priority,
        limits.weight,
        limits.rate,
        limits.burst,
        limits.max_queued,
        pack_identity(new),
        new.request,
        hold_of(new),
    ]
