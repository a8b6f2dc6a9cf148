"""A gateway that is older than the store's records: it changes nothing, says so, and another one goes on."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import TYPE_CHECKING

import msgpack
import pytest

from gateway.core.errors import StoreUnavailableError
from gateway.core.ports import Errand, ErrandReport
from gateway.core.submission import Failure
from gateway.store.confirming import Confirmer
from gateway.store.durability import Confirmation
from gateway.store.scripts import NAMES
from gateway.store.versions import VERSION_READ, VERSION_WRITTEN, newer_writer
from tests.store.test_unknown_members import READERS, opened
from tests.store.world import World, forwarded, reconcile, refused, unclear

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.core.identity import SubmissionId

NEWER = VERSION_READ + 1
CAUSE = rf"newer gateway \(version {NEWER}, this one knows {VERSION_READ}\): upgrade this one$"


def test_lua_and_python_know_the_same_versions_and_none_is_written_that_is_not_read() -> None:
    prelude = (files("gateway.store") / "lua" / "prelude.lua").read_text()
    (told,) = re.findall(r"^local VERSION_READ, VERSION_WRITTEN = (\d+), (\d+)$", prelude, re.MULTILINE)
    assert tuple(map(int, told)) == (VERSION_READ, VERSION_WRITTEN)
    assert VERSION_WRITTEN <= VERSION_READ <= VERSION_WRITTEN + 1


async def rewritten(world: World, wanted: SubmissionId) -> None:
    """As a newer gateway would leave this record."""
    changing, rest = opened(await world.client.get(world.keys.record(wanted)))
    value = msgpack.packb({**changing, "v": NEWER}) + rest
    await world.client.set(world.keys.record(wanted), value, keepttl=True)


async def refuses(world: World, ask: Callable[[], Awaitable[object]]) -> None:
    """It is a store that cannot be used now, and nothing in it has changed."""
    before = await world.dump()
    with pytest.raises(StoreUnavailableError) as raised:
        await ask()
    assert re.search(CAUSE, raised.value.cause), raised.value.cause
    assert await world.dump() == before


async def leased(world: World, _: SubmissionId) -> Callable[[], Awaitable[object]]:
    return world.store.lease


async def settled(world: World, _: SubmissionId) -> Callable[[], Awaitable[object]]:
    lease = await world.lease()
    return lambda: world.settle(lease, forwarded())


async def reclaimed(world: World, _: SubmissionId) -> Callable[[], Awaitable[object]]:
    await world.lease()
    await world.passes(seconds=3600)
    return world.store.reclaim


async def canceled(world: World, wanted: SubmissionId) -> Callable[[], Awaitable[object]]:
    return lambda: world.changes.cancel(wanted, "changed our minds")


async def prioritized(world: World, wanted: SubmissionId) -> Callable[[], Awaitable[object]]:
    return lambda: world.changes.reprioritize(wanted, 7)


async def redriven(world: World, wanted: SubmissionId) -> Callable[[], Awaitable[object]]:
    await world.attempt(refused())
    return lambda: world.changes.redrive(wanted)


async def resolved(world: World, wanted: SubmissionId) -> Callable[[], Awaitable[object]]:
    await world.attempt(refused())
    return lambda: world.changes.resolve(wanted, None, None, close=True)


async def sought(world: World) -> None:
    """A look is due."""
    await world.attempt(unclear())
    await world.attempt(reconcile())
    await world.passes(seconds=10)


async def errand_leased(world: World, _: SubmissionId) -> Callable[[], Awaitable[object]]:
    await sought(world)
    return world.errands.lease


async def errand_settled(world: World, _: SubmissionId) -> Callable[[], Awaitable[object]]:
    await sought(world)
    errand = await world.errands.lease()
    assert isinstance(errand, Errand)
    report = ErrandReport(verdict="unknown", failure=Failure(code="NotFound", message=""))
    return lambda: world.errands.settle(errand, report)


async def lease_confirmed(world: World, _: SubmissionId) -> Callable[[], Awaitable[object]]:
    nobody = Confirmation(waits=(("WAIT", 0, 1),), wanted=(0,))
    confirmer, held = Confirmer(world.client, world.keys, lambda: nobody), await world.lease()
    return lambda: confirmer.confirm(held)


# Each command up to the moment at which it would change the record.
COMMANDS: dict[str, Callable[[World, SubmissionId], Awaitable[Callable[[], Awaitable[object]]]]] = {
    "lease": leased,
    "settle": settled,
    "reclaim": reclaimed,
    "cancel": canceled,
    "priority": prioritized,
    "redrive": redriven,
    "resolve": resolved,
    "lease_errand": errand_leased,
    "settle_errand": errand_settled,
    "touch": lease_confirmed,
}


@pytest.mark.parametrize("name", sorted(READERS))
async def test_no_command_touches_a_record_that_it_cannot_read(any_world: World, name: str) -> None:
    (wanted,) = await any_world.queue(1)
    ask = await COMMANDS[name](any_world, wanted)
    await rewritten(any_world, wanted)
    await refuses(any_world, ask)


async def test_a_record_that_cannot_be_read_is_no_answer_to_anybody(any_world: World) -> None:
    wanted = (await any_world.admit("t")).submission.submission_id
    await rewritten(any_world, wanted)
    for ask in (
        lambda: any_world.admit("t"),
        lambda: any_world.store.get(wanted),
        lambda: any_world.index.get_many([wanted]),
        lambda: any_world.index.denied_until(wanted),
    ):
        await refuses(any_world, ask)


# Where a newer gateway has written, what lies between the records may have changed too.
TAKERS: dict[str, Callable[[World], Awaitable[object]]] = {
    "admit": World.admit,
    "lease": lambda world: world.store.lease(),
    "reclaim": lambda world: world.store.reclaim(),
    "lease_errand": lambda world: world.errands.lease(),
}


@pytest.mark.parametrize("name", TAKERS)
async def test_where_a_newer_gateway_has_written_nothing_is_taken_handed_out_or_brought_back(
    any_world: World, name: str
) -> None:
    await any_world.queue(1)
    await sought(any_world)
    await any_world.client.hset(any_world.keys.upstream, "version", NEWER)
    await refuses(any_world, lambda: TAKERS[name](any_world))


async def test_what_is_in_hand_is_finished_where_its_record_can_be_read(any_world: World) -> None:
    await any_world.queue(1)
    lease = await any_world.lease()
    await any_world.client.hset(any_world.keys.upstream, "version", NEWER)
    assert (await any_world.settle(lease, forwarded())).verdict == "settled"


async def test_the_store_remembers_the_newest_version_that_was_written(any_world: World) -> None:
    assert await newer_writer(any_world.client, any_world.keys) == []
    await any_world.queue(1)
    assert int(await any_world.client.hget(any_world.keys.upstream, "version")) == VERSION_WRITTEN
    await any_world.client.hset(any_world.keys.upstream, "version", NEWER)
    (sentence,) = await newer_writer(any_world.client, any_world.keys)
    assert re.search(CAUSE, sentence.removesuffix("."))


def test_every_command_that_reads_records_is_here() -> None:
    assert set(COMMANDS) == READERS <= set(NAMES)


@pytest.mark.parametrize("planted", ["list", "text"])
async def test_what_is_no_version_ends_nobody(any_world: World, planted: str) -> None:
    """The audit tells of it."""
    if planted == "list":
        await any_world.client.rpush(any_world.keys.upstream, "x")
    else:
        await any_world.client.hset(any_world.keys.upstream, "version", "soon")
    assert await newer_writer(any_world.client, any_world.keys) == []
