"""A store out of service is one error, in time, and no command is ever repeated for it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest
import uvloop
from redis.exceptions import ResponseError

from gateway.core.errors import StoreUnavailableError
from gateway.core.share import Share, ShareLimits
from gateway.store import connection
from gateway.store.connection import connect, store_errors
from tests.conftest import STORES, eventually
from tests.servers import free_port
from tests.store.world import World, forwarded, new_submission

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from redis.asyncio import Redis

    from tests.servers import StoreServer

VISION = Share("training", "vision")


@contextmanager
def hung(server: StoreServer) -> Iterator[None]:
    """The process is there, its socket is open, and it answers nothing."""
    assert server.process is not None
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.process.pid, signal.SIGCONT)


@contextmanager
def unavailable(*, within_seconds: float) -> Iterator[None]:
    began = time.monotonic()
    with pytest.raises(StoreUnavailableError):
        yield
    assert time.monotonic() - began < within_seconds


@pytest.fixture(autouse=True)
def patience() -> None:
    """None: here the time-outs are as in life."""


@pytest.fixture(params=STORES)
def server(request: pytest.FixtureRequest, start_store: Callable[..., StoreServer]) -> StoreServer:
    return start_store(kind=request.param)


@pytest.fixture
async def world(server: StoreServer) -> AsyncIterator[World]:
    async with connect(server.url) as client:
        yield await World(client).open()


async def test_every_command_says_that_the_store_is_away(world: World, server: StoreServer) -> None:
    await world.queue(2)
    leased = await world.lease()
    server.kill()
    commands: list[Callable[[], Awaitable[object]]] = [
        lambda: world.admit("new"),
        lambda: world.store.get(leased.submission.submission_id),
        world.store.lease,
        lambda: world.store.settle(leased, forwarded()),
        lambda: world.store.set_share(VISION, {"paused": "1"}),
        world.store.shares,
        world.store.pace,
    ]
    for command in commands:
        with unavailable(within_seconds=1):
            await command()


async def test_a_store_that_is_back_is_used_again(world: World, server: StoreServer) -> None:
    await world.queue(1)
    server.kill()
    with unavailable(within_seconds=1):
        await world.admit("new")
    server.start()
    await world.open()
    assert not (await world.admit("new")).known  # this server has no file: it has forgotten everything


async def test_a_store_that_was_never_there_is_away(start_store: Callable[..., StoreServer]) -> None:
    server = start_store()
    server.kill()
    server.socket.unlink()
    async with connect(server.url) as client:
        with unavailable(within_seconds=1):
            await World(client).store.lease()


async def test_a_store_that_hangs_is_away_within_three_seconds(start_store: Callable[..., StoreServer]) -> None:
    server = start_store()
    async with connect(server.url) as client, connect(server.url) as fresh:
        world = await World(client).open()
        await world.queue(1)
        with hung(server):
            began = time.monotonic()
            calls = [world.store.lease(), world.admit(), world.another_store(fresh).lease()]
            answers = await asyncio.gather(*calls, return_exceptions=True)
            assert [type(answer) for answer in answers] == [StoreUnavailableError] * 3
            assert time.monotonic() - began < 3
        await eventually(lambda: _answers(world))


async def _answers(world: World) -> bool:
    try:
        await world.store.pace()
    except StoreUnavailableError:
        return False
    return True


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> float:
    """The same as in life, but quicker: seconds that a command may take."""
    monkeypatch.setattr(connection, "COMMAND_SECONDS", 0.4)
    return connection.COMMAND_SECONDS


async def test_a_hundred_callers_of_a_store_that_hangs_all_hear_of_it_in_time(
    start_store: Callable[..., StoreServer], impatient: float
) -> None:
    """More than there are connections: those who wait for one must not wait for each other's time-outs in turn."""
    server = start_store()
    async with connect(server.url) as client:
        world = await World(client).open()
        (wanted,) = await world.queue(1)
        with hung(server):
            began = time.monotonic()
            calls = [world.store.get(wanted) for _ in range(100)] + [world.admit() for _ in range(100)]
            answers = await asyncio.gather(*calls, return_exceptions=True)
            assert {type(answer) for answer in answers} == {StoreUnavailableError}
            assert time.monotonic() - began < 2 * impatient + 1


@pytest.mark.usefixtures("impatient")
async def test_a_command_whose_answer_is_lost_is_not_repeated(start_store: Callable[..., StoreServer]) -> None:
    """A second lease or settlement would be another one: who asked decides what a lost answer means."""
    server = start_store()
    async with connect(server.url) as client:
        world = await World(client).open()
        await world.queue(5)
        await world.lease()  # the server knows each script by its digest from here on
        await world.passes(seconds=1)
        before = await _scripts_run(client)
        with hung(server):
            calls = [world.store.lease(), world.admit("lost")]
            answers = await asyncio.gather(*calls, return_exceptions=True)
            assert [type(answer) for answer in answers] == [StoreUnavailableError] * 2
        await eventually(lambda: _answers(world))
        assert await _scripts_run(client) <= before + 2
        await world.admit("lost")  # a retry finds it, or makes it: one either way
        assert (await world.store.pace())["queued"] == 6


