"""What the gateway says of a store that cannot keep its promise, from the store's own words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from gateway.core.errors import StoreUnavailableError
from gateway.store.connection import connect
from gateway.store.durability import StoreWatch, shortcomings
from tests.conftest import STORES

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.servers import StoreServer

NO_FILE = "store.durability is fsync, but the store has no append-only file: set appendonly yes."
EVERYSEC = "store.durability is fsync, but the store's appendfsync is everysec: set it to always."
EVICTS = "The store evicts keys when full (maxmemory-policy allkeys-lru): set noeviction."
REPLICA = "The store is a replica: point store.url at its primary."
UNREADABLE = "store.durability is fsync, but the store's appendfsync is not readable: set it to always."


@pytest.mark.parametrize("kind", STORES)
@pytest.mark.parametrize(
    ("options", "memory", "fsync"),
    [
        (["--appendonly", "no"], [], [NO_FILE]),
        (["--appendonly", "yes", "--appendfsync", "everysec"], [], [EVERYSEC]),
        (["--appendonly", "yes", "--appendfsync", "always"], [], []),
        (["--maxmemory-policy", "allkeys-lru"], [EVICTS], [EVICTS, NO_FILE]),
        (["--replicaof", "127.0.0.1 1"], [REPLICA], [REPLICA, NO_FILE]),
        (["--rename-command", "CONFIG", ""], [], [NO_FILE]),
        (["--rename-command", "CONFIG", "", "--appendonly", "yes"], [], [UNREADABLE]),
    ],
    ids=["no file", "everysec", "always", "eviction", "replica", "no CONFIG", "file but no CONFIG"],
)
async def test_a_store_is_told_what_it_lacks(
    start_store: Callable[..., StoreServer], kind: str, options: list[str], memory: list[str], fsync: list[str]
) -> None:
    async with connect(start_store(*options, kind=kind).url) as client:
        assert await shortcomings(client, "memory") == memory
        assert await shortcomings(client, "fsync") == fsync


@pytest.mark.parametrize("kind", STORES)
async def test_a_user_who_may_not_read_the_settings_is_told_so(
    start_store: Callable[..., StoreServer], kind: str
) -> None:
    server = start_store("--appendonly", "yes", "--appendfsync", "always", kind=kind)
    async with connect(server.url) as client:
        await client.execute_command("ACL", "SETUSER", "default", "-config")
        assert await shortcomings(client, "memory") == []
        assert await shortcomings(client, "fsync") == [UNREADABLE]


class Lines:
    """A log that keeps its lines."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def info(self, event: str, **_: Any) -> None:
        self.events.append(event)

    warning = error = info


async def test_the_watch_tells_once_that_the_store_went_and_once_that_it_is_back(
    start_store: Callable[..., StoreServer],
) -> None:
    server, log = start_store(), Lines()
    async with connect(server.url) as client:
        watch = StoreWatch(client, "memory", log)
        await watch.look()
        assert (watch.missing, log.events) == ([], [])
        server.kill()
        await watch.look()
        await watch.look()
        assert len(watch.missing) == 1
        assert watch.broken_promises == []  # not reachable is not broken: who asks will see
        assert log.events == ["store_unavailable"]
        server.start()
        await watch.look()
        await watch.look()
        assert (watch.missing, log.events) == ([], ["store_unavailable", "store_available"])


async def test_the_watch_sees_a_promise_broken_while_it_runs(start_store: Callable[..., StoreServer]) -> None:
    server, log = start_store("--appendonly", "yes", "--appendfsync", "always"), Lines()
    async with connect(server.url) as client:
        watch = StoreWatch(client, "fsync", log)
        await watch.look()
        assert watch.broken_promises == []
        await client.config_set("appendfsync", "everysec")
        await watch.look()
        assert watch.broken_promises == watch.missing == [EVERYSEC]
        server.kill()
        await watch.look()
        assert watch.broken_promises == [EVERYSEC]  # as it was when last seen
        assert watch.missing != [EVERYSEC]


async def test_an_unreachable_store_is_an_error_and_no_shortcoming(start_store: Callable[..., StoreServer]) -> None:
    server = start_store()
    server.kill()
    async with connect(server.url) as client:
        with pytest.raises(StoreUnavailableError):
            await shortcomings(client, "fsync")
