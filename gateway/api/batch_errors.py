"""Errors as Batch's callers know them: its codes in `x-amzn-errortype`, a message, and when to come back.

SDKs decide by the code and the status whether they repeat a call: every retry mode waits for TooManyRequestsException
and 503, and none repeats ClientException (FACTS.md, "What goes wrong in the field").
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from aiohttp import web

from gateway.api import problems
from gateway.core import errors

if TYPE_CHECKING:
    from gateway.core.errors import GatewayError

_BAD_REQUEST, _FORBIDDEN, _NOT_FOUND, _TOO_MANY, _SERVER_ERROR = 400, 403, 404, 429, 500
# Batch's operations stand under /v1 by their names in small letters; the gateway's own face has paths of its own.
_OPERATION = re.compile(r"/v1/[a-z]+/?")
_TAGS = "/v1/tags/"
_OWN_PATHS = frozenset({"/v1/submissions", "/v1/shares", "/v1/upstreams"})


def is_spoken_at(method: str, path: str) -> bool:
    """Whether a caller of this path expects Batch's answers, also for operations that the gateway has not."""
    if path.startswith(_TAGS):
        return True
    return method == "POST" and path.rstrip("/") not in _OWN_PATHS and _OPERATION.fullmatch(path) is not None


def unknown_operation() -> GatewayError:
    """For a path of Batch's that is not served here."""
    return errors.NotFoundError(
        "This gateway speaks for service jobs only, and has no such operation: call Batch itself."
    )


def response_of(error: GatewayError) -> web.Response:
    """Status, code, message; `x-amz-retry-after` in milliseconds beside `Retry-After` in seconds."""
    status = problems.status_of(error)
    if _BAD_REQUEST <= status < _SERVER_ERROR and status not in (_FORBIDDEN, _NOT_FOUND, _TOO_MANY):
        status = _BAD_REQUEST  # Batch knows no other for what its caller must mend
    headers = {**problems.headers_of(error), "x-amzn-errortype": _code(status)}
    if error.retry_after_seconds is not None:
        headers["x-amz-retry-after"] = str(math.ceil(error.retry_after_seconds * 1000))
    return web.json_response({"message": _message(error)}, status=status, headers=headers)


def _code(status: int) -> str:
    if status == _TOO_MANY:
        return "TooManyRequestsException"
    return "ClientException" if status < _SERVER_ERROR else "ServerException"


def _message(error: GatewayError) -> str:
    """One sentence for all: the shape has nothing but a message."""
    found = "; ".join(f"{_path(one.pointer)}: {one.detail}" for one in error.findings)
    return found or error.detail or problems.title_of(error)


def _path(pointer: str) -> str:
    """A JSON pointer as AWS's own messages have it: `tags.team`, `filters[0].name`."""
    steps = [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]
    return "".join(f"[{step}]" if step.isdecimal() else f".{step}" for step in steps).removeprefix(".") or "the body"
