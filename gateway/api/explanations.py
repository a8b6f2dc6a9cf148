"""`/v1/submissions/{id}/explanation`: what holds a submission."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web

from gateway.api.bodies import known_query
from gateway.api.codec import encode_attempt, timestamp
from gateway.api.keys import CALLER, EXPLAINER, LOOKUP
from gateway.api.submissions import tell_about
from gateway.core.submission import State

if TYPE_CHECKING:
    from gateway.core.explanation import Explanation


def routes() -> list[web.AbstractRouteDef]:
    return [web.get("/v1/submissions/{id}/explanation", show)]


async def show(request: web.Request) -> web.Response:
    """Why it stands where it does."""
    known_query(request)
    submission = await request.app[LOOKUP].find(request.match_info["id"], request[CALLER])
    tell_about(request, submission)
    return web.json_response(_encode(await request.app[EXPLAINER].explain(submission)))


def _encode(explanation: Explanation) -> dict[str, Any]:
    submission, share, upstream = explanation.submission, explanation.share, explanation.upstream
    body: dict[str, Any] = {
        "submissionId": submission.submission_id,
        "state": submission.state.value,
        "sentence": explanation.sentence,
        "holds": [
            {"kind": one.kind, "detail": one.detail, "until": timestamp(one.until) if one.until else None}
            for one in explanation.holds
        ],
        "callsBefore": explanation.calls_before,
        "ahead": [{"jobQueue": one.queue, "share": one.name, "submissions": count} for one, count in explanation.ahead],
        "callsPerSecond": round(upstream.pace, 3),
        "condition": upstream.condition,
        "share": {"queued": share.queued, "weight": share.weight, "paused": share.paused},
        "lastErrors": [encode_attempt(one) for one in explanation.last_errors],
    }
    if submission.state is State.QUEUED:
        expected = submission.estimated_forward_at
        body["position"] = submission.position
        body["estimatedForwardAt"] = timestamp(expected) if expected else None
    return body
