"""`Prefer: wait`: the answer is held until the submission leaves `queued`, and no longer than was asked for."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest
from aiohttp.test_utils import make_mocked_request

from gateway.api.submissions import preferred_wait
from gateway.store.connection import connect
from tests.conftest import eventually
from tests.contract.in_process import FORWARDED, in_process_gateway
from tests.examples import submission
from tests.servers import running, valkey_binary

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from redis.asyncio import Redis

    from tests.contract.in_process import Answer, InProcessGateway

LONG = {"Prefer": "wait=30"}


@pytest.fixture
async def waiting(gateway: InProcessGateway) -> AsyncIterator[asyncio.Task[Answer]]:
    """A POST that is being held."""
    task = asyncio.create_task(gateway.post(submission(clientToken="t"), headers=LONG))
    await eventually(lambda: held(gateway))
    yield task
    task.cancel()
    await asyncio.wait([task])


async def held(gateway: InProcessGateway) -> bool:
    return bool(gateway.hints._watchers)


async def test_a_post_is_answered_as_soon_as_it_is_settled(
    gateway: InProcessGateway, waiting: asyncio.Task[Answer]
) -> None:
    assert not waiting.done()
    began = time.monotonic()
    await gateway.settle()
    answer = await waiting
    assert time.monotonic() - began < 5
    assert (answer.status, answer.json["state"], answer.json["jobId"]) == (200, "forwarded", FORWARDED.job_id)
    assert answer.headers["Preference-Applied"] == "wait=30"
    assert "Idempotent-Replayed" not in answer.headers


async def test_a_get_is_answered_as_soon_as_it_is_settled(gateway: InProcessGateway) -> None:
    made = (await gateway.post()).json
    task = asyncio.create_task(gateway.show(made["submissionId"], headers=LONG))
    await eventually(lambda: held(gateway))
    await gateway.settle()
    answer = await task
    assert (answer.status, answer.json["state"], answer.headers["Preference-Applied"]) == (200, "forwarded", "wait=30")


async def test_a_replay_waits_too(gateway: InProcessGateway, waiting: asyncio.Task[Answer]) -> None:
    again = asyncio.create_task(gateway.post(submission(clientToken="t"), headers=LONG))
    await eventually(lambda: both_held(gateway))
    await gateway.settle()
    first, second = await waiting, await again
    assert second.json == first.json
    assert (second.status, second.headers["Idempotent-Replayed"]) == (200, "true")


async def both_held(gateway: InProcessGateway) -> bool:
    return sum(len(events) for events in gateway.hints._watchers.values()) == 2


async def test_a_wait_that_sees_no_end_answers_as_it_stands(gateway: InProcessGateway) -> None:
    made = await gateway.post(headers={"Prefer": "wait=1"})
    assert (made.status, made.json["state"], made.headers["Preference-Applied"]) == (202, "queued", "wait=1")
    shown = await gateway.show(made.json["submissionId"], headers={"Prefer": "wait=1"})
    assert (shown.status, shown.json["state"], shown.headers["Preference-Applied"]) == (200, "queued", "wait=1")


async def test_a_final_one_is_not_waited_for(gateway: InProcessGateway) -> None:
    made = (await gateway.post(submission(clientToken="t"))).json
    await gateway.settle()
    began = time.monotonic()
    assert (await gateway.show(made["submissionId"], headers={"Prefer": "wait=600"})).json["state"] == "forwarded"
    again = await gateway.post(submission(clientToken="t"), headers={"Prefer": "wait=600"})
    assert (again.status, again.headers["Preference-Applied"]) == (200, "wait=30")
    assert time.monotonic() - began < 5


async def test_a_drain_ends_every_wait(gateway: InProcessGateway, waiting: asyncio.Task[Answer]) -> None:
    began = time.monotonic()
    gateway.drain()
    answer = await waiting
    assert (answer.status, answer.json["state"]) == (202, "queued")
    later = await gateway.post(headers=LONG)
    assert (later.status, later.json["state"]) == (202, "queued")
    assert time.monotonic() - began < 5


async def test_an_accepted_submission_is_answered_even_if_the_store_goes_away_meanwhile(tmp_path: Path) -> None:
    with running(valkey_binary(), tmp_path) as server:
        async with connect(server.url) as client, in_process_gateway(client, "p") as gateway:
            task = asyncio.create_task(gateway.post(submission(clientToken="t"), headers=LONG))
            await eventually(lambda: held(gateway))
            server.kill()
            answer = await task
            assert (answer.status, answer.json["clientToken"], answer.json["state"]) == (202, "t", "queued")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0),
        ({"Prefer": "wait=10"}, 10),
        ({"Prefer": "WAIT = 10"}, 10),
        ({"Prefer": 'wait="10"'}, 10),
        ({"Prefer": "respond-async, wait=10; why=now, handling=lenient"}, 10),
        ({"Prefer": "wait=31"}, 30),
        ({"Prefer": "wait=999999999"}, 30),
        ({"Prefer": "wait=0"}, 0),
        ({"Prefer": "wait"}, 0),
        ({"Prefer": "wait=-1"}, 0),
        ({"Prefer": "wait=1.5"}, 0),
        ({"Prefer": "wait=soon"}, 0),
        ({"Prefer": "await=10"}, 0),
        ({"Prefer": "wait=" + "9" * 100}, 0),
    ],
)
def test_the_wait_is_read_as_rfc_7240_writes_it_and_capped(headers: dict[str, str], seconds: float) -> None:
    assert preferred_wait(make_mocked_request("GET", "/", headers=headers)) == seconds


async def test_a_wait_that_makes_no_sense_is_no_wait(gateway: InProcessGateway) -> None:
    answer = await gateway.post(headers={"Prefer": "wait=soon"})
    assert (answer.status, "Preference-Applied" in answer.headers) == (202, False)


async def test_a_wait_looks_by_itself_where_a_hint_is_lost(client: Redis, prefix: str) -> None:
    async with in_process_gateway(client, prefix) as gateway:
        gateway.hints._pass_on = lambda *_: None  # type: ignore[method-assign]
        task = asyncio.create_task(gateway.post(headers=LONG))
        await eventually(lambda: held(gateway))
        await gateway.settle()
        assert (await task).json["state"] == "forwarded"
