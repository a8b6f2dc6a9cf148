"""The submissions of one upstream, in Redis: each command of the core is one script."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import msgpack

from gateway.core.attempt import Leased, Report
from gateway.core.errors import DurabilityUnconfirmedError
from gateway.core.identity import SubmissionId
from gateway.core.ports import Admission, Reclaimed, Settlement, ShareStatus, UpstreamStatus, Wait
from gateway.core.reconcile import LOOK_AFTER_SECONDS
from gateway.core.share import Share, ShareLimits
from gateway.core.submission import State
from gateway.store.admission import MOST_A_FLUSH, AdmissionFlush
from gateway.store.confirming import Confirmer
from gateway.store.connection import store_errors
from gateway.store.group_commit import GroupCommit
from gateway.store.reading import read
from gateway.store.records import PLACE_SHIFT, TOP_PRIORITY, lease_fields, unpack
from gateway.store.scripts import Scripts
from gateway.store.share_status import OVERRIDES, share_statuses
from gateway.store.snapshot import take_snapshot
from gateway.store.upstream_status import OVERRIDES as UPSTREAM_OVERRIDES
from gateway.store.upstream_status import upstream_status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis

    from gateway.core.forecast import Snapshot
    from gateway.core.pace import PaceRules
    from gateway.core.ports import Expected
    from gateway.core.submission import NewSubmission, Submission
    from gateway.store.bounds import StoreBounds
    from gateway.store.keys import Keys
    from gateway.store.scripts import Argument

# Bounds of one script's work: a few hundred microseconds, whatever the backlog.
RECLAIM_AT_ONCE = 50
LEASE_LOOKS_AT = 32
# While a denied (queue, role) is tried again, its other submissions wait this long for the answer.
DENIED_PROBE_MS = 2000
# Longer than any rate limit needs to fill up again; after it an idle share is as good as new.
IDLE_SHARE_MS = 7 * 24 * 3600 * 1000
# How many answers in a row may say "something was brought back, ask again" before a pause.
LEASE_ROUNDS = 20


class RedisStore:
    """AdmissionStore, ForwardStore, ShareStore and UpstreamStore over one upstream's keys."""

    def __init__(
        self,
        client: Redis,
        keys: Keys,
        *,
        pace: PaceRules,
        bounds: StoreBounds,
        confirmer: Confirmer | None = None,
    ) -> None:
        """`confirmer` waits until writes are as durable as promised; without one nothing is promised."""
        self._client: Any = client  # redis-py types answers as bytes or text, for clients of both kinds
        self._keys = keys
        self._pace = pace
        self._packed_pace: bytes = msgpack.packb(asdict(pace))
        self._bounds = bounds
        self._confirmer = confirmer or Confirmer(client, keys, lambda: None)
        self._scripts = Scripts()
        self._flush = AdmissionFlush(client, keys, self._scripts, bounds=bounds, pace=pace, confirmer=self._confirmer)
        self._admissions = GroupCommit(self._flush, most=MOST_A_FLUSH)

    async def admit(self, new: NewSubmission, limits: ShareLimits, expected: Expected | None = None) -> Admission:
        """Accepted together with what else arrives now; raises as AdmissionStore says."""
        self._confirmer.how()  # a store that cannot keep the promise is not asked at all
        admission = await self._admissions.add((new, limits, expected))
        return await self._placed(admission)

    async def admit_many(
        self, asked: Sequence[tuple[NewSubmission, ShareLimits, Expected | None]]
    ) -> list[Admission | Exception]:
        """An admission or a refusal each, in order, in one round trip."""
        return [await self._placed(one) if isinstance(one, Admission) else one for one in await self._flush(asked)]

    async def get(self, submission_id: SubmissionId) -> Submission | None:
        if not submission_id.startswith(self._keys.tag):
            return None
        with store_errors():
            (found,) = await read(self._client, self._keys, [submission_id])
        return found

    async def position_of_next(self, share: Share, priority: int) -> int:
        first_of_lower = (TOP_PRIORITY - priority + 1) << PLACE_SHIFT
        with store_errors():
            return 1 + int(await self._client.zcount(self._keys.ready(share), "-inf", f"({first_of_lower}"))

    async def lease(self) -> Leased | Wait:
        self._confirmer.how()  # a store that may forget the lease hands none out
        keys, pace = self._keys, self._pace
        for _ in range(LEASE_ROUNDS):
            with store_errors():
                verdict, *rest = await self._scripts["lease"].run(
                    self._client,
                    [keys.upstream, keys.active, keys.delayed, keys.leased, keys.denied, keys.deadlines],
                    [
                        keys.root,
                        round(self._bounds.lease_seconds * 1000),
                        pace.rate,
                        pace.burst,
                        pace.lateness_ms,
                        pace.probe_every_ms,
                        DENIED_PROBE_MS,
                        LEASE_LOOKS_AT,
                    ],
                )
            if verdict == b"leased":
                raw_id, value, number, probing = rest
                maybe_sent, maybe_sent_since, tries = lease_fields(value)
                return Leased(
                    submission=unpack(SubmissionId(raw_id.decode()), value),
                    number=number,
                    maybe_sent=maybe_sent,
                    maybe_sent_since=maybe_sent_since,
                    tries=tries,
                    probing=bool(probing),
                )
            if verdict == b"due":
                return Wait(seconds=0.0, reason="due")
            if verdict == b"wait":
                milliseconds, reason = rest
                return Wait(seconds=None if milliseconds < 0 else milliseconds / 1000, reason=reason.decode())
        return Wait(seconds=0.0, reason="aside")

    async def confirm(self, leased: Leased) -> None:
        await self._confirmer.confirm(leased)

    async def reclaim(self) -> Reclaimed:
        keys = self._keys
        with store_errors():
            _, _, expired = await self._scripts["reclaim"].run(
                self._client,
                [keys.upstream, keys.delayed, keys.leased, keys.deadlines],
                [
                    keys.root,
                    RECLAIM_AT_ONCE,
                    round(LOOK_AFTER_SECONDS[0] * 1000),
                    round(self._bounds.retention_seconds * 1000),
                    IDLE_SHARE_MS,
                    keys.ends,
                ],
            )
        return Reclaimed(
            expired=tuple(
                unpack(SubmissionId(raw_id.decode()), value)
                for raw_id, value in zip(expired[::2], expired[1::2], strict=True)
            )
        )

    async def settle(self, leased: Leased, report: Report) -> Settlement:
        keys, bounds, submission = self._keys, self._bounds, leased.submission
        failure = report.failure
        with store_errors():
            verdict, *rest = await self._scripts["settle"].run(
                self._client,
                [
                    keys.record(submission.submission_id),
                    keys.upstream,
                    keys.denied,
                    keys.marked,
                    keys.job(report.job_id or "-"),
                ],
                [
                    submission.submission_id,
                    keys.root,
                    leased.number,
                    report.verdict.value,
                    report.outcome,
                    int(report.charged),
                    int(report.proved_none),
                    round(report.delay_seconds * 1000),
                    report.signal.value,
                    round(report.wait_seconds * 1000),
                    failure.code if failure else "",
                    failure.message if failure else "",
                    report.job_id or "",
                    report.job_arn or "",
                    bounds.max_attempts,
                    round(bounds.attempt_window_seconds * 1000),
                    round(bounds.retention_seconds * 1000),
                    round(bounds.alias_retention_seconds * 1000),
                    keys.ends,
                    self._pace.rate,
                    self._packed_pace,
                    IDLE_SHARE_MS,
                    round(LOOK_AFTER_SECONDS[0] * 1000),
                ],
            )
        settled = unpack(submission.submission_id, rest[0]) if rest else None
        told: dict[str, Any] = msgpack.unpackb(rest[1]) if len(rest) > 1 else {}
        return Settlement(
            verdict=verdict.decode(),
            submission=settled,
            charged=told.get("charged", False),
            pace=told.get("pace"),
            held=told.get("held"),
            released=told.get("released"),
            outage=told.get("outage"),
            share_paused=told.get("paused", False),
        )

    async def set_share(
        self, share: Share, changes: dict[str, str | None], limits: ShareLimits | None = None
    ) -> ShareStatus:
        keys, limits = self._keys, limits or ShareLimits()
        fields = [text for name, value in changes.items() for text in (OVERRIDES.get(name, name), value or "")]
        await self._change(
            "share",
            [
                keys.share(share),
                keys.ready(share),
                keys.active,
                keys.upstream,
                keys.backlog,
                keys.marked,
                keys.delayed,
                keys.held(share),
            ],
            [str(share), keys.wake, IDLE_SHARE_MS, limits.rate, limits.burst, *fields],
        )
        return await self.share(share)

    async def shares(self) -> list[ShareStatus]:
        """Every share with a backlog, and those that are paused or overridden."""
        with store_errors():
            names = {*await self._client.zrange(self._keys.backlog, 0, -1)}
            names |= await self._client.smembers(self._keys.marked)
            return await share_statuses(
                self._client, self._keys, [Share.parse(name.decode()) for name in sorted(names)]
            )

    async def share(self, share: Share) -> ShareStatus:
        with store_errors():
            (status,) = await share_statuses(self._client, self._keys, [share])
            return status

    async def upstream(self) -> UpstreamStatus:
        with store_errors():
            return await upstream_status(self._client, self._keys, self._pace.rate)

    async def set_upstream(self, changes: dict[str, str | None]) -> UpstreamStatus:
        keys = self._keys
        fields = [text for name, value in changes.items() for text in (UPSTREAM_OVERRIDES.get(name, name), value or "")]
        await self._change("upstream", [keys.upstream], [keys.wake, self._pace.rate, *fields])
        return await self.upstream()

    async def _change(self, command: str, keys: Sequence[str], args: Sequence[Argument]) -> None:
        """Raises DurabilityUnconfirmedError where it is done and may be forgotten."""
        _, confirmed = await self._confirmer.run_one(self._scripts[command], keys, args)
        if not confirmed:
            raise DurabilityUnconfirmedError

    async def snapshot(self) -> Snapshot:
        """What forecasts rest on."""
        return await take_snapshot(self._client, self._keys, self._pace)

    async def pace(self) -> dict[str, float | int | str]:
        """The upstream's line in the log; `rate` is what is called a second now."""
        status = await self.upstream()
        return {
            "rate": round(status.pace, 3),
            "queued": status.queued,
            "queued_bytes": status.queued_bytes,
            "leased": status.leased,
            "delayed": status.delayed,
            "errands": status.errands,
            "forwarded": status.forwarded,
            "throttled": status.throttled,
            "accepting": status.accepting,
            "forwarding": status.forwarding,
            "condition": status.condition,
        }

    async def _placed(self, admission: Admission) -> Admission:
        """With the position of one that was known and stands in no line now, or in another share's."""
        submission = admission.submission
        if admission.known and submission.state is State.QUEUED and submission.position is None:
            return replace(admission, submission=await self.get(submission.submission_id) or submission)
        return admission
