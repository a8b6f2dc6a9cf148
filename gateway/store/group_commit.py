"""Acceptances that arrive together are written together: one round trip, one wait for the disk."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

Item = TypeVar("Item")
Result = TypeVar("Result")


class GroupCommit(Generic[Item, Result]):
    """Hands items to `flush` in groups: what arrives while one flush is under way goes into the next.

    `flush` answers a result or an exception for each item, in order; what it raises is the answer to every item and to
    all that wait. A caller
    who goes away takes nothing with it: its item is flushed all the same, as one that is accepted or not, never half.
    """

    def __init__(
        self, flush: Callable[[Sequence[Item]], Awaitable[Sequence[Result | Exception]]], *, most: int
    ) -> None:
        self._flush = flush
        self._most = most
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._flushing: asyncio.Task[None] | None = None

    async def add(self, item: Item) -> Result:
        """The item's own result; raises its own exception."""
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, answer))
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush_all())
        return await answer

    async def _flush_all(self) -> None:
        try:
            while self._waiting:
                group = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
                await self._flush_group(group)
        finally:
            self._flushing = None

    async def _flush_group(self, group: list[tuple[Item, asyncio.Future[Result]]]) -> None:
        results: Sequence[Result | Exception]
        try:
            results = await self._flush([item for item, _ in group])
        except Exception as error:  # noqa: BLE001 - whatever it is, each caller must hear of it
            # Those who came meanwhile too: behind a store that hangs they would each wait for a time-out more.
            group += self._waiting
            self._waiting.clear()
            results = [error] * len(group)
        for (_, answer), result in zip(group, results, strict=True):
            if answer.done():
                continue  # its caller went away
            if isinstance(result, Exception):
                answer.set_exception(result)
            else:
                answer.set_result(result)
