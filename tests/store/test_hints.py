"""One process hears at once of what another one did; and where it does not, nothing is lost but a second."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from gateway.core.share import Share, ShareLimits
from gateway.store.connection import connect
from gateway.store.hints import Hints
from gateway.store.keys import Keys
from gateway.store.store_url import written
from tests.conftest import eventually
from tests.servers import free_port
from tests.store.stand_ins import SERVICE, stand_ins
from tests.store.world import TAG, World, forwarded, new_submission, transient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from redis.asyncio import Redis

    from tests.servers import StoreServer

SOON = 5  # seconds: a hint takes milliseconds, a busy machine longer


@asynccontextmanager
async def listening(client: Redis, keys: Keys) -> AsyncIterator[Hints]:
    hints = Hints(client, keys)
    task = asyncio.create_task(hints.run(asyncio.Event()))
    try:
        await eventually(lambda: subscribed(client, keys))
        yield hints
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def subscribed(client: Redis, keys: Keys) -> bool:
    try:
        return all(number for _, number in await client.pubsub_numsub(keys.wake, keys.ends))
    except RedisConnectionError:  # of a connection from before the store went away
        return False


async def woken(hints: Hints) -> bool:
    """Whether a waiting forwarder goes on before its time."""
    try:
        await asyncio.wait_for(hints.wait(2 * SOON), SOON)
    except TimeoutError:
        return False
    return True


@pytest.fixture
async def elsewhere(any_store: StoreServer, any_world: World) -> AsyncIterator[Hints]:
    """Another process, which listens."""
    async with connect(any_store.url) as client, listening(client, any_world.keys) as hints:
        yield hints


async def test_what_one_process_accepts_wakes_another(any_world: World, elsewhere: Hints) -> None:
    await any_world.queue(1)
    assert await woken(elsewhere)


async def test_a_resumed_share_wakes_forwarders(any_world: World, elsewhere: Hints) -> None:
    share = Share("training", "vision")
    await any_world.store.set_share(share, {"paused": "1"})
    await any_world.queue(1)
    await any_world.store.set_share(share, {"paused": None})
    assert await woken(elsewhere)


async def test_only_what_ends_a_silence_is_told(world: World) -> None:
    """Beside a backlog a hint an acceptance would wake every forwarder for nothing."""
    share = Share("training", "vision")
    async with world.client.pubsub() as pubsub:
        await pubsub.subscribe(world.keys.wake, world.keys.ends)
        await world.queue(3)
        await world.store.set_share(share, {"paused": "1"})
        await world.queue(1)
        await world.store.set_share(share, {"paused": None})
        await world.attempt(transient())
        last = await world.attempt(forwarded())
        told = []
        while not told or told[-1][0] != world.keys.ends:
            message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=SOON)
            if message is not None:
                told.append((message["channel"].decode(), message["data"].decode()))
    assert [channel for channel, _ in told] == [world.keys.wake, world.keys.wake, world.keys.ends]
    assert told[-1][1] == last.submission.submission_id


async def test_a_wait_without_a_hint_ends_by_itself(world: World) -> None:
    async with listening(world.client, world.keys) as hints:
        await asyncio.wait_for(hints.wait(0.01), SOON)


async def test_a_hint_that_came_before_the_wait_counts_and_counts_once(world: World) -> None:
    async with listening(world.client, world.keys) as hints:
        await world.queue(1)
        await eventually(lambda: _is_set(hints))
        assert await woken(hints)
        assert not hints._ready.is_set()


async def _is_set(hints: Hints) -> bool:
    return hints._ready.is_set()


async def test_an_end_is_told_to_those_who_watch_that_submission(any_world: World, elsewhere: Hints) -> None:
    first, second = await any_world.queue(2)
    with elsewhere.watching(first) as one, elsewhere.watching(first) as two, elsewhere.watching(second) as other:
        await any_world.attempt(forwarded())
        await asyncio.wait_for(asyncio.gather(one.wait(), two.wait()), SOON)
        assert not other.is_set()
    assert not elsewhere._watchers


async def test_a_process_that_drains_lets_all_watchers_look_again(world: World) -> None:
    hints = Hints(world.client, world.keys)
    ids = await world.queue(2)
    with hints.watching(ids[0]) as one, hints.watching(ids[1]) as other:
        hints.release()
        assert one.is_set()
        assert other.is_set()


async def test_upstreams_do_not_wake_each_other(world: World) -> None:
    async with listening(world.client, Keys(world.prefix, "ffff")) as hints:
        await world.queue(1)
        await world.client.publish(hints._keys.wake, "its own")
        assert await woken(hints)
        assert not hints._ready.is_set()


async def test_hints_come_again_after_the_store_was_away(start_store: Callable[..., StoreServer], prefix: str) -> None:
    server, keys = start_store(), Keys(prefix, TAG)
    async with connect(server.url) as client, listening(client, keys) as hints:
        server.kill()
        server.start()
        await eventually(lambda: subscribed(client, keys))
        world = await World(client, prefix=prefix).open()
        await world.store.admit(new_submission(), ShareLimits())
        assert await woken(hints)


async def test_who_is_told_to_stop_stops(world: World) -> None:
    stop = asyncio.Event()
    task = asyncio.create_task(Hints(world.client, world.keys).run(stop))
    await eventually(lambda: subscribed(world.client, world.keys))
    stop.set()
    await asyncio.wait_for(task, SOON)


async def test_listening_begins_when_the_store_is_there(start_store: Callable[..., StoreServer], prefix: str) -> None:
    server, keys = start_store(), Keys(prefix, TAG)
    server.kill()
    async with connect(server.url) as client:
        task = asyncio.create_task(Hints(client, keys).run(asyncio.Event()))
        assert not await subscribed(client, keys)  # and it has been tried once
        server.start()
        await eventually(lambda: subscribed(client, keys))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_who_listens_to_a_primary_that_hangs_goes_to_the_next_one(
    start_store: Callable[..., StoreServer], prefix: str
) -> None:
    """A subscriber hears nothing of a hung server, and nothing of one that has no news."""
    keys, ports = Keys(prefix, TAG), (free_port(), free_port())
    old, new = (start_store("--port", str(port)) for port in ports)
    async with stand_ins(1) as (sentinel,):
        sentinel.names(("127.0.0.1", ports[0]), epoch=1)
        async with (
            connect(f"redis+sentinel://{written(sentinel.address)}/{SERVICE}") as client,
            connect(old.url) as at_old,
            connect(new.url) as at_new,
        ):
            stop = asyncio.Event()
            task = asyncio.create_task(Hints(client, keys).run(stop))
            await eventually(lambda: subscribed(at_old, keys))
            old.pause()
            sentinel.names(("127.0.0.1", ports[1]), epoch=2)
            await eventually(lambda: subscribed(at_new, keys))
            stop.set()
            await asyncio.wait_for(task, SOON)
