"""The one table of problems: every error of the core has its row, and says no more than it should."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from gateway.api import batch_errors, problems
from gateway.core import errors
from gateway.core.errors import Finding, GatewayError, Limit
from gateway.core.identity import ClientToken, fingerprint, submission_id
from gateway.core.share import Share
from gateway.core.submission import State, Submission
from tests.contract.document import contract
from tests.contract.test_document import UNANSWERED, batch_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.contract.in_process import InProcessGateway

EARLIER = Submission(
    submission_id=submission_id(namespace="n", account="1", region="r", token="t"),
    client_token=ClientToken("t"),
    token_generated=False,
    principal="p",
    namespace="n",
    state=State.QUEUED,
    share=Share("q", "s"),
    share_kind="shareIdentifier",
    priority=0,
    job_name="j",
    job_queue="q",
    fingerprint=fingerprint({}),
    accepted_at=datetime.now(UTC),
)
LIMITS = [Limit(name="share-rate", quota=5, window_seconds=2.5, retry_after_seconds=0.5)]
FINDINGS = [Finding(pointer="/jobName", detail="is required")]
EXAMPLES: dict[type[GatewayError], GatewayError] = {
    errors.MethodNotAllowedError: errors.MethodNotAllowedError("d", allow="GET"),
    errors.TokenReusedError: errors.TokenReusedError(["jobName"], EARLIER),
    errors.DuplicateRequestError: errors.DuplicateRequestError(EARLIER),
    errors.RateLimitedError: errors.RateLimitedError(LIMITS),
    errors.TooManySharesError: errors.TooManySharesError(LIMITS),
    errors.BacklogFullError: errors.BacklogFullError(LIMITS),
    errors.InvalidSubmissionError: errors.InvalidSubmissionError("d", findings=FINDINGS),
    errors.AlreadyFinalError: errors.AlreadyFinalError(EARLIER),
    errors.WrongStateError: errors.WrongStateError("d", EARLIER),
    errors.DeadlineUnreachableError: errors.DeadlineUnreachableError("d", retry_after_seconds=2),
    errors.InvalidChangeError: errors.InvalidChangeError("d", findings=FINDINGS),
    errors.UpstreamUnavailableError: errors.UpstreamUnavailableError("d", retry_after_seconds=2.5),
}
# What none of Batch's operations can meet: they take any content type, have no Deadline, and POST is what they are.
NEVER_BATCHS = {
    errors.NotJsonError,
    errors.MethodNotAllowedError,
    errors.ForbiddenError,
    errors.DeadlineUnreachableError,
    errors.NotReadyError,
}
# A name for what three of them have in common; nobody raises it.
ABSTRACT = {errors.RefusedError}


def kinds(of: type[GatewayError] = GatewayError) -> Iterator[type[GatewayError]]:
    yield of
    for kind in of.__subclasses__():
        yield from kinds(kind)


RAISED = [kind for kind in kinds() if kind not in ABSTRACT and kind.__module__ == errors.__name__]


@pytest.mark.parametrize("kind", RAISED, ids=lambda kind: kind.__name__)
def test_every_error_has_a_row_of_its_own_and_a_documented_problem(kind: type[GatewayError]) -> None:
    error = EXAMPLES.get(kind) or kind("d")
    slug, status = problems.TABLE[kind]
    response = problems.response_of(error)
    assert isinstance(response.body, bytes)
    body = json.loads(response.body)
    assert (response.status, response.content_type) == (status, "application/problem+json")
    assert (body["type"], body["status"], problems.slug_of(error)) == (f"/problems/{slug}", status, slug)
    if slug not in UNANSWERED:
        contract().validator({"$ref": "#/components/schemas/Problem"}, sealed=True).validate(body)


@pytest.mark.parametrize("kind", RAISED, ids=lambda kind: kind.__name__)
def test_every_error_is_spoken_in_batchs_manner_as_its_table_has_it(kind: type[GatewayError]) -> None:
    error = EXAMPLES.get(kind) or kind("d")
    told = batch_table().get(problems.slug_of(error))
    assert (told is None) == (kind in NEVER_BATCHS)
    response = batch_errors.response_of(error)
    assert isinstance(response.body, bytes)
    body = json.loads(response.body)
    assert list(body) == ["message"]
    assert body["message"]
    if told is not None:
        assert (response.status, response.headers["x-amzn-errortype"]) == told
    waits = [response.headers.get(name) for name in ("x-amz-retry-after", "Retry-After")]
    seconds = error.retry_after_seconds
    assert waits == ([None, None] if seconds is None else [f"{seconds * 1000:.0f}", f"{math.ceil(seconds)}"])
    assert (seconds is not None) == (response.status in (429, 503))


def test_findings_are_told_in_one_sentence_for_all() -> None:
    several = [*FINDINGS, Finding(pointer="/a/0/b~1c", detail="is odd"), Finding(pointer="", detail="is short")]
    response = batch_errors.response_of(errors.InvalidSubmissionError("d", findings=several))
    assert isinstance(response.body, bytes)
    assert json.loads(response.body) == {"message": "jobName: is required; a[0].b/c: is odd; the body: is short"}


@pytest.mark.parametrize("kind", RAISED, ids=lambda kind: kind.__name__)
def test_every_error_that_passes_by_itself_says_when_to_come_back(kind: type[GatewayError]) -> None:
    response = problems.response_of(EXAMPLES.get(kind) or kind("d"))
    assert ("Retry-After" in response.headers) == (response.status in (429, 503))


def test_no_row_is_for_nothing_and_slugs_are_told_apart() -> None:
    assert set(problems.TABLE) == set(RAISED)
    slugs = [slug for slug, _ in problems.TABLE.values()]
    assert len(set(slugs)) == len(slugs)


def test_every_title_is_a_sentence_of_its_own() -> None:
    titles = {problems.problem_of(EXAMPLES.get(kind) or kind("d"))["title"] for kind in RAISED}
    assert len(titles) == len(RAISED)
    assert all(title[0].isupper() and not title.endswith(".") for title in titles)


def test_seconds_are_rounded_up_and_never_zero() -> None:
    assert [problems.whole_seconds(seconds) for seconds in (0, 0.001, 1, 1.0000000001, 1.001, 59.5)] == [
        1,
        1,
        1,
        1,
        2,
        60,
    ]


def test_what_the_framework_refuses_is_put_in_our_words() -> None:
    too_large = problems.of_framework(web.HTTPRequestEntityTooLarge(max_size=1, actual_size=2))
    assert isinstance(too_large, errors.TooLargeError)
    assert isinstance(problems.of_framework(web.HTTPNotFound()), errors.NotFoundError)
    assert isinstance(problems.of_framework(web.HTTPBadRequest()), errors.MalformedError)
    assert problems.of_framework(web.HTTPFound("/")) is None


async def test_a_bug_is_a_silent_500_and_a_traceback_in_the_log(
    gateway: InProcessGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(type(gateway.store), "admit", broken)
    answer = await gateway.post(headers={"X-Request-Id": "r"})
    assert answer.kind == (500, "internal")
    assert "bug" not in answer.body.decode()
    (line,) = gateway.lines_of("unexpected_error")
    assert (line["level"], line["request_id"]) == ("error", "r")
    assert "RuntimeError: a bug" in line["exception"]
    (request,) = gateway.lines_of("request")
    assert (request["status"], request["problem"]) == (500, "internal")
