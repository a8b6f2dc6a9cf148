"""`GET /v1/submissions`: what was submitted, newest first, a page at a time."""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING

from aiohttp import web

from gateway.api.bodies import known_query
from gateway.api.codec import encode
from gateway.api.keys import CALLER, INTAKE, LOOKUP, ROUTES
from gateway.core.errors import MalformedError
from gateway.core.identity import SubmissionId
from gateway.core.lookup import Filters
from gateway.core.ports import Indexed
from gateway.core.share import Share
from gateway.core.submission import State

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_LIMIT, DEFAULT_LIMIT = 200, 50

_POSITION = re.compile(r"(?P<ms>[0-9]{1,15})\.(?P<id>[0-9a-f-]{36})")


def routes() -> list[web.AbstractRouteDef]:
    return [web.get("/v1/submissions", index)]


async def index(request: web.Request) -> web.Response:
    """One page; `nextCursor` leads to the next, also where this one is short."""
    known_query(request, "clientToken", "jobQueue", "share", "state", "limit", "cursor")
    query = request.query
    for name in query:
        if len(query.getall(name)) > 1:
            raise MalformedError(f"The query parameter {name} is there twice.")
    page = await request.app[LOOKUP].page(
        _filters(request), request[CALLER], limit=_limit(query), before=_position(query)
    )
    intake = request.app[INTAKE]
    items = [encode(await intake.with_forecast(submission)) for submission in page.items]
    return web.json_response({"items": items, "nextCursor": _cursor(page.after) if page.after else None})


def _filters(request: web.Request) -> Filters:
    query = request.query
    state, share, queue = query.get("state"), query.get("share"), query.get("jobQueue")
    if queue is not None:
        try:
            request.app[ROUTES].resolve(queue)
        except ValueError as error:
            raise MalformedError(f"The query parameter jobQueue {error}.") from error
    if state is not None and state not in set(State):
        raise MalformedError(f"The query parameter state must be one of {', '.join(State)}.")
    if share is not None and not all(share.partition("/")):
        raise MalformedError("The query parameter share is written queue/share, as in training/vision.")
    return Filters(
        client_token=query.get("clientToken"),
        job_queue=queue,
        share=Share.parse(share) if share else None,
        state=State(state) if state else None,
    )


def _limit(query: Mapping[str, str]) -> int:
    text = query.get("limit", str(DEFAULT_LIMIT))
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(MAX_LIMIT)) and 1 <= int(text) <= MAX_LIMIT):
        raise MalformedError(f"The query parameter limit must be a whole number from 1 to {MAX_LIMIT}.")
    return int(text)


def _cursor(after: Indexed) -> str:
    return base64.urlsafe_b64encode(f"{after.accepted_ms}.{after.submission_id}".encode()).decode().rstrip("=")


def _position(query: Mapping[str, str]) -> Indexed | None:
    text = query.get("cursor")
    if text is None:
        return None
    try:
        position = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True).decode()
    except (ValueError, binascii.Error):
        position = ""
    match = _POSITION.fullmatch(position)
    if match is None:
        raise MalformedError("The query parameter cursor is none that this gateway gave.")
    return Indexed(accepted_ms=int(match["ms"]), submission_id=SubmissionId(match["id"]))
