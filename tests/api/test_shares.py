"""`/v1/shares`: what shares have queued, and what operators change."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from gateway.core.ports import Wait
from gateway.core.share import ShareLimits, ShareRule
from tests.contract.in_process import FORWARDED, in_process_gateway
from tests.examples import ACCOUNT, REGION, submission

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from tests.contract.in_process import Answer, InProcessGateway

ARN = f"arn:aws:batch:{REGION}:{ACCOUNT}:job-queue/training"


async def change(gateway: InProcessGateway, body: Any, path: str = "training/vision") -> Answer:
    return await gateway.call("PATCH", f"/v1/shares/{path}", body)


async def shares(gateway: InProcessGateway) -> dict[str, Any]:
    answer = await gateway.get("/v1/shares")
    assert answer.json["nextCursor"] is None
    return {f"{one['jobQueue']}/{one['share']}": one for one in answer.json["items"]}


async def test_shares_with_a_backlog_are_listed_by_name(gateway: InProcessGateway) -> None:
    assert await shares(gateway) == {}
    for share in ("b", "a", "b"):
        await gateway.post(submission(shareIdentifier=share))
    await gateway.post(submission(shareIdentifier=None, jobQueue="other"))
    found = await shares(gateway)
    assert list(found) == ["other/-", "training/a", "training/b"]
    assert [one["queued"] for one in found.values()] == [1, 1, 2]
    assert all(one["oldestSeconds"] >= 0 for one in found.values())
    assert found["training/a"] == {
        **found["training/a"],
        "weight": 1.0,
        "paused": False,
        "pausedBecause": None,
        "overrides": {},
    }


async def test_a_share_without_a_backlog_is_not_listed_any_more(gateway: InProcessGateway) -> None:
    await gateway.post()
    await gateway.settle()
    assert await shares(gateway) == {}


async def test_a_paused_share_takes_submissions_and_forwards_none_until_resumed(gateway: InProcessGateway) -> None:
    assert (await change(gateway, {"paused": True})).json["paused"] is True
    assert (await gateway.post()).status == 202
    assert isinstance(await gateway.store.lease(), Wait)
    assert (await shares(gateway))["training/vision"]["paused"] is True
    assert (await change(gateway, {"paused": False})).json["paused"] is False
    await gateway.settle()


async def test_a_changed_rate_holds_for_the_next_submission(gateway: InProcessGateway) -> None:
    await change(gateway, {"rate": 0.01, "burst": 1})
    assert (await gateway.post()).status == 202
    assert (await gateway.post()).kind == (429, "rate-limited")
    await change(gateway, {"rate": None})
    assert (await gateway.post()).status == 202


async def test_what_is_not_named_stays_and_null_resets(gateway: InProcessGateway) -> None:
    body = {"rate": 2, "burst": 10.0, "weight": 2.5, "maxQueued": 3}
    assert (await change(gateway, body)).json["overrides"] == body
    assert (await change(gateway, {})).json["overrides"] == body
    answer = (await change(gateway, {"rate": None, "maxQueued": 5})).json
    assert answer["overrides"] == {"burst": 10, "weight": 2.5, "maxQueued": 5}
    assert answer["weight"] == 2.5
    reset = (await change(gateway, dict.fromkeys(body))).json
    assert (reset["overrides"], reset["weight"]) == ({}, 1.0)


async def test_what_becomes_of_submissions_over_the_rate_is_a_word(gateway: InProcessGateway) -> None:
    assert (await change(gateway, {"overLimit": "delay", "burst": 3})).json["overrides"] == {
        "overLimit": "delay",
        "burst": 3,
    }
    assert (await shares(gateway))["training/vision"]["overrides"]["overLimit"] == "delay"
    assert (await change(gateway, {"overLimit": "reject"})).json["overrides"]["overLimit"] == "reject"
    assert (await change(gateway, {"overLimit": None})).json["overrides"] == {"burst": 3}
    assert (await change(gateway, {"overLimit": "drop"})).pointers == ["/overLimit"]


@pytest.mark.parametrize("rate", [5e-324, 1e-9, 0.0009])
async def test_a_rate_so_small_that_it_would_be_none_is_refused(gateway: InProcessGateway, rate: float) -> None:
    answer = await change(gateway, {"rate": rate})
    assert (answer.kind, answer.pointers) == ((422, "invalid-change"), ["/rate"])
    assert answer.json["errors"][0]["detail"] == "should be 0 or at least 0.001"
    for taken in (0, 0.001):
        assert (await change(gateway, {"rate": taken})).json["overrides"] == {"rate": taken}


@pytest.mark.parametrize("name", ["x" * 256, "a%0Ab", "%00", "%E2%80%8B"])
async def test_a_name_that_no_share_can_have_is_404(gateway: InProcessGateway, name: str) -> None:
    assert (await change(gateway, {"paused": True}, f"training/{name}")).kind == (404, "not-found")
    assert (await gateway.get(f"/v1/shares/training/{name}")).kind == (404, "not-found")
    assert await shares(gateway) == {}


async def test_the_longest_name_that_batch_takes_is_a_share(gateway: InProcessGateway) -> None:
    assert (await change(gateway, {"paused": True}, "training/" + "%C3%A9" * 255)).json["share"] == "é" * 255


async def test_a_queue_by_its_arn_is_the_same_queue(gateway: InProcessGateway) -> None:
    answer = await change(gateway, {"maxQueued": 0}, ARN.replace("/", "%2F") + "/vision")
    assert (answer.json["jobQueue"], answer.json["share"]) == ("training", "vision")
    assert (await gateway.post()).kind == (503, "backlog-full")


async def test_a_share_may_have_a_slash_in_its_name(gateway: InProcessGateway) -> None:
    assert (await change(gateway, {"maxQueued": 0}, "training/a%2Fb")).json["share"] == "a/b"
    assert (await gateway.post(submission(shareIdentifier="a/b"))).kind == (503, "backlog-full")


@pytest.mark.parametrize("path", ["a%20b/vision", "arn:aws:batch:us-east-1:999999999999:job-queue%2Ftraining/vision"])
async def test_a_queue_that_is_not_ours_is_404(gateway: InProcessGateway, path: str) -> None:
    assert (await change(gateway, {"paused": True}, path)).kind == (404, "not-found")


async def test_all_that_is_wrong_in_a_change_is_said_at_once_and_nothing_is_changed(gateway: InProcessGateway) -> None:
    body = {"rate": -1, "burst": 1.5, "weight": 0, "maxQueued": "5", "paused": "yes", "more": 1}
    answer = await change(gateway, body)
    assert answer.kind == (422, "invalid-change")
    assert sorted(answer.pointers) == ["/burst", "/maxQueued", "/more", "/paused", "/rate", "/weight"]
    assert (await change(gateway, {})).json["overrides"] == {}


async def test_a_change_must_be_a_json_object(gateway: InProcessGateway) -> None:
    assert (await change(gateway, [])).kind == (400, "malformed")
    path, form = "/v1/shares/training/vision", {"Content-Type": "text/plain"}
    assert (await gateway.call("PATCH", path, data=b"{}", headers=form)).kind == (415, "not-json")
    json = {"Content-Type": "application/json"}
    assert (await gateway.call("PATCH", path, data=b" " * 300_000, headers=json)).kind == (413, "too-large")


async def test_a_change_says_in_the_log_which_share_it_was(gateway: InProcessGateway) -> None:
    await change(gateway, {"paused": True})
    (line,) = gateway.lines_of("request")
    assert (line["method"], line["share"]) == ("PATCH", "training/vision")


async def test_a_paused_share_is_shown_though_nothing_is_queued(gateway: InProcessGateway) -> None:
    path = "/v1/shares/training/vision"
    assert (await gateway.get(path)).json["paused"] is False
    await change(gateway, {"paused": True})
    assert [one["paused"] for one in (await shares(gateway)).values()] == [True]
    assert (await gateway.get(path)).json["paused"] is True
    await change(gateway, {"paused": False})
    assert await shares(gateway) == {}


async def test_a_share_shows_the_limits_in_force(client: Redis, prefix: str) -> None:
    limits = ShareLimits(rate=2.0, burst=7, weight=3.0, max_queued=50, over_limit="delay")
    async with in_process_gateway(
        client, prefix, rules=(ShareRule(queue="training", share="vision", limits=limits),)
    ) as gateway:
        settings = {"rate": 2.0, "burst": 7, "weight": 3.0, "maxQueued": 50, "overLimit": "delay"}
        shown = (await gateway.get("/v1/shares/training/vision")).json
        assert shown.items() >= {"upstream": "main", **settings}.items()
        changed = (await change(gateway, {"rate": 1, "overLimit": "reject"})).json
        assert changed.items() >= {**settings, "rate": 1.0, "overLimit": "reject"}.items()
        assert (await change(gateway, {"rate": None, "overLimit": None})).json.items() >= settings.items()


async def test_the_oldest_counts_wherever_it_stands(gateway: InProcessGateway) -> None:
    await gateway.post()
    leased = await gateway.lease()
    young = await gateway.post(submission(schedulingPriority=9))
    accepted = datetime.fromisoformat(young.json["acceptedAt"])
    ages = []
    for report in (None, FORWARDED):
        if report:
            await gateway.store.settle(leased, report)
        ages.append((await gateway.get("/v1/shares/training/vision")).json["oldestSeconds"])
    old_age, young_age = ages
    assert old_age > 0
    assert young_age <= (datetime.now(UTC) - accepted).total_seconds() + 0.01, "the old one is gone"
    assert leased.submission.accepted_at <= accepted


async def test_a_share_whose_every_submission_waits_elsewhere_has_an_age(client: Redis, prefix: str) -> None:
    limits = ShareLimits(rate=0.01, burst=1, over_limit="delay")
    rule = ShareRule(queue="training", share="vision", limits=limits)
    async with in_process_gateway(client, prefix, rules=(rule,)) as gateway:
        await gateway.post()
        await gateway.settle()
        await gateway.post()
        shown = (await gateway.get("/v1/shares/training/vision")).json
    assert shown["queued"] == 1
    assert shown["oldestSeconds"] is not None
