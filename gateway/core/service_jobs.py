"""Service jobs as Batch's callers see them: what waits here and what Batch has, under both kinds of id.

An answer carries the id that it was asked with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from gateway.core.attempt import AnswerKind
from gateway.core.errors import (
    AlreadyFinalError,
    TooManyReadsError,
)
from gateway.core.identity import TAG_CHARACTERS
from gateway.core.job_view import description
from gateway.core.reads import is_refusal, upstream_errors
from gateway.core.reconcile import CallFailedError
from gateway.core.submission import State

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from gateway.core.caller import Caller
    from gateway.core.changes import Changed, Changes
    from gateway.core.job_reads import JobReads
    from gateway.core.lookup import Located, Lookup
    from gateway.core.outlook import Outlook
    from gateway.core.reads import Aged, PacedCalls
    from gateway.core.submission import Submission
    from gateway.core.upstream import Routes, Upstream

Answered = TypeVar("Answered")

# Batch may not know a job yet that it has just made.
SETTLING_SECONDS = 60.0
# Batch made a job before the store heard of it, by clocks that are set right; one that is not found so is described.
CLOCKS_DIFFER_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """DescribeServiceJob's members, how old they are, and Batch's own ARN of the job where there is one."""

    members: dict[str, Any]
    seconds: float = 0.0
    job_arn: str | None = None
    submission: Submission | None = None


class ServiceJobs:
    """Describe, terminate and update. Readers, calls and outlooks are by the upstream's tag."""

    def __init__(
        self,
        *,
        routes: Routes,
        lookup: Lookup,
        changes: Changes,
        reads: Mapping[str, JobReads],
        calls: Mapping[str, PacedCalls],
        outlooks: Mapping[str, Outlook],
    ) -> None:
        self._routes = routes
        self._lookup = lookup
        self._changes = changes
        self._reads = reads
        self._calls = calls
        self._outlooks = outlooks

    async def describe(self, wanted: str, caller: Caller) -> Described:
        """How it stands. Raises NotFoundError, UpstreamRefusedError and what keeps Batch from answering."""
        located = await self._lookup.locate(wanted, caller)
        submission, upstream = located.submission, located.upstream
        if submission is None or upstream is None:
            return await self._described_by_batch(located)
        if submission.state is not State.FORWARDED or submission.job_id is None:
            outlook = self._outlooks[submission.submission_id[:TAG_CHARACTERS]]
            snapshot = await outlook.snapshot() if submission.state is State.QUEUED else None
            paused = snapshot is not None and submission.share in snapshot.paused
            members = description(await outlook.with_forecast(submission), upstream, paused=paused)
            return Described(members=_as_asked(members, located), job_arn=submission.job_arn, submission=submission)
        aged = await self._of_batch(submission, upstream)
        if aged is None:
            since = await self._lookup.seconds_since_settled(submission)
            found = Described(members=description(submission, upstream), seconds=since)
        else:
            found = Described(members=aged.answer, seconds=aged.seconds)
        return Described(
            members=_as_asked(found.members, located),
            seconds=found.seconds,
            job_arn=submission.job_arn,
            submission=submission,
        )

    async def terminate(self, wanted: str, caller: Caller, reason: str) -> tuple[Submission | None, bool]:
        """End it: at once while it waits here, by a termination that is owed where Batch has it.

        (the submission, None where it is only Batch's; whether something has changed here). What has ended is ended,
        as Batch has it. Raises NotFoundError, AlreadyFinalError for one that may be in Batch unseen, and what keeps
        Batch from answering.
        """
        located = await self._lookup.locate(wanted, caller)
        if located.submission is None:
            await self._ask(located, "TerminateServiceJob", {"reason": reason})
            return None, False
        try:
            changed = await self._changes.cancel(located.submission.submission_id, caller, reason)
        except AlreadyFinalError as error:
            if error.submission.state is State.UNKNOWN:
                raise
            return error.submission, False
        self._forget(changed.submission)
        return changed.submission, True

    async def update(self, wanted: str, caller: Caller, priority: int) -> tuple[dict[str, Any], Submission | None]:
        """(UpdateServiceJob's members, the submission), as `terminate`; raises AlreadyFinalError for all that ended."""
        located = await self._lookup.locate(wanted, caller)
        if located.submission is None:
            answer = await self._ask(located, "UpdateServiceJob", {"schedulingPriority": priority})
            return _as_asked(answer, located), None
        changed: Changed = await self._changes.reprioritize(located.submission.submission_id, caller, priority)
        after = changed.submission
        self._forget(after)
        members = {"jobName": after.job_name, "jobId": after.job_id, "jobArn": after.job_arn}
        return _as_asked(members, located), after

    def _forget(self, submission: Submission) -> None:
        if submission.job_id is not None:
            self._reads[submission.submission_id[:TAG_CHARACTERS]].forget(submission.job_id)

    async def _of_batch(self, submission: Submission, upstream: Upstream) -> Aged | None:
        """None where Batch cannot say how it stands, and it has had the job since a known time."""
        settled = submission.settled_at or submission.accepted_at
        with upstream_errors():
            try:
                return await self._reads[upstream.tag].describe(
                    submission.job_id or "",
                    queue_arn=upstream.queue_arn(submission.share.queue),
                    created_ms=round((settled.timestamp() + CLOCKS_DIFFER_SECONDS) * 1000),
                    patient=False,
                )
            except CallFailedError as error:
                if error.answer.kind is AnswerKind.DENIED:  # that does not pass: who waits for an end must hear of it
                    raise
                if is_refusal(error) and await self._lookup.seconds_since_settled(submission) > SETTLING_SECONDS:
                    raise
                return None

    async def _described_by_batch(self, located: Located) -> Described:
        async def describe(upstream: Upstream) -> Aged:
            aged = await self._reads[upstream.tag].describe(located.job_id or "")
            if aged is None:
                raise TooManyReadsError
            return aged

        aged = await self._of_whom_has_it(located, describe)
        members = _as_asked(aged.answer, located)
        return Described(members=members, seconds=aged.seconds, job_arn=aged.answer.get("jobArn"))

    async def _ask(self, located: Located, operation: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Of a job that only Batch knows."""

        async def call(upstream: Upstream) -> dict[str, Any]:
            return await self._calls[upstream.tag].call(operation, {"jobId": located.job_id, **params})

        return await self._of_whom_has_it(located, call)

    async def _of_whom_has_it(self, located: Located, ask: Callable[[Upstream], Awaitable[Answered]]) -> Answered:
        """Of one upstream after another until one does not refuse; the last one's word counts."""
        *others, last = self._upstreams(located)
        with upstream_errors():
            for upstream in others:
                try:
                    return await ask(upstream)
                except CallFailedError as error:
                    if not is_refusal(error):
                        raise
            return await ask(last)

    def _upstreams(self, located: Located) -> Sequence[Upstream]:
        """Where the job may be: a bare id of a stranger's does not tell."""
        return [located.upstream] if located.upstream else list(self._routes)


def _as_asked(members: Mapping[str, Any], located: Located) -> dict[str, Any]:
    """With the submission's own id and ARN where it was asked for by these, else with the job's."""
    asked = located.as_submission or located.job_id
    if asked is None or located.upstream is None:
        return dict(members)
    return {**members, "jobId": asked, "jobArn": located.upstream.job_arn(asked)}
