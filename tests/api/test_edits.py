"""Cancel, priority, redrive and resolve over HTTP: who may, when, and what is answered."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from gateway.core.attempt import PaceSignal, Report, Verdict
from gateway.core.submission import Failure
from tests.api.callers import TEXT, VISION, ByHeader
from tests.contract.in_process import FORWARDED, in_process_gateway

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis

    from tests.contract.in_process import Answer, InProcessGateway

REJECTED = Report(
    verdict=Verdict.REJECT,
    outcome="refused",
    charged=True,
    proved_none=True,
    signal=PaceSignal.ANSWERED,
    failure=Failure(code="ClientException", message="no such queue"),
)
UNKNOWN = replace(REJECTED, verdict=Verdict.UNKNOWN, proved_none=False)
UNCLEAR = replace(REJECTED, verdict=Verdict.RETRY, outcome="unclear", proved_none=False, signal=PaceSignal.FAILED)


@pytest.fixture
async def shared(client: Redis, prefix: str) -> AsyncIterator[InProcessGateway]:
    async with in_process_gateway(client, prefix, authenticator=ByHeader()) as gateway:
        yield gateway


async def posted(gateway: InProcessGateway, report: Report | None = None, **how: Any) -> str:
    """The id of a submission, after an attempt that ended so."""
    made = (await gateway.post(**how)).json["submissionId"]
    if report:
        await gateway.settle(report)
    return str(made)


async def cancel(gateway: InProcessGateway, one: str, body: Any = None, **how: Any) -> Answer:
    return await gateway.call("POST", f"/v1/submissions/{one}/cancel", body, **how)


async def patch(gateway: InProcessGateway, one: str, priority: Any, **how: Any) -> Answer:
    return await gateway.call("PATCH", f"/v1/submissions/{one}", {"schedulingPriority": priority}, **how)


async def operate(gateway: InProcessGateway, one: str, operation: str, body: Any = None, **how: Any) -> Answer:
    return await gateway.call("POST", f"/v1/submissions/{one}/{operation}", body, **how)


# ---- Cancel


async def test_a_queued_one_is_canceled_at_once_and_told(gateway: InProcessGateway) -> None:
    one = await posted(gateway)
    answer = await cancel(gateway, one, {"reason": "wrong data"})
    assert (answer.status, answer.json["state"], answer.json["cancelRequested"]) == (200, "canceled", True)
    assert (await gateway.show(one)).json["state"] == "canceled"
    (settled,) = gateway.lines_of("submission_settled")
    assert (settled["state"], settled["submission_id"]) == ("canceled", one)
    (changed,) = gateway.lines_of("submission_changed")
    assert (changed["change"], changed["state"], changed["principal"]) == ("cancel", "canceled", "anonymous")


async def test_a_repeated_cancel_is_answered_alike(gateway: InProcessGateway) -> None:
    one = await posted(gateway)
    answers = [await cancel(gateway, one) for _ in range(2)]
    assert [(answer.status, answer.json["state"]) for answer in answers] == [(200, "canceled")] * 2
    assert len(gateway.lines_of("submission_settled")) == 1


async def test_one_that_batch_is_called_for_is_only_asked_to_end(gateway: InProcessGateway) -> None:
    one = await posted(gateway)
    leased = await gateway.lease()
    answer = await cancel(gateway, one)
    assert (answer.status, answer.json["state"], answer.json["cancelRequested"]) == (202, "queued", True)
    await gateway.store.settle(leased, FORWARDED)
    shown = (await gateway.show(one)).json
    assert (shown["state"], shown["cancelRequested"], shown["jobId"]) == ("forwarded", True, FORWARDED.job_id)
    assert (await cancel(gateway, one)).status == 202


async def test_one_that_may_be_in_batch_is_only_asked_to_end(gateway: InProcessGateway) -> None:
    one = await posted(gateway, UNCLEAR)
    answer = await cancel(gateway, one)
    assert (answer.status, answer.json["state"], answer.json["position"]) == (202, "queued", 0)


@pytest.mark.parametrize(("report", "state"), [(REJECTED, "rejected"), (UNKNOWN, "unknown")])
async def test_what_has_ended_otherwise_cannot_be_canceled(
    gateway: InProcessGateway, report: Report, state: str
) -> None:
    one = await posted(gateway, report)
    answer = await cancel(gateway, one)
    assert (answer.kind, answer.json["state"], answer.json["submissionId"]) == ((409, "already-final"), state, one)


@pytest.mark.parametrize(
    "body", [{"reason": ""}, {"reason": "x" * 257}, {"reason": "a\nb"}, {"reason": 1}, {"because": "x"}]
)
async def test_a_reason_is_a_short_line(gateway: InProcessGateway, body: Any) -> None:
    one = await posted(gateway)
    answer = await cancel(gateway, one, body)
    assert answer.kind == (422, "invalid-change")
    assert answer.pointers == ["/" + next(iter(body))]
    assert (await gateway.show(one)).json["state"] == "queued"


async def test_callers_cancel_their_own_only(shared: InProcessGateway) -> None:
    one = await posted(shared, headers=VISION)
    assert (await cancel(shared, one, headers=TEXT)).kind == (404, "not-found")
    assert (await cancel(shared, one, headers=VISION)).status == 200


async def test_a_job_is_canceled_by_its_id_too(gateway: InProcessGateway) -> None:
    one = await posted(gateway, FORWARDED)
    assert FORWARDED.job_id
    answer = await cancel(gateway, FORWARDED.job_id)
    assert (answer.status, answer.json["submissionId"]) == (202, one)


# ---- Priority


async def test_a_higher_priority_goes_first(gateway: InProcessGateway) -> None:
    first, second = await posted(gateway), await posted(gateway)
    answer = await patch(gateway, second, 10)
    assert (answer.status, answer.json["schedulingPriority"], answer.json["position"]) == (200, 10, 1)
    assert (await gateway.show(first)).json["position"] == 2
    assert (await gateway.lease()).submission.submission_id == second


async def test_a_forwarded_one_is_owed_an_update(gateway: InProcessGateway) -> None:
    one = await posted(gateway, FORWARDED)
    answer = await patch(gateway, one, 10)
    assert (answer.status, answer.json["schedulingPriority"], answer.json["state"]) == (202, 10, "forwarded")


@pytest.mark.parametrize("report", [REJECTED, UNKNOWN])
async def test_what_will_not_be_a_job_has_no_priority_to_change(gateway: InProcessGateway, report: Report) -> None:
    assert (await patch(gateway, await posted(gateway, report), 10)).kind == (409, "already-final")


@pytest.mark.parametrize("report", [None, FORWARDED])
async def test_what_is_to_end_has_no_priority_to_change(gateway: InProcessGateway, report: Report | None) -> None:
    one = await posted(gateway, report)
    if report is None:
        await gateway.lease()
    assert (await cancel(gateway, one)).status == 202
    answer = await patch(gateway, one, 10)
    assert (answer.kind, "it is to end" in answer.json["detail"].lower()) == ((409, "wrong-state"), True)


@pytest.mark.parametrize("priority", [-1, 10_000, 1.5, "7", None])
async def test_a_priority_is_what_batch_takes(gateway: InProcessGateway, priority: Any) -> None:
    one = await posted(gateway)
    answer = await patch(gateway, one, priority)
    assert (answer.kind, answer.pointers) == ((422, "invalid-change"), ["/schedulingPriority"])
    assert (await gateway.show(one)).json["schedulingPriority"] == 0


async def test_a_change_of_anything_else_is_refused(gateway: InProcessGateway) -> None:
    one = await posted(gateway)
    answer = await gateway.call("PATCH", f"/v1/submissions/{one}", {"schedulingPriority": 1, "jobName": "x"})
    assert (answer.kind, answer.pointers) == ((422, "invalid-change"), ["/jobName"])


# ---- Redrive and resolve


async def test_a_rejected_one_goes_back_in_line(gateway: InProcessGateway) -> None:
    one = await posted(gateway, REJECTED)
    answer = await operate(gateway, one, "redrive")
    assert (answer.status, answer.json["state"], answer.json["position"]) == (202, "queued", 1)
    assert [attempt["outcome"] for attempt in answer.json["attempts"]] == ["refused"]
    assert "error" not in answer.json
    await gateway.settle()
    assert (await gateway.show(one)).json["state"] == "forwarded"


async def test_an_unknown_one_goes_back_in_line_only_once_it_is_resolved(gateway: InProcessGateway) -> None:
    one = await posted(gateway, UNKNOWN)
    refused = await operate(gateway, one, "redrive")
    assert (refused.kind, refused.json["state"]) == ((409, "wrong-state"), "unknown")
    assert "resolve" in refused.json["detail"]
    resolved = await operate(gateway, one, "resolve", {"notSubmitted": True})
    assert (resolved.status, resolved.json["state"]) == (200, "rejected")
    assert (await operate(gateway, one, "redrive")).status == 202


async def test_an_unknown_one_is_given_its_job(gateway: InProcessGateway) -> None:
    one = await posted(gateway, UNKNOWN)
    answer = await operate(gateway, one, "resolve", {"jobId": "job-7"})
    assert (answer.status, answer.json["state"], answer.json["jobId"]) == (200, "forwarded", "job-7")
    assert answer.json["jobArn"] == "arn:aws:batch:us-east-1:123456789012:service-job/job-7"
    assert (await gateway.show("job-7")).json["submissionId"] == one
    states = [line["state"] for line in gateway.lines_of("submission_settled")]
    assert states == ["forwarded"]


async def test_a_rejected_one_that_nobody_wants_is_closed(gateway: InProcessGateway) -> None:
    one = await posted(gateway, REJECTED)
    assert (await operate(gateway, one, "resolve", {"jobId": "job-7"})).kind == (409, "wrong-state")
    for _ in range(2):  # saying again that there is no job closes nothing
        assert "closed" not in (await operate(gateway, one, "resolve", {"notSubmitted": True})).json
    for _ in range(2):
        closed = await operate(gateway, one, "resolve", {"close": True})
        assert (closed.status, closed.json["state"], closed.json["closed"]) == (200, "rejected", True)
    refused = await operate(gateway, one, "redrive")
    assert (refused.kind, "closed" in refused.json["detail"]) == ((409, "wrong-state"), True)


async def test_a_resolution_may_be_repeated(gateway: InProcessGateway) -> None:
    one = await posted(gateway, UNKNOWN)
    for _ in range(2):
        answer = await operate(gateway, one, "resolve", {"jobId": "job-7"})
        assert (answer.status, answer.json["jobId"]) == (200, "job-7")
    assert len(gateway.lines_of("submission_settled")) == 1


async def test_a_job_is_one_submissions_only(gateway: InProcessGateway) -> None:
    await posted(gateway, FORWARDED)
    one = await posted(gateway, UNKNOWN)
    answer = await operate(gateway, one, "resolve", {"jobId": FORWARDED.job_id})
    assert answer.kind == (409, "wrong-state")
    assert (await gateway.show(one)).json["state"] == "unknown"


@pytest.mark.parametrize("operation", ["redrive", "resolve"])
async def test_what_is_in_line_is_neither_redriven_nor_resolved(gateway: InProcessGateway, operation: str) -> None:
    body = {"notSubmitted": True} if operation == "resolve" else None
    answer = await operate(gateway, await posted(gateway), operation, body)
    assert (answer.kind, answer.json["state"]) == ((409, "wrong-state"), "queued")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"notSubmitted": False},
        {"notSubmitted": True, "jobId": "j"},
        {"notSubmitted": True, "close": True},
        {"jobId": ""},
        {"jobId": "a/b"},
    ],
)
async def test_a_resolution_says_one_thing(gateway: InProcessGateway, body: Any) -> None:
    answer = await operate(gateway, await posted(gateway, UNKNOWN), "resolve", body)
    assert answer.kind == (422, "invalid-change")


@pytest.mark.parametrize("operation", ["redrive", "resolve"])
async def test_only_operators_redrive_and_resolve(shared: InProcessGateway, operation: str) -> None:
    one = await posted(shared, UNKNOWN, headers=VISION)
    body = {"notSubmitted": True} if operation == "resolve" else None
    assert (await operate(shared, one, operation, body, headers=VISION)).kind == (403, "forbidden")


@pytest.mark.parametrize("operation", ["cancel", "redrive", "resolve"])
async def test_what_nobody_knows_cannot_be_changed(gateway: InProcessGateway, operation: str) -> None:
    body = {"notSubmitted": True} if operation == "resolve" else None
    answer = await operate(gateway, "fb8b5596-d40f-8a2b-8937-a9c8da8f26ae", operation, body)
    assert answer.kind == (404, "not-found")
