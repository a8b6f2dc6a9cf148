"""Queues that Batch describes: what is refused at acceptance, and that a repeat and an outage of Batch are not."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from gateway.batch.batch_client import Endpoint, open_batch_client
from gateway.core.queue_check import QueueCheck
from gateway.core.queue_facts import QueueFacts
from gateway.core.share import ShareLimits, ShareRule
from gateway.emulator import Emulator, EmulatorConfig, Fault, QueueConfig, QuotaShareConfig
from gateway.store.connection import connect
from tests.conftest import eventually
from tests.contract.in_process import Answer, InProcessGateway, in_process_gateway
from tests.core.fakes import ListLog
from tests.examples import ACCOUNT, REGION, submission
from tests.servers import running, valkey_binary

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from redis.asyncio import Redis

    from gateway.core.errors import Finding
    from gateway.core.share import Share

QUEUES = (
    QueueConfig(name="plain"),
    QueueConfig(name="fair", policy="fairshare"),
    QueueConfig(
        name="quota",
        policy="quota",
        quota_shares=(QuotaShareConfig(name="open"), QuotaShareConfig(name="shut", state="DISABLED")),
    ),
    QueueConfig(name="any", policy="any"),
    QueueConfig(name="closed", state="DISABLED"),
    QueueConfig(name="containers", job_queue_type="ECS"),
)
CONFIG = EmulatorConfig(queues=QUEUES, auto_queues=False, read_tps=0)


@dataclass
class Clock:
    """The process's, `later` seconds on."""

    later: float = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.later


@dataclass(frozen=True, kw_only=True)
class World:
    """A gateway that asks an emulator about queues; `clock` is that of what it knows of them."""

    gateway: InProcessGateway
    emulator: Emulator
    clock: Clock
    log: ListLog

    def set_state(self, queue: str, state: str) -> None:
        self.emulator._service.queues.get(queue).state = state

    @property
    def asked(self) -> list[str]:
        return [entry.operation for entry in self.emulator.ledger()]

    async def submit(self, **members: Any) -> tuple[int, list[str]]:
        """The status, and the pointers of what is wrong."""
        return told(await self.gateway.post(body(**members)))

    async def dry_run(self, **members: Any) -> tuple[int, list[str]]:
        return told(await self.gateway.call("POST", "/v1/submissions?dryRun=true", body(**members)))

    async def batch(self, *items: dict[str, Any]) -> list[dict[str, Any]]:
        answer = await self.gateway.call("POST", "/v1/submissions/batch", {"submissions": list(items)})
        assert answer.status == 200
        results: list[dict[str, Any]] = answer.json["results"]
        return results


def body(**members: Any) -> dict[str, Any]:
    return submission(**{"shareIdentifier": None, **members})


def told(answer: Answer) -> tuple[int, list[str]]:
    if answer.status != 422:
        return answer.status, []
    assert answer.slug == "invalid-submission"
    return answer.status, answer.pointers


def is_warned(warnings: list[dict[str, str]]) -> bool:
    """Whether the queue could not be checked, and nothing else is odd."""
    if not warnings:
        return False
    (warning,) = warnings
    assert warning["pointer"] == "/jobQueue"
    assert warning["detail"].startswith("could not be checked against Batch: ")
    return True


@asynccontextmanager
async def world_of(client: Redis, prefix: str, **options: Any) -> AsyncIterator[World]:
    emulator, clock, log = Emulator(CONFIG), Clock(), ListLog()
    async with emulator.serving() as url:
        endpoint = Endpoint(region=REGION, url=url, access_key_id="AKIDEXAMPLE", secret_access_key="not checked")
        async with open_batch_client(endpoint, concurrency=1, call_timeout_seconds=5) as batch:
            check = QueueCheck(upstream="main", calls=batch.operations, log=log, clock=clock)
            try:
                async with in_process_gateway(client, prefix, queue_check=check, **options) as gateway:
                    yield World(gateway=gateway, emulator=emulator, clock=clock, log=log)
            finally:
                await check.aclose()


