"""An audit goes on in slices, from process to process, and changes nothing."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import msgpack
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from gateway.core.audit import whole_round
from gateway.core.errors import StoreUnavailableError
from tests.store.furnished import SHARE, Beside, Furnished, audit_of, furnish, told
from tests.store.world import (
    World,
    clocked,
)

if TYPE_CHECKING:
    from redis.asyncio import Redis


@pytest.fixture
async def store(any_client: Redis) -> Furnished:
    return await furnish(any_client)


async def test_a_store_larger_than_a_page_is_looked_at_in_bounded_steps(world: World) -> None:
    await world.queue(700)
    await world.queue(300, share="other", namespace="m")
    audit = audit_of(world)
    await audit.open()
    steps = [await audit.step()]
    while steps[-1].round_seconds is None:
        steps.append(await audit.step())
    assert max(step.looked_at for step in steps) <= 150  # a small set comes whole
    assert sum(step.looked_at for step in steps) > 4 * 1000  # by its key, in its line, among the waiting, in its index
    assert steps[-1].bytes_compared
    assert [drift for step in steps for drift in step.drifts] == []


async def test_the_last_of_a_long_line_is_found_too(world: World) -> None:
    ids = await world.queue(1000)
    gone = random.Random(1).choice(ids)
    await world.client.delete(world.keys.record(gone))
    assert await told(world) == {("lost", gone)}


async def test_one_process_has_the_turn_and_the_next_goes_on_where_it_left(world: World) -> None:
    await world.queue(400)
    first, second = audit_of(world), audit_of(world)
    assert await first.begin(60) == 0
    assert 55 < await second.begin(60) <= 60
    looked_at = 0
    while looked_at <= 100:
        looked_at += (await first.step()).looked_at
    await first.leave()
    await world.client.delete(f"{world.keys.root}auditor")  # its minute is over
    assert await second.begin(60) == 0
    rest = await whole_round(second)
    alone = audit_of(world)
    await alone.open()
    whole = (await whole_round(alone)).looked_at
    assert whole <= looked_at + rest.looked_at < 1.1 * whole  # SCAN may meet a key twice while the server's table grows
    assert rest.drifts == ()


async def test_a_round_that_another_version_left_begins_anew(world: World) -> None:
    await world.queue(10)
    audit = audit_of(world)
    assert await audit.begin(60) == 0
    await audit.step()
    await audit.leave()
    kept = msgpack.unpackb(await world.client.hget(f"{world.keys.root}audit", "round"))
    await world.client.hset(f"{world.keys.root}audit", "round", msgpack.packb({**kept, "later": 1}))
    await world.client.delete(f"{world.keys.root}auditor")
    assert await audit.begin(60) == 0
    assert (await whole_round(audit)).looked_at >= 10


async def test_an_audit_by_hand_leaves_nothing_behind(store: Furnished) -> None:
    await store.client.zrem(store.keys.active, str(SHARE))
    before = await store.world.dump()
    audit = audit_of(store.world)
    await audit.open()
    assert len((await whole_round(audit)).drifts) == 1
    assert await store.world.dump() == before


async def test_the_server_lets_an_audit_write_nothing(world: World) -> None:
    writing = clocked("audit")._text.replace("return { 'looked'", "redis.call('SET', KEYS[1], '')\nreturn { 'looked'")
    with pytest.raises(ResponseError, match="Write commands are not allowed"):
        await world.client.eval(writing, 1, world.keys.delayed, world.keys.root)


async def test_a_step_that_the_store_did_not_answer_is_made_again(world: World) -> None:
    ids = await world.queue(120)
    audit = audit_of(world)
    assert await audit.begin(60) == 0
    await audit.leave()
    for _ in range(3):
        await audit.step()

    async def away(*_: Any) -> Any:
        raise RedisConnectionError("gone")

    client, audit._client = audit._client, Beside(world.client, evalsha=away)
    with pytest.raises(StoreUnavailableError):
        await whole_round(audit)
    audit._client = client
    await world.client.delete(f"{world.keys.root}auditor", world.keys.record(ids[0]))
    assert await audit.begin(60) == 0
    assert {drift.about for drift in (await whole_round(audit)).drifts} == {ids[0]}
