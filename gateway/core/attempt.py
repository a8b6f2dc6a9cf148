"""One call to Batch: what it answered, and what follows for the submission. DESIGN.md section 7 as a function.

No clock, no chance but the one handed in, no I/O: every row of the table is a plain test.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from gateway.core.backoff import full_jitter_seconds
from gateway.core.submission import Failure, has_submission_tag

if TYPE_CHECKING:
    import random
    from datetime import datetime

    from gateway.core.job_search import Looked
    from gateway.core.submission import Submission

# Codes and messages are kept in records and logs: long enough to understand, short enough to store by the thousand.
MAX_MESSAGE_CHARACTERS = 500


class AnswerKind(StrEnum):
    """What a call to Batch proved, by its answer or by how it failed."""

    SUBMITTED = "submitted"  # 200 with a job id
    THROTTLED = "throttled"  # 429 or any throttling code: no job made
    NOT_SENT = "not_sent"  # refused, DNS, TLS, no connection in time: no job made
    CREDENTIALS = "credentials"  # ours are missing, expired or invalid: no job made
    DENIED = "denied"  # IAM refuses this queue or role: no job made
    TRANSIENT = "transient"  # a refusal that is known to pass; as a 400 it made no job
    REFUSED = "refused"  # Batch says no: this call made no job, an earlier one may have
    UNCLEAR = "unclear"  # time-out, reset after sending, 5xx, no sense in a 200: a job may exist


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """`code` and `message` are Batch's or name the failure; `wait_seconds` is how long Batch says to wait.

    `maybe_made` tells transients apart: a 5xx leaves open whether there is a job.
    """

    kind: AnswerKind
    job_id: str | None = None
    job_arn: str | None = None
    code: str = ""
    message: str = ""
    wait_seconds: float = 0.0
    maybe_made: bool = False

    @property
    def failure(self) -> Failure | None:
        if self.kind is AnswerKind.SUBMITTED:
            return None
        return Failure(code=_storable(self.code), message=_storable(self.message))


@dataclass(frozen=True, slots=True, kw_only=True)
class Leased:
    """A submission that this process alone may call Batch for, until the lease ends.

    `maybe_sent` is as it was before this lease, and a job of it is no older than `maybe_sent_since`; `tries` are the
    charged ones so far; `number` fences.
    """

    submission: Submission
    number: int
    maybe_sent: bool
    tries: int
    maybe_sent_since: datetime
    probing: bool = False


class Verdict(StrEnum):
    """What the forwarder asks the store to make of a submission."""

    FORWARDED = "forwarded"
    RETRY = "retry"
    REJECT = "reject"
    UNKNOWN = "unknown"
    RECONCILE = "reconcile"  # not tried again: Batch is looked through for its job


class PaceSignal(StrEnum):
    """What a call told about the upstream as a whole."""

    NONE = "none"  # nothing was called
    ANSWERED = "answered"  # Batch is there and took the call into account
    THROTTLED = "throttled"
    FAILED = "failed"
    UNREACHABLE = "unreachable"
    CREDENTIALS = "credentials"
    DENIED = "denied"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How an attempt ended, for the store to settle.

    `charged` counts against the bounds; `proved_none` says that this call made no job; the submission comes back after
    `delay_seconds` (0 = to its place at once); `wait_seconds` holds the whole upstream as Batch told.
    """

    verdict: Verdict
    outcome: str
    charged: bool = False
    proved_none: bool = False
    delay_seconds: float = 0.0
    signal: PaceSignal = PaceSignal.NONE
    wait_seconds: float = 0.0
    failure: Failure | None = None
    job_id: str | None = None
    job_arn: str | None = None


def _storable(text: str) -> str:
    """Short enough to keep, and without the lone surrogates that JSON may carry and UTF-8 may not."""
    return text[:MAX_MESSAGE_CHARACTERS].encode(errors="replace").decode()


GIVEN_BACK = Report(verdict=Verdict.RETRY, outcome="given_back", proved_none=True)
# The store did not say in time that it will remember the lease: nothing was called.
UNCONFIRMED = Report(verdict=Verdict.RETRY, outcome="unconfirmed", proved_none=True)

# The drain is over, or the process is told to end: what became of the call nobody knows. Never settled, only logged.
CUT_OFF = Report(verdict=Verdict.RETRY, outcome="cut_off")

