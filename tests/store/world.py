"""A store whose clock the test sets, and the few words that its tests are written in.

The scripts ask `clock_us()` of lua/prelude.lua for the time. Here its body reads a key of the test's own instead, so
that hours pass in microseconds and the product has no hook for it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

import msgpack
from hypothesis import HealthCheck, settings

from gateway.core.attempt import GIVEN_BACK, Leased, PaceSignal, Report, Verdict
from gateway.core.identity import ClientToken, SubmissionId, fingerprint, submission_id
from gateway.core.pace import PaceRules
from gateway.core.ports import Errand, Expected, Settlement, Wait
from gateway.core.share import Share, ShareLimits
from gateway.core.submission import Failure, NewSubmission
from gateway.store.bounds import StoreBounds
from gateway.store.changes import SubmissionChanges
from gateway.store.errands import ErrandQueue
from gateway.store.index import SubmissionIndex
from gateway.store.keys import Keys
from gateway.store.redis_store import RedisStore
from gateway.store.scripts import NAMES, Script, script_text

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from gateway.core.ports import Admission

Part = TypeVar("Part", RedisStore, SubmissionIndex, SubmissionChanges, ErrandQueue)

ACCOUNT, REGION = "123456789012", "us-east-1"
TAG = submission_id(namespace="n", account=ACCOUNT, region=REGION, token="t")[:4]
STARTED_US = 1_800_000_000_000_000  # some moment in 2027

_REAL_CLOCK = """local function clock_us()
  local now = redis.call('TIME')
  return now[1] * 1000000 + now[2]
end"""
_SET_CLOCK = """local function clock_us()
  local prefix = string.match(KEYS[1] or ARGV[1], '^[^:]+')
  return tonumber(redis.call('GET', prefix .. ':clock'))
end"""

# Calls are never held back by the pace: for tests of order, not of speed.
NO_PACE = PaceRules(rate=1e6, burst=1000)


# `GATEWAY_EXPLORE=20` looks for new counterexamples: other ones each time, twenty times as many.
_EXPLORE = int(os.environ.get("GATEWAY_EXPLORE", "0"))


def examples(number: int, *, steps: int = 50) -> settings:
    """Settings of a property. Each run has the same examples: a gate that fails by chance is one people rerun."""
    return settings(
        max_examples=number * max(1, _EXPLORE),
        stateful_step_count=steps,
        derandomize=not _EXPLORE,
        database=None,
        deadline=None,  # a busy machine is no counterexample
        # Each example has keys of its own; the fixture is only the connection.
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


def clocked(name: str) -> Script:
    text = script_text(name)
    assert text.count(_REAL_CLOCK) == 1, "lua/prelude.lua reads the time in another way: tell the tests"
    return Script(name, text.replace(_REAL_CLOCK, _SET_CLOCK))


def new_submission(  # each argument is a column of some test's table
    token: str = "t",
    *,
    share: str = "vision",
    queue: str = "training",
    priority: int = 0,
    role_arn: str = "arn:aws:iam::123456789012:role/vision",
    request: bytes = b'{"jobName": "resnet"}',
    namespace: str = "n",
    deadline: datetime | None = None,
) -> NewSubmission:
    return NewSubmission(
        submission_id=submission_id(namespace=namespace, account=ACCOUNT, region=REGION, token=token),
        client_token=ClientToken(token),
        token_generated=False,
        principal="vision-ci",
        namespace=namespace,
        share=Share(queue, share),
        share_kind="shareIdentifier",
        priority=priority,
        job_name="resnet",
        job_queue=queue,
        fingerprint=fingerprint({"jobName": "resnet"}),
        role_arn=role_arn,
        request=request,
        deadline=deadline,
    )


def forwarded(job_id: str = "job") -> Report:
    return Report(
        verdict=Verdict.FORWARDED,
        outcome="submitted",
        signal=PaceSignal.ANSWERED,
        job_id=job_id,
        job_arn=f"arn:{job_id}",
    )


def throttled(wait_seconds: float = 0.0) -> Report:
    return Report(
        verdict=Verdict.RETRY,
        outcome="throttled",
        proved_none=True,
        signal=PaceSignal.THROTTLED,
        wait_seconds=wait_seconds,
        failure=Failure(code="TooManyRequestsException", message="slow down"),
    )


def unclear(delay_seconds: float = 0.0) -> Report:
    return Report(
        verdict=Verdict.RETRY,
        outcome="unclear",
        charged=True,
        delay_seconds=delay_seconds,
        signal=PaceSignal.FAILED,
        failure=Failure(code="ReadTimeout", message="no answer"),
    )


def transient(delay_seconds: float = 0.0) -> Report:
    return Report(
        verdict=Verdict.RETRY,
        outcome="transient",
        charged=True,
        proved_none=True,
        delay_seconds=delay_seconds,
        signal=PaceSignal.ANSWERED,
        failure=Failure(code="ClientException", message="Failed to create shareIdentifier"),
    )


def uncharged(outcome: str, signal: PaceSignal) -> Report:
    return Report(
        verdict=Verdict.RETRY,
        outcome=outcome,
        proved_none=True,
        signal=signal,
        failure=Failure(code=outcome, message=outcome),
    )


NOT_SENT = uncharged("not_sent", PaceSignal.UNREACHABLE)
CREDENTIALS = uncharged("credentials", PaceSignal.CREDENTIALS)
DENIED = uncharged("denied", PaceSignal.DENIED)


def refused(code: str = "ClientException", *, maybe_sent: bool = False) -> Report:
    return Report(
        verdict=Verdict.UNKNOWN if maybe_sent else Verdict.REJECT,
        outcome="refused",
        charged=True,
        proved_none=True,
        signal=PaceSignal.ANSWERED,
        failure=Failure(code=code, message="no"),
    )


def reconcile() -> Report:
    """Batch refuses what an earlier call may have made a job of."""
    return replace(refused("RepeatedToken"), verdict=Verdict.RECONCILE)


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What the store counts of its queued submissions."""

    queued: int
    queued_bytes: int
    by_share: dict[str, int]
    shares_by_queue: dict[str, int]


