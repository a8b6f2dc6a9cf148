from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from gateway.store.group_commit import GroupCommit

if TYPE_CHECKING:
    from collections.abc import Sequence


class Disk:
    """Flushes when the test lets it; an item that is an exception fails alone."""

    def __init__(self) -> None:
        self.groups: list[list[object]] = []
        self.gate = asyncio.Event()
        self.error: Exception | None = None

    async def flush(self, items: Sequence[object]) -> list[object]:
        self.groups.append(list(items))
        await self.gate.wait()
        if self.error:
            raise self.error
        return list(items)


async def added(commit: GroupCommit[object, object], *items: object) -> list[asyncio.Task[object]]:
    tasks = [asyncio.create_task(commit.add(item)) for item in items]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks


async def test_what_arrives_during_a_flush_goes_together_into_the_next() -> None:
    disk = Disk()
    commit = GroupCommit(disk.flush, most=50)
    first = await added(commit, 1)
    rest = await added(commit, 2, 3, 4)
    disk.gate.set()
    assert await asyncio.gather(*first, *rest) == [1, 2, 3, 4]
    assert disk.groups == [[1], [2, 3, 4]]


async def test_a_group_has_a_bound() -> None:
    disk = Disk()
    disk.gate.set()
    commit = GroupCommit(disk.flush, most=3)
    assert await asyncio.gather(*(commit.add(number) for number in range(7))) == list(range(7))
    assert [len(group) for group in disk.groups] == [3, 3, 1]


async def test_a_failed_flush_answers_each_caller_and_the_next_one_works() -> None:
    disk = Disk()
    disk.gate.set()
    disk.error = OSError("disk")
    commit = GroupCommit(disk.flush, most=50)
    answers = await asyncio.gather(*(commit.add(number) for number in range(3)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [OSError] * 3
    disk.error = None
    assert await commit.add(9) == 9


async def test_those_who_came_behind_a_failed_flush_hear_of_it_at_once() -> None:
    """Behind a store that hangs each of them would wait for another time-out."""
    disk = Disk()
    disk.error = OSError("disk")
    commit = GroupCommit(disk.flush, most=2)
    tasks = await added(commit, 1) + await added(commit, *range(2, 9))
    disk.gate.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(answer) for answer in answers] == [OSError] * 8
    assert disk.groups == [[1]]
    disk.error = None
    assert await commit.add(9) == 9


async def test_one_refused_item_spoils_no_other() -> None:
    disk = Disk()
    disk.gate.set()
    commit = GroupCommit(disk.flush, most=50)
    refused = ValueError("no")
    answers = await asyncio.gather(commit.add(1), commit.add(refused), commit.add(3), return_exceptions=True)
    assert answers == [1, refused, 3]


async def test_a_caller_who_hangs_up_disturbs_nobody_and_its_item_is_written() -> None:
    disk = Disk()
    commit = GroupCommit(disk.flush, most=50)
    gone, stays = await added(commit, 1, 2)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    disk.gate.set()
    assert await stays == 2
    assert [item for group in disk.groups for item in group] == [1, 2]
