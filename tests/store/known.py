"""What test_lifecycle.py knows of each submission, and holds the store's records against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgpack

from gateway.store.records import unpack

if TYPE_CHECKING:
    from gateway.core.identity import SubmissionId
    from gateway.core.share import Share

DEAD_LETTERS = {"rejected", "unknown"}
RETENTION_MS = 1_000_000


@dataclass
class Known:
    """What the test knows of a submission that was accepted; times in ms."""

    token: str
    share: Share
    namespace: str
    accepted: int
    asked_priority: int
    priority: int
    deadline: int | None
    deadline_ahead: bool
    state: str = "queued"
    lease: int | None = None  # the number of the current one
    lease_ends: int = 0
    sent: bool = False  # a call may have made a job
    before: bool = False  # as it was when the last lease was taken
    job_id: str | None = None
    cancel: str | None = None  # by whom it is to end early
    look: bool = False
    terminate: bool = False
    update: bool = False
    terminated: bool = False
    moot: bool = False  # Batch refused to terminate it
    errand: int | None = None  # the number of the current one
    closed: bool = False
    expires: int | None = None

    @property
    def is_dead_letter(self) -> bool:
        return self.state in DEAD_LETTERS and self.job_id is None and not self.closed

    @property
    def is_listed(self) -> bool:
        """Among what ended in the gateway."""
        return self.state != "queued" and self.job_id is None

    @property
    def owes(self) -> bool:
        return self.terminate or self.update

    @property
    def early_end(self) -> str:
        return "expired" if self.cancel == "deadline" else "canceled"

    def end(self, state: str, now: int) -> None:
        """What every final record is written with."""
        self.state = state
        self.lease, self.errand, self.look, self.deadline_ahead = None, None, False, False
        self.expires = None if self.owes or self.is_dead_letter else now + RETENTION_MS

    def get_job(self, job_id: str, now: int) -> None:
        """Batch has a job of it; one that ended without it keeps that end."""
        kept = self.state if self.state not in ("queued", "unknown") else "forwarded"
        self.job_id = job_id
        self.terminate = kept != "forwarded" or self.cancel is not None
        self.update = not self.cancel and self.priority != self.asked_priority
        self.end(kept, now)


def agrees(wanted: SubmissionId, one: Known, expiry: int, value: bytes, owner: bytes | None) -> Any:
    """One record against what the test knows of it, and what must be so of any."""
    unpacker = msgpack.Unpacker(raw=False, strict_map_key=False)
    unpacker.feed(value)
    submission, record = unpack(wanted, value), unpacker.unpack()
    told = (submission.state, submission.maybe_sent, submission.job_id, submission.priority)
    assert told == (one.state, one.sent, one.job_id, one.priority)
    assert (submission.cancel and submission.cancel.by) == one.cancel
    assert (submission.terminated_at is not None) == one.terminated
    marks = (record.get(name) for name in ("look", "terminate", "update", "errand"))
    assert [bool(mark) for mark in marks] == [one.look, one.terminate, one.update, one.errand is not None]
    assert (submission.settled_at is not None) == (one.state != "queued")
    assert record.get("ended", False) == one.is_listed
    assert one.lease is None or record["lease"] == one.lease
    assert (expiry == -1) == (one.state == "queued" or one.is_dead_letter or one.owes)
    assert bool(submission.request) == (one.state == "queued" or one.is_dead_letter)
    assert one.job_id is None or owner == wanted.encode()
    assert not one.look or one.sent
    assert one.state not in ("canceled", "expired") or not one.sent
    assert one.state != "forwarded" or (one.job_id is not None and not one.look)
    ends = one.terminate or one.terminated or one.moot
    assert one.job_id is None or one.state == "forwarded" or ends
    assert not (one.state == "forwarded" and one.cancel) or ends
    return record
