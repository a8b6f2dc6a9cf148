from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.contract.in_process import in_process_gateway

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis

    from tests.contract.in_process import InProcessGateway


@pytest.fixture
async def gateway(client: Redis, prefix: str) -> AsyncIterator[InProcessGateway]:
    """With the settings' defaults."""
    async with in_process_gateway(client, prefix) as gateway:
        yield gateway
