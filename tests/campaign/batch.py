"""Batch as a campaign has it: the emulator as a process of its own, and its admin face."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

REACHED_SECONDS = 15.0  # longer than any outage that a campaign makes: its own calls wait for the listener


class Batch:
    """The emulator's admin face, over HTTP like everything that the checker reads of it."""

    def __init__(self, url: str, http: aiohttp.ClientSession) -> None:
        self.url = url
        self._http = http

    async def add_fault(self, fault: dict[str, Any]) -> None:
        await self._call("POST", "/faults", fault)

    async def clear_faults(self) -> list[dict[str, Any]]:
        """Takes all faults away; answers those that were set, with how often each was `met`."""
        met: list[dict[str, Any]] = (await self._call("GET", "/faults"))["faults"]
        await self._call("DELETE", "/faults")
        return met

    async def calls(self) -> list[dict[str, Any]]:
        """The ledger: every call, in the order in which they were decided."""
        ledger: list[dict[str, Any]] = (await self._call("GET", "/ledger"))["calls"]
        return ledger

    async def jobs(self) -> list[dict[str, Any]]:
        made: list[dict[str, Any]] = (await self._call("GET", "/jobs"))["jobs"]
        return made

    async def last_call(self) -> int:
        """The number of the newest call."""
        return int((await self._call("GET", "/"))["lastCall"])

    async def _call(self, method: str, page: str, body: Any = None) -> Any:
        deadline = time.monotonic() + REACHED_SECONDS
        while True:
            try:
                async with self._http.request(method, f"{self.url}/_emulator{page}", json=body) as answer:
                    answer.raise_for_status()
                    return await answer.json()
            except aiohttp.ClientConnectionError:
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(0.1)


@asynccontextmanager
async def emulator(package: Path, *, tps: float, repeats: str, seed: int) -> AsyncIterator[Batch]:
    """`gateway emulator`, imported from the folder `package`, at so many submissions a second."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", "emulator", "--port", "0", "--json", "--seed", str(seed),
        "--tps", str(tps), "--read-tps", "200", "--repeats", repeats,
        "--job-seconds", "36000",  # whatever is terminated is still alive then, so that its end shows
        env={**os.environ, "PYTHONPATH": str(package)}, cwd=package, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), 30)
        timeout = aiohttp.ClientTimeout(total=60)  # the ledger of half an hour is some 100 MB
        async with aiohttp.ClientSession(timeout=timeout) as http:
            yield Batch(json.loads(line)["url"], http)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
