"""What is changed of a submission that was accepted: cancel, priority, redrive, resolve."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from aiohttp import web
from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from gateway.api.change import Change, change_in
from gateway.api.codec import Whole, encode, printable
from gateway.api.keys import CALLER, CHANGES, INTAKE, LOG, REQUEST_ID
from gateway.api.submissions import SUBMISSION_PATH, tell_about

if TYPE_CHECKING:
    from gateway.core.submission import Submission


class Cancel(Change):
    """`reason` is for TerminateServiceJob, should Batch have the job."""

    reason: Annotated[str, Field(min_length=1, max_length=256), AfterValidator(printable)] | None = None


class Priority(Change):
    """As SubmitServiceJob has it."""

    scheduling_priority: Annotated[int, Whole, Field(ge=0, le=9999)]


class Resolution(Change):
    """What a person found out, or decided: one of them."""

    not_submitted: Literal[True] | None = None
    close: Literal[True] | None = None
    job_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,128}$")] | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> Resolution:
        if [self.not_submitted, self.close, self.job_id].count(None) != 2:  # noqa: PLR2004 - all but one
            raise PydanticCustomError("one_of", "must have one of notSubmitted: true, jobId and close: true")
        return self


def routes() -> list[web.AbstractRouteDef]:
    return [
        web.patch(SUBMISSION_PATH, reprioritize),
        web.post("/v1/submissions/{id}/cancel", cancel),
        web.post("/v1/submissions/{id}/redrive", redrive),
        web.post("/v1/submissions/{id}/resolve", resolve),
    ]


async def cancel(request: web.Request) -> web.Response:
    """200 when it has ended, 202 while Batch is still to be asked."""
    body = await change_in(request, Cancel, optional=True)
    changed = await request.app[CHANGES].cancel(request.match_info["id"], request[CALLER], body.reason or "")
    return await _answer(request, changed.submission, "cancel", 200 if changed.done else 202)


async def reprioritize(request: web.Request) -> web.Response:
    """200 where it has its new place in line, 202 where Batch is still to be told."""
    body = await change_in(request, Priority)
    changed = await request.app[CHANGES].reprioritize(
        request.match_info["id"], request[CALLER], body.scheduling_priority
    )
    return await _answer(request, changed.submission, "priority", 200 if changed.done else 202)


async def redrive(request: web.Request) -> web.Response:
    """202: it is queued again."""
    await change_in(request, Change, optional=True)
    submission = await request.app[CHANGES].redrive(request.match_info["id"], request[CALLER])
    return await _answer(request, submission, "redrive", 202)


async def resolve(request: web.Request) -> web.Response:
    """200: it is forwarded, rejected, or ended as its caller wished."""
    body = await change_in(request, Resolution)
    submission = await request.app[CHANGES].resolve(
        request.match_info["id"], request[CALLER], body.job_id, close=body.close is not None
    )
    return await _answer(request, submission, "resolve", 200)


async def _answer(request: web.Request, submission: Submission, change: str, status: int) -> web.Response:
    tell_changed(request, submission, change)
    return web.json_response(encode(await request.app[INTAKE].with_forecast(submission)), status=status)


def tell_changed(request: web.Request, submission: Submission, change: str) -> None:
    """For the canonical line, and a line of its own."""
    tell_about(request, submission)
    request.app[LOG].info(
        "submission_changed",
        request_id=request[REQUEST_ID],
        principal=request[CALLER].name,
        submission_id=submission.submission_id,
        share=str(submission.share),
        change=change,
        state=submission.state,
    )
