"""What holds a submission: who is ahead, which limit, pause or failure, how fast calls go; in one sentence too."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from gateway.core.forecast import shares_ahead
from gateway.core.identity import TAG_CHARACTERS
from gateway.core.submission import State

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.core.forecast import Snapshot
    from gateway.core.outlook import Outlook
    from gateway.core.ports import DenialStore, ShareStatus, ShareStore, UpstreamStatus, UpstreamStore
    from gateway.core.share import Share
    from gateway.core.submission import Attempt, Submission

# The shares with most ahead; the others are in the sum.
SHARES_NAMED = 20
ERRORS_NAMED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """One thing that keeps it from Batch now; `until` is when that ends by itself, as far as it does."""

    kind: str
    detail: str
    until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why a submission stands where it does.

    `calls_before` counts the submissions that go first, those of its own share among them; None where nobody can say.
    """

    submission: Submission
    sentence: str
    holds: Sequence[Hold]
    calls_before: int | None
    ahead: Sequence[tuple[Share, int]]
    share: ShareStatus
    upstream: UpstreamStatus
    last_errors: Sequence[Attempt]


class Explainer:
    """Gathers what an explanation rests on. All by the upstream's tag."""

    def __init__(
        self,
        *,
        shares: Mapping[str, ShareStore],
        upstreams: Mapping[str, UpstreamStore],
        denials: Mapping[str, DenialStore],
        outlooks: Mapping[str, Outlook],
    ) -> None:
        self._shares = shares
        self._upstreams = upstreams
        self._denials = denials
        self._outlooks = outlooks

    async def explain(self, submission: Submission) -> Explanation:
        """Raises StoreUnavailableError."""
        tag = submission.submission_id[:TAG_CHARACTERS]
        outlook = self._outlooks[tag]
        submission = await outlook.with_forecast(submission)
        share = await self._shares[tag].share(submission.share)
        upstream = await self._upstreams[tag].upstream()
        denied_until = await self._denials[tag].denied_until(submission.submission_id)
        snapshot = await outlook.snapshot()
        return explain(submission, share=share, upstream=upstream, denied_until=denied_until, snapshot=snapshot)


def explain(
    submission: Submission,
    *,
    share: ShareStatus,
    upstream: UpstreamStatus,
    denied_until: datetime | None,
    snapshot: Snapshot | None,
) -> Explanation:
    """`denied_until`: when its queue and role, which IAM denies, are tried again."""
    queued = submission.state is State.QUEUED
    holds = _holds(submission, share, upstream, denied_until) if queued else []
    ahead: Mapping[Share, int] | None = None
    if share.paused or not upstream.forwarding:  # as it is now; the forecast may be a second old
        submission = replace(submission, estimated_forward_at=None)
    elif queued and snapshot is not None and submission.position:
        ahead = shares_ahead(snapshot, submission.share, submission.position)
    calls_before = sum(ahead.values()) if ahead is not None else None
    named = sorted(((one, count) for one, count in (ahead or {}).items() if count), key=lambda pair: -pair[1])
    return Explanation(
        submission=submission,
        sentence=_sentence(submission, holds, calls_before, upstream) if queued else _ending(submission),
        holds=holds,
        calls_before=calls_before,
        ahead=named[:SHARES_NAMED],
        share=share,
        upstream=upstream,
        last_errors=[one for one in submission.attempts if one.error][-ERRORS_NAMED:],
    )


def _holds(
    submission: Submission, share: ShareStatus, upstream: UpstreamStatus, denied_until: datetime | None
) -> list[Hold]:
    """What counts most first."""
    if submission.position == 0 and submission.cancel:
        return [Hold(kind="ending", detail="It is to end, and Batch is being asked whether it has a job of it.")]
    if submission.sought:
        detail = "An answer of Batch's was lost, and Batch is looked through for its job, three times in two minutes."
        return [Hold(kind="looked-for", detail=detail)]
    if submission.position == 0:
        return [Hold(kind="with-batch", detail="Batch is being called for it.")]
    holds = []
    if not upstream.forwarding:
        holds.append(Hold(kind="forwarding-off", detail="An operator switched forwarding off for its upstream."))
    if share.paused:
        because = f" ({share.paused_because})" if share.paused_because else ""
        holds.append(Hold(kind="share-paused", detail=f"Its share {share.share} is paused{because}."))
    if denied_until is not None:
        detail = "IAM denies its queue with its role; one of those is tried at that time."
        holds.append(Hold(kind="role-denied", detail=detail, until=denied_until))
    elif submission.not_before is not None:
        holds.append(_delay(submission))
    return [*holds, *_upstream_holds(upstream)]


def _upstream_holds(upstream: UpstreamStatus) -> list[Hold]:
    match upstream.condition:
        case "outage":
            return [Hold(kind="outage", detail="Batch does not answer; one call a second asks whether it does.")]
        case "held":
            detail = "Batch does not take the gateway's credentials."
            return [Hold(kind="credentials", detail=detail, until=upstream.held_until)]
        case "throttled":
            return [Hold(kind="throttled", detail="Batch told the gateway to wait.", until=upstream.held_until)]
        case _:
            return []


def _delay(submission: Submission) -> Hold:
    if not submission.attempts:
        detail = "Its share sends faster than its rate, and keeps what is over for later."
        return Hold(kind="over-rate", detail=detail, until=submission.not_before)
    last = submission.attempts[-1]
    detail = f"Its last try ended as {last.outcome}{f' ({last.error})' if last.error else ''}; the next comes later."
    return Hold(kind="retry", detail=detail, until=submission.not_before)


def _sentence(submission: Submission, holds: Sequence[Hold], calls_before: int | None, upstream: UpstreamStatus) -> str:
    if holds:
        first = holds[0]
        until = f" Until {_clock(first.until)}." if first.until else ""
        return f"{first.detail}{until}"
    place = f"It is number {submission.position} in its share {submission.share}"
    if calls_before is None:
        return f"{place}."
    ahead = "nothing goes before it" if not calls_before else f"{calls_before} go to Batch before it"
    expected = submission.estimated_forward_at
    when = f", so it goes at about {_clock(expected)}" if expected else ""
    return f"{place}; {ahead}, at {upstream.pace:.3g} calls a second{when}."


def _ending(submission: Submission) -> str:
    if submission.state is State.FORWARDED:
        owed = ", and is owed its termination" if submission.owes_termination else ""
        if submission.cancel and not submission.owes_termination and submission.error:
            owed = f", and refuses to end it ({submission.error.code}); canceling it again asks again"
        told = ", and was told to terminate it" if submission.terminated_at else owed
        return f"Batch has it as job {submission.job_id}{told}."
    if submission.job_id:  # an answer that came too late
        told = "was told to end it" if submission.terminated_at else "is owed its termination"
        return f"It is {submission.state.value}; Batch made job {submission.job_id} of it all the same, and {told}."
    error = f": {submission.error.code}, {submission.error.message.rstrip('.')}" if submission.error else ""
    return {
        State.REJECTED: "It was rejected and closed."
        if submission.closed
        else f"It was rejected, and an operator can put it back in line{error}.",
        State.UNKNOWN: f"It may be in Batch, and a person must look{error}.",
        State.EXPIRED: "Its deadline came before it went to Batch.",
        State.CANCELED: "Its caller canceled it before it went to Batch.",
    }[submission.state]


def _clock(moment: datetime | None) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if moment else "a time that nobody knows"
