"""What else is asked of Batch for a submission: whether a job of its name exists, whose it is, to end it, to move it.

The only documented way to a job whose submission had no answer is by its name: `ListServiceJobs` filtered by JOB_NAME
is case-insensitive and newest first, and `DescribeServiceJob` has the tags (FACTS.md, "The call").
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from gateway.batch.answers import MalformedAnswerError, name_in
from gateway.batch.failures import failing_as_calls_do
from gateway.core.reconcile import Candidate, NamedJobs
from gateway.core.submission import SUBMISSION_TAG

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

# Connections beyond those that submissions have, and how many errands a process has in hand: nothing here waits for a
# submission, or the other way round. Four use what Batch allows beside submissions.
ERRAND_CONNECTIONS = 4
# The most that Batch gives in a page.
PAGE_JOBS = 100
# A sweep may have one name for thousands of jobs: what Batch takes in ten minutes. And an answer can name a next page
# for ever.
MAX_PAGES = 30


class ErrandClient:
    """The core's ErrandCalls over an aiobotocore client of Batch, each call with a deadline.

    Raises CallFailedError for whatever the network or Batch does.
    """

    def __init__(self, client: Any, *, call_timeout_seconds: float) -> None:
        self._client = client
        self._call_timeout_seconds = call_timeout_seconds
        self._slots = asyncio.Semaphore(ERRAND_CONNECTIONS)

    async def jobs_named(self, request: bytes, since: datetime) -> NamedJobs:
        """The jobs with the frozen request's queue and name created since then; of more than 3,000 not all."""
        since_ms = since.timestamp() * 1000
        found: list[str] = []
        with failing_as_calls_do():
            asked = json.loads(request)
            query = {"jobQueue": asked["jobQueue"], "filters": [{"name": "JOB_NAME", "values": [asked["jobName"]]}]}
            for _ in range(MAX_PAGES):
                page = await self._call(self._client.list_service_jobs, maxResults=PAGE_JOBS, **query)
                jobs = page["jobSummaryList"]
                newer = [job for job in jobs if not _is_before(job, since_ms)]
                found += [name_in(job, "jobId") for job in newer if job["jobName"] == asked["jobName"]]
                if len(newer) < len(jobs) or "nextToken" not in page:
                    return _named(found)  # newest first: past an older job, the rest is older still
                query["nextToken"] = _page_token(page)
        return _named(found, complete=False)

    async def candidate(self, job_id: str) -> Candidate:
        with failing_as_calls_do():
            job = await self._call(self._client.describe_service_job, jobId=job_id)
            if job.get("jobId") != job_id:
                raise MalformedAnswerError("Batch described another job than it was asked for.")
            submission = (job.get("tags") or {}).get(SUBMISSION_TAG)
            if submission is not None and not isinstance(submission, str):
                raise MalformedAnswerError("Batch answered 200 with a tag that is no text.")
            return Candidate(job_id=job_id, job_arn=name_in(job, "jobArn"), submission=submission)

    async def terminate(self, job_id: str, reason: str) -> None:
        with failing_as_calls_do():
            _check_origin(await self._call(self._client.terminate_service_job, jobId=job_id, reason=reason))

    async def update(self, job_id: str, priority: int) -> None:
        with failing_as_calls_do():
            _check_origin(await self._call(self._client.update_service_job, jobId=job_id, schedulingPriority=priority))

    async def _call(self, operation: Any, **params: Any) -> dict[str, Any]:
        async with asyncio.timeout(self._call_timeout_seconds), self._slots:
            answer: dict[str, Any] = await operation(**params)
        return answer


def _named(ids: Sequence[str], *, complete: bool = True) -> NamedJobs:
    """Pages move on while jobs are made: one may have been on two."""
    return NamedJobs(ids=list(dict.fromkeys(ids)), complete=complete)


def _check_origin(answer: dict[str, Any]) -> None:
    """These answers may be empty, so that any proxy's page would pass for one; but AWS names each request."""
    if not answer["ResponseMetadata"].get("RequestId"):
        raise MalformedAnswerError("The answer 200 has no request id, so it is not Batch's.")


def _is_before(job: dict[str, Any], since_ms: float) -> bool:
    """A job that does not say when it was created may be ours: its tag will tell."""
    created_ms = job.get("createdAt")
    if created_ms is None:
        return False
    if isinstance(created_ms, int | float):
        return created_ms < since_ms
    raise MalformedAnswerError("Batch answered 200 with a job whose createdAt is no time.")


def _page_token(page: dict[str, Any]) -> str:
    token = page["nextToken"]
    if isinstance(token, str):
        return token
    raise MalformedAnswerError("Batch answered 200 with a nextToken that is none.")
