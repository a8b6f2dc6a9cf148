"""The emulator's two clocks: one that only goes forward, for rates and ages, and the wall's, for times in answers."""

import asyncio
import heapq
import itertools
import time
from typing import Protocol


class Clock(Protocol):
    """Where the emulator takes every time from, so that a test can hold the time in its hand."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment; never goes back."""
        ...

    def epoch_ms(self) -> int:
        """Milliseconds since 1970-01-01 UTC, as Batch writes times."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Returns once `monotonic` has moved on by that many seconds."""
        ...


class SystemClock:
    """The machine's own time."""

    def monotonic(self) -> float:
        return time.monotonic()

    def epoch_ms(self) -> int:
        return time.time_ns() // 1_000_000

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class ManualClock:
    """A clock that stands still until `advance` is called, in the event loop's own thread.

    `start_epoch_ms` is the wall time at monotonic 0.
    """

    def __init__(self, *, start_epoch_ms: int = 1_750_000_000_000) -> None:
        self._now = 0.0
        self._start_epoch_ms = start_epoch_ms
        self._order = itertools.count()  # breaks ties: futures have no order
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    @property
    def sleepers(self) -> int:
        """How many calls of `sleep` wait for the time to move."""
        return sum(not future.done() for _, _, future in self._sleepers)

    def monotonic(self) -> float:
        return self._now

    def epoch_ms(self) -> int:
        return self._start_epoch_ms + round(self._now * 1000)

    def advance(self, seconds: float) -> None:
        """Moves the time on and wakes those whose sleep is over."""
        self._now = round(self._now + seconds, 9)  # so that ten steps of 0.1 are exactly 1
        while self._sleepers and self._sleepers[0][0] <= self._now:
            _, _, future = heapq.heappop(self._sleepers)
            if not future.done():
                future.set_result(None)

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            return
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now + seconds, next(self._order), future))
        await future
