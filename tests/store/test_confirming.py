"""Nothing is answered, and nothing called, on the strength of what the store may still forget."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from gateway.core.errors import DurabilityUnconfirmedError, RateLimitedError, StoreUnavailableError
from gateway.core.ports import Change
from gateway.core.share import Share, ShareLimits
from gateway.store.changes import SubmissionChanges
from gateway.store.confirming import Confirmer
from gateway.store.connection import connect
from gateway.store.durability import Confirmation
from gateway.store.redis_store import RedisStore
from tests.conftest import STORES, eventually
from tests.store.world import World, new_submission

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from redis.asyncio import Redis

    from tests.servers import StoreServer

ON_DISK = Confirmation(waits=(("WAITAOF", 1, 0, 100),), wanted=(1, 0))
# Its file is written and never forced to the disk: nothing is ever confirmed until the test says otherwise.
NEVER_SYNCED = ("--appendonly", "yes", "--appendfsync", "no")


def confirmer(world: World, client: Redis, how: Confirmation | None = ON_DISK) -> Confirmer:
    return Confirmer(client, world.keys, lambda: how)


def promising(world: World, client: Redis, how: Confirmation | None = ON_DISK) -> RedisStore:
    """A process that promises durability, beside the world's own, which does not."""
    return RedisStore(client, world.keys, pace=world.pace, bounds=world.bounds, confirmer=confirmer(world, client, how))


@pytest.fixture
async def unsynced(start_store: Callable[..., StoreServer]) -> AsyncIterator[World]:
    async with connect(start_store(*NEVER_SYNCED).url) as client:
        yield await World(client).open()


async def test_an_admission_that_is_not_on_the_disk_is_not_acknowledged(unsynced: World) -> None:
    store = promising(unsynced, unsynced.client)
    with pytest.raises(DurabilityUnconfirmedError):
        await store.admit(new_submission("t"), ShareLimits())
    assert await unsynced.store.get(new_submission("t").submission_id) is not None  # it is queued, and can be found


async def test_a_replay_waits_for_what_another_process_wrote(unsynced: World) -> None:
    """Its own connection has written nothing: without a write there would be nothing to wait for."""
    await unsynced.admit("t")
    store = promising(unsynced, unsynced.client)
    with pytest.raises(DurabilityUnconfirmedError):
        await store.admit(new_submission("t"), ShareLimits())
    await unsynced.client.config_set("appendfsync", "always")
    assert (await store.admit(new_submission("t"), ShareLimits())).known


async def test_a_replay_in_a_full_store_waits_too(unsynced: World) -> None:
    """Nothing of admit ran there, and so nothing of its connection is waited for."""
    await unsynced.admit("t")
    await unsynced.client.config_set("maxmemory", 1)
    store = promising(unsynced, unsynced.client)
    asked = [(new_submission(token), ShareLimits(), None) for token in ("t", "new")]
    replayed, refused = await store.admit_many(asked)
    assert isinstance(replayed, DurabilityUnconfirmedError)
    assert type(refused) is StoreUnavailableError  # nothing of it is written
    await unsynced.client.config_set("appendfsync", "always")
    assert (await store.admit(new_submission("t"), ShareLimits())).known


async def test_a_refusal_needs_no_confirmation(unsynced: World) -> None:
    limits = ShareLimits(rate=0.001, burst=1)
    await unsynced.admit("first", limits)
    with pytest.raises(RateLimitedError):
        await promising(unsynced, unsynced.client).admit(new_submission("second"), limits)


async def test_of_many_each_hears_of_its_own(unsynced: World) -> None:
    limits = ShareLimits(rate=0.001, burst=1)
    store = promising(unsynced, unsynced.client)
    asked = [(new_submission(token), limits, None) for token in ("a", "b")]
    accepted, refused = await store.admit_many(asked)
    assert isinstance(accepted, DurabilityUnconfirmedError)
    assert isinstance(refused, RateLimitedError)


async def test_many_admissions_at_once_are_one_wait(start_store: Callable[..., StoreServer]) -> None:
    async with connect(start_store("--appendonly", "yes", "--appendfsync", "everysec").url) as client:
        world = await World(client).open()
        store = promising(world, client, Confirmation(waits=(("WAITAOF", 1, 0, 5000),), wanted=(1, 0)))
        admissions = await asyncio.gather(
            *(store.admit(new_submission(f"t{number}"), ShareLimits()) for number in range(200))
        )
        assert {one.submission.client_token for one in admissions} == {f"t{number}" for number in range(200)}
        assert (await client.info("commandstats"))["cmdstat_waitaof"]["calls"] <= 3


async def test_a_lease_is_confirmed_whichever_connection_took_it(unsynced: World) -> None:
    await unsynced.queue(1)
    leased = await unsynced.lease()
    waiting = confirmer(unsynced, unsynced.client)
    with pytest.raises(DurabilityUnconfirmedError):
        await waiting.confirm(leased)
    await unsynced.client.config_set("appendfsync", "always")
    await waiting.confirm(leased)


