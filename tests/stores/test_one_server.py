"""One server that dies, hangs, fills up, forgets its scripts, takes no connections or is made a replica, under load."""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.conftest import eventually
from tests.stores.callers import asked_with
from tests.stores.stage import said
from tests.topologies import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redis import Redis

    from tests.servers import StoreServer
    from tests.stores.stage import Stage

pytestmark = pytest.mark.asyncio(loop_scope="session")

# With a file of this many commands the server loads for more than a second, and says so after every thousand.
COMMANDS_IN_FILE = 10_000
SLOW_LOADING = ("--key-load-delay", "100")


@contextmanager
def configured(server: StoreServer, name: str, value: int) -> Iterator[Redis]:
    """With another setting inside the block; gives the connection that does this."""
    with server.operator() as operator:
        before = operator.config_get(name)[name]
        operator.config_set(name, value)
        try:
            yield operator
        finally:
            operator.config_set(name, before)


async def test_a_store_that_is_killed_and_loads_its_file_again_has_lost_nothing(
    stage: Stage, server: StoreServer
) -> None:
    with server.operator() as operator, operator.pipeline(transaction=False) as filling:
        for number in range(COMMANDS_IN_FILE):
            filling.set("filler", number)
        filling.execute()
    async with stage.under_load() as callers:
        server.kill()
        await callers.is_refused(time.monotonic())
        before = server.options
        server.options += SLOW_LOADING
        server.begin()
        server.options = before
        await asyncio.to_thread(until, lambda: server.ask("PING"), "the file is loaded")
        await stage.recovers(callers)
    assert server.ask("INFO", "commandstats")["cmdstat_evalsha"]["rejected_calls"] > 0, "scripts came while it loaded"


async def test_a_store_that_hangs_delays_its_callers_and_loses_nothing(stage: Stage, server: StoreServer) -> None:
    async with stage.under_load() as callers:
        server.pause()
        try:
            await callers.is_refused(time.monotonic())
        finally:
            server.resume()
        await stage.recovers(callers)


async def test_a_store_that_forgets_its_scripts_is_told_them_again_and_no_caller_notices(
    stage: Stage, server: StoreServer
) -> None:
    async with stage.under_load() as callers:
        for _ in range(20):
            since = time.monotonic()
            assert await asyncio.to_thread(server.ask, "SCRIPT", "FLUSH")
            await callers.acknowledges_again(since, seconds=5)
    assert callers.refusals == []
    assert said(server, "NOSCRIPT") >= 20


async def test_a_store_without_a_free_connection_is_away_until_it_has_one(stage: Stage, server: StoreServer) -> None:
    async with stage.under_load() as callers:
        with configured(server, "maxclients", 1) as operator:
            since = time.monotonic()
            operator.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            refusal = await callers.is_refused(since)
        await stage.recovers(callers)
    assert refusal.slug == "/problems/store-unavailable"
    assert server.ask("INFO", "stats")["rejected_connections"] > 0


async def test_a_store_that_is_made_a_replica_takes_nothing_until_it_is_a_primary_again(
    stage: Stage, server: StoreServer
) -> None:
    async with stage.under_load() as callers:
        server.ask("REPLICAOF", "127.0.0.1", "1")
        try:
            since = time.monotonic()
            await callers.is_refused(since)
        finally:
            server.ask("REPLICAOF", "NO", "ONE")
        await stage.recovers(callers)
    assert said(server, "READONLY")


async def test_a_full_store_takes_nothing_new_drains_and_answers_repeats(stage: Stage, server: StoreServer) -> None:
    async with stage.under_load() as callers:
        token, submission_id = next(iter(callers.ids.items()))
        with configured(server, "maxmemory", 1):
            since, jobs = time.monotonic(), len(stage.emulator.jobs)
            refusal = await callers.is_refused(since)
            await eventually(stage.is_drained)
            assert len(stage.emulator.jobs) > jobs, "there was something to drain"
            status, repeated = await stage.ask("POST", "/v1/submissions", asked_with(token))
            assert (status, repeated["submissionId"]) == (200, submission_id), repeated
        await stage.recovers(callers)
    assert refusal.slug == "/problems/store-unavailable"
    assert said(server, "OOM")