async def _scripts_run(client: Redis) -> int:
    return int((await client.info("commandstats"))["cmdstat_evalsha"]["calls"])


async def test_a_caller_who_goes_away_leaves_no_answer_for_the_next(world: World) -> None:
    ids = await world.queue(3)
    for _ in range(20):
        task = asyncio.create_task(world.store.get(ids[0]))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        for wanted in ids:
            submission = await world.store.get(wanted)
            assert submission is not None
            assert submission.submission_id == wanted


async def test_a_store_that_a_script_keeps_busy_is_away(start_store: Callable[..., StoreServer]) -> None:
    server = start_store("--busy-reply-threshold", "20")
    async with connect(server.url) as client, connect(server.url) as other:
        endless = asyncio.create_task(other.eval("while true do end", 0))
        world = World(client)
        await eventually(lambda: _is_unavailable(world))
        await client.script_kill()
        with pytest.raises(ResponseError):
            await endless
        await world.open()
        await world.queue(1)


async def _is_unavailable(world: World) -> bool:
    try:
        await world.store.lease()
    except StoreUnavailableError:
        return True
    except ResponseError:  # the clock's key is not set yet: the server still answers
        return False
    return False


async def test_a_store_without_the_replicas_it_wants_is_away(world: World) -> None:
    await world.client.config_set("min-replicas-to-write", 1)
    with unavailable(within_seconds=1):
        await world.admit()


async def test_a_replica_is_no_store(start_store: Callable[..., StoreServer]) -> None:
    async with connect(start_store("--replicaof", "127.0.0.1 1").url) as client:
        with unavailable(within_seconds=1):
            await World(client).store.admit(new_submission(), ShareLimits())


async def test_a_replica_that_lost_its_primary_is_away(start_store: Callable[..., StoreServer]) -> None:
    async with connect(start_store("--replicaof", "127.0.0.1 1").url) as client:
        await client.config_set("replica-serve-stale-data", "no")
        with unavailable(within_seconds=1):
            await World(client).store.get(new_submission().submission_id)


async def test_a_pipeline_that_cannot_be_served_is_an_outage_too_and_tells_no_command(world: World) -> None:
    """redis-py puts the command before the server's words there: it may hold what no log may."""
    await world.client.config_set("min-replicas-to-write", 1)
    async with world.client.pipeline(transaction=False) as pipe:
        pipe.set(world.keys.upstream, "payload")
        with pytest.raises(StoreUnavailableError) as caught, store_errors():
            await pipe.execute()
    assert caught.value.cause.startswith("NOREPLICAS")
    assert "payload" not in caught.value.cause


async def test_a_command_that_the_store_does_not_allow_is_an_outage_and_names_it(world: World) -> None:
    await world.client.execute_command("ACL", "SETUSER", "default", "-evalsha")
    with pytest.raises(StoreUnavailableError) as caught:
        await world.admit()
    assert "evalsha" in caught.value.cause


async def test_idle_connections_that_the_store_has_closed_are_made_anew(
    start_store: Callable[..., StoreServer],
) -> None:
    port = free_port()
    server = start_store("--port", str(port))
    async with connect(f"redis://127.0.0.1:{port}/0") as client:
        await asyncio.gather(*(client.ping() for _ in range(8)))  # as many connections
        server.kill()
        server.start()
        async with connect(server.url) as another:
            await another.ping()  # the loop has heard of the ends by then
        assert await asyncio.gather(*(client.ping() for _ in range(8))) == [True] * 8


def test_a_store_that_closes_each_connection_at_once_is_away_on_uvloop_too() -> None:
    """Between connect and the first command uvloop calls a closed connection a RuntimeError."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(100)

        def slam() -> None:
            with suppress(OSError):
                while True:
                    accepted, _ = listener.accept()
                    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    accepted.close()

        async def ping_often() -> None:
            async with connect(f"redis://127.0.0.1:{listener.getsockname()[1]}/0") as client:
                for _ in range(300):
                    with pytest.raises(StoreUnavailableError), store_errors():
                        await client.ping()

        threading.Thread(target=slam, daemon=True).start()
        uvloop.run(ping_often())
        listener.shutdown(socket.SHUT_RDWR)


async def test_a_bug_is_no_outage(world: World) -> None:
    await world.client.set(world.keys.active, "not a zset")
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await world.store.lease()


async def test_errors_show_no_password(start_store: Callable[..., StoreServer]) -> None:
    server = start_store()
    async with connect(server.url) as client:
        await client.config_set("requirepass", "another")
    for url in (f"unix://:secret@{server.socket}", "redis://user:secret@127.0.0.1:1/0"):
        async with connect(url) as client:
            with pytest.raises(StoreUnavailableError) as caught:
                await World(client).store.lease()
            assert "secret" not in f"{caught.value} {caught.value.detail} {caught.value.cause}"