NOTHING_QUEUED = Counts(queued=0, queued_bytes=0, by_share={}, shares_by_queue={})


@dataclass
class World:
    """One upstream in a real store, and its time."""

    client: Any
    prefix: str = field(default_factory=lambda: f"t{uuid4().hex[:12]}")
    pace: PaceRules = field(default_factory=PaceRules)
    bounds: StoreBounds = field(default_factory=StoreBounds)
    now_us: int = STARTED_US

    def __post_init__(self) -> None:
        self.keys = Keys(self.prefix, TAG)
        self.store = self.another_store(self.client)
        self.index = self._clocked(SubmissionIndex(self.client, self.keys))
        self.changes = self._clocked(SubmissionChanges(self.client, self.keys, bounds=self.bounds))
        self.errands = self._clocked(ErrandQueue(self.client, self.keys, bounds=self.bounds))
        self._tokens = count()

    def another_store(self, client: Redis) -> RedisStore:
        """A second process, by the same clock."""
        return self._clocked(RedisStore(client, self.keys, pace=self.pace, bounds=self.bounds))

    def _clocked(self, part: Part) -> Part:
        for name in NAMES:
            part._scripts[name] = clocked(name)
        return part

    async def open(self) -> World:
        await self.set_clock(self.now_us)
        return self

    async def set_clock(self, now_us: int) -> None:
        self.now_us = now_us
        await self.client.set(f"{self.prefix}:clock", now_us)

    async def passes(self, *, seconds: float = 0, milliseconds: float = 0) -> None:
        await self.set_clock(self.now_us + round(seconds * 1e6 + milliseconds * 1e3))

    @property
    def now(self) -> datetime:
        """The store's time."""
        return datetime.fromtimestamp(self.now_us / 1e6, UTC)

    async def admit(
        self,
        token: str | None = None,
        limits: ShareLimits | None = None,
        *,
        expected_at: datetime | None = None,
        **members: Any,
    ) -> Admission:
        if token is None:
            token = f"token-{next(self._tokens)}"
        expected = Expected(at=expected_at, position=1) if expected_at else None
        return await self.store.admit(new_submission(token, **members), limits or ShareLimits(), expected)

    async def queue(self, number: int, limits: ShareLimits | None = None, **members: Any) -> list[SubmissionId]:
        """So many new submissions, in their order."""
        return [(await self.admit(None, limits, **members)).submission.submission_id for _ in range(number)]

    async def try_lease(self) -> Leased | Wait:
        """As a forwarder asks: what is due comes back first."""
        while True:
            got = await self.store.lease()
            if not isinstance(got, Wait) or got.reason not in ("due", "aside"):
                return got
            await self.store.reclaim()

    async def lease(self) -> Leased:
        """The next submission; a wait fails the test."""
        got = await self.try_lease()
        assert isinstance(got, Leased), got
        return got

    async def wait(self) -> Wait:
        """Why nothing is handed out; a lease fails the test."""
        got = await self.try_lease()
        assert isinstance(got, Wait), got
        return got

    async def next_lease(self, within_seconds: float = 600.0) -> Leased:
        """The next submission, passing the time that the store says to wait."""
        deadline = self.now_us + within_seconds * 1e6
        while True:
            got = await self.try_lease()
            if isinstance(got, Leased):
                return got
            assert got.seconds is not None, got
            await self.passes(seconds=got.seconds)
            assert self.now_us <= deadline, got

    async def settle(self, leased: Leased, report: Report) -> Settlement:
        return await self.store.settle(leased, report)

    async def give_back(self, leased: Leased) -> Settlement:
        return await self.settle(leased, GIVEN_BACK)

    async def attempt(self, report: Report) -> Leased:
        """Lease, when the store allows it, and settle at once."""
        leased = await self.next_lease()
        await self.settle(leased, report)
        return leased

    async def record(self, wanted: SubmissionId) -> dict[str, Any]:
        """What changes of a record, as the scripts see it."""
        value = await self.client.get(self.keys.record(wanted))
        assert value is not None
        unpacker = msgpack.Unpacker(raw=False, strict_map_key=False)
        unpacker.feed(value)
        changing: dict[str, Any] = unpacker.unpack()
        return changing

    async def places(self, wanted: SubmissionId) -> list[str]:
        """Where a submission stands."""
        share = (await self.record(wanted))["share"]
        names = {name: getattr(self.keys, name) for name in ("delayed", "leased", "errands")}
        names["ready"] = self.keys.ready(Share.parse(share))
        return [name for name, key in names.items() if await self.client.zscore(key, wanted) is not None]

    async def counts(self) -> Counts:
        pace = await self.store.pace()
        backlog = await self.client.zrange(self.keys.backlog, 0, -1, withscores=True)
        queues = await self.client.hgetall(self.keys.queues)
        return Counts(
            queued=int(pace["queued"]),
            queued_bytes=int(pace["queued_bytes"]),
            by_share={name.decode(): int(number) for name, number in backlog},
            shares_by_queue={name.decode(): int(number) for name, number in queues.items()},
        )

    async def errand(self) -> Errand:
        """The next errand; a wait fails the test."""
        got = await self.errands.lease()
        assert isinstance(got, Errand), got
        return got

    async def next_errand(self, within_seconds: float = 600.0) -> Errand:
        """The next errand, passing the time that the store says to wait."""
        deadline = self.now_us + within_seconds * 1e6
        while not isinstance(got := await self.errands.lease(), Errand):
            assert got.seconds is not None, got
            await self.passes(seconds=got.seconds)
            assert self.now_us <= deadline, got
        return got

    async def no_errand(self) -> None:
        """Batch is owed nothing."""
        assert await self.errands.lease() == Wait(seconds=None, reason="errands")

    async def expires_in(self, wanted: SubmissionId) -> float | None:
        """Seconds, by the server's own clock, until the record is forgotten; None: never."""
        milliseconds = await self.client.pttl(self.keys.record(wanted))
        assert milliseconds != -2, "it is gone"
        return None if milliseconds == -1 else milliseconds / 1000

    async def dump(self) -> dict[bytes, tuple[bytes, int]]:
        """Every key of this world but its clock: its serialised value and when it expires, in ms since 1970."""
        names = [name async for name in self.client.scan_iter(match=f"{self.prefix}:*", count=1000)]
        found = {}
        for name in names:
            if name != f"{self.prefix}:clock".encode():
                found[name] = (await self.client.dump(name), await self.client.pexpiretime(name))
        return found

    def variant(self, **changes: Any) -> World:
        """The same upstream under other settings, as a second replica might have them."""
        other = replace(self, **changes)
        other._tokens = self._tokens
        return other
