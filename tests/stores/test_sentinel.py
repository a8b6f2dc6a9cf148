"""A primary under Sentinel that dies, or that is deposed and does not know it yet, under load."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from tests.conftest import eventually
from tests.servers import valkey_binary
from tests.stores.stage import RECOVERY_SECONDS, Stage, staged
from tests.topologies import RunningSentinel, running_sentinel

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gateway.emulator import Emulator
    from tests.servers import StoreServer

pytestmark = pytest.mark.asyncio(loop_scope="session")

# All replicas that there are: what only some have is lost where Sentinel promotes another.
PROMISE = 'durability = "replicated"\nreplicas = 2'

# A gateway that has stayed asks more often than this, if only how its store is.
LEFT_FOR_SECONDS = 3


@pytest.fixture(scope="module")
def sentinel(folder: Path) -> Iterator[RunningSentinel]:
    with running_sentinel(valkey_binary(), folder / "sentinel", replicas=2) as running:
        yield running


@pytest.fixture(scope="module")
def stage(folder: Path, emulator: Emulator, sentinel: RunningSentinel) -> Iterator[Stage]:
    with staged(folder / "gateway", emulator, sentinel.url, lambda _: sentinel.primary(), promise=PROMISE) as stage:
        yield stage


async def test_a_primary_that_is_killed_is_followed_by_a_replica_which_knows_all_that_was_promised(
    stage: Stage, sentinel: RunningSentinel
) -> None:
    async with stage.under_load() as callers:
        since = time.monotonic()
        killed = await asyncio.to_thread(sentinel.kill_primary)
        await callers.is_refused(since)
        after = await asyncio.to_thread(sentinel.primary)
        killed.start()  # it takes itself for the primary still, and nobody may believe it
        await asyncio.to_thread(sentinel.demote, killed)
        await asyncio.to_thread(sentinel.healthy)
        await stage.recovers(callers)
    assert after is not killed


async def test_a_primary_that_is_deposed_and_does_not_know_it_is_left_in_time_and_promises_nothing(
    stage: Stage, sentinel: RunningSentinel
) -> None:
    """It takes writes until Sentinel makes it a replica, some ten seconds later; what it took until then is lost."""
    async with stage.under_load() as callers:
        before = sentinel.primary()
        after = await asyncio.to_thread(sentinel.failover)
        assert before.ask("INFO", "replication")["role"] == "master"
        await eventually(lambda: asyncio.to_thread(_is_left, before), RECOVERY_SECONDS + LEFT_FOR_SECONDS)
        await asyncio.to_thread(sentinel.demote, before)
        await asyncio.to_thread(sentinel.healthy)
        await stage.recovers(callers)
    assert after is not before


def _is_left(server: StoreServer) -> bool:
    """No gateway has asked it anything for a while."""
    with server.operator() as operator:
        ours = [one for one in operator.client_list() if one.get("lib-name") == "redis-py" and "U" not in one["flags"]]
        return all(int(one["idle"]) >= LEFT_FOR_SECONDS for one in ours)
