"""What the core needs of the outside, as small protocols; `runtime.py` brings the real ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence
    from contextlib import AbstractContextManager
    from datetime import datetime

    from gateway.core.attempt import Answer, Leased, Report
    from gateway.core.errors import Finding
    from gateway.core.forecast import Snapshot
    from gateway.core.identity import SubmissionId
    from gateway.core.reconcile import Candidate
    from gateway.core.share import Share, ShareLimits
    from gateway.core.submission import NewSubmission, Submission


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """What became of a submission at the store's door: as it stands now, and whether it was there before.

    `remaining` is what the share may still send at once, None where it has no rate.
    """

    submission: Submission
    known: bool
    remaining: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Nothing to lease for so many seconds (None: until something arrives), and why."""

    seconds: float | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """What settling did.

    `verdict`: `settled`, `late` (a job for a record that was final), `stale` (the lease is not current: nothing was
    written) or `gone`. `charged` is whether the try counted in the end. The other members tell what changed beside the
    submission: the new pace in calls a second, why calls are held or were, whether an outage began or ended, and
    whether the share was paused.
    """

    verdict: str
    submission: Submission | None = None
    charged: bool = False
    pace: float | None = None
    held: str | None = None
    released: str | None = None
    outage: bool | None = None
    share_paused: bool = False


class AdmissionStore(Protocol):
    """Raises the errors of `core.errors`: RefusedError's kinds, NotAcceptingError, StoreUnavailableError."""

    async def admit(self, new: NewSubmission, limits: ShareLimits) -> Admission: ...
    async def get(self, submission_id: SubmissionId) -> Submission | None: ...
    async def snapshot(self) -> Snapshot: ...


class ForwardStore(Protocol):
    """Raises StoreUnavailableError."""

    async def lease(self) -> Leased | Wait: ...
    async def settle(self, leased: Leased, report: Report) -> Settlement: ...


class ShareStore(Protocol):
    """What operators see of shares, and change for the whole fleet. Raises StoreUnavailableError."""

    async def shares(self) -> list[ShareStatus]: ...
    async def share(self, share: Share) -> ShareStatus: ...
    async def set_share(self, share: Share, changes: dict[str, str | None]) -> ShareStatus: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareStatus:
    """A share as the fleet sees it: its backlog in submissions, the age of the first in its line in seconds.

    `overrides` are what operators set over the settings, by member name of the HTTP face.
    """

    share: Share
    queued: int
    weight: float
    paused: bool
    paused_because: str | None = None
    oldest_seconds: float | None = None
    overrides: dict[str, Any] = field(default_factory=dict)


class BatchCalls(Protocol):
    """One call of SubmitServiceJob with frozen parameters; never raises for what the network or Batch does."""

    async def submit(self, request: bytes) -> Answer: ...


class ErrandCalls(Protocol):
    """What else is asked of Batch for a submission. No call makes a job, so each may be repeated.

    All raise CallFailedError for whatever the network or Batch does.
    """

    async def jobs_named(self, request: bytes, since: datetime) -> Sequence[str]:
        """Ids of the jobs with the frozen request's queue and name created since then, newest first."""

    async def candidate(self, job_id: str) -> Candidate:
        """A job with the submission that its tag names."""

    async def terminate(self, job_id: str, reason: str) -> None: ...
    async def update(self, job_id: str, priority: int) -> None: ...


class Wakeup(Protocol):
    """A hint that something was queued; missing one costs at most the poll."""

    async def wait(self, seconds: float) -> None: ...


class SettledHints(Protocol):
    """While watched, the event is set when a submission may have left `queued`, or when this process drains."""

    def watching(self, submission_id: SubmissionId) -> AbstractContextManager[asyncio.Event]: ...


class PayloadCheck(Protocol):
    """(errors, warnings) of a `serviceRequestPayload`, pointers relative to it."""

    def __call__(self, payload: object) -> tuple[Sequence[Finding], Sequence[Finding]]: ...


class Log(Protocol):
    """structlog's bound logger, as far as the core uses it."""

    def info(self, event: str, **fields: Any) -> Any: ...
    def warning(self, event: str, **fields: Any) -> Any: ...
    def error(self, event: str, **fields: Any) -> Any: ...
