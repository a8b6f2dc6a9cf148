"""`/v1/submissions/{id}/explanation`: what holds a submission, in members and in a sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from gateway.core.attempt import PaceSignal, Report, Verdict
from gateway.core.share import ShareLimits, ShareRule
from gateway.core.submission import Failure
from tests.conftest import eventually
from tests.contract.in_process import FORWARDED, in_process_gateway
from tests.examples import submission

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from tests.contract.in_process import InProcessGateway


def returned(outcome: str, signal: PaceSignal, **more: Any) -> Report:
    failure = Failure(code="Code", message="said Batch")
    return Report(verdict=Verdict.RETRY, outcome=outcome, signal=signal, failure=failure, **more)


async def explained(gateway: InProcessGateway, one: str) -> dict[str, Any]:
    answer = await gateway.get(f"/v1/submissions/{one}/explanation")
    assert answer.status == 200
    return dict(answer.json)


async def posted(gateway: InProcessGateway, **members: Any) -> str:
    return str((await gateway.post(submission(**members))).json["submissionId"])


async def test_who_is_ahead_is_named_share_by_share(gateway: InProcessGateway) -> None:
    for _ in range(2):
        await posted(gateway)
        await posted(gateway, shareIdentifier="text")
    one, found = await posted(gateway), dict[str, Any]()

    async def all_seen() -> bool:  # the forecast may be a second old
        found.update(await explained(gateway, one))
        return bool(found["callsBefore"] == 4)

    await eventually(all_seen)
    assert found["holds"] == []
    assert found["callsBefore"] == sum(one["submissions"] for one in found["ahead"]) == 4
    assert {one["share"]: one["submissions"] for one in found["ahead"]} == {"vision": 2, "text": 2}
    assert found["position"] == 3
    assert "number 3 in its share training/vision; 4 go to Batch before it" in found["sentence"]


async def test_a_paused_share_holds_it(gateway: InProcessGateway) -> None:
    one = await posted(gateway)
    await gateway.call("PATCH", "/v1/shares/training/vision", {"paused": True})
    found = await explained(gateway, one)
    assert [hold["kind"] for hold in found["holds"]] == ["share-paused"]
    assert (found["callsBefore"], found["estimatedForwardAt"], found["share"]["paused"]) == (None, None, True)
    assert "paused" in found["sentence"]


async def test_switched_off_forwarding_holds_it(gateway: InProcessGateway) -> None:
    one = await posted(gateway)
    await gateway.call("PATCH", "/v1/upstreams/main", {"forwarding": False})
    found = await explained(gateway, one)
    assert ([hold["kind"] for hold in found["holds"]], found["condition"]) == (["forwarding-off"], "stopped")


@pytest.mark.parametrize(
    ("report", "kind", "timed"),
    [
        (returned("throttled", PaceSignal.THROTTLED, proved_none=True, wait_seconds=60.0), "throttled", True),
        (returned("not_sent", PaceSignal.UNREACHABLE, proved_none=True), "outage", False),
        (returned("credentials", PaceSignal.CREDENTIALS, proved_none=True), "credentials", True),
        (returned("transient", PaceSignal.ANSWERED, charged=True, delay_seconds=60.0), "retry", True),
    ],
)
async def test_what_batch_said_last_holds_it(
    gateway: InProcessGateway, *, report: Report, kind: str, timed: bool
) -> None:
    one = await posted(gateway)
    await gateway.settle(report)
    found = await explained(gateway, one)
    assert [hold["kind"] for hold in found["holds"]] == [kind]
    assert (found["holds"][0]["until"] is not None) == timed
    assert found["lastErrors"][0]["error"] == "Code"


async def test_a_denied_role_holds_it(gateway: InProcessGateway) -> None:
    first, second = await posted(gateway), await posted(gateway)
    await gateway.settle(returned("denied", PaceSignal.DENIED, proved_none=True))
    for one in (first, second):
        found = await explained(gateway, one)
        assert [hold["kind"] for hold in found["holds"]] == ["role-denied"]
        assert found["holds"][0]["until"]


async def test_what_comes_too_fast_for_its_share_is_held_until_its_turn(client: Redis, prefix: str) -> None:
    limits = ShareLimits(rate=0.01, burst=1, over_limit="delay")
    rule = ShareRule(queue="training", share="vision", limits=limits)
    async with in_process_gateway(client, prefix, rules=(rule,)) as gateway:
        await posted(gateway)
        answer = await gateway.post()
        assert answer.status == 202
        found = await explained(gateway, answer.json["submissionId"])
        assert [hold["kind"] for hold in found["holds"]] == ["over-rate"]
        assert found["holds"][0]["until"] == found["estimatedForwardAt"]


async def test_one_in_batchs_hands_is_held_by_nothing_else(gateway: InProcessGateway) -> None:
    one = await posted(gateway)
    await gateway.lease()
    assert [hold["kind"] for hold in (await explained(gateway, one))["holds"]] == ["with-batch"]
    await gateway.call("POST", f"/v1/submissions/{one}/cancel")
    assert [hold["kind"] for hold in (await explained(gateway, one))["holds"]] == ["ending"]


async def test_an_end_is_explained_in_a_sentence(gateway: InProcessGateway) -> None:
    one = await posted(gateway)
    await gateway.settle()
    found = await explained(gateway, one)
    assert (found["state"], found["holds"], found["ahead"]) == ("forwarded", [], [])
    assert found["sentence"] == f"Batch has it as job {FORWARDED.job_id}."
    other = await posted(gateway)
    await gateway.call("POST", f"/v1/submissions/{other}/cancel")
    assert "canceled" in (await explained(gateway, other))["sentence"]


LATE = Report(
    verdict=Verdict.FORWARDED,
    outcome="submitted",
    signal=PaceSignal.ANSWERED,
    job_id="late-job",
    job_arn="arn:late-job",
)


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (Report(verdict=Verdict.REJECT, outcome="refused", proved_none=True), "an operator can put it back in line"),
        (Report(verdict=Verdict.UNKNOWN, outcome="exhausted"), "a person must look"),
    ],
)
async def test_a_dead_letter_says_what_a_person_can_do(gateway: InProcessGateway, report: Report, words: str) -> None:
    one = await posted(gateway)
    await gateway.settle(report)
    assert words in (await explained(gateway, one))["sentence"]


async def test_a_job_that_came_too_late_is_told(gateway: InProcessGateway) -> None:
    one = await posted(gateway)
    leased = await gateway.lease()
    await gateway.store.settle(leased, Report(verdict=Verdict.REJECT, outcome="refused", proved_none=True))
    await gateway.store.settle(leased, LATE)
    sentence = (await explained(gateway, one))["sentence"]
    assert sentence == "It is rejected; Batch made job late-job of it all the same, and is owed its termination."


async def test_a_job_that_is_to_end_is_told(gateway: InProcessGateway) -> None:
    one = await posted(gateway)
    await gateway.settle()
    await gateway.call("POST", f"/v1/submissions/{one}/cancel")
    assert (await explained(gateway, one))["sentence"].endswith("and is owed its termination.")


async def test_what_nobody_knows_cannot_be_explained(gateway: InProcessGateway) -> None:
    answer = await gateway.get("/v1/submissions/fb8b5596-d40f-8a2b-8937-a9c8da8f26ae/explanation")
    assert answer.kind == (404, "not-found")
