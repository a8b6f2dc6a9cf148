"""What callers and operators change of a submission after it was accepted. The store decides by how it stands then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.core.errors import AlreadyFinalError, DurabilityUnconfirmedError, NotFoundError, WrongStateError
from gateway.core.identity import TAG_CHARACTERS
from gateway.core.submission import State

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.core.caller import Caller
    from gateway.core.journal import Journal
    from gateway.core.lookup import Lookup
    from gateway.core.ports import Change, ChangeStore
    from gateway.core.submission import Submission
    from gateway.core.upstream import Routes


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """The submission as it stands, and whether all is done; else Batch is still to be asked."""

    submission: Submission
    done: bool


class Changes:
    """Cancel, priority, redrive, resolve. Stores and journals are by the upstream's tag."""

    def __init__(
        self,
        *,
        routes: Routes,
        lookup: Lookup,
        stores: Mapping[str, ChangeStore],
        journals: Mapping[str, Journal],
    ) -> None:
        self._routes = routes
        self._lookup = lookup
        self._stores = stores
        self._journals = journals

    async def cancel(self, wanted: str, caller: Caller, reason: str) -> Changed:
        """End a submission: at once, or by a look or a termination that is owed now.

        Raises NotFoundError, and AlreadyFinalError where it is rejected, unknown or expired.
        """
        before = await self._lookup.find(wanted, caller)
        change = await self._store(before).cancel(before.submission_id, reason)
        after = self._after(change, wanted)
        if change.verdict == "final":
            raise AlreadyFinalError(after)
        if change.verdict == "canceled":
            self._journal(after).tell_settled(after)
        _must_last(change, after)
        return Changed(submission=await self._placed(after, caller), done=change.verdict in ("canceled", "done"))

    async def reprioritize(self, wanted: str, caller: Caller, priority: int) -> Changed:
        """Another place in the share's line, or an update that is owed to Batch now.

        Raises NotFoundError, AlreadyFinalError where no job will come of it, WrongStateError where it is to end.
        """
        before = await self._lookup.find(wanted, caller)
        change = await self._store(before).reprioritize(before.submission_id, priority)
        after = self._after(change, wanted)
        if change.verdict == "final" and after.cancel and after.state in (State.QUEUED, State.FORWARDED):
            raise WrongStateError("It is to end, and its priority counts no more.", after)
        if change.verdict == "final":
            raise AlreadyFinalError(after)
        _must_last(change, after)
        return Changed(submission=await self._placed(after, caller), done=change.verdict == "placed")

    async def redrive(self, wanted: str, caller: Caller) -> Submission:
        """Put a rejected one back in line. Raises ForbiddenError, NotFoundError, WrongStateError."""
        caller.must_be_operator()
        before = await self._lookup.find(wanted, caller)
        change = await self._store(before).redrive(before.submission_id)
        after = self._after(change, wanted)
        if change.verdict == "refused":
            raise WrongStateError(_why_no_redrive(after), after)
        _must_last(change, after)
        return await self._placed(after, caller)

    async def resolve(self, wanted: str, caller: Caller, job_id: str | None, *, close: bool = False) -> Submission:
        """Say which job an unknown one has, or with None that it has none; or close a rejected one, for good.

        Raises ForbiddenError, NotFoundError, and WrongStateError where it is no dead letter or the job is another's.
        """
        caller.must_be_operator()
        before = await self._lookup.find(wanted, caller)
        upstream = self._routes.of(before.submission_id)
        job_arn = upstream.job_arn(job_id) if upstream and job_id else None
        change = await self._store(before).resolve(before.submission_id, job_id, job_arn, close=close)
        if change.verdict == "owned":
            raise WrongStateError(f"Job {job_id} is submission {change.owner}'s.", before)
        after = self._after(change, wanted)
        if change.verdict == "refused":
            hint = "Resolve it first." if after.state is State.UNKNOWN else "There is nothing to resolve."
            raise WrongStateError(f"It is {after.state.value}. {hint}", after)
        if before.state is not after.state:
            self._journal(after).tell_settled(after)
        _must_last(change, after)
        return after

    def _store(self, submission: Submission) -> ChangeStore:
        return self._stores[submission.submission_id[:TAG_CHARACTERS]]

    def _journal(self, submission: Submission) -> Journal:
        return self._journals[submission.submission_id[:TAG_CHARACTERS]]

    def _after(self, change: Change, wanted: str) -> Submission:
        if change.submission is None:  # its record expired between the two
            raise NotFoundError(f"No submission {wanted[:256]} is known here.")
        return change.submission

    async def _placed(self, submission: Submission, caller: Caller) -> Submission:
        """With its position, which a script's answer does not tell."""
        if submission.state is not State.QUEUED:
            return submission
        return await self._lookup.find(submission.submission_id, caller)


def _must_last(change: Change, after: Submission) -> None:
    """Raises DurabilityUnconfirmedError for what is done and may be forgotten: nobody is told that it is done."""
    if not change.confirmed:
        raise DurabilityUnconfirmedError().about(after.submission_id, after.client_token)


def _why_no_redrive(submission: Submission) -> str:
    if submission.state is State.UNKNOWN:
        return "It may be in Batch: resolve it first."
    if submission.state is not State.REJECTED:
        return f"It is {submission.state.value}; only rejected ones are put back in line."
    if submission.job_id:
        return f"It turned out to have a job, {submission.job_id}."
    return "It was closed, and what was asked is gone."
