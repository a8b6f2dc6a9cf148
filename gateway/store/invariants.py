"""What must be so of everything in the store, at any moment between two commands; what is not so is a drift.

All facts that one judgement rests on are of one moment: nothing here is true only a little later. They may be anything:
what is met was perhaps written by no command at all.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from traceback import extract_tb
from typing import TYPE_CHECKING, Any

from gateway.core.ports import Drift
from gateway.core.submission import State
from gateway.store.audit_facts import readable
from gateway.store.versions import VERSION_READ

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from gateway.core.identity import SubmissionId
    from gateway.store.audit_facts import Facts

# Leases, retries and looks are minutes ahead; processes may have other settings while these roll out. What lies a day
# ahead was written while the store's clock was wrong.
FAR_MS = 24 * 3600 * 1000
# Two keys of one command may expire a millisecond apart, on servers whose clock goes on within a script.
SOON_MS = 1000

# What PTTL says of a key that is not there, and of one that never expires.
_NO_KEY, _NEVER = -2, -1

_OURS = str(Path(__file__).parent)

_DEAD_LETTERS = (State.REJECTED, State.UNKNOWN)
_PLACES = ("ready", "delayed", "leased", "errands")
_OF_SHARES = ("ready", "held", "waiting")

Finding = tuple[str, str]  # a kind of core/audit.py's list, and what is wrong


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """How long records and job ids are kept, in ms, and from when on that has been so: what is older tells nothing."""

    retention_ms: int
    alias_retention_ms: int
    since_ms: int

    def has_record(self, accepted_ms: float, now_ms: int) -> bool:
        """Whether the record of what was accepted then must still be there."""
        return accepted_ms > max(now_ms - self.retention_ms, self.since_ms)

    def has_job(self, settled_ms: float, now_ms: int) -> bool:
        """Whether a submission that was settled then and has a job must still be known by it."""
        return settled_ms > max(now_ms - self.alias_retention_ms, self.since_ms)


def submission_drifts(
    wanted: SubmissionId, facts: Facts, *, met: str, now_ms: int, memory: Memory
) -> Iterator[Finding]:
    """`met` is the set in which it was met, without the upstream's prefix, empty for none."""
    if facts.pttl == _NO_KEY:
        yield from _without_record(facts, met=met, now_ms=now_ms, memory=memory)
        return
    record = facts.record
    if record is not None and _is_later(record):
        return
    if record is None or facts.namespace is None:
        yield "unreadable", "its record cannot be read"
        return
    yield from _met(facts, record, facts.namespace, met)
    yield from _ended(facts, record)
    if record["state"] == State.QUEUED:
        yield from _queued(facts, record, now_ms)
    else:
        yield from _final(wanted, facts, record, now_ms, memory)


def _without_record(facts: Facts, *, met: str, now_ms: int, memory: Memory) -> Iterator[Finding]:
    standing = facts.standing("delayed", "leased", "errands", "deadlines")
    kind = met.partition(":")[0]
    if kind in _OF_SHARES and facts.met is not None:
        standing.append(met)
    if standing:
        yield "lost", f"it stands in {', '.join(standing)}, but has no record"
    elif kind == "index" and facts.met is not None and memory.has_record(facts.met, now_ms):
        yield "lost", f"{met} lists it, but its record is gone before its time"


def _met(facts: Facts, record: Mapping[str, Any], namespace: str, met: str) -> Iterator[Finding]:
    """Whether it may stand where it was met, among what is another's."""
    kind, _, whose = met.partition(":")
    if kind in _OF_SHARES and facts.met is not None and whose != record["share"]:
        yield "misplaced", f"it stands in {met}, but is of the share {record['share']}"
    elif kind == "index" and whose != namespace and facts.met is not None:
        yield "unlisted", f"{met} lists it, but it is of the namespace {namespace}"
    elif kind == "index" and whose == namespace and facts.met != record["at"]:
        yield "unlisted", "the index of its namespace has it not, or with another time"
    elif kind == "ended" and whose != record["queue"] and facts.met == record["at"]:
        yield "unlisted", f"{met} lists it, but it is of the queue {record['queue']}"


def _ended(facts: Facts, record: Mapping[str, Any]) -> Iterator[Finding]:
    """Whatever its state: where an older gateway redrives or forwards one that is listed, it stays so.

    An entry with another time was left by a submission with the same token, whose record has expired.
    """
    listed, told = facts.ended == record["at"], bool(record.get("ended"))
    if listed != told:
        yield "unlisted", f"its queue's ended has it: {listed}, but its record says: {told}"


