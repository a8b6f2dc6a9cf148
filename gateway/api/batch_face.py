"""Batch's own face: its service-job operations in its wire format, for clients that know only Batch.

Paths, members and error codes are those of AWS's API model (`batch`, 2016-08-10). A submission takes the very same way
as in `submissions.py`.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

from aiohttp import web
from pydantic import Field, ValidationError

from gateway.api.bodies import json_object, known_query
from gateway.api.change import Change
from gateway.api.codec import Whole, pydantic_findings
from gateway.api.edits import tell_changed
from gateway.api.keys import CALLER, DECODER, JOB_LISTING, LOOKUP, QUEUE_READS, SERVICE_JOBS, WAIT_SECONDS
from gateway.api.submissions import accept, tell_about
from gateway.core.errors import InvalidChangeError, StoreUnavailableError, UpstreamRefusedError
from gateway.core.queue_reads import QueueReads
from gateway.core.reads import upstream_errors
from gateway.core.submission import State, Submission

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from aiohttp.typedefs import Handler

    from gateway.api.change import Kind
    from gateway.core.reads import Aged

# Ours beside Batch's: which submission an answer is about, the ARN of its job where the answer carries ours, and what
# is odd about what was asked.
SUBMISSION_HEADER = "x-gateway-submission-id"
JOB_ARN_HEADER = "x-gateway-job-arn"
WARNING_HEADER = "x-gateway-warning"
MAX_WARNING_CHARACTERS = 500
# What the last look at the store may take once the wait is over.
LOOK_SECONDS = 0.25

# An SDK's own retry of a call that it got no answer to.
_LATER_TRY = re.compile(r"attempt=(?!1(\D|$))\d")


class JobId(Change):
    """An id of either kind, or an ARN of it."""

    job_id: Annotated[str, Field(min_length=1, max_length=2048)]


class Termination(JobId):
    reason: Annotated[str, Field(max_length=2048)]


class Update(JobId):
    scheduling_priority: Annotated[int, Whole, Field(ge=0, le=9999)]


def routes() -> list[web.AbstractRouteDef]:
    return [
        web.post("/v1/submitservicejob", submit),
        web.post("/v1/describeservicejob", describe),
        web.post("/v1/listservicejobs", list_jobs),
        web.post("/v1/terminateservicejob", terminate),
        web.post("/v1/updateservicejob", update),
        web.post("/v1/describejobqueues", _read(QueueReads.describe_job_queues)),
        web.post("/v1/describeschedulingpolicies", _read(QueueReads.describe_scheduling_policies)),
        web.post("/v1/getjobqueuesnapshot", job_queue_snapshot),
        web.post("/v1/listquotashares", _read(QueueReads.list_quota_shares)),
        web.post("/v1/describequotashare", _read(QueueReads.describe_quota_share)),
    ]


async def submit(request: web.Request) -> web.Response:
    """Batch's ids where it could be called at once and answers within `wait_seconds`, else the gateway's own."""
    asked = request.app[DECODER].request(await _body(request), text_payload=True)
    accepted = await accept(
        request, asked, retried=_LATER_TRY.search(request.headers.get("amz-sdk-request", "")) is not None
    )
    submission, wait_seconds = accepted.submission, request.app[WAIT_SECONDS]
    if accepted.at_once and wait_seconds:
        # It is accepted: a store that goes away now, or hangs, takes nothing back.
        with suppress(StoreUnavailableError, TimeoutError):
            async with asyncio.timeout(wait_seconds + LOOK_SECONDS):
                submission = await request.app[LOOKUP].find_settled(submission, request[CALLER], wait_seconds)
    if submission.state is State.REJECTED:
        raise UpstreamRefusedError(_why(submission))
    headers: dict[str, str] = {SUBMISSION_HEADER: submission.submission_id}
    if accepted.replayed:
        headers["Idempotent-Replayed"] = "true"
    if submission.warnings:
        headers[WARNING_HEADER] = _warning(submission)
    members: dict[str, Any] = {"jobArn": submission.job_arn, "jobName": submission.job_name, "jobId": submission.job_id}
    if submission.job_id is None:
        members["jobId"] = submission.submission_id
        members["jobArn"] = request.app[LOOKUP].own_arn(submission)
    return _answer(members, headers)


async def describe(request: web.Request) -> web.Response:
    """As it stands here, or as Batch says; `Age` tells how old that is."""
    asked = await _members(request, JobId)
    described = await request.app[SERVICE_JOBS].describe(asked.job_id, request[CALLER])
    headers = _age(described.seconds)
    if described.submission is not None:
        tell_about(request, described.submission)
        headers[SUBMISSION_HEADER] = described.submission.submission_id
    if described.job_arn is not None:
        headers[JOB_ARN_HEADER] = described.job_arn
    return _answer(described.members, headers)


async def list_jobs(request: web.Request) -> web.Response:
    """What waits here and Batch's own list, in one walk; `Age` tells how old what Batch says is."""
    asked = await _body(request)
    with upstream_errors():
        page = await request.app[JOB_LISTING].page(asked, request[CALLER])
    return _answer(page.answer, _age(page.seconds))


