"""The store's invariants, looked at a little at a time, while everything moves; nothing is ever mended here.

One process of the fleet at a time has the turn, a minute long, and leaves the round where the next one goes on with it.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import msgpack

from gateway.core.identity import SubmissionId
from gateway.core.ports import AuditStep, Drift
from gateway.core.share import Share
from gateway.store.audit_facts import Facts, answered, number_in, read, readable, since, text_in
from gateway.store.audit_round import HASHES, SETS, Round, take
from gateway.store.connection import is_out_of_service, store_errors
from gateway.store.invariants import (
    Counters,
    Memory,
    counter_drifts,
    drifts,
    pointer_drifts,
    share_drifts,
    submission_drifts,
    unreadable,
)
from gateway.store.keys import LISTS
from gateway.store.scripts import Scripts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from redis.asyncio import Redis

    from gateway.store.bounds import StoreBounds
    from gateway.store.keys import Keys

# Bounds of one step. Each takes the store less than a millisecond; what comes meanwhile waits no longer.
SUBMISSIONS_AT_ONCE = 50
SHARES_AT_ONCE = 50
POINTERS_AT_ONCE = 100
MEMBERS_AT_ONCE = 100
KEYS_AT_ONCE = 500

# The upstream's hash, as far as it counts what is queued, and what is read where there is no hash.
_COUNTERS = ("sequence", "queued", "bytes")
_NO_COUNTERS = (None, None, None)


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
        turn_ms = round(seconds * 1000)
        with store_errors():
            if not await self._client.set(self._keys.auditor, "taken", px=turn_ms, nx=True):
                await self._client.pexpire(self._keys.auditor, turn_ms, nx=True)  # no turn of ours is without an end
                return max(float(await self._client.pttl(self._keys.auditor)), 1.0) / 1000
            await self._load()
        return 0.0

    async def leave(self) -> None:
        """Put down how far the round has come, for whoever has the next turn."""
        with store_errors():
            packed = self._round.pack() if self._round else b""
            await self._keep("round", packed)

    async def open(self) -> None:
        """A round of one's own, from the beginning, beside whoever has the turn; leaves nothing in the store."""
        with store_errors():
            await self._remember(keep=False)
        self._round = None

    async def step(self) -> AuditStep:
        """Look at a bounded number of things, or find more of them.

        What fails in a way that nobody has thought of is told and passed over: an audit is there for what is wrong. It
        goes on then, for each step takes what it looks at out of the round before it asks the store. A round that
        cannot be begun or ended is over after 0 s.
        """
        with store_errors():
            try:
                return await self._step()
            except Exception as error:
                if is_out_of_service(error):
                    raise
                drift = unreadable("upstream", "a step of the audit failed, what it was for was not looked at", error)
                return AuditStep(drifts=(drift,), round_seconds=None if self._round else 0.0)

    async def _step(self) -> AuditStep:
        if self._round is None:
            self._round = await self._new_round()
        now = self._round
        for queue, most, look in (
            (now.submissions, SUBMISSIONS_AT_ONCE, self._submissions),
            (now.shares, SHARES_AT_ONCE, self._shares),
            (now.pointers, POINTERS_AT_ONCE, self._pointers),
            (now.lists, SHARES_AT_ONCE, self._lists),
        ):
            if queue:
                return await self._look(take(queue, most), look)
        if now.walks:
            return await self._members(now)
        if now.cursor is not None:
            return await self._more_keys(now)
        self._round = None
        return await self._end(now)

    async def _look(self, taken: list[Any], look: Callable[[list[Any]], Awaitable[list[Drift]]]) -> AuditStep:
        return AuditStep(looked_at=len(taken), drifts=tuple(await look(taken)))

    async def _load(self) -> None:
        await self._remember(keep=True)
        packed = await self._kept("round")
        self._round = Round.unpack(packed) if packed else None

    async def _remember(self, *, keep: bool) -> None:
        """Since when the store forgets as these settings say: what was kept for less time may rightly be gone."""
        now_ms = await self._now_ms()
        told = [self._retention_ms, self._alias_retention_ms]
        since_ms = since(await self._kept("memory"), told)
        if since_ms is None:
            since_ms = now_ms
            if keep:
                await self._keep("memory", msgpack.packb([*told, since_ms]))
        self._memory = Memory(
            retention_ms=self._retention_ms, alias_retention_ms=self._alias_retention_ms, since_ms=since_ms
        )

    async def _kept(self, name: str) -> bytes | None:
        kept: bytes | None = await read(self._client.hget(self._keys.audit, name), otherwise=None)
        return kept

    async def _keep(self, name: str, packed: bytes) -> None:
        """Not where there is no hash to keep it in: each turn begins a round of its own then, and tells that."""
        await read(self._client.hset(self._keys.audit, name, packed), otherwise=None)

    async def _new_round(self) -> Round:
        counters = await read(self._client.hmget(self._keys.upstream, *_COUNTERS), otherwise=_NO_COUNTERS)
        return Round(began_ms=await self._now_ms(), counters=[number_in(one) for one in counters])

    async def _more_keys(self, now: Round) -> AuditStep:
        root = self._keys.root
        cursor, now.cursor = now.cursor, None
        cursor, keys = await self._client.scan(cursor, match=_literal(root) + "*", count=KEYS_AT_ONCE)
        now.cursor = int(cursor) or None
        met = {key[len(root) :]: text_in(key[len(root) :]) for key in keys}
        names = [name for name in met.values() if name is not None]
        now.meet_keys(names)
        found = [_misfit(readable(key), "its name is no UTF-8") for key, name in met.items() if name is None]
        for name in HASHES & set(names):
            kind = await self._client.type(root + name)
            found += [_misfit(name, "it is no hash")] if kind not in (b"hash", b"none") else []
        return AuditStep(drifts=tuple(found))

    async def _members(self, now: Round) -> AuditStep:
        name, cursor = now.walks.pop()
        key = self._keys.root + name
        kind, scan = ("set", self._client.sscan) if name in SETS else ("zset", self._client.zscan)
        page = await read(scan(key, cursor, count=MEMBERS_AT_ONCE), otherwise=None)
        if page is None:
            return AuditStep(looked_at=1, drifts=(_misfit(name, f"it is no {kind}"),))
        cursor, rows = page
        if cursor:
            now.walks.append((name, int(cursor)))
        members = rows if kind == "set" else [member for member, _ in rows]
        met = [text for text in map(text_in, members) if text is not None]
        found = [
            _misfit(name, f"it has a member that is no UTF-8: {readable(member)}")
            for member in members
            if text_in(member) is None
        ]
        doubtful = await self._doubtful(name, met)
        now.meet_members(name, doubtful)
        return AuditStep(looked_at=len(members) - len(doubtful), drifts=tuple(found))

    async def _doubtful(self, name: str, members: list[str]) -> list[str]:
        """Which of them must be looked at one by one.

        Every record is met by its own key and looked at with all places where it may stand. So of long lines only what
        seems to stand there wrongly is left: ready or held and not waiting, or waiting without a record.
        """
        kind, _, share = name.partition(":")
        if members and kind in ("ready", "held"):
            scores = await self._scores(self._keys.waiting(Share.parse(share)), members)
            return [member for member, score in zip(members, scores, strict=True) if score is None]
        if members and kind == "waiting":
            there = await self._client.exists(*(self._keys.record(SubmissionId(member)) for member in members))
            return [] if there == len(members) else members
        return members

    async def _scores(self, key: str, members: list[str]) -> list[float | None]:
        """None for those that do not stand there; nobody does where something else than a zset has the place's name."""
        nobody = [None] * len(members)
        scores: list[float | None] = await read(self._client.zmscore(key, members), otherwise=nobody)
        return scores

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
        scores = await self._scores(self._keys.index(namespace), list(expected))
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
            found += drifts(name, pointer_drifts(name, *row))
        return found

    async def _lists(self, taken: list[str]) -> list[Drift]:
        found: list[Drift] = []
        for name in taken:
            kind, _, whose = name.partition(":")
            async with self._client.pipeline(transaction=True) as at_once:
                at_once.sismember(self._keys.root + LISTS[kind], whose)
                at_once.exists(self._keys.root + name)
                named, there = await at_once.execute(raise_on_error=False)
            named = answered(named, otherwise=0)
            if bool(named) != bool(there):
                problem = f"it is {'' if there else 'not '}there, but {LISTS[kind]} names it: {bool(named)}"
                found += drifts(name, iter([("unlisted", problem)]))
        return found

    async def _end(self, now: Round) -> AuditStep:
        """The counters; the bytes of all that is queued too, where none came or went in the whole round."""
        async with self._client.pipeline(transaction=True) as at_once:
            at_once.hmget(self._keys.upstream, *_COUNTERS)
            at_once.zrange(self._keys.backlog, 0, -1, withscores=True)
            at_once.hgetall(self._keys.queues)
            values, backlog, queues = await at_once.execute(raise_on_error=False)
        counters = [number_in(one) for one in answered(values, otherwise=_NO_COUNTERS)]
        _, queued, size = counters
        findings = [
            *counter_drifts(
                Counters(queued=queued, size=size),
                {readable(share): number for share, number in answered(backlog, otherwise=[])},
                {readable(queue): number_in(number) for queue, number in answered(queues, otherwise={}).items()},
            )
        ]
        # SCAN may meet a key twice.
        quiet = None not in counters and now.counters == counters and now.queued_met == queued
        if quiet and now.bytes_met != size:
            findings.append(
                ("counts", f"the upstream counts {size} bytes, its queued submissions have {now.bytes_met}")
            )
        seconds = (await self._now_ms() - now.began_ms) / 1000
        return AuditStep(
            looked_at=1,
            drifts=tuple(drifts("upstream", iter(findings))),
            round_seconds=seconds,
            bytes_compared=quiet,
        )

    async def _now_ms(self) -> int:
        seconds, microseconds = await self._client.time()
        return int(seconds) * 1000 + int(microseconds) // 1000


def _misfit(name: str, problem: str) -> Drift:
    return Drift(kind="unreadable", about=name, problem=problem)


def _literal(text: str) -> str:
    """As a pattern that fits only this text."""
    return "".join(f"\\{one}" if one in "*?[]\\^" else one for one in text)
