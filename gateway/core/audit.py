"""The self-audit: whether the store is as its commands leave it, looked at slowly for as long as the fleet runs.

It tells and never mends: what is wrong was done by something that nobody knows yet, and mending hides it.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gateway.core.errors import StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gateway.core.ports import AuditStore, Drift, Log

# One process of the fleet has the turn, and says at its end what it saw: a line a minute.
TURN_SECONDS = 60.0
# The rest of the turn is slack: one process has put the round down before another takes it up.
WORK_SECONDS = 50.0
# Between two steps, each under a millisecond of the store's: a hundredth of its time, and two of this process's.
PAUSE_SECONDS = 0.1
AWAY_SECONDS = 10.0
FAILED_SECONDS = 60.0  # a bug is still there then, and says so as often as the audit says anything
# What a line names of a kind; there may be as many as there are submissions.
IDS_TOLD = 20

# Each kind of drift, and what an operator can do about it.
REMEDIES: Mapping[str, str] = {
    "lost": "Its record is gone before its time: see whether the store evicts keys, lost its file or was restored from "
    "an older one. Find the job in Batch by the tag gateway:submission-id; if there is none, its caller must send it "
    "again. Forwarding passes over it",
    "unreadable": "Keep a copy of the key (DUMP), and see which gateway or person wrote it",
    "nowhere": "It is never forwarded as it is: cancel it, and have its caller send it again with a new token",
    "twice": "Its client token and the lease's number keep it from being submitted twice; cancel it if it does not "
    "settle by itself",
    "misplaced": "Look at it with gateway submissions show; cancel it if it is queued and does not move",
    "untimely": "The store's clock may have been wrong for a while: see that it is right. Cancel what must not wait",
    "expiring": "PERSIST its record before it expires",
    "lasting": "It takes room until somebody deletes it; PEXPIRE its record",
    "unlisted": "It is found by its id, but not in lists, or listed where it should not be",
    "uncounted": "Its share's backlog and oldest age are wrong until it has settled",
    "job": "Look up the job in Batch: two submissions must not have one job, nor one submission two",
    "share": "gateway shares pause and resume put the share in order",
    "counts": "Limits and figures are off by this much: stop every gateway, and set the counter to what there is",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """What one whole round saw; `bytes_compared` as AuditStep says."""

    looked_at: int
    drifts: tuple[Drift, ...]
    seconds: float
    bytes_compared: bool

    @property
    def summary(self) -> str:
        """For operators, without what was wrong."""
        told = "" if self.bytes_compared else "; bytes not compared, for what is queued changed or is miscounted"
        return f"{self.looked_at} looked at in {self.seconds:.1f} s, {len(self.drifts)} wrong{told}"

    @property
    def sentences(self) -> list[str]:
        """For operators: one a kind, with what it is about and what to do."""
        return [
            f"{kind}: {_some(ones)}: {ones[0].problem}{', the first of them' if ones[1:] else ''}. {REMEDIES[kind]}"
            for kind, ones in by_kind(self.drifts).items()
        ]

    @property
    def told(self) -> dict[str, Any]:
        """For scripts; all drifts, and not some of each kind."""
        return {
            "lookedAt": self.looked_at,
            "seconds": round(self.seconds, 1),
            "bytesCompared": self.bytes_compared,
            "drifts": [{"kind": one.kind, "about": one.about, "problem": one.problem} for one in self.drifts],
            "remedies": {kind: REMEDIES[kind] for kind in by_kind(self.drifts)},
        }


async def whole_round(store: AuditStore) -> Audited:
    """At once and without pauses, from where the store stands in its round. Raises StoreUnavailableError."""
    looked_at = 0
    found: dict[Drift, None] = {}
    while True:
        step = await store.step()
        looked_at += step.looked_at
        found |= dict.fromkeys(step.drifts)
        if step.round_seconds is not None:
            return Audited(
                looked_at=looked_at,
                drifts=tuple(found),
                seconds=step.round_seconds,
                bytes_compared=step.bytes_compared,
            )


def by_kind(drifts: Iterable[Drift]) -> dict[str, list[Drift]]:
    """Each once: a submission is met in several places, and shows the same in each."""
    found: defaultdict[str, list[Drift]] = defaultdict(list)
    for drift in dict.fromkeys(drifts):
        found[drift.kind].append(drift)
    return dict(found)


def names(drifts: Iterable[Drift]) -> list[str]:
    """What they are about, at most so many as a line can hold."""
    return list(dict.fromkeys(one.about for one in drifts))[:IDS_TOLD]


def _some(drifts: list[Drift]) -> str:
    told = names(drifts)
    more = len({one.about for one in drifts}) - len(told)
    return ", ".join(told) + (f" and {more} more" if more else "")


class SelfAudit:
    """Audits one upstream's part of the store while it has the fleet's turn, a few steps a second."""

    def __init__(self, *, upstream: str, store: AuditStore, log: Log) -> None:
        self._upstream = upstream
        self._store = store
        self._log = log

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                wait = await self._store.begin(TURN_SECONDS)
                if wait == 0.0:
                    wait = await self.turn(stop)
            except StoreUnavailableError:  # the store's own watch tells of it
                wait = AWAY_SECONDS
            except Exception:  # noqa: BLE001 - forwarding goes on; the next to fail over it would be the next process
                self._log.error("audit_failed", upstream=self._upstream, exc_info=True)
                wait = FAILED_SECONDS
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), wait)

    async def turn(self, stop: asyncio.Event) -> float:
        """Work until the round or the time is over, and say what was seen; the seconds that are left of the turn."""
        began = time.monotonic()
        looked_at, ended, bytes_compared = 0, None, False
        found: dict[Drift, None] = {}
        try:
            while ended is None and not stop.is_set() and time.monotonic() - began < WORK_SECONDS:
                step = await self._store.step()
                looked_at += step.looked_at
                found |= dict.fromkeys(step.drifts)
                ended, bytes_compared = step.round_seconds, step.bytes_compared
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), PAUSE_SECONDS)
            await self._store.leave()
        finally:
            self._tell(list(found))
            self._log.info(
                "audit",
                upstream=self._upstream,
                looked_at=looked_at,
                drifts=len(found),
                round_seconds=None if ended is None else round(ended, 1),
                bytes_compared=bytes_compared,
            )
        return max(0.0, TURN_SECONDS - (time.monotonic() - began))

    def _tell(self, found: list[Drift]) -> None:
        for kind, drifts in by_kind(found).items():
            self._log.error(
                "audit_drift",
                upstream=self._upstream,
                kind=kind,
                ids=names(drifts),
                count=len(drifts),
                problem=drifts[0].problem,
                remedy=REMEDIES[kind],
            )
