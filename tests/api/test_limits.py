"""What refuses a submission for now, and when to come back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.core.pace import PaceRules
from gateway.core.share import ShareLimits, ShareRule
from gateway.store.bounds import StoreBounds
from tests.contract.in_process import in_process_gateway
from tests.examples import submission

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from tests.contract.in_process import InProcessGateway


def rule(**limits: float) -> tuple[ShareRule, ...]:
    return (ShareRule(queue="training", share="vision", limits=ShareLimits(**limits)),)  # type: ignore[arg-type]


async def test_a_share_over_its_rate_is_told_exactly_when_the_next_passes(client: Redis, prefix: str) -> None:
    async with in_process_gateway(client, prefix, rules=rule(rate=0.01, burst=3)) as gateway:
        for _ in range(3):
            assert (await gateway.post()).status == 202
        answer = await gateway.post()
        assert answer.kind == (429, "rate-limited")
        assert answer.headers["Retry-After"] == "100"
        assert answer.headers["RateLimit"] == '"share-rate";r=0;t=100'
        assert answer.headers["RateLimit-Policy"] == '"share-rate";q=3;w=300'
        assert answer.json["limits"] == [{"name": "share-rate", "quota": 3, "retryAfterSeconds": 100}]
        assert (await gateway.store.pace())["queued"] == 3


async def test_a_wait_below_a_second_is_rounded_up(client: Redis, prefix: str) -> None:
    async with in_process_gateway(client, prefix, rules=rule(rate=5, burst=1)) as gateway:
        await gateway.post()
        assert (await gateway.post()).headers["Retry-After"] == "1"


async def test_other_shares_are_not_limited_with_it(client: Redis, prefix: str) -> None:
    async with in_process_gateway(client, prefix, rules=rule(rate=0.01, burst=1)) as gateway:
        await gateway.post()
        assert (await gateway.post(submission(shareIdentifier="other"))).status == 202
        assert (await gateway.post(submission(jobQueue="other"))).status == 202


async def test_a_replay_is_never_rate_limited_and_costs_nothing(client: Redis, prefix: str) -> None:
    async with in_process_gateway(client, prefix, rules=rule(rate=0.01, burst=2)) as gateway:
        first = (await gateway.post(submission(clientToken="t"))).lasting
        for _ in range(5):
            again = await gateway.post(submission(clientToken="t"))
            assert (again.status, again.lasting) == (202, first)
        assert (await gateway.post()).status == 202
        assert (await gateway.post()).kind == (429, "rate-limited")
        assert (await gateway.post(submission(clientToken="t"))).headers["Idempotent-Replayed"] == "true"


async def test_a_reused_token_is_told_so_before_any_limit(client: Redis, prefix: str) -> None:
    async with in_process_gateway(client, prefix, rules=rule(rate=0.01, burst=1)) as gateway:
        await gateway.post(submission(clientToken="t"))
        assert (await gateway.post(submission(clientToken="t", jobName="other"))).kind == (422, "token-reused")


async def test_a_refusal_costs_no_rate(client: Redis, prefix: str) -> None:
    async with in_process_gateway(client, prefix, rules=rule(rate=0.01, burst=1)) as gateway:
        await gateway.post()
        for _ in range(3):
            assert (await gateway.post()).headers["Retry-After"] == "100"


async def test_every_limit_that_refuses_is_named(client: Redis, prefix: str) -> None:
    bounds = StoreBounds(max_queued=1, max_queued_bytes=100)
    async with in_process_gateway(
        client, prefix, rules=rule(rate=0.01, burst=1, max_queued=1), bounds=StoreBounds(max_queued=1)
    ) as gateway:
        await gateway.post()
        gateway.store._admissions._flush._bounds = bounds  # type: ignore[attr-defined]
        answer = await gateway.post()
        assert answer.kind == (429, "rate-limited")
        assert [one["name"] for one in answer.json["limits"]] == [
            "share-rate",
            "share-backlog",
            "backlog",
            "backlog-bytes",
        ]
        assert answer.headers["Retry-After"] == "100"
        assert answer.headers["RateLimit"] == '"share-rate";r=0;t=100'


async def test_a_full_share_is_503_until_batch_has_taken_one(client: Redis, prefix: str) -> None:
    async with in_process_gateway(client, prefix, rules=rule(max_queued=2), pace=PaceRules(rate=0.1)) as gateway:
        await gateway.post()
        await gateway.post()
        answer = await gateway.post()
        assert answer.kind == (503, "backlog-full")
        assert answer.json["limits"] == [{"name": "share-backlog", "quota": 2, "retryAfterSeconds": 10}]
        assert answer.headers["Retry-After"] == "10"
        assert "RateLimit" not in answer.headers
        await gateway.settle()
        assert (await gateway.post()).status == 202


async def test_a_full_gateway_is_503(client: Redis, prefix: str) -> None:
    async with in_process_gateway(client, prefix, bounds=StoreBounds(max_queued=1)) as gateway:
        await gateway.post()
        answer = await gateway.post(submission(shareIdentifier="other"))
        assert (answer.kind, answer.json["limits"][0]["name"]) == ((503, "backlog-full"), "backlog")


async def test_a_store_with_too_many_bytes_is_503(client: Redis, prefix: str) -> None:
    async with in_process_gateway(client, prefix, bounds=StoreBounds(max_queued_bytes=100)) as gateway:
        answer = await gateway.post()
        assert (answer.kind, answer.json["limits"][0]["name"]) == ((503, "backlog-full"), "backlog-bytes")


async def test_one_share_more_than_a_queue_may_have_is_429(client: Redis, prefix: str) -> None:
    async with in_process_gateway(client, prefix, bounds=StoreBounds(max_shares_per_queue=1)) as gateway:
        await gateway.post()
        assert (await gateway.post()).status == 202
        answer = await gateway.post(submission(shareIdentifier="other"))
        assert answer.kind == (429, "too-many-shares")
        assert answer.json["limits"] == [{"name": "queue-shares", "quota": 1, "retryAfterSeconds": 1}]
        assert answer.headers["Retry-After"] == "1"
        assert (await gateway.post(submission(jobQueue="another", shareIdentifier="other"))).status == 202


async def test_an_upstream_that_is_switched_off_takes_nothing_but_replays(
    client: Redis, gateway: InProcessGateway
) -> None:
    await gateway.post(submission(clientToken="t"))
    await client.hset(gateway.store._keys.upstream, "accepting", "0")
    answer = await gateway.post()
    assert (answer.kind, answer.headers["Retry-After"]) == ((503, "not-accepting"), "30")
    assert (await gateway.post(submission(clientToken="t"))).status == 202


async def test_a_process_with_too_much_in_hand_says_so_but_answers_health_checks(client: Redis, prefix: str) -> None:
    async with in_process_gateway(client, prefix, max_requests=0) as gateway:
        for method, path in (
            ("POST", "/v1/submissions"),
            ("GET", "/v1/submissions/fb8b5596-d40f-8a2b-8937-a9c8da8f26ae"),
            ("GET", "/v1/shares"),
            ("PATCH", "/v1/shares/training/vision"),
            ("GET", "/openapi.yaml"),
        ):
            answer = await gateway.call(method, path)
            assert (answer.kind, answer.headers["Retry-After"]) == ((429, "too-many-requests"), "1")
        assert (await gateway.get("/livez")).status == 200
        assert (await gateway.get("/readyz")).status == 200


async def test_requests_that_have_ended_are_no_longer_in_hand(client: Redis, prefix: str) -> None:
    async with in_process_gateway(client, prefix, max_requests=1) as gateway:
        for _ in range(3):
            assert (await gateway.post()).status == 202
            assert (await gateway.post(submission(jobName=""))).status == 422
