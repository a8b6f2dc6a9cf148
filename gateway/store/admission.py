"""Acceptances on their way into the store: many submissions, one script, one verdict each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redis.exceptions import OutOfMemoryError

from gateway.core.errors import (
    BacklogFullError,
    DeadlineUnreachableError,
    DurabilityUnconfirmedError,
    Limit,
    NotAcceptingError,
    RateLimitedError,
    TooManySharesError,
)
from gateway.core.ports import Admission
from gateway.core.submission import queued
from gateway.store.connection import is_out_of_service, store_errors, unavailable
from gateway.store.reading import read
from gateway.store.records import hold_of, moment, pack_identity, unpack

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from redis.asyncio import Redis

    from gateway.core.errors import GatewayError
    from gateway.core.pace import PaceRules
    from gateway.core.ports import Expected
    from gateway.core.share import ShareLimits
    from gateway.core.submission import NewSubmission
    from gateway.store.bounds import StoreBounds
    from gateway.store.confirming import Confirmer
    from gateway.store.keys import Keys
    from gateway.store.scripts import Call, Scripts

    Asked = tuple[NewSubmission, ShareLimits, Expected | None]

# A script holds the whole store up: fifty submissions take it about two milliseconds.
MOST_A_SCRIPT = 50
# As many as come together are one round trip and one wait; more than this would be a second of the store's time.
MOST_A_FLUSH = 1000


class AdmissionFlush:
    """Writes new submissions, fifty a call of admit.lua."""

    def __init__(
        self,
        client: Redis,
        keys: Keys,
        scripts: Scripts,
        *,
        bounds: StoreBounds,
        pace: PaceRules,
        confirmer: Confirmer,
    ) -> None:
        self._client = client
        self._keys = keys
        self._scripts = scripts
        self._bounds = bounds
        self._pace = pace
        self._confirmer = confirmer

    async def __call__(self, group: Sequence[Asked]) -> list[Admission | Exception]:
        """An admission or a refusal each, in order, in one round trip. Raises StoreUnavailableError for all.

        What is written or known and not confirmed in time is a DurabilityUnconfirmedError.
        """
        parts = [group[start : start + MOST_A_SCRIPT] for start in range(0, len(group), MOST_A_SCRIPT)]
        answers, confirmed = await self._confirmer.run([self._call(part) for part in parts])
        results = []
        for part, answer in zip(parts, answers, strict=True):
            results += await self._results(part, answer)
        return results if confirmed else [_unconfirmed(one) for one in results]

    def _call(self, part: Sequence[Asked]) -> Call:
        bounds, named = self._bounds, self._keys
        keys = [
            named.upstream,
            named.active,
            named.delayed,
            named.deadlines,
            named.namespaces,
            named.denied,
            named.leased,
        ]
        args: list[Any] = [
            named.root,
            bounds.max_queued,
            bounds.max_queued_bytes,
            bounds.max_shares_per_queue,
            named.wake,
            self._pace.rate,
            self._pace.burst,
        ]
        for new, limits, expected in part:
            keys += [
                named.record(new.submission_id),
                named.share(new.share),
                named.ready(new.share),
                named.index(new.namespace),
            ]
            args += _arguments(new, limits, expected)
        return self._scripts["admit"], keys, args

    async def _results(self, part: Sequence[Asked], answer: Any) -> list[Admission | Exception]:
        if isinstance(answer, OutOfMemoryError):
            return await self._replays_only(part, answer)
        if isinstance(answer, Exception):
            if is_out_of_service(answer):
                return [unavailable(answer)] * len(part)
            raise answer
        return [self._result(new, verdict) for (new, _, _), verdict in zip(part, answer, strict=True)]

    async def _replays_only(self, part: Sequence[Asked], full: OutOfMemoryError) -> list[Admission | Exception]:
        """A full store takes nothing new, and still knows what it took."""
        with store_errors():
            found = await read(self._client, self._keys, [new.submission_id for new, _, _ in part])
        unconfirmed: DurabilityUnconfirmedError | None = None
        if any(found):
            try:
                await self._confirmer.confirm()
            except DurabilityUnconfirmedError as error:
                unconfirmed = error
        return [unconfirmed or Admission(submission=one, known=True) if one else unavailable(full) for one in found]

    def _result(self, new: NewSubmission, verdict: list[Any]) -> Admission | Exception:
        word, *rest = verdict
        if word == b"refused":
            return self._refusal(rest)
        if word == b"known":  # its place is told where it stands in the line of the share that is asked for now
            value, rank = rest
            submission = unpack(new.submission_id, value, position=rank + 1 if rank >= 0 else None)
            return Admission(submission=submission, known=True)
        accepted_ms, rank, remaining, due_ms, at_once = rest
        submission = queued(
            new,
            accepted_at=moment(accepted_ms),
            position=rank + 1,
            not_before=moment(due_ms) if due_ms else None,
        )
        return Admission(
            submission=submission,
            known=False,
            remaining=remaining if remaining >= 0 else None,
            at_once=bool(at_once),
        )

    def _refusal(self, rows: list[list[bytes]]) -> GatewayError:
        limits, late_seconds = [], 0.0
        for name, quota, window_ms, wait_ms in rows:
            if name == b"not-accepting":
                return NotAcceptingError("Submissions for this upstream are switched off by an operator.")
            wait = int(wait_ms) / 1000
            if name == b"deadline":
                late_seconds = wait
                continue
            limits.append(
                Limit(
                    name=name.decode(),
                    quota=int(quota),
                    window_seconds=int(window_ms) / 1000,
                    # a backlog has room again when Batch has taken one more
                    retry_after_seconds=wait if wait >= 0 else 1 / self._pace.rate,
                )
            )
        if not limits:
            return DeadlineUnreachableError(
                f"It would go to Batch {late_seconds:.0f} s after its deadline, as the backlog stands now.",
                retry_after_seconds=late_seconds,
            )
        names = {limit.name for limit in limits}
        if "share-rate" in names:
            return RateLimitedError(limits)
        return TooManySharesError(limits) if "queue-shares" in names else BacklogFullError(limits)


def _unconfirmed(result: Admission | Exception) -> Admission | Exception:
    return DurabilityUnconfirmedError() if isinstance(result, Admission) else result


def _arguments(new: NewSubmission, limits: ShareLimits, expected: Expected | None) -> list[Any]:
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
        limits.over_limit,
        pack_identity(new),
        new.request,
        hold_of(new),
        new.namespace,
        _milliseconds(new.deadline),
        _milliseconds(expected.at if expected else None),
        expected.position if expected else 0,
        expected.seconds_each * 1000 if expected else 0,
    ]


def _milliseconds(moment: datetime | None) -> int | str:
    return "" if moment is None else round(moment.timestamp() * 1000)
