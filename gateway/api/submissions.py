"""`/v1/submissions`: submit and look up."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from uuid import UUID

from aiohttp import web

from gateway.api.bodies import json_object, known_query
from gateway.api.codec import encode, encode_findings
from gateway.api.keys import CALLER, DECODER, INTAKE, TRACEPARENT, Told
from gateway.core.errors import (
    DuplicateRequestError,
    MalformedError,
    NotFoundError,
    StoreUnavailableError,
    TokenReusedError,
)
from gateway.core.identity import SubmissionId
from gateway.core.submission import State, Submission

if TYPE_CHECKING:
    from gateway.core.intake import Accepted
    from gateway.core.submission import SubmissionRequest

MAX_WAIT_SECONDS = 30.0
MAX_TOKEN_CHARACTERS = 64

_WAIT = re.compile(r'\s*wait\s*=\s*"?(\d{1,9})"?\s*', re.IGNORECASE)


def routes() -> list[web.AbstractRouteDef]:
    return [
        web.post("/v1/submissions", submit),
        web.get("/v1/submissions/{id}", show),
    ]


async def submit(request: web.Request) -> web.Response:
    """202 while it is queued, 200 once it is final; `Prefer: wait=N` holds the answer back until then."""
    if "Deadline" in request.headers:  # who has one must not be forwarded after it
        raise MalformedError("The header Deadline is not built yet.")
    wait_seconds = preferred_wait(request)
    header_token = idempotency_key(request)
    known_query(request, "dryRun")
    body = await json_object(request)
    asked = request.app[DECODER].request(body, header_token)
    if _dry_run(request):
        return await _checked(request, asked)
    accepted = await _accept(request, asked)
    submission = accepted.submission
    if wait_seconds and submission.state is State.QUEUED:
        with suppress(StoreUnavailableError):  # it is accepted: a store that goes away now takes nothing back
            submission = await request.app[INTAKE].find_settled(submission, request[CALLER], wait_seconds)
    response = await _resource(request, submission, waited=wait_seconds)
    response.headers["Location"] = f"/v1/submissions/{submission.submission_id}"
    if accepted.replayed:
        response.headers["Idempotent-Replayed"] = "true"
    return response


async def show(request: web.Request) -> web.Response:
    """The submission as it stands, or once it has left `queued` with `Prefer: wait=N`."""
    wait_seconds = preferred_wait(request)
    try:
        wanted = SubmissionId(str(UUID(request.match_info["id"])))
    except ValueError:
        raise NotFoundError("A submission's id is a UUID.") from None
    request[Told.KEY].submission_id = wanted
    submission = await request.app[INTAKE].find(wanted, request[CALLER])
    if wait_seconds:
        submission = await request.app[INTAKE].find_settled(submission, request[CALLER], wait_seconds)
    request[Told.KEY].share = str(submission.share)
    return await _resource(request, submission, waited=wait_seconds, found=True)


def preferred_wait(request: web.Request) -> float:
    """The seconds of `Prefer: wait=N` (RFC 7240), at most 30; 0 without one or with one that makes no sense."""
    for header in request.headers.getall("Prefer", []):
        for preference in header.split(","):
            match = _WAIT.fullmatch(preference.split(";")[0])
            if match:
                return min(float(match[1]), MAX_WAIT_SECONDS)
    return 0.0


def idempotency_key(request: web.Request) -> str | None:
    """The header's value, bare or quoted as a structured field's string. Raises MalformedError."""
    values = set(request.headers.getall("Idempotency-Key", []))
    if not values:
        return None
    if len(values) > 1:
        raise MalformedError("The header Idempotency-Key is there twice, with different values.")
    value = values.pop().strip()
    if value.startswith('"'):
        if not value.endswith('"') or len(value) < len('""') + 1:
            raise MalformedError("The header Idempotency-Key has an opening quote and no closing one, or is empty.")
        value = re.sub(r'\\(["\\])', r"\1", value[1:-1])
    if not 1 <= len(value) <= MAX_TOKEN_CHARACTERS or not value.isprintable():
        raise MalformedError(f"The header Idempotency-Key must hold 1 to {MAX_TOKEN_CHARACTERS} printable characters.")
    return value


def _dry_run(request: web.Request) -> bool:
    """Who wants a check only must not get a job: a value that is neither true nor false is an error."""
    value = request.query.get("dryRun", "false")
    if value not in ("true", "false"):
        raise MalformedError("The query parameter dryRun must be true or false.")
    return value == "true"


async def _checked(request: web.Request, asked: SubmissionRequest) -> web.Response:
    request[Told.KEY].share = str(asked.share)
    new = await request.app[INTAKE].check(asked, request[CALLER])
    body: dict[str, Any] = {"dryRun": True, "warnings": encode_findings(new.warnings)}
    if not new.token_generated:  # without a token of the caller's it will be another one
        body["submissionId"], body["clientToken"] = new.submission_id, new.client_token
    return web.json_response(body)


async def _accept(request: web.Request, asked: SubmissionRequest) -> Accepted:
    told = request[Told.KEY]
    told.share = str(asked.share)
    try:
        accepted = await request.app[INTAKE].submit(asked, request[CALLER], request.get(TRACEPARENT))
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
