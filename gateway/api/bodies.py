"""Bodies of requests: read within a time, parsed strictly, an object."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from gateway.api.codec import parse_json
from gateway.core.errors import MalformedError

if TYPE_CHECKING:
    from aiohttp import web

# Eight megabytes at a poor megabyte a second; who is slower holds a place that others need.
BODY_SECONDS = 10.0


async def json_object(request: web.Request, *, any_type: bool = False) -> dict[str, Any]:
    """The body as an object; `any_type` takes it whatever the content type says.

    Raises MalformedError and NotJsonError.
    """
    try:
        async with asyncio.timeout(BODY_SECONDS):
            body = await request.read()
    except TimeoutError:
        raise MalformedError(f"The body did not come within {BODY_SECONDS:.0f} seconds.") from None
    value = parse_json(body, "application/json" if any_type else request.content_type)
    if not isinstance(value, dict):
        raise MalformedError("The body must be a JSON object.")
    return value


def known_query(request: web.Request, *names: str) -> None:
    """Raises MalformedError for a query parameter that is not known: a misspelt dryRun must not submit a job."""
    unknown = sorted(request.query.keys() - set(names))
    if unknown:
        raise MalformedError(f"There is no query parameter {unknown[0][:64]!r} here.")