def _queued(facts: Facts, record: Mapping[str, Any], now_ms: int) -> Iterator[Finding]:
    standing = facts.standing(*_PLACES)
    if len(standing) != 1:
        kind = "twice" if standing else "nowhere"
        yield kind, f"it is queued and stands in {' and '.join(standing) or 'no place'}"
    for place, mark in (("leased", "lease"), ("errands", "look")):
        if (place in standing) != (mark in record):
            yield "misplaced", f"{place} has it: {place in standing}, but its record says: {mark in record}"
    if record.get("cancel") and ("ready" in standing or "delayed" in standing):
        yield "misplaced", f"it is to end, but stands in {' and '.join(standing)} to be submitted"
    if facts.pttl != _NEVER:
        yield "expiring", f"it is queued, but its record expires in {facts.pttl / 1000:.0f} s"
    if facts.length != facts.head_length - record["identity"] + record["size"]:
        yield "unreadable", "its request is not as long as when it was accepted"
    yield from _scores(facts, record, now_ms)


def _scores(facts: Facts, record: Mapping[str, Any], now_ms: int) -> Iterator[Finding]:
    """Of a queued one."""
    if facts.ready is not None and facts.ready != record["place"]:
        yield "misplaced", "its place in its share's line is not that of its record"
    if facts.held is not None and facts.held != facts.delayed:
        yield "misplaced", "it is held for its share's rate, but delayed has it not, or until another time"
    if facts.waiting != record["at"]:
        yield "uncounted", "it is queued, but its share's waiting has it not, or with another time"
    deadline = record.get("deadline")
    gone = facts.deadlines is None and (deadline is None or deadline <= now_ms)
    if not gone and facts.deadlines != deadline:
        yield "untimely", "deadlines has it not, or with another time than its record"
    delayed = facts.delayed if facts.held is None else None  # a slow share may hold it for long
    for place, score in (("leased", facts.leased), ("errands", facts.errands), ("delayed", delayed)):
        if score is not None and score > now_ms + FAR_MS:
            yield "untimely", f"{place} has it until {(score - now_ms) / 1000:.0f} s from now"


def _final(
    wanted: SubmissionId, facts: Facts, record: Mapping[str, Any], now_ms: int, memory: Memory
) -> Iterator[Finding]:
    state, owed = record["state"], bool(record.get("terminate") or record.get("update"))
    standing = facts.standing("ready", "held", "waiting", "delayed", "leased", "deadlines")
    if standing:
        yield "misplaced", f"it is {state}, but stands in {', '.join(standing)}"
    if (facts.errands is not None) != owed:
        yield "misplaced", f"errands has it: {not owed}, but Batch is owed something for it: {owed}"
    if facts.errands is not None and facts.errands > now_ms + FAR_MS:
        yield "untimely", f"errands has it until {(facts.errands - now_ms) / 1000:.0f} s from now"
    kept = state in _DEAD_LETTERS and not record.get("job_id") and not record.get("closed")
    if (kept or owed) and facts.pttl != _NEVER:
        why = "Batch is owed something for it" if owed else f"it is {state} and waits for a person"
        yield "expiring", f"{why}, but its record expires in {facts.pttl / 1000:.0f} s"
    if not (kept or owed) and facts.pttl == _NEVER:
        yield "lasting", f"it is {state}, but its record never expires"
    asked = record["size"] - record["identity"] if kept else 0
    if facts.length != facts.head_length + asked:
        yield "unreadable", f"it is {state}, but its record is {facts.length} bytes long"
    if record.get("job_id"):
        yield from _job(wanted, facts, record, now_ms, memory)
    elif state == State.FORWARDED:
        yield "job", "it is forwarded, but has no job"


def _job(
    wanted: SubmissionId, facts: Facts, record: Mapping[str, Any], now_ms: int, memory: Memory
) -> Iterator[Finding]:
    job_id = record["job_id"]
    job, owner = readable(facts.job_of_alias or b""), readable(facts.owner_of_job or b"")
    if not job and not owner:  # both are forgotten after a while, a record that owes something may stay longer
        if memory.has_job(record.get("settled", 0), now_ms):
            yield "job", f"neither its job {job_id} nor it is known by the other"
    elif owner and owner != wanted:
        yield "job", f"its job {job_id} is remembered as that of {owner}"
    elif job and job != job_id:
        yield "job", f"its job is {job_id}, but remembered as {job}"


