"""The check that nothing is half-done finds each thing that could be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgpack
import pytest

from tests.store.world import World, forwarded
from tests.stores.soundness import read_all, unsound

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from redis.asyncio import Redis

    from tests.servers import StoreServer

READY, LEASED = "training/vision", "training/text"


async def _world(client: Redis) -> tuple[World, str, str]:
    """(world, a ready one's id, a leased one's id), with a forwarded one beside them."""
    world = await World(client).open()
    await world.queue(1, share="done")
    await world.attempt(forwarded())
    await world.queue(1, share="text")
    leased = await world.next_lease()
    (ready,) = await world.queue(1, share="vision")
    return world, ready, leased.submission.submission_id


async def _change(world: World, one: str, **members: object) -> None:
    """Another value of a record's members; None takes one out."""
    key = world.keys.record(one)
    value = await world.client.get(key)
    unpacker = msgpack.Unpacker(raw=False, strict_map_key=False)
    unpacker.feed(value)
    record = {**unpacker.unpack(), **members}
    kept = {name: member for name, member in record.items() if member is not None}
    await world.client.set(key, msgpack.packb(kept) + value[unpacker.tell() :])


DEFECTS: dict[str, Callable[[World, str, str], Awaitable[object]]] = {
    "stands in 0 places": lambda world, ready, _: world.client.zrem(world.keys.root + "ready:" + READY, ready),
    "stands in 2 places": lambda world, ready, _: world.client.zadd(world.keys.delayed, {ready: 1}),
    "stands in a line and is not queued": lambda world, ready, _: _change(world, ready, state="canceled"),
    "is leased by its record or by the zset": lambda world, _, leased: _change(world, leased, lease=None),
    "has an errand by its record or by the zset": lambda world, ready, _: _change(world, ready, look={"looks": 0}),
    "its record says otherwise": lambda world, ready, _: _change(world, ready, place=1),
    "is in no index": lambda world, ready, _: world.client.zrem(world.keys.index("n"), ready),
    "queued is": lambda world, *_: world.client.hincrby(world.keys.upstream, "queued", 1),
    "bytes is": lambda world, *_: world.client.hincrby(world.keys.upstream, "bytes", -1),
    "backlog is": lambda world, *_: world.client.zincrby(world.keys.backlog, 1, READY),
    "queues is": lambda world, *_: world.client.hincrby(world.keys.queues, "training", 1),
    "active is": lambda world, *_: world.client.zadd(world.keys.active, {LEASED: 1}),
    "waiting is": lambda world, _, leased: world.client.zrem(world.keys.root + "waiting:" + LEASED, leased),
}


async def test_a_store_in_use_is_sound(client: Redis, valkey: StoreServer) -> None:
    world, ready, leased = await _world(client)
    contents = read_all(valkey, world.keys)
    assert {ready, leased} < contents.records().keys()
    assert unsound(contents) == []


@pytest.mark.parametrize("sentence", DEFECTS)
async def test_each_defect_is_told(client: Redis, valkey: StoreServer, sentence: str) -> None:
    world, ready, leased = await _world(client)
    await DEFECTS[sentence](world, ready, leased)
    assert [one for one in unsound(read_all(valkey, world.keys)) if sentence in one]
