"""Where the primary is: who is believed, who is waited for, and how often anybody is asked."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from gateway.store.primary import AGAIN_SECONDS, ASK_SECONDS, Primary, SentinelFinder, SlotFinder
from tests.conftest import eventually
from tests.servers import free_port
from tests.store.stand_ins import SERVICE, Refusal, StandIn, stand_ins

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.store.store_url import Address

OLD, NEW = ("127.0.0.1", 7001), ("127.0.0.1", 7002)
TRUSTED_SECONDS = 0.05


class Finder:
    """Finds what it is told to find, and remembers when it was asked."""

    def __init__(self, found: Address | None) -> None:
        self.found = found
        self.asked_at: list[float] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def __call__(self) -> Address:
        self.asked_at.append(time.monotonic())
        await self.may_answer.wait()
        if self.found is None:
            raise RedisConnectionError("nobody answers")
        return self.found

    @property
    def pauses(self) -> list[float]:
        return [after - before for before, after in zip(self.asked_at, self.asked_at[1:], strict=False)]


async def passes(seconds: float) -> None:
    since = time.monotonic()
    await eventually(lambda: asyncio.sleep(0, time.monotonic() - since > seconds))


# ---- how often is asked


async def test_all_who_ask_at_once_share_one_look() -> None:
    finder = Finder(NEW)
    primary = Primary(finder)
    assert await asyncio.gather(*(primary.address() for _ in range(20))) == [NEW] * 20
    assert len(finder.asked_at) == 1


async def test_who_goes_away_takes_the_look_from_nobody_else() -> None:
    finder = Finder(NEW)
    finder.may_answer.clear()
    primary = Primary(finder)
    gone, stays = asyncio.create_task(primary.address()), asyncio.create_task(primary.address())
    await eventually(lambda: asyncio.sleep(0, bool(finder.asked_at)))
    gone.cancel()
    finder.may_answer.set()
    assert await stays == NEW


async def test_who_refuses_is_asked_in_turn_and_not_back_to_back() -> None:
    """Under load every command asks for the address."""
    finder = Finder(None)
    primary = Primary(finder, trusted_seconds=TRUSTED_SECONDS)
    while len(finder.asked_at) < 4:
        await asyncio.gather(*(primary.address() for _ in range(10)), return_exceptions=True)
    assert min(finder.pauses) >= AGAIN_SECONDS * 0.9


async def test_a_primary_that_is_named_and_does_not_serve_is_not_asked_for_back_to_back() -> None:
    finder = Finder(OLD)
    primary = Primary(finder, trusted_seconds=TRUSTED_SECONDS)
    while len(finder.asked_at) < 4:
        primary.doubt(await primary.address())
    assert min(finder.pauses) >= AGAIN_SECONDS * 0.9


async def test_what_is_known_serves_while_nobody_answers_who_is_asked_no_more_often_than_before() -> None:
    finder = Finder(OLD)
    primary = Primary(finder, trusted_seconds=TRUSTED_SECONDS)
    await primary.address()
    finder.found = None
    while len(finder.asked_at) < 5:
        assert await primary.address() == OLD
        await asyncio.sleep(0)
    assert min(finder.pauses) >= TRUSTED_SECONDS * 0.9


async def test_what_was_known_before_a_long_silence_is_not_used_before_it_is_asked_for_again() -> None:
    finder = Finder(OLD)
    primary = Primary(finder, trusted_seconds=TRUSTED_SECONDS)
    await primary.address()
    finder.found = NEW
    await passes(3 * TRUSTED_SECONDS)
    assert await asyncio.gather(primary.address(), primary.address()) == [NEW, NEW]


async def test_what_was_known_before_a_long_silence_serves_where_nobody_answers() -> None:
    """The Sentinels may all be away, and the primary is where it was."""
    finder = Finder(OLD)
    primary = Primary(finder, trusted_seconds=TRUSTED_SECONDS)
    await primary.address()
    finder.found = None
    await passes(3 * TRUSTED_SECONDS)
    assert await primary.address() == OLD


async def test_what_is_a_little_old_is_used_while_it_is_looked_for_again() -> None:
    finder = Finder(OLD)
    primary = Primary(finder, trusted_seconds=0.5)
    await primary.address()
    finder.may_answer.clear()
    await passes(0.5)
    assert await asyncio.wait_for(primary.address(), 0.5) == OLD
    finder.found = NEW
    finder.may_answer.set()
    await eventually(lambda: _is(primary, NEW))


async def _is(primary: Primary, address: Address) -> bool:
    return await primary.address() == address


# ---- who is believed: Sentinels


def finder_of(sentinels: Sequence[StandIn]) -> SentinelFinder:
    return SentinelFinder([one.address for one in sentinels], SERVICE, {})


@pytest.mark.parametrize("cut_off", range(3))
async def test_a_sentinel_that_was_cut_off_with_a_deposed_primary_is_not_believed(cut_off: int) -> None:
    async with stand_ins(3) as sentinels:
        for number, sentinel in enumerate(sentinels):
            sentinel.names(OLD if number == cut_off else NEW, epoch=7 if number == cut_off else 8)
        for _ in range(5):
            assert await finder_of(sentinels)() == NEW


@pytest.mark.parametrize("flags", ["s_down,master", "s_down,o_down,master", "master,disconnected"])
async def test_a_sentinel_that_does_not_reach_its_primary_is_not_believed(flags: str) -> None:
    async with stand_ins(3) as sentinels:
        sentinels[0].names(OLD, epoch=9, flags=flags)
        for sentinel in sentinels[1:]:
            sentinel.names(NEW, epoch=8)
        assert await finder_of(sentinels)() == NEW
        assert await finder_of(sentinels[:1] + sentinels[1:2])() == NEW


async def test_the_replica_that_is_being_promoted_is_the_primary_to_a_sentinel_whose_state_names_the_old_one() -> None:
    """Who leads a failover counts its epoch before it changes the address, and calls the old primary down."""
    async with stand_ins(3) as sentinels:
        sentinels[0].names(OLD, epoch=8, flags="s_down,o_down,master,failover_in_progress", promoted=NEW)
        for sentinel in sentinels[1:]:
            sentinel.names(OLD, epoch=7)
        for _ in range(5):
            assert await finder_of(sentinels[:2])() == NEW


async def test_a_hung_sentinel_is_not_waited_for_when_most_have_answered() -> None:
    async with stand_ins(3) as sentinels:
        sentinels[0].hangs = True
        for sentinel in sentinels[1:]:
            sentinel.names(NEW, epoch=8)
        began = time.monotonic()
        finder = finder_of(sentinels)
        assert await finder() == NEW
        assert time.monotonic() - began < ASK_SECONDS / 2
        await eventually(lambda: asyncio.sleep(0, not finder._questions._open))


async def test_the_only_sentinel_that_answers_is_believed_though_the_others_hang() -> None:
    async with stand_ins(3) as sentinels:
        sentinels[0].hangs = sentinels[1].hangs = True
        sentinels[2].names(NEW, epoch=8)
        began = time.monotonic()
        finder = finder_of(sentinels)
        assert await finder() == NEW
        assert time.monotonic() - began < 2 * ASK_SECONDS
        await eventually(lambda: asyncio.sleep(0, not finder._questions._open))


async def test_what_no_sentinel_knows_is_told_in_a_line_with_a_reason_each_and_no_password() -> None:
    async with stand_ins(4) as sentinels:
        sentinels[0].answers["SENTINEL MASTER"] = Refusal("ERR No such master with that name")
        sentinels[1].names(OLD, epoch=1, flags="s_down,master")
        sentinels[2].answers["HELLO"] = Refusal("ERR unknown command HELLO, with args beginning with: 3 AUTH hunter2")
        sentinels[3].hangs = True
        addresses = [*(one.address for one in sentinels), ("127.0.0.1", free_port())]
        finder = SentinelFinder(addresses, SERVICE, {"password": "hunter2"})
        with pytest.raises(RedisConnectionError) as caught:
            await finder()
        await eventually(lambda: asyncio.sleep(0, not finder._questions._open))
    unknown, down, refuses, hung, away = (f"{host}:{port}" for host, port in addresses)
    assert str(caught.value) == (
        "No Sentinel names a primary that is up: "
        f"{unknown} does not know the name, {down} calls it down, {refuses} is no Sentinel, or refuses us, "
        f"{hung} does not answer, {away} does not answer"
    )


# ---- who is believed: nodes of a cluster


async def test_a_node_that_has_left_the_cluster_has_no_voice_any_more() -> None:
    """Its address may be another cluster's one day."""
    async with stand_ins(4) as nodes:
        addresses = [node.address for node in nodes]
        for node in nodes:
            node.owns(*addresses)
        finder = SlotFinder(addresses[:1], "key", {})
        assert await finder() == addresses[0]
        *staying, departed = nodes
        for node in staying:
            node.owns(*addresses[1:3], addresses[0])
        assert await finder() == addresses[1]
        await eventually(lambda: asyncio.sleep(0, departed.asked == 1))
        assert await finder() == addresses[1]
        await eventually(lambda: asyncio.sleep(0, not finder._questions._open))
        assert [node.asked for node in nodes] == [3, 2, 2, 1]


async def test_what_is_known_of_a_cluster_that_is_down_is_not_forgotten() -> None:
    async with stand_ins(2) as nodes:
        for node in nodes:
            node.owns(nodes[1].address)
        finder = SlotFinder([nodes[0].address], "key", {})
        await finder()
        for node in nodes:
            node.answers["CLUSTER SLOTS"] = []
        with pytest.raises(RedisConnectionError, match=r"No node of the cluster has slot \d+"):
            await finder()
        nodes[1].owns(nodes[1].address)
        assert await finder() == nodes[1].address


async def test_a_seed_is_asked_again_though_nobody_names_it() -> None:
    async with stand_ins(3) as nodes:
        for node in nodes:
            node.owns(nodes[1].address, nodes[2].address)
        finder = SlotFinder([nodes[0].address], "key", {})
        assert await finder() == nodes[1].address
        await finder()
        await eventually(lambda: asyncio.sleep(0, not finder._questions._open))
        assert [node.asked for node in nodes] == [2, 1, 1]
