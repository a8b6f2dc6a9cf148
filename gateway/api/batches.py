"""`/v1/submissions/batch`: many submissions in one call, each with a result of its own."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from aiohttp import web

from gateway.api.bodies import json_object, known_query
from gateway.api.codec import encode
from gateway.api.headers import deadline_of
from gateway.api.keys import CALLER, DECODER, INTAKE, LOG, REQUEST_ID, TRACEPARENT, Told
from gateway.api.problems import problem_of, whole_seconds
from gateway.core.errors import (
    Finding,
    GatewayError,
    InvalidSubmissionError,
    MalformedError,
    TooLargeError,
    TooManyRequestsError,
    json_pointer,
)
from gateway.core.submission import State

if TYPE_CHECKING:
    from datetime import datetime

    from gateway.core.intake import Accepted
    from gateway.core.submission import SubmissionRequest

MAX_ITEMS = 500
MAX_BATCH_BYTES = 8 * 1024 * 1024
# With each script that the store runs for a batch: others come in between.
ITEMS_AT_A_TIME = 50
# Decoding a bad item takes up to ten milliseconds: after so long the loop gets a turn for other requests.
TURN_SECONDS = 0.005
# Each holds its body and what becomes of it, some 50 MB at the worst.
MAX_BATCHES = 16


def routes() -> list[web.AbstractRouteDef]:
    in_hand = asyncio.Semaphore(MAX_BATCHES)

    async def submit(request: web.Request) -> web.Response:
        if in_hand.locked():
            raise TooManyRequestsError(f"This process has {MAX_BATCHES} batches in hand; another one may have room.")
        async with in_hand:
            return await submit_batch(request)

    return [web.post("/v1/submissions/batch", submit)]


async def submit_batch(request: web.Request) -> web.Response:
    """200 with a result for each, in order: what POST /v1/submissions would have answered to one after another."""
    known_query(request)
    if "Idempotency-Key" in request.headers:
        raise MalformedError("The header Idempotency-Key is for one submission; in a batch each has its clientToken.")
    deadline = deadline_of(request)
    items = _items(await json_object(request.clone(client_max_size=MAX_BATCH_BYTES)))
    results: list[dict[str, Any]] = []
    for start in range(0, len(items), ITEMS_AT_A_TIME):
        results += await _submit(request, items[start : start + ITEMS_AT_A_TIME], deadline)
    told = request[Told.KEY]
    told.items, told.accepted = len(results), sum("submission" in result for result in results)
    return web.json_response({"results": results})


def _items(body: dict[str, Any]) -> list[Any]:
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


async def _submit(request: web.Request, items: list[Any], deadline: datetime | None) -> list[dict[str, Any]]:
    """Their results; whatever is wrong with one spoils no other."""
    decoded: list[SubmissionRequest | Exception] = []
    turn = time.perf_counter()
    for item in items:
        try:
            decoded.append(request.app[DECODER].request(item))
        except Exception as error:  # noqa: BLE001 - a bug with one item must not hide what became of the others
            decoded.append(error)
        if time.perf_counter() - turn > TURN_SECONDS:
            await asyncio.sleep(0)
            turn = time.perf_counter()
    accepted = iter(
        await request.app[INTAKE].submit_many(
            [one for one in decoded if not isinstance(one, Exception)],
            request[CALLER],
            traceparent=request.get(TRACEPARENT),
            deadline=deadline,
        )
    )
    outcomes = [one if isinstance(one, Exception) else next(accepted) for one in decoded]
    return [_problem(request, one) if isinstance(one, Exception) else await _result(request, one) for one in outcomes]


def _problem(request: web.Request, error: Exception) -> dict[str, Any]:
    if not isinstance(error, GatewayError):
        request.app[LOG].error("unexpected_error", request_id=request[REQUEST_ID], exc_info=error)
        error = GatewayError("Something failed that should not; the log has it by the request id.")
    problem = problem_of(error)
    result: dict[str, Any] = {"status": problem["status"], "problem": problem}
    if error.retry_after_seconds is not None:
        result["retryAfterSeconds"] = whole_seconds(error.retry_after_seconds)
    return result


async def _result(request: web.Request, accepted: Accepted) -> dict[str, Any]:
    request.app[LOG].info(
        "submission_accepted",
        request_id=request[REQUEST_ID],
        principal=request[CALLER].name,
        submission_id=accepted.submission.submission_id,
        share=str(accepted.submission.share),
        replayed=accepted.replayed,
    )
    submission = await request.app[INTAKE].with_forecast(accepted.submission)
    result: dict[str, Any] = {
        "status": 202 if submission.state is State.QUEUED else 200,
        "submission": encode(submission),
    }
    if accepted.replayed:
        result["replayed"] = True
    return result
