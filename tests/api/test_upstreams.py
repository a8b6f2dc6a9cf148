"""`/v1/upstreams`: how an account and Region is called, and what operators change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from gateway.core.caller import Caller
from gateway.core.ports import Wait
from tests.contract.in_process import UPSTREAM, in_process_gateway
from tests.examples import ACCOUNT, REGION, submission
from tests.store.world import throttled

if TYPE_CHECKING:
    from aiohttp import web
    from redis.asyncio import Redis

    from tests.contract.in_process import Answer, InProcessGateway

PATH = "/v1/upstreams/main"


async def change(gateway: InProcessGateway, body: Any, path: str = PATH) -> Answer:
    return await gateway.call("PATCH", path, body)


async def test_every_upstream_is_listed_as_it_stands(gateway: InProcessGateway) -> None:
    answer = await gateway.get("/v1/upstreams")
    assert answer.json == {
        "items": [
            {
                "name": "main",
                "region": REGION,
                "account": ACCOUNT,
                "queues": ["*"],
                "accepting": True,
                "forwarding": True,
                "rate": 1000.0,
                "pace": 1000.0,
                "condition": "calling",
                "queued": 0,
                "queuedBytes": 0,
                "leased": 0,
                "delayed": 0,
                "errands": 0,
                "forwarded": 0,
                "throttled": 0,
                "credentials": "ok",
                "deniedPairs": 0,
                "overrides": {},
            }
        ],
        "nextCursor": None,
    }
    await gateway.post()
    await gateway.post()
    await gateway.settle()
    await gateway.lease()
    (one,) = (await gateway.get("/v1/upstreams")).json["items"]
    assert (one["queued"], one["leased"], one["forwarded"], one["queuedBytes"] > 0) == (1, 1, 1, True)
    assert (await gateway.get(PATH)).json == one


async def test_a_wait_that_batch_told_has_its_end(gateway: InProcessGateway) -> None:
    await gateway.post()
    await gateway.settle(throttled(30))
    found = (await gateway.get(PATH)).json
    assert (found["condition"], found["throttled"], found["credentials"]) == ("throttled", 1, "ok")
    assert found["heldUntil"].endswith("Z")


async def test_with_acceptance_off_new_ones_are_refused_and_repeats_answered(gateway: InProcessGateway) -> None:
    await gateway.post(submission(clientToken="t"))
    assert (await change(gateway, {"accepting": False})).json["accepting"] is False
    assert (await gateway.post()).kind == (503, "not-accepting")
    again = await gateway.post(submission(clientToken="t"))
    assert (again.status, again.headers["Idempotent-Replayed"]) == (202, "true")
    assert (await change(gateway, {"accepting": True})).json["accepting"] is True
    assert (await gateway.post()).status == 202


async def test_with_forwarding_off_submissions_are_taken_and_kept(gateway: InProcessGateway) -> None:
    stopped = (await change(gateway, {"forwarding": False})).json
    assert (stopped["forwarding"], stopped["condition"]) == (False, "stopped")
    assert (await gateway.post()).status == 202
    assert await gateway.store.lease() == Wait(seconds=None, reason="stopped")
    assert (await change(gateway, {"forwarding": None})).json["condition"] == "calling"
    await gateway.settle()


async def test_what_is_not_named_stays_and_null_resets(gateway: InProcessGateway) -> None:
    await change(gateway, {"accepting": False, "forwarding": False, "rate": 2})
    for body in ({}, {"accepting": False}):
        found = (await change(gateway, body)).json
        assert (found["accepting"], found["forwarding"], found["rate"], found["pace"]) == (False, False, 2, 2)
        assert found["overrides"] == {"rate": 2}
    reset = (await change(gateway, {"accepting": None, "forwarding": None, "rate": None})).json
    assert (reset["accepting"], reset["forwarding"], reset["rate"], reset["overrides"]) == (True, True, 1000, {})


@pytest.mark.parametrize("rate", [0.001, 2, 10_000])
async def test_a_rate_is_kept_exactly(gateway: InProcessGateway, rate: float) -> None:
    assert (await change(gateway, {"rate": rate})).json["overrides"] == {"rate": rate}


@pytest.mark.parametrize("rate", [0, -1, 5e-324, 0.0009, 10_000.1, "5", True])
async def test_a_rate_that_is_none_is_refused(gateway: InProcessGateway, rate: Any) -> None:
    answer = await change(gateway, {"rate": rate})
    assert (answer.kind, answer.pointers) == ((422, "invalid-change"), ["/rate"])


async def test_all_that_is_wrong_in_a_change_is_said_at_once_and_nothing_is_changed(gateway: InProcessGateway) -> None:
    answer = await change(gateway, {"accepting": "no", "forwarding": 0, "rate": 0, "more": 1})
    assert answer.kind == (422, "invalid-change")
    assert sorted(answer.pointers) == ["/accepting", "/forwarding", "/more", "/rate"]
    mixed = await change(gateway, {"accepting": False, "rate": 0})
    assert (mixed.status, (await gateway.get(PATH)).json["accepting"]) == (422, True)


async def test_a_change_must_be_a_json_object(gateway: InProcessGateway) -> None:
    assert (await change(gateway, [])).kind == (400, "malformed")
    form = {"Content-Type": "text/plain"}
    assert (await gateway.call("PATCH", PATH, data=b"{}", headers=form)).kind == (415, "not-json")
    json = {"Content-Type": "application/json"}
    assert (await gateway.call("PATCH", PATH, data=b" " * 300_000, headers=json)).kind == (413, "too-large")


async def test_an_upstream_that_the_settings_do_not_have_is_404(gateway: InProcessGateway) -> None:
    assert (await gateway.get("/v1/upstreams/other")).kind == (404, "not-found")
    assert (await change(gateway, {"rate": 1}, "/v1/upstreams/other")).kind == (404, "not-found")


async def test_a_change_is_in_the_log(gateway: InProcessGateway) -> None:
    await change(gateway, {"accepting": False, "rate": None})
    (line,) = gateway.lines_of("upstream_changed")
    assert (line["upstream"], line["principal"]) == ("main", "anonymous")
    assert line["changes"] == {"accepting": False, "rate": None}
    assert line["request_id"]
    await change(gateway, {"rate": 0})
    assert len(gateway.lines_of("upstream_changed")) == 1


async def test_what_was_set_is_there_after_a_restart(client: Redis, prefix: str) -> None:
    async with in_process_gateway(client, prefix) as gateway:
        await change(gateway, {"accepting": False, "rate": 3})
    async with in_process_gateway(client, prefix, upstream=UPSTREAM) as gateway:
        found = (await gateway.get(PATH)).json
        assert (found["accepting"], found["rate"]) == (False, 3)


class NoOperators:
    """Everybody may submit, and nobody may operate."""

    async def caller(self, _: web.Request) -> Caller:
        return Caller(name="vision-ci", namespace="vision", operator=False)


@pytest.mark.parametrize(
    ("path", "body"),
    [(PATH, {"accepting": False}), (PATH, {"rate": 0}), ("/v1/shares/training/vision", {"paused": True})],
)
async def test_only_operators_change_anything(client: Redis, prefix: str, path: str, body: Any) -> None:
    async with in_process_gateway(client, prefix, authenticator=NoOperators()) as gateway:
        assert (await change(gateway, body, path)).kind == (403, "forbidden")
        assert (await gateway.get(path)).status == 200
        assert (await gateway.post()).status == 202
        await gateway.settle()
