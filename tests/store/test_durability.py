"""What the gateway says of a store that cannot keep its promise, from the store's own words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from gateway.core.errors import StoreUnavailableError
from gateway.store.connection import connect
from gateway.store.durability import (
    LATE,
    Confirmation,
    Durability,
    Promise,
    StoreWatch,
    confirmation,
    read_facts,
    reservations,
    shortcomings,
    unconfirmed,
)
from gateway.store.keys import Keys
from tests.conftest import STORES, eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio import Redis

    from tests.servers import StoreServer

MEMORY, FSYNC, REPLICATED = Promise(durability="memory"), Promise(durability="fsync"), Promise(durability="replicated")

NO_FILE = "store.durability is fsync, but the store has no append-only file: set appendonly yes."
EVERYSEC = "store.durability is fsync, but the store's appendfsync is everysec: set it to always."
NEVER = "store.durability is fsync, but the store's appendfsync is no: set it to always{}."
EVICTS = "The store evicts keys when full (maxmemory-policy allkeys-lru): set noeviction."
REPLICA = "The store is a replica: point store.url at its primary."
UNREADABLE = "store.durability is fsync, but the store's appendfsync is not readable: set it to always."
NO_REPLICA = "store.replicas is 1, but the store has 0 online."

HAS_WAITAOF = {"valkey": True, "redis-7.0": False}
FILE = ("--appendonly", "yes")
ALWAYS = (*FILE, "--appendfsync", "always")
NO_CONFIG = ("--rename-command", "CONFIG", "")


async def lacks(client: Redis, promise: Promise) -> list[str]:
    return [one.sentence for one in shortcomings(await read_facts(client), promise)]


async def waits(client: Redis, durability: Durability, replicas: int = 1) -> tuple[str | int, ...] | None:
    """The command whose answer confirms, without its time-out."""
    how = confirmation(await read_facts(client), Promise(durability=durability, replicas=replicas))
    return how.waits[-1][:-1] if how else None


@pytest.mark.parametrize("kind", STORES)
@pytest.mark.parametrize(
    ("options", "memory", "fsync"),
    [  # of fsync: what one with WAITAOF lacks, and one without
        (["--appendonly", "no"], [], ([NO_FILE], [NO_FILE])),
        ([*FILE, "--appendfsync", "everysec"], [], ([], [EVERYSEC])),
        ([*FILE, "--appendfsync", "no"], [], ([NEVER.format(" or everysec")], [NEVER.format("")])),
        ([*ALWAYS], [], ([], [])),
        (["--maxmemory-policy", "allkeys-lru"], [EVICTS], ([EVICTS, NO_FILE], [EVICTS, NO_FILE])),
        (["--replicaof", "127.0.0.1 1"], [REPLICA], ([REPLICA, NO_FILE], [REPLICA, NO_FILE])),
        ([*NO_CONFIG], [], ([NO_FILE], [NO_FILE])),
        ([*NO_CONFIG, *FILE], [], ([], [UNREADABLE])),
    ],
    ids=["no file", "everysec", "no fsync", "always", "eviction", "replica", "no CONFIG", "file but no CONFIG"],
)
async def test_a_store_is_told_what_it_lacks(
    start_store: Callable[..., StoreServer],
    kind: str,
    options: list[str],
    memory: list[str],
    fsync: tuple[list[str], list[str]],
) -> None:
    async with connect(start_store(*options, kind=kind).url) as client:
        assert await lacks(client, MEMORY) == memory
        assert await lacks(client, FSYNC) == fsync[not HAS_WAITAOF[kind]]


@pytest.mark.parametrize("kind", STORES)
async def test_a_user_who_may_not_read_the_settings_is_told_so(
    start_store: Callable[..., StoreServer], kind: str
) -> None:
    async with connect(start_store(*ALWAYS, kind=kind).url) as client:
        await client.execute_command("ACL", "SETUSER", "default", "-config", "-command")
        assert await lacks(client, MEMORY) == []
        assert await lacks(client, FSYNC) == [UNREADABLE]


@pytest.mark.parametrize("kind", STORES)
async def test_what_is_promised_decides_what_is_waited_for(start_store: Callable[..., StoreServer], kind: str) -> None:
    with_file, without = start_store(*FILE, kind=kind), start_store(kind=kind)
    async with connect(with_file.url) as client, connect(without.url) as fileless:
        assert await waits(client, "memory") is None
        replicas = ("WAITAOF", 1, 2) if HAS_WAITAOF[kind] else ("WAIT", 2)
        assert await waits(client, "replicated", 2) == replicas
        assert await waits(fileless, "replicated", 2) == ("WAIT", 2)
        if HAS_WAITAOF[kind]:
            assert await waits(client, "fsync") == ("WAITAOF", 1, 0)
        await client.config_set("appendfsync", "always")
        assert await waits(client, "fsync") is None  # its own answer comes after the fsync
        await client.config_set("no-appendfsync-on-rewrite", "yes")
        if HAS_WAITAOF[kind]:
            assert await waits(client, "fsync") == ("WAITAOF", 1, 0)


@pytest.mark.parametrize("kind", STORES)
async def test_replicas_are_counted_and_fsync_is_said_to_promise_nothing_of_them(
    start_store: Callable[..., StoreServer], kind: str
) -> None:
    primary = start_store(*ALWAYS, "--port", str(free_port := _free_port()), kind=kind)
    async with connect(primary.url) as client:
        assert await lacks(client, REPLICATED) == [NO_REPLICA]
        assert [one.passing for one in shortcomings(await read_facts(client), REPLICATED)] == [True]
        assert reservations(await read_facts(client), FSYNC) == []
        start_store("--replicaof", f"127.0.0.1 {free_port}", "--repl-diskless-sync-delay", "0", kind=kind)

        async def replicated() -> bool:
            return await lacks(client, REPLICATED) == []

        await eventually(replicated, 15)
        assert "promises nothing across a failover" in reservations(await read_facts(client), FSYNC)[0]
        assert reservations(await read_facts(client), REPLICATED) == []
        start_store("--replicaof", f"127.0.0.1 {free_port}", kind=kind)

        async def one_more_than_promised() -> bool:
            told = reservations(await read_facts(client), REPLICATED)
            return bool(told) and "a failover may choose another" in told[0]

        await eventually(one_more_than_promised, 15)


def _free_port() -> int:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


async def test_a_replica_that_never_confirms_is_told_of_before_anybody_waits_for_it(
    start_store: Callable[..., StoreServer], prefix: str
) -> None:
    """It has no file, and no primary says that of its replicas."""
    port, keys = _free_port(), Keys(prefix, "abcd")
    primary = start_store(*ALWAYS, "--port", str(port), "--repl-diskless-sync-delay", "0")
    start_store("--replicaof", f"127.0.0.1 {port}")
    async with connect(primary.url) as client:

        async def replicated() -> bool:
            return await lacks(client, REPLICATED) == []

        await eventually(replicated, 15)
        assert await unconfirmed(client, keys, confirmation(await read_facts(client), REPLICATED)) == [LATE]
        watch = StoreWatch(client, REPLICATED, Lines())
        watch.mind(keys)
        await watch.look()
        assert (watch.missing, watch.broken_promises) == ([LATE], [])


@pytest.mark.parametrize(
    ("wanted", "answer", "given"),
    [
        ((1, 0), [1, 0], True),
        ((1, 0), [0, 0], False),
        ((1, 2), [1, 1], False),
        ((1, 2), [1, 3], True),
        ((2,), 2, True),
        ((2,), 1, False),
        ((1, 0), ValueError("UNBLOCKED"), False),
        ((1, 0), None, False),
    ],
)
def test_less_than_was_waited_for_is_no_confirmation(wanted: tuple[int, ...], answer: object, *, given: bool) -> None:
    assert Confirmation(waits=(("WAIT",),), wanted=wanted).given_by(answer) is given


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
        watch = StoreWatch(client, MEMORY, log)
        with pytest.raises(StoreUnavailableError):
            assert watch.confirmation  # not seen yet: nobody knows what to wait for
        await watch.look()
        assert (watch.missing, log.events) == ([], [])
        server.kill()
        for _ in range(3):
            await watch.look()
        assert len(watch.missing) == 1
        assert watch.broken_promises == []  # not reachable is not broken: who asks will see
        assert watch.confirmation is None
        told = len(log.events)
        await watch.look()
        await watch.look()
        assert log.events == ["store_unavailable"] * told  # once for each reason, and not again
        server.start()
        await watch.look()
        await watch.look()
        assert (watch.missing, log.events) == ([], ["store_unavailable"] * told + ["store_available"])


@pytest.mark.parametrize("kind", STORES)
async def test_the_watch_sees_what_changes_while_it_runs(start_store: Callable[..., StoreServer], kind: str) -> None:
    server, log = start_store(*ALWAYS, kind=kind), Lines()
    async with connect(server.url) as client:
        watch = StoreWatch(client, FSYNC, log)
        await watch.look()
        assert watch.broken_promises == []
        assert watch.confirmation is None
        await client.config_set("appendfsync", "everysec")
        await watch.look()
        if HAS_WAITAOF[kind]:
            assert watch.confirmation is not None
            assert watch.missing == []
            return
        assert watch.broken_promises == watch.missing == [EVERYSEC]
        with pytest.raises(StoreUnavailableError, match="everysec"):
            assert watch.confirmation
        server.kill()
        await watch.look()
        assert watch.broken_promises == [EVERYSEC]  # as it was when last seen
        assert watch.missing != [EVERYSEC]


async def test_an_unreachable_store_is_an_error_and_no_shortcoming(start_store: Callable[..., StoreServer]) -> None:
    server = start_store()
    server.kill()
    async with connect(server.url) as client:
        with pytest.raises(StoreUnavailableError):
            await read_facts(client)