def pointer_drifts(name: str, value: bytes | None, pttl: int, other: bytes | None) -> Iterator[Finding]:
    """`name` is `alias:<submissionId>` or `job:<jobId>`; `other` is what stands where its value points to.

    A job may point to a submission that has another one by now: its token was sent again after its record had expired.
    """
    if value is None and pttl != _NO_KEY:
        yield "unreadable", "it is no string"
    if value is None or pttl < SOON_MS:
        return
    kind, _, own = name.partition(":")
    if kind == "alias" and other != own.encode():
        of = f"that of {readable(other)}" if other else "nobody's"
        yield "job", f"its job is {readable(value)}, which is remembered as {of}"
    if kind == "job" and other is None:
        yield "job", f"it is remembered as that of {readable(value)}, of which no job is remembered"


def share_drifts(row: Sequence[Any]) -> Iterator[Finding]:
    """`row` is what lua/audit_share.lua answers for a share."""
    ready, held, waiting, in_backlog, active, marked, no_hash, paused, said_overridden, overridden, pttl = row
    backlog = float(in_backlog or 0)
    if backlog != waiting or (in_backlog is not None and backlog < 1):
        yield "counts", f"its backlog is {in_backlog and _plain(backlog)}, but {waiting} wait"
    if max(ready, held) > waiting:
        yield "counts", f"{ready} are ready and {held} held, but {waiting} wait"
    if no_hash:
        yield "unreadable", "what is kept of it is no hash"
        return
    if (active is not None) != (ready > 0 and not paused):
        is_active = "active" if active is not None else "not active"
        yield "share", f"it is {is_active} with {ready} ready, and {'' if paused else 'not '}paused"
    if overridden != said_overridden:
        yield "share", f"its hash says overridden: {bool(said_overridden)}, but has overrides: {bool(overridden)}"
    if bool(marked) != bool(paused or said_overridden):
        yield "share", f"it is {'' if marked else 'not '}marked, but paused or overridden: {not marked}"
    kept = bool(backlog or paused or said_overridden)
    if pttl != _NO_KEY and kept != (
        pttl == _NEVER
    ):  # a redriven one may wait in a share that is forgotten until it is leased
        yield "share", f"its hash {'expires' if kept else 'never expires'}, with {_plain(backlog)} queued"


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """What the upstream counts of what is queued: submissions, and their bytes. None for what is no number."""

    queued: int | None
    size: int | None


def counter_drifts(
    counters: Counters, backlog: Mapping[str, float], queues: Mapping[str, int | None]
) -> Iterator[Finding]:
    """`backlog` is how many are queued by share, `queues` how many shares of a queue have a backlog."""
    unreadable = [name for name in ("queued", "size") if getattr(counters, name) is None]
    for name in [*unreadable, *(f"the shares of {queue}" for queue, number in queues.items() if number is None)]:
        yield "unreadable", f"its count of {'bytes' if name == 'size' else name} is no number"
    queued = sum(backlog.values())
    if counters.queued is not None and counters.queued != queued:
        yield "counts", f"the upstream counts {counters.queued} queued, its shares {_plain(queued)}"
    if (
        counters.queued is not None
        and counters.size is not None
        and ((counters.size > 0) != (counters.queued > 0) or counters.size < 0)
    ):
        yield "counts", f"the upstream counts {counters.size} bytes with {counters.queued} queued"
    shares = Counter(share.partition("/")[0] for share in backlog)
    for queue in sorted(shares.keys() | queues.keys()):
        counted = queues.get(queue, 0)
        if counted is not None and shares[queue] != counted:
            yield "counts", f"{queue} has {shares[queue]} shares with a backlog, but counts {counted}"


def drifts(about: str, findings: Iterator[Finding]) -> list[Drift]:
    """What cannot even be judged is unreadable: the rest of the round is not to be lost over it."""
    found: list[Drift] = []
    try:
        found += (Drift(kind=kind, about=about, problem=problem) for kind, problem in findings)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with it
        found.append(unreadable(about, "it cannot be judged", error))
    return found


def unreadable(about: str, problem: str, error: Exception) -> Drift:
    """With the way to where the error came up, of our own code, and without its message, which may quote a payload."""
    frames = [frame for frame in extract_tb(error.__traceback__) if frame.filename.startswith(_OURS)]
    way = " > ".join(frame.name for frame in frames)
    return Drift(kind="unreadable", about=about, problem=f"{problem}: {type(error).__name__} in {way}")


def _plain(number: float) -> str:
    """Whole numbers without a point, and what else a score may be."""
    return f"{number:.15g}"


def _is_later(record: Mapping[str, Any]) -> bool:
    """Whether it is a later gateway's to judge."""
    version = record.get("v")
    return isinstance(version, int) and version > VERSION_READ
