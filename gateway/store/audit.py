"""The store's invariants, looked at a little at a time, while everything moves; nothing is ever mended here.

One process of the fleet at a time has the turn, a minute long, and leaves the round where the next one goes on with it.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import msgpack

from gateway.core.identity import SubmissionId
from gateway.core.ports import AuditStep
from gateway.core.share import Share
from gateway.store.audit_round import Round, take
from gateway.store.connection import store_errors
from gateway.store.invariants import (
    Counters,
    Facts,
    Memory,
    counter_drifts,
    drifts,
    pointer_drift,
    share_drifts,
    submission_drifts,
)
from gateway.store.scripts import Scripts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from redis.asyncio import Redis

    from gateway.core.ports import Drift
    from gateway.store.bounds import StoreBounds
    from gateway.store.keys import Keys

# Bounds of one step. Each takes the store less than a millisecond; what comes meanwhile waits no longer.
SUBMISSIONS_AT_ONCE = 50
SHARES_AT_ONCE = 50
POINTERS_AT_ONCE = 100
MEMBERS_AT_ONCE = 100
KEYS_AT_ONCE = 500


class StoreAudit:
    """AuditStore over one upstream's keys."""

    def __init__(self, client: Redis, keys: Keys, *, bounds: StoreBounds) -> None:
        self._client: Any = client
        self._keys = keys
        self._retention_ms = round(bounds.retention_seconds * 1000)
        self._alias_retention_ms = round(bounds.alias_retention_seconds * 1000)
        self._scripts = Scripts()
        self._round: Round | None = None
        self._memory = Memory(retention_ms=0, alias_retention_ms=0, since_ms=0)

    async def begin(self, seconds: float) -> float:
        """Take the turn for so long: 0 where it is this process's now, else the seconds until the next may begin."""
        with store_errors():
            if not await self._client.set(self._keys.auditor, uuid4().hex, px=round(seconds * 1000), nx=True):
                return max(float(await self._client.pttl(self._keys.auditor)), 1.0) / 1000
            await self._load()
        return 0.0

    async def leave(self) -> None:
        """Put down how far the round has come, for whoever has the next turn."""
        with store_errors():
            packed = self._round.pack() if self._round else b""
            await self._client.hset(self._keys.audit, "round", packed)

    async def open(self) -> None:
        """A round of one's own, from the beginning, beside whoever has the turn; leaves nothing in the store."""
        with store_errors():
            await self._remember(keep=False)
        self._round = None

    async def step(self) -> AuditStep:
        """Look at a bounded number of things, or find more of them."""
        with store_errors():
            if self._round is None:
                self._round = await self._new_round()
            now = self._round
            for queue, most, look in (
                (now.submissions, SUBMISSIONS_AT_ONCE, self._submissions),
                (now.shares, SHARES_AT_ONCE, self._shares),
                (now.pointers, POINTERS_AT_ONCE, self._pointers),
                (now.namespaces, SHARES_AT_ONCE, self._namespaces),
            ):
                if queue:
                    return await self._look(take(queue, most), look)
            if now.walks:
                return await self._members(now)
            if now.cursor is None:
                return await self._end(now)
            await self._more_keys(now)
            return AuditStep()

    async def _look(self, taken: list[Any], look: Callable[[list[Any]], Awaitable[list[Drift]]]) -> AuditStep:
        return AuditStep(looked_at=len(taken), drifts=tuple(await look(taken)))

    async def _load(self) -> None:
        await self._remember(keep=True)
        packed = await self._client.hget(self._keys.audit, "round")
        self._round = Round.unpack(packed) if packed else None

    async def _remember(self, *, keep: bool) -> None:
        """Since when the store forgets as these settings say: what was kept for less time may rightly be gone."""
        now_ms = await self._now_ms()
        told = [self._retention_ms, self._alias_retention_ms]
        kept = await self._client.hget(self._keys.audit, "memory")
        *before, since_ms = msgpack.unpackb(kept) if kept else [now_ms]
        if before != told:
            since_ms = now_ms
            if keep:
                await self._client.hset(self._keys.audit, "memory", msgpack.packb([*told, since_ms]))
        self._memory = Memory(
            retention_ms=self._retention_ms, alias_retention_ms=self._alias_retention_ms, since_ms=since_ms
        )

    async def _new_round(self) -> Round:
        counters = await self._client.hmget(self._keys.upstream, "sequence", "queued", "bytes")
        return Round(began_ms=await self._now_ms(), counters=[int(one or 0) for one in counters])

    async def _more_keys(self, now: Round) -> None:
        root = self._keys.root
        cursor, names = await self._client.scan(now.cursor, match=_literal(root) + "*", count=KEYS_AT_ONCE)
        now.meet_keys(_text(name)[len(root) :] for name in names)
        now.cursor = int(cursor) or None

    async def _members(self, now: Round) -> AuditStep:
        name, cursor = now.walks.pop()
        key = self._keys.root + name
        if name in ("marked", "namespaces"):
            cursor, members = await self._client.sscan(key, cursor, count=MEMBERS_AT_ONCE)
        else:
            cursor, rows = await self._client.zscan(key, cursor, count=MEMBERS_AT_ONCE)
            members = [member for member, _ in rows]
        if cursor:
            now.walks.append((name, int(cursor)))
        met = [_text(member) for member in members]
        doubtful = await self._doubtful(name, met)
        now.meet_members(name, doubtful)
        return AuditStep(looked_at=len(met) - len(doubtful))

    async def _doubtful(self, name: str, members: list[str]) -> list[str]:
        """Which of them must be looked at one by one.

        Every record is met by its own key and looked at with all places where it may stand. So of long lines only what
        seems to stand there wrongly is left: ready or held and not waiting, or waiting without a record.
        """
        kind, _, share = name.partition(":")
        if members and kind in ("ready", "held"):
            waiting = self._keys.waiting(Share.parse(share))
            scores = await self._client.zmscore(waiting, members)
            return [member for member, score in zip(members, scores, strict=True) if score is None]
        if members and kind == "waiting":
            there = await self._client.exists(*(self._keys.record(SubmissionId(member)) for member in members))
            return [] if there == len(members) else members
        return members

    async def _submissions(self, taken: list[tuple[str, str]]) -> list[Drift]:
        keys = self._keys
        records = [keys.record(SubmissionId(wanted)) for wanted, _ in taken]
        _, now_ms, packed = await self._scripts["audit"].run(
            self._client,
            [keys.delayed, keys.leased, keys.errands, keys.deadlines, *records],
            [keys.root, *(word for one in taken for word in one)],
        )
        found: list[Drift] = []
        expected: defaultdict[str, dict[str, float]] = defaultdict(dict)
        for (wanted, met), row in zip(taken, msgpack.unpackb(packed, raw=True), strict=True):
            one = SubmissionId(wanted)
            facts = Facts.of(one, row)
            found += drifts(wanted, submission_drifts(one, facts, met=met, now_ms=now_ms, memory=self._memory))
            if met:
                continue
            self._count(facts)
            if facts.listed is not None:
                namespace, accepted_ms = facts.listed
                expected[namespace][wanted] = accepted_ms
        for namespace, entries in expected.items():
            await self._indexed(namespace, entries)
        return found

    async def _indexed(self, namespace: str, expected: Mapping[str, float]) -> None:
        """Whose entry seems to be missing is looked at again together with it: it may have been forgotten meanwhile."""
        scores = await self._client.zmscore(self._keys.index(namespace), list(expected))
        for (wanted, accepted_ms), score in zip(expected.items(), scores, strict=True):
            if score != accepted_ms and self._round is not None:
                self._round.submissions.append((wanted, f"index:{namespace}"))

    def _count(self, facts: Facts) -> None:
        if self._round is not None and facts.queued_bytes is not None:
            self._round.queued_met += 1
            self._round.bytes_met += facts.queued_bytes

    async def _shares(self, taken: list[str]) -> list[Drift]:
        keys = self._keys
        _, rows = await self._scripts["audit_share"].run(
            self._client,
            [keys.active, keys.backlog, keys.marked, *(f"{keys.root}share:{share}" for share in taken)],
            [keys.root, *taken],
        )
        return [one for share, row in zip(taken, rows, strict=True) for one in drifts(share, share_drifts(row))]

    async def _pointers(self, taken: list[str]) -> list[Drift]:
        root = self._keys.root
        _, rows = await self._scripts["audit_job"].run(
            self._client,
            [root + name for name in taken],
            [root, *("job" if name.startswith("alias:") else "alias" for name in taken)],
        )
        found: list[Drift] = []
        for name, row in zip(taken, rows, strict=True):
            finding = pointer_drift(name, *row)
            found += drifts(name, iter([finding] if finding else []))
        return found

    async def _namespaces(self, taken: list[str]) -> list[Drift]:
        found: list[Drift] = []
        for namespace in taken:
            async with self._client.pipeline(transaction=True) as at_once:
                at_once.sismember(self._keys.namespaces, namespace)
                at_once.exists(self._keys.index(namespace))
                listed, indexed = await at_once.execute()
            if bool(listed) != bool(indexed):
                problem = (
                    f"the namespace is {'' if listed else 'not '}listed, but has {'an' if indexed else 'no'} index"
                )
                found += drifts(f"index:{namespace}", iter([("unlisted", problem)]))
        return found

    async def _end(self, now: Round) -> AuditStep:
        """The counters; the bytes of all that is queued too, where none came or went in the whole round."""
        async with self._client.pipeline(transaction=True) as at_once:
            at_once.hmget(self._keys.upstream, "sequence", "queued", "bytes")
            at_once.zrange(self._keys.backlog, 0, -1, withscores=True)
            at_once.hgetall(self._keys.queues)
            values, backlog, queues = await at_once.execute()
        sequence, queued, size = (int(one or 0) for one in values)
        findings = [
            *counter_drifts(
                Counters(queued=queued, size=size),
                {_text(share): int(number) for share, number in backlog},
                {_text(queue): int(number) for queue, number in queues.items()},
            )
        ]
        quiet = now.counters == [sequence, queued, size] and now.queued_met == queued  # SCAN may meet a key twice
        if quiet and now.bytes_met != size:
            findings.append(
                ("counts", f"the upstream counts {size} bytes, its queued submissions have {now.bytes_met}")
            )
        seconds = (await self._now_ms() - now.began_ms) / 1000
        self._round = None
        return AuditStep(
            looked_at=1,
            drifts=tuple(drifts("upstream", iter(findings))),
            round_seconds=seconds,
            bytes_compared=quiet,
        )

    async def _now_ms(self) -> int:
        seconds, microseconds = await self._client.time()
        return int(seconds) * 1000 + int(microseconds) // 1000


def _text(name: bytes) -> str:
    """What is no text is no name of ours: nothing is found by what it becomes."""
    return name.decode(errors="replace")


def _literal(text: str) -> str:
    """As a pattern that fits only this text."""
    return "".join(f"\\{one}" if one in "*?[]\\^" else one for one in text)
