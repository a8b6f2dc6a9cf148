"""Looks through Batch's jobs for the one that a submission may have: before it is tried again, or instead of that."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from gateway.core.attempt import AnswerKind
from gateway.core.errors import StoreUnavailableError
from gateway.core.reconcile import CLOCKS_DIFFER, CallFailedError, Candidate, NamedJobs, own_job, possible_jobs

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping, Sequence
    from datetime import datetime

    from gateway.core.attempt import Answer
    from gateway.core.identity import SubmissionId
    from gateway.core.submission import Submission

Found = TypeVar("Found")

# Jobs of the same name that are no other submission's: past so many a person has to look.
MAX_CANDIDATES = 50
STORE_RETRY_SECONDS = 0.2
# What Batch answers where it knows of no such job or queue, or the job has ended.
NO_SUCH_THING = "ClientException"


class JobCalls(Protocol):
    """What Batch is asked. Raises CallFailedError for whatever the network or Batch does."""

    async def jobs_named(self, request: bytes, since: datetime) -> NamedJobs: ...
    async def candidate(self, job_id: str) -> Candidate: ...


class JobOwners(Protocol):
    """Whose jobs these are, as far as that is known. Raises StoreUnavailableError."""

    async def owners(self, job_ids: Sequence[str]) -> Mapping[str, SubmissionId]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What was seen: the job that is surely the submission's, and all that may be; `complete` where these are all."""

    own: Candidate | None
    possible: Sequence[Candidate]
    complete: bool


class JobSearch:
    """Looks through one upstream's jobs."""

    def __init__(self, *, batch: JobCalls, owners: JobOwners) -> None:
        self._batch = batch
        self._owners = owners

    async def look(self, submission: Submission, maybe_sent_since: datetime) -> Looked:
        """Raises CallFailedError where Batch could not be asked."""
        wanted = submission.submission_id
        since = maybe_sent_since - CLOCKS_DIFFER
        named = await _if_known(self._batch.jobs_named(submission.request, since)) or NamedJobs(ids=())
        owners = await self._known_owners(named.ids)
        free = [job_id for job_id in named.ids if owners.get(job_id, wanted) == wanted]
        candidates = await self._candidates(free[:MAX_CANDIDATES])
        return Looked(
            own=own_job(candidates, wanted),
            possible=possible_jobs(candidates, wanted),
            complete=named.complete and len(free) <= MAX_CANDIDATES,
        )

    async def _candidates(self, job_ids: Sequence[str]) -> list[Candidate]:
        try:
            async with asyncio.TaskGroup() as described:  # the first that fails ends the others
                asked = [described.create_task(self._candidate(job_id)) for job_id in job_ids]
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return [one.result() for one in asked]

    async def _candidate(self, job_id: str) -> Candidate:
        """One that Batch does not describe may be ours, for all that is known."""
        described = await _if_known(self._batch.candidate(job_id))
        return described or Candidate(job_id=job_id, job_arn="", submission=None)

    async def _known_owners(self, job_ids: Sequence[str]) -> Mapping[str, SubmissionId]:
        while True:
            with suppress(StoreUnavailableError):
                return await self._owners.owners(job_ids)
            await asyncio.sleep(STORE_RETRY_SECONDS)


async def _if_known(call: Awaitable[Found]) -> Found | None:
    """None where Batch knows of no such thing. Raises CallFailedError for all else that fails."""
    try:
        return await call
    except CallFailedError as error:
        if is_unknown(error.answer):
            return None
        raise


def is_unknown(answer: Answer) -> bool:
    return answer.kind is AnswerKind.REFUSED and answer.code == NO_SUCH_THING
