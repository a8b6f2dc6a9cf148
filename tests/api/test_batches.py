"""POST /v1/submissions/batch and ?dryRun=true."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pytest

from gateway.core.identity import submission_id
from gateway.core.share import Share, ShareLimits, ShareRule
from tests.contract.in_process import Answer, InProcessGateway, in_process_gateway
from tests.examples import ACCOUNT, REGION, submission

if TYPE_CHECKING:
    from redis.asyncio import Redis


async def batch(gateway: InProcessGateway, *items: Any) -> Answer:
    return await gateway.call("POST", "/v1/submissions/batch", {"submissions": list(items)})


async def results(gateway: InProcessGateway, *items: Any) -> list[dict[str, Any]]:
    answer = await batch(gateway, *items)
    assert answer.status == 200
    found: list[dict[str, Any]] = answer.json["results"]
    return found


async def test_each_has_a_result_in_order_and_one_bad_item_spoils_no_other(gateway: InProcessGateway) -> None:
    found = await results(
        gateway,
        submission(clientToken="a", jobName="first"),
        submission(clientToken="b", jobName="no good"),
        "no object",
        submission(clientToken="c", jobName="last"),
    )
    assert [one["status"] for one in found] == [202, 422, 400, 202]
    assert [found[0]["submission"]["jobName"], found[3]["submission"]["jobName"]] == ["first", "last"]
    assert [found[0]["submission"]["position"], found[3]["submission"]["position"]] == [1, 2]
    assert found[1]["problem"]["errors"][0]["pointer"] == "/jobName"


async def test_twice_the_same_token_works_as_two_calls_would(gateway: InProcessGateway) -> None:
    found = await results(
        gateway,
        submission(clientToken="a"),
        submission(clientToken="a"),
        submission(clientToken="a", jobName="other"),
    )
    assert [(one["status"], one.get("replayed", False)) for one in found] == [(202, False), (202, True), (422, False)]
    assert found[1]["submission"]["submissionId"] == found[0]["submission"]["submissionId"]
    assert found[2]["problem"]["members"] == ["jobName"]
    assert (await gateway.store.pace())["queued"] == 1


async def test_a_repeated_batch_is_replayed(gateway: InProcessGateway) -> None:
    items = [submission(clientToken=f"t{number}") for number in range(60)]
    first, again = await results(gateway, *items), await results(gateway, *items)
    assert [one["submission"]["submissionId"] for one in first] == [one["submission"]["submissionId"] for one in again]
    assert all(one["replayed"] for one in again)


async def test_a_part_over_a_limit_is_refused_with_when_to_come_again(client: Redis, prefix: str) -> None:
    rule = ShareRule(queue="training", share="vision", limits=ShareLimits(rate=0.5, burst=3))
    async with in_process_gateway(client, prefix, rules=[rule]) as gateway:
        found = await results(gateway, *(submission() for _ in range(5)))
    assert [one["status"] for one in found] == [202, 202, 202, 429, 429]
    assert [one["retryAfterSeconds"] for one in found[3:]] == [2, 2]
    assert found[3]["problem"]["limits"][0]["name"] == "share-rate"


async def test_five_hundred_take_few_scripts(gateway: InProcessGateway, client: Redis) -> None:
    before = (await client.info("commandstats")).get("cmdstat_evalsha", {"calls": 0})["calls"]
    found = await results(gateway, *(submission(jobName=f"j{number}") for number in range(500)))
    after = (await client.info("commandstats"))["cmdstat_evalsha"]["calls"]
    assert {one["status"] for one in found} == {202}
    assert [one["submission"]["position"] for one in found] == list(range(1, 501))
    assert after - before <= 500 / 50 + 1  # the first may go alone


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ([], (400, "malformed")),
        ({}, (422, "invalid-submission")),
        ({"submissions": []}, (422, "invalid-submission")),
        ({"submissions": {}}, (422, "invalid-submission")),
        ({"submissions": [{}], "more": 1}, (422, "invalid-submission")),
        ({"submissions": [{}] * 501}, (413, "too-large")),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_a_batch_that_is_none_is_refused_whole(
    gateway: InProcessGateway, body: Any, kind: tuple[int, str]
) -> None:
    assert (await gateway.call("POST", "/v1/submissions/batch", body)).kind == kind


@pytest.mark.parametrize(("copies", "status"), [(100, 200), (490, 200), (500, 413)])
async def test_a_batch_may_have_eight_megabytes(gateway: InProcessGateway, copies: int, status: int) -> None:
    padded = submission() | {"tags": {f"k{number}": "v" * 256 for number in range(46)}}
    padded["serviceRequestPayload"]["HyperParameters"] = {f"h{number}": "v" * 970 for number in range(4)}
    text = json.dumps({"submissions": [padded] * copies})
    assert (len(text) > 8 * 1024 * 1024) == (status == 413)
    headers = {"Content-Type": "application/json"}
    answer = await gateway.call("POST", "/v1/submissions/batch", data=io.BytesIO(text.encode()), headers=headers)
    assert answer.status == status
    if status == 200:
        assert {one["status"] for one in answer.json["results"]} == {202}


async def test_the_log_counts_what_a_batch_held(gateway: InProcessGateway) -> None:
    await batch(gateway, submission(), submission(jobName="no good"))
    (line,) = [one for one in gateway.lines if one["event"] == "request"]
    assert (line["items"], line["accepted"]) == (2, 1)


async def test_a_dry_run_checks_and_does_nothing(gateway: InProcessGateway) -> None:
    answer = await gateway.call("POST", "/v1/submissions?dryRun=true", submission(clientToken="t"))
    wanted = submission_id(namespace="anonymous", account=ACCOUNT, region=REGION, token="t")
    assert (answer.status, answer.json) == (
        200,
        {"dryRun": True, "warnings": [], "submissionId": wanted, "clientToken": "t"},
    )
    assert (await gateway.get(f"/v1/submissions/{wanted}")).status == 404
    assert (await gateway.store.pace())["queued"] == 0


async def test_a_dry_run_finds_what_a_submission_would_be_refused_for(gateway: InProcessGateway) -> None:
    path = "/v1/submissions?dryRun=true"
    assert (await gateway.call("POST", path, submission(jobName="no good"))).pointers == ["/jobName"]
    await gateway.post(submission(clientToken="t"))
    assert (await gateway.call("POST", path, submission(clientToken="t"))).status == 200
    assert (await gateway.call("POST", path, submission(clientToken="t", jobName="x"))).kind == (422, "token-reused")
    assert "submissionId" not in (await gateway.call("POST", path, submission())).json
    assert (await gateway.call("POST", "/v1/submissions?dryRun=yes", submission())).kind == (400, "malformed")
    assert (await gateway.store.share(Share("training", "vision"))).queued == 1
