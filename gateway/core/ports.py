"""What the core needs of the outside, as small protocols; `runtime.py` brings the real ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager
    from datetime import datetime

    from gateway.core.attempt import Answer, Leased, Report
    from gateway.core.errors import Finding
    from gateway.core.identity import SubmissionId
    from gateway.core.reconcile import Candidate, NamedJobs
    from gateway.core.share import Share, ShareLimits
    from gateway.core.submission import Failure, NewSubmission, Submission


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """What became of a submission at the store's door: as it stands now, and whether it was there before.

    `remaining` is what the share may still send at once, None where it has no rate. `at_once`: nothing is ahead of it
    and the pace has room for a call now.
    """

    submission: Submission
    known: bool
    remaining: int | None = None
    at_once: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """When the one at this position of its share goes to Batch, and how much later each behind it does."""

    at: datetime
    position: int
    seconds_each: float = 0.0


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Reclaimed:
    """What came back by itself: submissions whose deadline has come are final now."""

    expired: tuple[Submission, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Indexed:
    """A place in a list of submissions: accepted when, in ms since 1970, and which."""

    accepted_ms: int
    submission_id: SubmissionId


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a change did: its script's verdict, and the submission as it stands; or whose job it is, if another's.

    Not `confirmed`: it is done, and the store may forget it.
    """

    verdict: str
    submission: Submission | None = None
    owner: SubmissionId | None = None
    confirmed: bool = True


