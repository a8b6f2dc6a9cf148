from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from gateway.store.connection import connect
from tests.servers import redis_binary, running, valkey_binary

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from redis.asyncio import Redis

    from tests.servers import StoreServer

STORES = ("valkey", "redis-7.0")


@pytest.fixture(scope="session")
def short_folder() -> Iterator[Path]:
    """A unix socket's path may have 107 characters; pytest's own folders are longer on some machines."""
    with tempfile.TemporaryDirectory(prefix="gw") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def valkey(short_folder: Path) -> Iterator[StoreServer]:
    (short_folder / "v").mkdir()
    with running(valkey_binary(), short_folder / "v") as server:
        yield server


@pytest.fixture(scope="session")
def redis_server(short_folder: Path) -> Iterator[StoreServer]:
    (short_folder / "r").mkdir()
    with running(redis_binary(), short_folder / "r") as server:
        yield server


@pytest.fixture(params=STORES)
def any_store(request: pytest.FixtureRequest) -> StoreServer:
    """Each of the servers that the gateway must run on."""
    server: StoreServer = request.getfixturevalue("valkey" if request.param == "valkey" else "redis_server")
    return server


@pytest.fixture
def prefix() -> str:
    """Keys of this test alone, on a server that tests share."""
    return f"t{uuid4().hex[:12]}"


@pytest.fixture
async def client(valkey: StoreServer) -> AsyncIterator[Redis]:
    async with connect(valkey.url) as client:
        yield client


async def eventually(condition: Callable[[], Awaitable[bool]], seconds: float = 10.0) -> None:
    """Waits for a condition with a deadline; tests never sleep for a fixed time."""
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.01)
