"""Around every request: its id, its caller, errors as problems, and one canonical line in the log however it ends."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING
from uuid import uuid4

from aiohttp import web

from gateway.api import batch_errors, problems
from gateway.api.keys import AUTHENTICATOR, CALLER, DRAINING, LOG, MAX_REQUESTS, REQUEST_ID, TRACEPARENT, Told
from gateway.core.errors import GatewayError, MalformedError, NotFoundError, TooManyRequestsError

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler, Middleware

_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
# W3C Trace Context, version 00 and those that extend it; all-zero ids are invalid.
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")
# An invocation's UUID; `attempt=2; max=5`, with a `ttl` at times.
_SDK_VALUE = re.compile(r"[\x20-\x7e]{1,128}")

_SERVER_ERROR = 500
_QUIET = frozenset({"/livez", "/readyz"})


def middlewares() -> list[Middleware]:
    """In the order in which a request meets them."""
    return [canonical_line, errors_as_problems, bounded(), caller_known]


@web.middleware
async def canonical_line(request: web.Request, handler: Handler) -> web.StreamResponse:
    began = time.perf_counter()
    request_id = request.headers.get("X-Request-Id", "")
    request[REQUEST_ID] = request_id if _REQUEST_ID.fullmatch(request_id) else uuid4().hex
    trace = request.headers.get("traceparent", "")
    if _TRACEPARENT.fullmatch(trace):
        request[TRACEPARENT] = trace[:55]
    told = request[Told.KEY] = Told()
    status = _SERVER_ERROR
    try:
        response = await handler(request)
        status = response.status
        response.headers["X-Request-Id"] = request[REQUEST_ID]
        if batch_errors.is_spoken_at(request.method, request.path):
            response.headers["x-amzn-RequestId"] = request[REQUEST_ID]
        if request.app[DRAINING].is_set():
            response.force_close()  # else a balancer sends its next request into a connection that is going away
        return response
    finally:
        _write_line(request, told, status, began)


@web.middleware
async def errors_as_problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except GatewayError as error:
        return _problem(request, error)
    except web.HTTPException as error:
        translated = problems.of_framework(error)
        if isinstance(translated, NotFoundError) and batch_errors.is_spoken_at(request.method, request.path):
            translated = batch_errors.unknown_operation()
        if translated is None:
            raise
        return _problem(request, translated)
    except (web.RequestPayloadError, ConnectionResetError):  # no bug of ours: it was cut off, or is not compressed so
        return _problem(request, MalformedError("The body did not come whole, or is not as its Content-Encoding says."))
    except Exception:  # noqa: BLE001 - a bug is a silent 500 for the caller and a traceback in the log
        request.app[LOG].error("unexpected_error", request_id=request[REQUEST_ID], exc_info=True)
        return _problem(request, GatewayError("Something failed that should not; the log has it by the request id."))


def bounded() -> Middleware:
    """Refuses what comes beyond MAX_REQUESTS in hand, long polls among them; health checks always pass."""
    in_hand = 0

    @web.middleware
    async def counted(request: web.Request, handler: Handler) -> web.StreamResponse:
        nonlocal in_hand
        if in_hand >= request.app[MAX_REQUESTS] and request.path not in _QUIET:
            raise TooManyRequestsError("This process holds as many requests as it can; another one may have room.")
        in_hand += 1
        try:
            return await handler(request)
        finally:
            in_hand -= 1

    return counted


@web.middleware
async def caller_known(request: web.Request, handler: Handler) -> web.StreamResponse:
    caller = await request.app[AUTHENTICATOR].caller(request)
    request[CALLER] = caller
    request[Told.KEY].principal = caller.name
    return await handler(request)


def _problem(request: web.Request, error: GatewayError) -> web.Response:
    request[Told.KEY].problem = problems.slug_of(error)
    if batch_errors.is_spoken_at(request.method, request.path):
        return batch_errors.response_of(error)
    return problems.response_of(error)


def _write_line(request: web.Request, told: Told, status: int, began: float) -> None:
    resource = request.match_info.route.resource
    route = resource.canonical if resource else None
    if route in _QUIET and status < _SERVER_ERROR:
        return
    trace = request.get(TRACEPARENT)
    request.app[LOG].info(
        "request",
        request_id=request[REQUEST_ID],
        trace_id=trace.split("-")[1] if trace else None,
        principal=told.principal,
        method=request.method,
        route=route,
        status=status,
        duration_ms=round((time.perf_counter() - began) * 1000, 2),
        problem=told.problem,
        submission_id=told.submission_id,
        share=told.share,
        replayed=told.replayed,
        items=told.items,
        accepted=told.accepted,
        amz_sdk_invocation_id=_sdk_header(request, "amz-sdk-invocation-id"),
        amz_sdk_request=_sdk_header(request, "amz-sdk-request"),
    )


def _sdk_header(request: web.Request, name: str) -> str | None:
    """Which call of an AWS SDK this is, and which of its tries: None for anything that is neither."""
    value = request.headers.get(name, "")
    return value if _SDK_VALUE.fullmatch(value) else None
