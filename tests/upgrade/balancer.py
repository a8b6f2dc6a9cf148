"""Callers behind a load balancer: a request goes to the next gateway, and on where that is gone or not ready."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp

from tests.examples import submission

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from tests.processes import GatewayProcess

# One that is being stopped refuses connections, cuts them or says 503: a balancer takes the next.
ELSEWHERE = (aiohttp.ClientConnectionError, aiohttp.ServerTimeoutError)
UNAVAILABLE = 503
# 409: what was to be changed has ended meanwhile.
SERVED = (200, 202, 409)
PATIENCE_SECONDS = 20.0


class Balancer:
    """`gateways` are those that requests go to, in turn."""

    def __init__(self, http: aiohttp.ClientSession, gateways: Iterable[GatewayProcess]) -> None:
        self._http = http
        self.gateways = list(gateways)
        self._turn = 0

    async def ask(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """The answer of the first that serves."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            self._turn += 1
            gateway = self.gateways[self._turn % len(self.gateways)]
            try:
                async with self._http.request(method, gateway.url + path, **options) as answer:
                    if answer.status != UNAVAILABLE:
                        assert answer.status in SERVED, await answer.text()
                        body: dict[str, Any] = await answer.json()
                        return body
            except ELSEWHERE:
                pass
            assert time.monotonic() < deadline, f"no gateway serves {method} {path}"
            await asyncio.sleep(0.05)

    async def submit(self, number: int) -> str:
        """Sends a request to two gateways, as one whose first answer was lost; reprioritises some, cancels some."""
        asked = submission(
            clientToken=f"token-{number}", jobName=f"job-{number}", shareIdentifier=f"share-{number % 3}"
        )
        first = await self.ask("POST", "/v1/submissions", json=asked)
        again = await self.ask("POST", "/v1/submissions", json=asked)
        assert first["submissionId"] == again["submissionId"]
        path = f"/v1/submissions/{first['submissionId']}"
        if number % 5 == 0:
            await self.ask("PATCH", path, json={"schedulingPriority": 7})
        if number % 7 == 0:
            await self.ask("POST", f"{path}/cancel")
        return str(first["submissionId"])

    async def submit_all(self, numbers: Iterable[int]) -> list[str]:
        return await asyncio.gather(*(self.submit(number) for number in numbers))

    async def final(self, submission_id: str) -> dict[str, Any]:
        return await self.ask("GET", f"/v1/submissions/{submission_id}", headers={"Prefer": "wait=20"})


@asynccontextmanager
async def balancing(*gateways: GatewayProcess) -> AsyncIterator[Balancer]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as http:
        yield Balancer(http, gateways)
