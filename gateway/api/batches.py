"""`/v1/submissions/batch`: many submissions in one call, each with a result of its own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aiohttp import web

from gateway.api.codec import encode, parse_json
from gateway.api.keys import CALLER, DECODER, INTAKE, TRACEPARENT, Told
from gateway.api.problems import problem_of, whole_seconds
from gateway.core.errors import (
    Finding,
    GatewayError,
    InvalidSubmissionError,
    MalformedError,
    TooLargeError,
    json_pointer,
)
from gateway.core.submission import State

if TYPE_CHECKING:
    from gateway.core.intake import Accepted

MAX_ITEMS = 500
MAX_BATCH_BYTES = 8 * 1024 * 1024
# Decoding takes about 0.1 ms an item: after so many the loop gets a turn for other requests.
DECODED_AT_ONCE = 25


def routes() -> list[web.AbstractRouteDef]:
    return [web.post("/v1/submissions/batch", submit_batch)]


async def submit_batch(request: web.Request) -> web.Response:
    """200 with a result for each, in order: what POST /v1/submissions would have answered to one after another."""
    body = await request.clone(client_max_size=MAX_BATCH_BYTES).read()
    items = _items(parse_json(body, request.content_type))
    submitting = []
    for number, item in enumerate(items, start=1):
        # begun in order, so that they arrive at the store in order; it takes those that wait together
        submitting.append(asyncio.ensure_future(_submit(request, item)))
        if number % DECODED_AT_ONCE == 0:
            await asyncio.sleep(0)
    results = await asyncio.gather(*submitting)
    told = request[Told.KEY]
    told.items, told.accepted = len(results), sum("submission" in result for result in results)
    return web.json_response({"results": results})


def _items(body: Any) -> list[Any]:
    if not isinstance(body, dict):
        raise MalformedError("The body must be a JSON object.")
    items = body.get("submissions")
    unknown = [name for name in body if name != "submissions"]
    findings = [Finding(pointer=json_pointer([name]), detail="is not a member that is known here") for name in unknown]
    if not isinstance(items, list) or not items:
        items = []
        findings.append(Finding(pointer="/submissions", detail=f"must be a list of 1 to {MAX_ITEMS} submissions"))
    if findings:
        raise InvalidSubmissionError("The batch is not as it must be; see errors.", findings=findings)
    if len(items) > MAX_ITEMS:
        raise TooLargeError(f"A batch holds at most {MAX_ITEMS} submissions; this one has {len(items)}.")
    return items


async def _submit(request: web.Request, item: Any) -> dict[str, Any]:
    """One item's result; whatever is wrong with it spoils no other."""
    try:
        asked = request.app[DECODER].request(item)
        accepted = await request.app[INTAKE].submit(asked, request[CALLER], request.get(TRACEPARENT))
    except GatewayError as error:
        problem = problem_of(error)
        result: dict[str, Any] = {"status": problem["status"], "problem": problem}
        if error.retry_after_seconds is not None:
            result["retryAfterSeconds"] = whole_seconds(error.retry_after_seconds)
        return result
    return await _result(request, accepted)


async def _result(request: web.Request, accepted: Accepted) -> dict[str, Any]:
    submission = await request.app[INTAKE].with_forecast(accepted.submission)
    result: dict[str, Any] = {
        "status": 202 if submission.state is State.QUEUED else 200,
        "submission": encode(submission),
    }
    if accepted.replayed:
        result["replayed"] = True
    return result
