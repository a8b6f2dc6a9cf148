"""The header Deadline: refused where it cannot be met, kept, and never changed by a repeat."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from gateway.core.pace import PaceRules
from tests.contract.in_process import in_process_gateway
from tests.examples import submission

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from tests.contract.in_process import InProcessGateway


def by(seconds: float) -> dict[str, str]:
    return {"Deadline": (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")}


async def test_a_deadline_is_kept_with_the_submission(gateway: InProcessGateway) -> None:
    answer = await gateway.post(headers={"Deadline": "2099-11-21T20:00:00.5+02:00"})
    assert (answer.status, answer.json["deadline"]) == (202, "2099-11-21T18:00:00.500Z")
    assert (await gateway.show(answer.json["submissionId"])).json["deadline"] == "2099-11-21T18:00:00.500Z"


@pytest.mark.parametrize(
    "deadline",
    [
        "soon",
        "2026-11-21",
        "2026-11-21T18:00:00",
        "2026-13-01T00:00:00Z",
        "2026-11-21T18:00:00+99:00",
        "1763748000",
        "",
    ],
)
async def test_a_deadline_that_is_no_time_is_malformed(gateway: InProcessGateway, deadline: str) -> None:
    assert (await gateway.post(headers={"Deadline": deadline})).kind == (400, "malformed")


async def test_a_deadline_that_has_passed_is_unreachable(gateway: InProcessGateway) -> None:
    answer = await gateway.post(headers=by(-5))
    assert answer.kind == (503, "deadline-unreachable")
    assert int(answer.headers["Retry-After"]) >= 5
    assert (await gateway.get("/v1/submissions")).json["items"] == []


async def test_a_deadline_before_the_forecast_is_unreachable(client: Redis, prefix: str) -> None:
    async with in_process_gateway(client, prefix, pace=PaceRules(rate=2.0)) as gateway:
        for _ in range(10):
            await gateway.post()
        answer = await gateway.post(headers=by(2))
        assert answer.kind == (503, "deadline-unreachable")
        assert 2 <= int(answer.headers["Retry-After"]) <= 4  # five seconds of calls are before it
        assert (await gateway.post(headers=by(60))).status == 202


async def test_a_high_priority_meets_a_deadline_that_others_miss(client: Redis, prefix: str) -> None:
    async with in_process_gateway(client, prefix, pace=PaceRules(rate=2.0)) as gateway:
        for _ in range(10):
            await gateway.post()
        assert (await gateway.post(submission(schedulingPriority=9), headers=by(2))).status == 202


async def test_a_repeat_changes_no_deadline_and_is_never_too_late(gateway: InProcessGateway) -> None:
    body = submission(clientToken="t")
    first = await gateway.post(body, headers=by(3600))
    again = await gateway.post(body, headers=by(-3600))
    without = await gateway.post(body)
    assert (again.status, without.status) == (202, 202)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.json["deadline"] == without.json["deadline"] == first.json["deadline"]


async def test_a_deadline_holds_for_every_item_of_a_batch(gateway: InProcessGateway) -> None:
    batch = {"submissions": [submission(), submission()]}
    results = (await gateway.call("POST", "/v1/submissions/batch", batch, headers=by(3600))).json["results"]
    assert all(one["submission"]["deadline"] for one in results)
    late = (await gateway.call("POST", "/v1/submissions/batch", batch, headers=by(-1))).json["results"]
    assert [one["problem"]["type"] for one in late] == ["/problems/deadline-unreachable"] * 2


async def test_a_dry_run_takes_a_deadline_too(gateway: InProcessGateway) -> None:
    answer = await gateway.call("POST", "/v1/submissions?dryRun=true", submission(), headers=by(60))
    assert answer.status == 200


async def test_a_batch_is_held_against_its_deadline_item_by_item(client: Redis, prefix: str) -> None:
    async with in_process_gateway(client, prefix, pace=PaceRules(rate=5.0)) as gateway:
        batch = {"submissions": [submission(jobName=f"job-{number}") for number in range(120)]}
        results = (await gateway.call("POST", "/v1/submissions/batch", batch, headers=by(10))).json["results"]
    statuses = [one["status"] for one in results]
    taken = statuses.count(202)
    assert 45 <= taken <= 55, "five a second for ten seconds"
    assert statuses == [202] * taken + [503] * (120 - taken)


@pytest.mark.parametrize("moment", ["1970-01-01T00:00:00Z", "1969-12-31T23:59:59Z", "0001-01-01T00:00:00Z"])
async def test_a_time_before_the_clocks_began_is_a_deadline_too(gateway: InProcessGateway, moment: str) -> None:
    assert (await gateway.post(headers={"Deadline": moment})).kind == (503, "deadline-unreachable")


async def test_the_last_moment_that_there_is_can_be_a_deadline(gateway: InProcessGateway) -> None:
    answer = await gateway.post(headers={"Deadline": "9999-12-31T23:59:59.9999Z"})
    assert (answer.status, answer.json["deadline"]) == (202, "9999-12-31T23:59:59.999Z")
    assert (await gateway.get("/v1/submissions")).status == 200
    await gateway.settle()


async def test_repeats_in_a_batch_stand_before_nobody(client: Redis, prefix: str) -> None:
    async with in_process_gateway(client, prefix) as gateway:
        repeats = [submission(clientToken=f"token-{number}") for number in range(60)]
        await gateway.call("POST", "/v1/submissions/batch", {"submissions": repeats})
        for _ in repeats:
            await gateway.settle()
        await gateway.call("PATCH", "/v1/upstreams/main", {"rate": 5})
        batch = {"submissions": [*repeats, submission(clientToken="new")]}
        results = (await gateway.call("POST", "/v1/submissions/batch", batch, headers=by(5))).json["results"]
    assert results[-1]["status"] == 202


async def test_callers_at_once_are_held_against_their_deadlines_one_after_another(client: Redis, prefix: str) -> None:
    async with in_process_gateway(client, prefix, pace=PaceRules(rate=5.0)) as gateway:
        answers = await asyncio.gather(*(gateway.post(headers=by(10)) for _ in range(120)))
    taken = [answer.status for answer in answers].count(202)
    assert 45 <= taken <= 55, "five a second for ten seconds"