@pytest.fixture
async def world(client: Redis, prefix: str) -> AsyncIterator[World]:
    async with world_of(client, prefix) as world:
        yield world


ARN = f"arn:aws:batch:{REGION}:{ACCOUNT}:job-queue/"
TAKEN: list[dict[str, Any]] = [
    {"jobQueue": "plain"},
    {"jobQueue": f"{ARN}plain"},
    {"jobQueue": "fair", "shareIdentifier": "vision"},
    {"jobQueue": "quota", "quotaShareName": "open"},
    {"jobQueue": "any"},
    {"jobQueue": "any", "shareIdentifier": "vision"},
    {"jobQueue": "any", "quotaShareName": "vision"},
]
REFUSED: list[tuple[dict[str, Any], list[str]]] = [
    ({"jobQueue": "plain", "shareIdentifier": "vision"}, ["/shareIdentifier"]),
    ({"jobQueue": f"{ARN}plain", "quotaShareName": "open"}, ["/quotaShareName"]),
    ({"jobQueue": "fair"}, ["/shareIdentifier"]),
    ({"jobQueue": "fair", "quotaShareName": "open"}, ["/quotaShareName", "/shareIdentifier"]),
    ({"jobQueue": "quota"}, ["/quotaShareName"]),
    ({"jobQueue": "quota", "shareIdentifier": "vision"}, ["/quotaShareName", "/shareIdentifier"]),
    ({"jobQueue": "quota", "quotaShareName": "shut"}, ["/quotaShareName"]),
    ({"jobQueue": "quota", "quotaShareName": "absent"}, ["/quotaShareName"]),
    ({"jobQueue": "closed"}, ["/jobQueue"]),
    ({"jobQueue": "closed", "shareIdentifier": "vision"}, ["/jobQueue", "/shareIdentifier"]),
    ({"jobQueue": "containers"}, ["/jobQueue"]),
    ({"jobQueue": "absent", "shareIdentifier": "vision"}, ["/jobQueue"]),
]


async def test_what_batch_would_refuse_is_refused_at_once_with_all_that_is_wrong(world: World) -> None:
    for members, pointers in REFUSED:
        assert await world.submit(**members) == (422, pointers), members
        assert await world.dry_run(**members) == (422, pointers), members
    assert (await world.gateway.store.pace())["queued"] == 0
    for members in TAKEN:
        assert await world.submit(**members) == (202, []), members
        assert await world.dry_run(**members) == (200, []), members
    assert (await world.gateway.store.pace())["queued"] == len(TAKEN)
    queues = 7  # each is read once within the seconds that this takes
    assert world.asked.count("DescribeJobQueues") == queues
    assert world.log.lines == []


async def test_the_problem_says_what_to_do(world: World) -> None:
    answer = await world.gateway.post(body(jobQueue="fair"))
    assert answer.json["detail"] == "Its queue does not take this submission; see errors."
    detail = "is required: the queue fair has a fair-share scheduling policy"
    assert answer.json["errors"] == [{"pointer": "/shareIdentifier", "detail": detail}]


async def test_in_a_batch_each_has_its_own_refusal_and_each_queue_is_read_once(world: World) -> None:
    results = await world.batch(*(body(**members) for members in TAKEN), *(body(**members) for members, _ in REFUSED))
    assert [one["status"] for one in results] == [202] * len(TAKEN) + [422] * len(REFUSED)
    problems = [one["problem"] for one in results[len(TAKEN) :]]
    assert {one["type"] for one in problems} == {"/problems/invalid-submission"}
    assert [[one["pointer"] for one in problem["errors"]] for problem in problems] == [
        pointers for _, pointers in REFUSED
    ]
    assert sorted(world.asked) == sorted(
        ["DescribeJobQueues"] * 7 + ["DescribeSchedulingPolicies"] * 3 + ["ListQuotaShares"]
    )


