"""Errors as callers see them: RFC 9457 problems. The one table of slugs and status codes."""

from __future__ import annotations

import json
import math
from typing import Any

from aiohttp import web

from gateway.api.codec import encode_findings
from gateway.core import errors

CONTENT_TYPE = "application/problem+json"

# The first class that fits has it, so kinds stand before what they are kinds of.
TABLE: dict[type[errors.GatewayError], tuple[str, int]] = {
    errors.MalformedError: ("malformed", 400),
    errors.UpstreamRefusedError: ("upstream-refused", 400),
    errors.UpstreamDeniedError: ("upstream-denied", 403),
    errors.ForbiddenError: ("forbidden", 403),
    errors.NotFoundError: ("not-found", 404),
    errors.MethodNotAllowedError: ("method-not-allowed", 405),
    errors.DuplicateRequestError: ("duplicate-request", 409),
    errors.AlreadyFinalError: ("already-final", 409),
    errors.WrongStateError: ("wrong-state", 409),
    errors.TooLargeError: ("too-large", 413),
    errors.NotJsonError: ("not-json", 415),
    errors.TokenReusedError: ("token-reused", 422),
    errors.InvalidSubmissionError: ("invalid-submission", 422),
    errors.InvalidChangeError: ("invalid-change", 422),
    errors.RateLimitedError: ("rate-limited", 429),
    errors.TooManySharesError: ("too-many-shares", 429),
    errors.TooManyReadsError: ("too-many-reads", 429),
    errors.TooManyRequestsError: ("too-many-requests", 429),
    errors.BacklogFullError: ("backlog-full", 503),
    errors.DeadlineUnreachableError: ("deadline-unreachable", 503),
    errors.UpstreamUnavailableError: ("upstream-unavailable", 503),
    errors.NotAcceptingError: ("not-accepting", 503),
    errors.DurabilityUnconfirmedError: ("durability-unconfirmed", 503),
    errors.StoreUnavailableError: ("store-unavailable", 503),
    errors.NotReadyError: ("not-ready", 503),
    errors.GatewayError: ("internal", 500),
}


def problem_of(error: errors.GatewayError) -> dict[str, Any]:
    """The problem's members: `type`, `title`, `status`, `detail`, and what this kind of error adds."""
    slug, status = _row_of(error)
    body: dict[str, Any] = {"type": f"/problems/{slug}", "title": title_of(error), "status": status}
    if error.detail:
        body["detail"] = error.detail
    if error.findings:
        body["errors"] = encode_findings(error.findings)
    match error:
        case errors.TokenReusedError():
            body["members"] = list(error.members)
        case errors.DuplicateRequestError():
            body["submissionId"] = error.submission.submission_id
        case errors.AlreadyFinalError() | errors.WrongStateError():
            body["submissionId"], body["state"] = error.submission.submission_id, error.submission.state
        case errors.RefusedError():
            body["limits"] = [
                {"name": one.name, "quota": one.quota, "retryAfterSeconds": whole_seconds(one.retry_after_seconds)}
                for one in error.limits
            ]
        case errors.StoreUnavailableError() if error.submission_id:
            body["submissionId"], body["clientToken"] = error.submission_id, error.client_token
    return body


def response_of(error: errors.GatewayError) -> web.Response:
    body = problem_of(error)
    return web.Response(
        text=json.dumps(body), status=body["status"], content_type=CONTENT_TYPE, headers=headers_of(error)
    )


def slug_of(error: errors.GatewayError) -> str:
    return _row_of(error)[0]


def status_of(error: errors.GatewayError) -> int:
    return _row_of(error)[1]


def of_framework(error: web.HTTPException) -> errors.GatewayError | None:
    """aiohttp's own refusals in our words; None where it is no error."""
    if isinstance(error, web.HTTPNotFound):
        return errors.NotFoundError("No such path; the contract is at /openapi.yaml.")
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        return errors.MethodNotAllowedError(f"This path takes: {allowed}.", allow=allowed)
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return errors.TooLargeError("The body is longer than any request that Batch would take.")
    return errors.MalformedError(error.reason) if error.status in range(400, 500) else None


def headers_of(error: errors.GatewayError) -> dict[str, str]:
    """What a refusal says beside its body: when to come back, and the limits."""
    headers = {}
    if error.retry_after_seconds is not None:
        headers["Retry-After"] = str(whole_seconds(error.retry_after_seconds))
    if isinstance(error, errors.RefusedError):
        rates = [limit for limit in error.limits if limit.window_seconds]
        if rates:  # draft-ietf-httpapi-ratelimit-headers: names are quoted, q and r are counts, w and t are seconds
            headers["RateLimit-Policy"] = ", ".join(
                f'"{one.name}";q={one.quota};w={whole_seconds(one.window_seconds)}' for one in rates
            )
            headers["RateLimit"] = ", ".join(
                f'"{one.name}";r={one.remaining};t={whole_seconds(one.retry_after_seconds)}' for one in rates
            )
    if isinstance(error, errors.DuplicateRequestError):
        headers["Location"] = f"/v1/submissions/{error.submission.submission_id}"
    if isinstance(error, errors.MethodNotAllowedError):
        headers["Allow"] = error.allow
    return headers


def _row_of(error: errors.GatewayError) -> tuple[str, int]:
    return next(row for kind, row in TABLE.items() if isinstance(error, kind))


def title_of(error: errors.GatewayError) -> str:
    return (type(error).__doc__ or "").strip().splitlines()[0].rstrip(".")


def whole_seconds(seconds: float) -> int:
    """Whole seconds, rounded up: who waits so long is not refused again for the same reason."""
    return max(1, math.ceil(seconds - 1e-9))
