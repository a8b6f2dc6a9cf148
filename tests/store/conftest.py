from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.store.connection import connect
from tests.store.world import World

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis

    from tests.servers import StoreServer


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