ErrandKind = Literal["look", "terminate", "update"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """What Batch is to be asked for a submission, by this process alone until the lease ends; `number` fences.

    `looks` are those that found nothing, `tries` the calls that failed; no job of it is older than `maybe_sent_since`.
    """

    submission: Submission
    number: int
    kind: ErrandKind
    looks: int
    maybe_sent_since: datetime
    tries: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrandReport:
    """How an errand ended.

    `found` a job; `looked` and found none, again after `delay_seconds`; `unknown`: given up, with the reason; `done`:
    Batch took it; `moot`: Batch refuses it for good; `later`: the call failed, again after `delay_seconds`.
    """

    verdict: Literal["found", "looked", "unknown", "done", "moot", "later"]
    delay_seconds: float = 0.0
    job_id: str | None = None
    job_arn: str | None = None
    failure: Failure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrandEnd:
    """`settled`; or `stale`, `gone` or `owned` (the job is another submission's), and nothing was written."""

    verdict: str
    submission: Submission | None = None


class AdmissionStore(Protocol):
    """Raises the errors of `core.errors`: RefusedError's kinds, NotAcceptingError, StoreUnavailableError."""

    async def admit(self, new: NewSubmission, limits: ShareLimits, expected: Expected | None) -> Admission:
        """`expected` is when it would go to Batch, as far as that is known: its deadline is held against it."""

    async def admit_many(
        self, asked: Sequence[tuple[NewSubmission, ShareLimits, Expected | None]]
    ) -> list[Admission | Exception]:
        """As `admit`, in order, with few round trips: a refusal is one item's answer, and raised for none."""

    async def get(self, submission_id: SubmissionId) -> Submission | None: ...
    async def position_of_next(self, share: Share, priority: int) -> int:
        """The position, from 1, that a submission would have which arrived in the share now."""


class LookupStore(Protocol):
    """Raises StoreUnavailableError."""

    async def get(self, submission_id: SubmissionId) -> Submission | None: ...
    async def get_many(self, wanted: Sequence[SubmissionId]) -> list[Submission | None]: ...
    async def now_ms(self) -> int:
        """The store's time."""

    async def of_job(self, job_id: str) -> SubmissionId | None: ...
    async def job_of(self, wanted: SubmissionId) -> str | None: ...
    async def namespaces(self) -> list[str]: ...
    async def accepted_before(self, namespace: str, before: Indexed | None, limit: int) -> list[Indexed]: ...


class DenialStore(Protocol):
    """Raises StoreUnavailableError."""

    async def denied_until(self, wanted: SubmissionId) -> datetime | None:
        """When the submission's queue and role, which IAM denies, are tried again; None where they are not denied."""


class ChangeStore(Protocol):
    """Raises StoreUnavailableError."""

    async def cancel(self, wanted: SubmissionId, reason: str) -> Change: ...
    async def reprioritize(self, wanted: SubmissionId, priority: int) -> Change: ...
    async def redrive(self, wanted: SubmissionId) -> Change: ...
    async def resolve(
        self, wanted: SubmissionId, job_id: str | None, job_arn: str | None, *, close: bool = False
    ) -> Change: ...


class ForwardStore(Protocol):
    """Raises StoreUnavailableError."""

    async def lease(self) -> Leased | Wait:
        """A wait because of `due`: reclaim first."""

    async def confirm(self, leased: Leased) -> None:
        """Back once the lease is as durable as a 202 promises.

        A store that forgot it would hand the submission out again as one that was never called for. Raises
        DurabilityUnconfirmedError.
        """

    async def reclaim(self) -> Reclaimed: ...
    async def settle(self, leased: Leased, report: Report) -> Settlement: ...


class ErrandStore(Protocol):
    """Raises StoreUnavailableError."""

    async def lease(self) -> Errand | Wait: ...
    async def settle(self, errand: Errand, report: ErrandReport) -> ErrandEnd: ...
    async def owners(self, job_ids: Sequence[str]) -> Mapping[str, SubmissionId]: ...


class ShareStore(Protocol):
    """What operators see of shares, and change for the whole fleet. Raises StoreUnavailableError."""

    async def shares(self) -> list[ShareStatus]: ...
    async def share(self, share: Share) -> ShareStatus: ...
    async def set_share(
        self, share: Share, changes: dict[str, str | None], limits: ShareLimits | None = None
    ) -> ShareStatus:
        """`limits` are those of the settings, which hold where nothing is set over them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareStatus:
    """A share as the fleet sees it: its backlog in submissions, the age of the oldest of them in seconds.

    `overrides` are what operators set over the settings, by member name of the HTTP face.
    """

    share: Share
    queued: int
    weight: float
    paused: bool
    paused_because: str | None = None
    oldest_seconds: float | None = None
    overrides: dict[str, Any] = field(default_factory=dict)


class UpstreamStore(Protocol):
    """What operators see of an upstream, and change for the whole fleet. Raises StoreUnavailableError."""

    async def upstream(self) -> UpstreamStatus: ...
    async def set_upstream(self, changes: dict[str, str | None]) -> UpstreamStatus: ...


# Why no call is made now: an operator stopped forwarding, Batch is out, credentials fail, Batch told to wait.
Condition = Literal["calling", "throttled", "held", "outage", "stopped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamStatus:
    """An upstream as the fleet sees it; rates in calls a second, what is queued, leased and delayed in submissions.

    `rate` is what may be called at most, `pace` what is called now. `held_until` is when calls go on where Batch or
    failing credentials hold them. `errands` are looks, terminations and updates that are owed; `throttled` counts
    calls; `denied_pairs` are queues with a role that IAM denies now. `overrides` are what operators set over the
    settings, by member name of the HTTP face.
    """

    rate: float
    pace: float
    accepting: bool
    forwarding: bool
    condition: Condition
    held_until: datetime | None
    queued: int
    queued_bytes: int
    leased: int
    delayed: int
    errands: int
    forwarded: int
    throttled: int
    credentials_held: bool
    denied_pairs: int
    overrides: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """Something in the store that no command can have left so; `kind` is one of core/audit.py's list.

    `about` is a submissionId, a share, or the name of a key without its upstream's prefix.
    """

    kind: str
    about: str
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditStep:
    """How many things were looked at, and what was wrong.

    `round_seconds` is set by the step that ends a round: how long it took from its beginning. `bytes_compared` is
    whether that one could hold the bytes against what is queued: nothing may come or go meanwhile.
    """

    looked_at: int = 0
    drifts: tuple[Drift, ...] = ()
    round_seconds: float | None = None
    bytes_compared: bool = False


class AuditStore(Protocol):
    """Raises StoreUnavailableError."""

    async def begin(self, seconds: float) -> float:
        """Take the fleet's turn for so long: 0 where it is this process's now, else seconds until it may be."""

    async def step(self) -> AuditStep:
        """A bounded piece of work; after the last one of a round the next one begins anew."""

    async def leave(self) -> None:
        """Put the round down for whoever has the next turn."""


class BatchCalls(Protocol):
    """One call of SubmitServiceJob with frozen parameters; never raises for what the network or Batch does."""

    async def submit(self, request: bytes) -> Answer: ...


class ErrandCalls(Protocol):
    """What else is asked of Batch for a submission. No call makes a job, so each may be repeated.

    All raise CallFailedError for whatever the network or Batch does.
    """

    async def jobs_named(self, request: bytes, since: datetime) -> NamedJobs:
        """The jobs with the frozen request's queue and name created since then."""

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
