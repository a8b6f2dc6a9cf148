from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gateway.store import connection
from gateway.store.connection import connect
from tests.servers import redis_binary, running, valkey_binary
from tests.store.world import World

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from redis.asyncio import Redis

    from tests.servers import StoreServer


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is busy with other things makes no test fail; test_connection.py alone is about time-outs."""
    monkeypatch.setattr(connection, "COMMAND_SECONDS", 30.0)
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 30.0)


@pytest.fixture
async def world(client: Redis) -> World:
    return await World(client).open()


@pytest.fixture
async def any_client(any_store: StoreServer) -> AsyncIterator[Redis]:
    async with connect(any_store.url) as client:
        yield client


@pytest.fixture
async def any_world(any_client: Redis) -> World:
    return await World(any_client).open()


@pytest.fixture
def start_store(short_folder: Path) -> Iterator[Callable[..., StoreServer]]:
    """Starts servers that a test may fill, hang, kill and configure as it likes; Valkey, or `"redis-7.0"`."""
    with ExitStack() as started:

        def start(*options: str, kind: str = "valkey") -> StoreServer:
            folder = Path(tempfile.mkdtemp(dir=short_folder))
            binary = valkey_binary() if kind == "valkey" else redis_binary()
            return started.enter_context(running(binary, folder, *options))

        yield start