async def test_a_batch_of_refusals_alone_goes_no_further(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def admit_many(_: list[Any]) -> list[Any]:
        raise AssertionError("there is nothing to admit")

    monkeypatch.setattr(world.gateway.store, "admit_many", admit_many)
    assert [one["status"] for one in await world.batch(body(jobQueue="fair"), body(jobQueue="closed"))] == [422, 422]


async def test_a_repeat_is_replayed_after_its_queue_was_disabled(world: World) -> None:
    asked = body(jobQueue="plain", clientToken="t")
    made = await world.gateway.post(asked)
    assert made.status == 202
    world.set_state("plain", "DISABLED")
    world.clock.later = 601
    assert await world.submit(jobQueue="plain", clientToken="new") == (422, ["/jobQueue"])
    again = await world.gateway.post(asked)
    assert (again.status, again.headers["Idempotent-Replayed"], again.lasting) == (202, "true", made.lasting)
    (replayed, new) = await world.batch(asked, body(jobQueue="plain", clientToken="new"))
    assert (replayed["status"], replayed["replayed"], new["status"]) == (202, True, 422)
    assert await world.dry_run(jobQueue="plain", clientToken="t") == (200, [])
    assert await world.dry_run(jobQueue="plain", clientToken="new") == (422, ["/jobQueue"])


async def test_a_known_token_with_another_request_is_told_so_before_anything_else(world: World) -> None:
    await world.submit(jobQueue="plain", clientToken="t")
    other = body(jobQueue="fair", clientToken="t")
    answer = await world.gateway.post(other)
    assert (answer.kind, answer.json["members"]) == ((422, "token-reused"), ["jobQueue"])
    (result,) = await world.batch(other)
    assert result["problem"]["type"] == "/problems/token-reused"
    dry = await world.gateway.call("POST", "/v1/submissions?dryRun=true", other)
    assert dry.kind == (422, "token-reused")


async def test_twice_the_same_token_in_a_batch_works_as_two_calls_would(world: World) -> None:
    good, bad = body(jobQueue="plain", clientToken="t"), body(jobQueue="fair", clientToken="t")
    first, second = await world.batch(bad, good)
    assert (first["problem"]["type"], second["status"]) == ("/problems/invalid-submission", 202)
    good["clientToken"] = bad["clientToken"] = "u"
    first, second = await world.batch(good, bad)
    assert (first["status"], second["problem"]["type"]) == (202, "/problems/token-reused")


async def test_a_queue_that_is_enabled_again_takes_submissions_five_seconds_later(world: World) -> None:
    assert await world.submit(jobQueue="closed") == (422, ["/jobQueue"])
    world.set_state("closed", "ENABLED")
    assert await world.submit(jobQueue="closed") == (422, ["/jobQueue"])
    world.clock.later += 5.5
    assert await world.submit(jobQueue="closed") == (202, [])


async def test_a_queue_that_is_disabled_is_noticed_within_a_minute_and_a_caller(world: World) -> None:
    await world.submit(jobQueue="plain")
    world.set_state("plain", "DISABLED")
    world.clock.later += 61
    assert await world.submit(jobQueue="plain") == (202, [])  # what is known serves while it is read again

    async def refused() -> bool:
        return await world.submit(jobQueue="plain") == (422, ["/jobQueue"])

    await eventually(refused)


FAULTS = {
    "down": Fault(kind="down"),
    "throttled": Fault(kind="throttle", operation="*"),
    "denied": Fault(kind="access_denied", operation="*"),
    "failing": Fault(kind="error_500", operation="*"),
    "talking nonsense": Fault(kind="error_200_garbage", operation="DescribeJobQueues"),
    "lost on the way": Fault(kind="error_500", operation="ListQuotaShares"),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_while_batch_cannot_be_asked_submissions_are_taken_with_a_warning(world: World, fault: Fault) -> None:
    world.emulator.set_faults(fault)
    asked = body(jobQueue="quota", quotaShareName="absent", clientToken="t")
    began = time.monotonic()
    made = await world.gateway.post(asked)
    assert made.status == 202
    assert is_warned(made.json["warnings"])
    calls = len(world.asked)
    found = await world.gateway.show(made.json["submissionId"])
    assert is_warned(found.json["warnings"])
    (result,) = await world.batch(body(jobQueue="quota"))
    assert is_warned(result["submission"]["warnings"])
    dry = await world.gateway.call("POST", "/v1/submissions?dryRun=true", asked)
    assert is_warned(dry.json["warnings"])
    assert time.monotonic() - began < 5
    assert len(world.asked) == calls  # not again and again
    (line,) = world.log.of("queue_unchecked")
    assert (line["upstream"], line["queue"]) == ("main", "quota")
    world.emulator.clear_faults()
    world.clock.later += 10.5

    async def checked_again() -> bool:
        return await world.submit(jobQueue="quota", quotaShareName="absent") == (422, ["/quotaShareName"])

    await eventually(checked_again)


async def test_a_batch_that_hangs_holds_nobody_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.core.queue_check.WAIT_SECONDS", 0.1)
    world.emulator.set_faults(Fault(kind="slow", operation="*", seconds=60))
    queues = ["plain", "fair", "quota", "closed"]
    results = await world.batch(*(body(jobQueue=queue) for queue in queues * 3))
    assert [one["status"] for one in results] == [202] * 12
    assert all(is_warned(one["submission"]["warnings"]) for one in results)
    assert {line["error_code"] for line in world.log.of("queue_unchecked")} == {"SlowReading"}


async def test_other_findings_come_first_and_limits_last(client: Redis, prefix: str) -> None:
    rule = ShareRule(queue="plain", share="-", limits=ShareLimits(rate=0.1, burst=1))
    async with world_of(client, prefix, rules=(rule,)) as world:
        assert await world.submit(jobQueue="closed", jobName="no good") == (422, ["/jobName"])
        assert world.asked == []
        assert await world.submit(jobQueue="plain") == (202, [])
        assert (await world.gateway.post(body(jobQueue="plain"))).kind == (429, "rate-limited")
        world.set_state("plain", "DISABLED")
        world.clock.later = 601
        assert await world.submit(jobQueue="plain") == (422, ["/jobQueue"])


async def test_what_a_queue_takes_is_not_looked_up_first(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def get(_: str) -> None:
        raise AssertionError("a round trip to the store")

    monkeypatch.setattr(world.gateway.store, "get", get)
    assert await world.submit(jobQueue="plain", clientToken="t") == (202, [])
    assert await world.submit(jobQueue="plain", clientToken="t") == (202, [])
    assert await world.submit(jobQueue="fair") == (422, ["/shareIdentifier"])  # its token was made now
    assert [one["status"] for one in await world.batch(body(jobQueue="plain", clientToken="u"))] == [202]


async def test_a_bug_with_one_queue_spoils_no_other_of_a_batch(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def against(_: QueueFacts, share: Share, __: str) -> list[Finding]:
        return [] if share.queue == "plain" else [share.queue.bug]  # type: ignore[attr-defined]

    monkeypatch.setattr(QueueFacts, "against", against)
    results = await world.batch(body(jobQueue="plain"), body(jobQueue="fair"), body(jobQueue="plain"))
    assert [one["status"] for one in results] == [202, 500, 202]
    assert len(world.gateway.lines_of("unexpected_error")) == 1


async def test_without_the_store_each_of_a_batch_has_an_answer(tmp_path: Path) -> None:
    """Also who was refused before the store was asked."""
    with running(valkey_binary(), tmp_path) as server:
        async with connect(server.url) as client, world_of(client, "p") as world:
            await world.batch(body(jobQueue="fair"), body(jobQueue="plain"))
            server.kill()
            refused, unknown, repeat = await world.batch(
                body(jobQueue="fair"), body(jobQueue="plain"), body(jobQueue="plain", clientToken="t")
            )
            assert (refused["status"], unknown["status"], repeat["status"]) == (422, 503, 503)
            assert repeat["problem"]["clientToken"] == "t"
            named = await world.gateway.post(body(jobQueue="fair", clientToken="t"))
            assert named.kind == (503, "store-unavailable")  # whether it is a repeat nobody can say
