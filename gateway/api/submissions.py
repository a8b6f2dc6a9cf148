"""`/v1/submissions`: submit and look up."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from aiohttp import web

from gateway.api.bodies import json_object, known_query
from gateway.api.codec import encode, encode_findings
from gateway.api.headers import deadline_of, idempotency_key, preferred_wait
from gateway.api.keys import CALLER, DECODER, INTAKE, LOOKUP, TRACEPARENT, Told
from gateway.core.errors import (
    DuplicateRequestError,
    MalformedError,
    StoreUnavailableError,
    TokenReusedError,
)
from gateway.core.submission import State, Submission

if TYPE_CHECKING:
    from datetime import datetime

    from gateway.core.intake import Accepted
    from gateway.core.submission import SubmissionRequest


# /v1/submissions/batch is a path of its own, for other methods too.
SUBMISSION_PATH = r"/v1/submissions/{id:(?!batch$)[^/]+}"


def routes() -> list[web.AbstractRouteDef]:
    return [
        web.post("/v1/submissions", submit),
        web.get(SUBMISSION_PATH, show),
    ]


async def submit(request: web.Request) -> web.Response:
    """202 while it is queued, 200 once it is final; `Prefer: wait=N` holds the answer back until then."""
    wait_seconds = preferred_wait(request)
    deadline = deadline_of(request)
    header_token = idempotency_key(request)
    known_query(request, "dryRun")
    body = await json_object(request)
    asked = request.app[DECODER].request(body, header_token)
    if _dry_run(request):
        return await _checked(request, asked)
    accepted = await accept(request, asked, deadline)
    submission = accepted.submission
    if wait_seconds and submission.state is State.QUEUED:
        with suppress(StoreUnavailableError):  # it is accepted: a store that goes away now takes nothing back
            submission = await request.app[LOOKUP].find_settled(submission, request[CALLER], wait_seconds)
    response = await _resource(request, submission, waited=wait_seconds)
    response.headers["Location"] = f"/v1/submissions/{submission.submission_id}"
    if accepted.replayed:
        response.headers["Idempotent-Replayed"] = "true"
    return response


async def show(request: web.Request) -> web.Response:
    """The submission as it stands, or once it has left `queued` with `Prefer: wait=N`."""
    wait_seconds = preferred_wait(request)
    known_query(request)
    submission = await request.app[LOOKUP].find(request.match_info["id"], request[CALLER])
    tell_about(request, submission)
    if wait_seconds:
        submission = await request.app[LOOKUP].find_settled(submission, request[CALLER], wait_seconds)
    return await _resource(request, submission, waited=wait_seconds, found=True)


def tell_about(request: web.Request, submission: Submission) -> None:
    """For the canonical line."""
    told = request[Told.KEY]
    told.submission_id, told.share = submission.submission_id, str(submission.share)


def _dry_run(request: web.Request) -> bool:
    """Who wants a check only must not get a job: a value that is neither true nor false is an error."""
    values = request.query.getall("dryRun", ["false"])
    value = values[0]
    if len(values) > 1 or value not in ("true", "false"):
        raise MalformedError("The query parameter dryRun must be true or false, once.")
    return value == "true"


async def _checked(request: web.Request, asked: SubmissionRequest) -> web.Response:
    request[Told.KEY].share = str(asked.share)
    new = await request.app[INTAKE].check(asked, request[CALLER])
    body: dict[str, Any] = {"dryRun": True, "warnings": encode_findings(new.warnings)}
    if not new.token_generated:  # without a token of the caller's it will be another one
        body["submissionId"], body["clientToken"] = new.submission_id, new.client_token
    return web.json_response(body)


async def accept(
    request: web.Request, asked: SubmissionRequest, deadline: datetime | None = None, *, retried: bool = False
) -> Accepted:
    """Into the store, for every face; the canonical line hears of it. Raises what `Intake.submit` raises."""
    told = request[Told.KEY]
    told.share = str(asked.share)
    try:
        accepted = await request.app[INTAKE].submit(
            asked, request[CALLER], traceparent=request.get(TRACEPARENT), deadline=deadline, retried=retried
        )
    except (TokenReusedError, DuplicateRequestError) as error:
        told.submission_id = error.submission.submission_id
        raise
    except StoreUnavailableError as error:
        told.submission_id = error.submission_id  # it may be in the store: the line must be found by its id
        raise
    told.submission_id, told.replayed = accepted.submission.submission_id, accepted.replayed
    return accepted


async def _resource(
    request: web.Request, submission: Submission, *, waited: float, found: bool = False
) -> web.Response:
    submission = await request.app[INTAKE].with_forecast(submission)
    status = 202 if submission.state is State.QUEUED and not found else 200
    headers = {"Preference-Applied": f"wait={waited:.0f}"} if waited else {}
    return web.json_response(encode(submission), status=status, headers=headers)
