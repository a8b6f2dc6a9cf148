"""How often the fleet may ask Batch: a token bucket in the store, whoever takes from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.store.read_budget import StoreReadBudget
from tests.store.world import clocked

if TYPE_CHECKING:
    from tests.store.world import World


def budget(world: World, rate: float) -> StoreReadBudget:
    made = StoreReadBudget(world.client, world.keys, rate=rate)
    made._script = clocked("read")
    return made


async def test_a_third_of_a_second_at_once_then_the_rate(world: World) -> None:
    reads = budget(world, 30)
    assert [await reads.take() for _ in range(10)] == [0.0] * 10
    assert await reads.take() == 0.034
    await world.passes(milliseconds=34)
    assert await reads.take() == 0.0
    assert await reads.take() > 0


async def test_two_processes_have_one_budget(world: World) -> None:
    one, other = budget(world, 30), budget(world, 30)
    taken = [await reads.take() for _ in range(10) for reads in (one, other)]
    assert taken.count(0.0) == 10


async def test_a_slow_rate_still_lets_one_pass(world: World) -> None:
    reads = budget(world, 0.5)
    assert await reads.take() == 0.0
    assert await reads.take() == 2.0
    await world.passes(seconds=await reads.take())
    assert await reads.take() == 0.0


async def test_who_waits_as_told_gets_every_call_of_the_rate(world: World) -> None:
    reads, began, taken = budget(world, 30), world.now_us, 0
    while world.now_us < began + 10e6:
        wait = await reads.take()
        taken += wait == 0.0
        await world.passes(seconds=wait)
    assert 30 * 10 * 0.97 <= taken <= 30 * 10 + 10