LOOK_TIMED_OUT = Answer(kind=AnswerKind.UNCLEAR, code="LookTimeout", message="Batch did not list its jobs in time.")

# So soon after it was made Batch lists a job, as a rule: nothing is tried again before a look could have found it.
LISTED_WITHIN_SECONDS = 5.0

# What else each answer says of the upstream; those that prove nothing about it are absent.
_SIGNALS = {
    AnswerKind.SUBMITTED: PaceSignal.ANSWERED,
    AnswerKind.TRANSIENT: PaceSignal.ANSWERED,
    AnswerKind.REFUSED: PaceSignal.ANSWERED,
    AnswerKind.THROTTLED: PaceSignal.THROTTLED,
    AnswerKind.NOT_SENT: PaceSignal.UNREACHABLE,
    AnswerKind.UNCLEAR: PaceSignal.FAILED,
    AnswerKind.CREDENTIALS: PaceSignal.CREDENTIALS,
    AnswerKind.DENIED: PaceSignal.DENIED,
}


def verdict_on_look(looked: Looked, submission: Submission) -> Report | None:
    """What follows from a look for an earlier call's job; None where Batch is to be called again.

    Batch may have forgotten the token (how long it remembers one is not documented), and would make another job. Where
    jobs may be the submission's and nobody can tell, it is not called for again: a person may have to look.
    """
    if looked.own:
        return Report(verdict=Verdict.FORWARDED, outcome="found", job_id=looked.own.job_id, job_arn=looked.own.job_arn)
    tagged = has_submission_tag(submission.request)
    possible = [one for one in looked.possible if not tagged or one.submission is not None or not one.is_described]
    if possible or not looked.complete:
        return Report(verdict=Verdict.RECONCILE, outcome="not_certain", proved_none=True)
    return None


def verdict_on_failed_look(answer: Answer, leased: Leased, chance: random.Random) -> Report | None:
    """What follows where Batch could not be asked for jobs; None where it never will be, and the token has to do."""
    if answer.kind in (AnswerKind.DENIED, AnswerKind.REFUSED):
        return None
    report = verdict_on(answer, leased, chance)
    if answer.kind is AnswerKind.THROTTLED:  # that was another budget than the one that calls are paced by
        pause = max(answer.wait_seconds, full_jitter_seconds(leased.tries + 1, chance))
        return replace(report, signal=PaceSignal.NONE, delay_seconds=pause, wait_seconds=0.0)
    return replace(report, proved_none=True)  # the look made none


def verdict_on(answer: Answer, leased: Leased, chance: random.Random) -> Report:
    """The table's row for this answer; `max_attempts` and the window are the store's to apply, by its clock."""
    signal = _SIGNALS[answer.kind]
    match answer.kind:
        case AnswerKind.SUBMITTED:
            return Report(
                verdict=Verdict.FORWARDED,
                outcome=answer.kind,
                signal=signal,
                job_id=answer.job_id,
                job_arn=answer.job_arn,
            )
        case AnswerKind.THROTTLED | AnswerKind.NOT_SENT | AnswerKind.CREDENTIALS | AnswerKind.DENIED:
            return Report(
                verdict=Verdict.RETRY,
                outcome=answer.kind,
                proved_none=True,
                signal=signal,
                wait_seconds=answer.wait_seconds,
                failure=answer.failure,
            )
        case AnswerKind.TRANSIENT | AnswerKind.UNCLEAR:
            proved_none = answer.kind is AnswerKind.TRANSIENT and not answer.maybe_made
            delay = full_jitter_seconds(leased.tries + 1, chance) + (0 if proved_none else LISTED_WITHIN_SECONDS)
            return Report(
                verdict=Verdict.RETRY,
                outcome=answer.kind,
                charged=True,
                proved_none=proved_none,
                delay_seconds=max(answer.wait_seconds, delay),
                signal=signal,
                failure=answer.failure,
            )
        case AnswerKind.REFUSED:
            # Batch refuses a repeated token too: after a call that may have made a job, a refusal proves nothing.
            return Report(
                verdict=Verdict.RECONCILE if leased.maybe_sent else Verdict.REJECT,
                outcome=answer.kind,
                charged=True,
                proved_none=True,
                signal=signal,
                failure=answer.failure,
            )
