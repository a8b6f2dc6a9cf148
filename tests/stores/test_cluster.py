"""A cluster whose primaries change, die and give their slots away, under load."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from tests.stores.stage import Stage, said, staged

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gateway.emulator import Emulator
    from tests.topologies import RunningCluster

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture(scope="module")
def stage(folder: Path, emulator: Emulator, running: RunningCluster) -> Iterator[Stage]:
    """`replicated`: what is promised holds when the primary is gone."""
    with staged(
        folder / "gateway",
        emulator,
        running.url,
        lambda keys: running.primary_of(keys.upstream),
        promise='durability = "replicated"',
    ) as stage:
        yield stage


async def test_a_planned_failover_loses_nothing_and_needs_no_restart(stage: Stage, cluster: RunningCluster) -> None:
    key = stage.keys.upstream
    before = cluster.primary_of(key)
    async with stage.under_load() as callers:
        after = await asyncio.to_thread(cluster.failover, key)
        await stage.recovers(callers)
    assert after is not before
    assert said(before, "MOVED")
    assert said(after, "NOSCRIPT"), "a replica has never been told a script"


async def test_a_primary_that_is_killed_is_followed_by_its_replica_which_knows_all_that_was_promised(
    stage: Stage, cluster: RunningCluster
) -> None:
    """What it writes while its replica is cut off goes down with it: none of that may be acknowledged."""
    key = stage.keys.upstream
    async with stage.under_load() as callers:
        primary = cluster.primary_of(key)
        replica = cluster.replica_of(primary)
        replica.pause()
        primary.ask("CLIENT", "KILL", "TYPE", "replica")
        await callers.is_refused(time.monotonic())
        primary.kill()
        replica.resume()
        assert await asyncio.to_thread(cluster.primary_of, key) is replica
        await asyncio.to_thread(primary.start)
        await asyncio.to_thread(cluster.healthy)
        await stage.recovers(callers)


async def test_a_primary_that_hangs_and_wakes_when_it_has_been_replaced_is_not_believed(
    stage: Stage, cluster: RunningCluster
) -> None:
    key = stage.keys.upstream
    async with stage.under_load() as callers:
        hung = await asyncio.to_thread(cluster.primary_of, key)
        hung.pause()
        await callers.is_refused(time.monotonic())
        after = await asyncio.to_thread(cluster.primary_of, key)
        hung.resume()
        await asyncio.to_thread(cluster.healthy)
        await stage.recovers(callers)
    assert after is not hung


async def test_a_slot_that_moves_stops_acceptance_for_its_while_and_loses_nothing(
    stage: Stage, cluster: RunningCluster
) -> None:
    key = stage.keys.upstream
    target = cluster.other_primary(key)
    async with stage.under_load() as callers:
        move = cluster.migration(key, target)
        since = time.monotonic()
        move.begin()
        await callers.is_refused(since)
        moved = 0
        while step := await asyncio.to_thread(move.move_keys, 10):
            moved += step
            await callers.is_refused(time.monotonic())
        await asyncio.to_thread(move.finish)
        await stage.recovers(callers)
    assert moved > 10, "it moved in steps"
    assert said(move.source.node, "TRYAGAIN")
    assert said(move.source.node, "MOVED")
    assert cluster.primary_of(key) is target


async def test_a_cluster_that_lost_other_slots_takes_nothing_until_it_has_them_again(
    stage: Stage, cluster: RunningCluster
) -> None:
    """A primary and its replica are gone: what is left answers CLUSTERDOWN, though it has our slot."""
    ours, other = cluster.primary_of(stage.keys.upstream), cluster.other_primary(stage.keys.upstream)
    behind = cluster.replica_of(other)
    async with stage.under_load() as callers:
        behind.kill()
        other.kill()
        await callers.is_refused(time.monotonic())
        await asyncio.to_thread(cluster.down)
        await callers.is_refused(time.monotonic())
        other.start()
        behind.start()
        await asyncio.to_thread(cluster.healthy)
        await stage.recovers(callers)
    assert said(ours, "CLUSTERDOWN")
