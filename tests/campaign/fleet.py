"""The gateways of a campaign: real processes that are killed, stopped, and started again."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from contextlib import ExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from tests.processes import GatewayProcess, gateway_process

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from tests.campaign.history import History

WATCH_SECONDS = 0.2
# Past its own drain a gateway that was told to end has a few seconds to let go of everything on a busy machine.
END_MARGIN_SECONDS = 10.0


class Gateway:
    """One of the fleet: a process, then another in its place.

    Its log goes to `<folder>/log.jsonl`, and not into memory: half an hour has some hundred thousand lines.
    """

    def __init__(self, number: int, folder: Path, *, settings: str, package: Path, history: History) -> None:
        self.number = number
        self.url: str | None = None  # where it listens, while it runs
        self.turn = asyncio.Lock()  # one fault at a time
        self._folder = folder
        self._settings = settings
        self._package = package
        self._history = history
        self._process: GatewayProcess | None = None
        self._opened = ExitStack()
        folder.mkdir()
        self._log = (folder / "log.jsonl").open("a", encoding="utf-8")

    async def start(self) -> None:
        """Until it serves: where the store is away it refuses to start, and whoever runs it starts it again."""
        while True:
            opening = gateway_process(self._folder, self._settings, package=self._package)
            with suppress(AssertionError):
                self._process = await asyncio.to_thread(self._opened.enter_context, opening)
                self.url = self._process.url
                return
            self._history.note("fault", fault="refused_start", gateway=self.number)
            await asyncio.sleep(WATCH_SECONDS)

    async def kill(self) -> None:
        self._signal(signal.SIGKILL)
        await self._end(planned=True)

    async def terminate(self, seconds: float) -> None:
        """SIGTERM, and `seconds` until it must have drained; one that has not is an unplanned end."""
        self._signal(signal.SIGTERM)
        assert self._process is not None
        ended = None
        with suppress(subprocess.TimeoutExpired):
            ended = await asyncio.to_thread(self._process.process.wait, seconds + END_MARGIN_SECONDS)
        await self._end(planned=ended == 0)

    def stop(self) -> None:
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def keep_lines(self) -> None:
        """Moves the lines so far from memory into the file."""
        if self._process is None:
            return
        lines = self._process.events[:]
        del self._process.events[: len(lines)]
        for line in lines:
            self._log.write(json.dumps({**line, "gateway": self.number}) + "\n")
        self._log.flush()

    async def watch(self) -> None:
        """Notes an end that nobody asked for, and starts the next process, as any supervisor would."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            self.keep_lines()
            if self._process is None or self._process.process.poll() is None or self.turn.locked():
                continue
            async with self.turn:
                await self._end(planned=False)
                await self.start()

    async def aclose(self) -> None:
        if self._process is not None and self._process.process.poll() is None:
            self._process.process.kill()
        await asyncio.to_thread(self._opened.close)
        self.keep_lines()
        self._log.close()

    async def _end(self, *, planned: bool) -> None:
        assert self._process is not None
        self.url = None
        await asyncio.to_thread(self._opened.close)
        self._history.note("ended", gateway=self.number, code=self._process.process.returncode, planned=planned)
        self.keep_lines()
        self._process = None

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.process.send_signal(number)


@asynccontextmanager
async def fleet(
    numbers: Sequence[int], folder: Path, *, settings: str, package: Path, history: History
) -> AsyncIterator[list[Gateway]]:
    """Running gateways, watched; all are gone afterwards."""
    gateways = [
        Gateway(number, folder / f"gateway-{number}", settings=settings, package=package, history=history)
        for number in numbers
    ]
    watches: list[asyncio.Task[Any]] = []
    try:
        await asyncio.gather(*(gateway.start() for gateway in gateways))
        watches = [asyncio.create_task(gateway.watch()) for gateway in gateways]
        yield gateways
    finally:
        for watch in watches:
            watch.cancel()
        await asyncio.gather(*watches, return_exceptions=True)
        for gateway in gateways:
            await gateway.aclose()