async def terminate(request: web.Request) -> web.Response:
    """An empty answer once it has ended, or its termination is owed."""
    asked = await _members(request, Termination)
    submission, changed = await request.app[SERVICE_JOBS].terminate(asked.job_id, request[CALLER], asked.reason)
    if submission is not None and changed:
        tell_changed(request, submission, "cancel")
    elif submission is not None:
        tell_about(request, submission)
    return _answer({}, {})


async def update(request: web.Request) -> web.Response:
    """The job's ids once it has its new place, or its update is owed."""
    asked = await _members(request, Update)
    members, submission = await request.app[SERVICE_JOBS].update(
        asked.job_id, request[CALLER], asked.scheduling_priority
    )
    if submission is not None:
        tell_changed(request, submission, "priority")
    return _answer(members, {})


async def job_queue_snapshot(request: web.Request) -> web.Response:
    """What stands at the front of a queue at Batch, as far as the caller may see it."""
    aged = await request.app[QUEUE_READS].job_queue_snapshot(await _asked(request), request[CALLER])
    return web.json_response(aged.answer, headers=_age(aged.seconds))


def _read(ask: Callable[[QueueReads, Mapping[str, Any]], Awaitable[Aged]]) -> Handler:
    """What only Batch knows: asked of it, and passed on."""

    async def read(request: web.Request) -> web.Response:
        aged = await ask(request.app[QUEUE_READS], await _asked(request))
        return web.json_response(aged.answer, headers=_age(aged.seconds))

    return read


async def _asked(request: web.Request) -> dict[str, Any]:
    """The body; null is as good as absent, as with Batch."""
    return {name: value for name, value in (await _body(request)).items() if value is not None}


async def _body(request: web.Request) -> dict[str, Any]:
    """An object, whatever the content type says: SDKs have their own. Nothing at all is an empty one.

    Raises MalformedError, for a query string too: who writes dryRun there must not get a job.
    """
    known_query(request)
    return await json_object(request, any_type=True) if request.can_read_body else {}


async def _members(request: web.Request, kind: type[Kind]) -> Kind:
    try:
        return kind.model_validate(await _body(request))
    except ValidationError as error:
        raise InvalidChangeError(findings=pydantic_findings(error)) from error


def _answer(members: Mapping[str, Any], headers: Mapping[str, str]) -> web.Response:
    return web.json_response(members, headers=headers)


def _warning(submission: Submission) -> str:
    """All that is odd, in one line: the pointers may have any text of the caller's in them."""
    told = "; ".join(f"{one.pointer}: {one.detail}" for one in submission.warnings)
    return re.sub(r"[^\x20-\x7e]", "?", told)[:MAX_WARNING_CHARACTERS]


def _age(seconds: float) -> dict[str, str]:
    return {"Age": str(int(seconds))}


def _why(submission: Submission) -> str:
    reason = f"{submission.error.code}: {submission.error.message}" if submission.error else "no reason is known"
    return f"Submission {submission.submission_id} was rejected: {reason}"