async def test_a_server_that_has_not_the_lease_confirms_none(
    unsynced: World, start_store: Callable[..., StoreServer]
) -> None:
    """It failed over between the two: what is durable there is something else."""
    await unsynced.queue(2)
    first, second = await unsynced.next_lease(), await unsynced.next_lease()
    await unsynced.give_back(first)
    await unsynced.client.config_set("appendfsync", "always")
    here = confirmer(unsynced, unsynced.client)
    answers = await asyncio.gather(*(here.confirm(one) for one in (first, second)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [DurabilityUnconfirmedError, type(None)]
    async with connect(start_store("--appendonly", "yes", "--appendfsync", "always").url) as other:
        with pytest.raises(DurabilityUnconfirmedError):
            await confirmer(unsynced, other).confirm(second)


async def test_a_store_that_cannot_keep_its_promise_hands_no_lease_out(unsynced: World) -> None:
    await unsynced.queue(1)
    store = promising(unsynced, unsynced.client)
    store._confirmer.how = _cannot
    with pytest.raises(StoreUnavailableError):
        await store.lease()


def _cannot() -> Confirmation | None:
    raise StoreUnavailableError("It forgets.")


async def test_those_who_confirm_at_the_same_time_wait_once(unsynced: World) -> None:
    waiting = confirmer(unsynced, unsynced.client)
    answers = await asyncio.gather(*(waiting.confirm() for _ in range(50)), return_exceptions=True)
    assert {type(answer) for answer in answers} == {DurabilityUnconfirmedError}
    assert (await unsynced.client.info("commandstats"))["cmdstat_waitaof"]["calls"] <= 2


async def test_a_store_whose_own_answer_says_all_is_not_asked(unsynced: World) -> None:
    before = (await unsynced.client.info("commandstats"))["cmdstat_evalsha"]["calls"] if await _ran(unsynced) else 0
    await confirmer(unsynced, unsynced.client, None).confirm()
    after = (await unsynced.client.info("commandstats")).get("cmdstat_evalsha", {"calls": 0})["calls"]
    assert after == before


async def _ran(world: World) -> bool:
    return "cmdstat_evalsha" in await world.client.info("commandstats")


async def test_what_callers_and_operators_change_is_confirmed(unsynced: World) -> None:
    (wanted,) = await unsynced.queue(1)
    store = promising(unsynced, unsynced.client)
    changes = SubmissionChanges(
        unsynced.client, unsynced.keys, bounds=unsynced.bounds, confirmer=confirmer(unsynced, unsynced.client)
    )
    for change in (
        lambda: changes.reprioritize(wanted, 7),
        lambda: changes.cancel(wanted, ""),
        lambda: changes.cancel(wanted, ""),  # what is done already may be as young
        lambda: store.set_share(Share("training", "vision"), {"paused": "1"}),
        lambda: store.set_upstream({"accepting": "0"}),
    ):
        try:
            changed = await change()
        except DurabilityUnconfirmedError:
            continue
        assert isinstance(changed, Change)
        assert not changed.confirmed


@asynccontextmanager
async def replicated(start_store: Callable[..., StoreServer], kind: str) -> AsyncIterator[tuple[Redis, StoreServer]]:
    """A primary without a file, and its replica."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    primary = start_store("--port", str(port), "--repl-diskless-sync-delay", "0", kind=kind)
    replica = start_store("--replicaof", f"127.0.0.1 {port}", kind=kind)
    async with connect(primary.url) as client:

        async def synced() -> bool:
            return bool(await client.wait(1, 100))

        await client.set("something", "to wait for")
        await eventually(synced, 15)
        yield client, replica


@pytest.mark.parametrize("kind", STORES)
async def test_what_a_replica_has_not_got_is_not_acknowledged(
    start_store: Callable[..., StoreServer], kind: str
) -> None:
    on_replica = Confirmation(waits=(("WAIT", 1, 500),), wanted=(1,))
    async with replicated(start_store, kind) as (client, replica):
        world = await World(client).open()
        store = promising(world, client, on_replica)
        await store.admit(new_submission("before"), ShareLimits())
        assert replica.process is not None
        os.kill(replica.process.pid, signal.SIGSTOP)
        try:
            with pytest.raises(DurabilityUnconfirmedError):
                await store.admit(new_submission("during"), ShareLimits())
            with pytest.raises(DurabilityUnconfirmedError):
                await store._confirmer.confirm()
        finally:
            os.kill(replica.process.pid, signal.SIGCONT)
        assert (
            await promising(world, client, Confirmation(waits=(("WAIT", 1, 10_000),), wanted=(1,))).admit(
                new_submission("during"), ShareLimits()
            )
        ).known
