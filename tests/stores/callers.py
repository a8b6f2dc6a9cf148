"""Callers who go on through whatever happens to the store, and notice what they were promised and told."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiohttp

from gateway.core.identity import submission_id
from tests.conftest import eventually
from tests.examples import ACCOUNT, REGION, submission

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

CALLERS = 10
# Between two requests of one caller: together they send what a busy machine forwards beside them.
PAUSE_SECONDS = 0.1
UNAVAILABLE = ("/problems/store-unavailable", "/problems/durability-unconfirmed")
ANSWER_SECONDS = 10.0


def asked_with(token: str) -> dict[str, Any]:
    """What is sent with this token: a name and a share of its own."""
    return submission(clientToken=token, jobName=token, shareIdentifier=token[-1])


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A 503, and when it came, by the monotonic clock."""

    at: float
    slug: str
    detail: str


@dataclass(kw_only=True)
class Callers:
    """Each sends submissions with tokens of its own, one after another, until each is acknowledged, and reads them.

    `ids` are those acknowledged, by token; `wrong` is what no gateway may answer, in sentences.
    """

    url: str
    name: str
    ids: dict[str, str] = field(default_factory=dict)
    refusals: list[Refusal] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    last_sent: float = 0.0  # when the newest request was sent that was acknowledged

    @asynccontextmanager
    async def calling(self) -> AsyncIterator[Callers]:
        """Call inside the block; at its end each caller brings what it began to its acknowledgement."""
        stop = asyncio.Event()
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
        async with aiohttp.ClientSession(self.url, timeout=timeout) as http:
            calling = [
                asyncio.create_task(self._call(http, f"{self.name}-{number}", stop)) for number in range(CALLERS)
            ]
            try:
                await self.acknowledges_again(time.monotonic(), seconds=ANSWER_SECONDS)
                yield self
            finally:
                stop.set()
                _, unfinished = await asyncio.wait(calling, timeout=ANSWER_SECONDS)
                for one in unfinished:
                    one.cancel()
                await asyncio.wait(calling)
            assert not unfinished, "a caller is not acknowledged any more"
            for one in calling:
                one.result()

    async def acknowledges_again(self, since: float, *, seconds: float) -> None:
        """Until a request is acknowledged that was sent after `since`, by the monotonic clock."""
        await self._until(lambda: self.last_sent > since, seconds)

    async def is_refused(self, since: float, seconds: float = ANSWER_SECONDS) -> Refusal:
        """Until a caller is told after `since` that the store is away."""
        await self._until(lambda: bool(self.refusals) and self.refusals[-1].at > since, seconds)
        return self.refusals[-1]

    async def _until(self, condition: Callable[[], bool], seconds: float) -> None:
        """A wrong answer ends the waiting."""
        await eventually(lambda: asyncio.sleep(0, bool(self.wrong) or condition()), seconds)
        assert self.wrong == []

    async def _call(self, http: aiohttp.ClientSession, name: str, stop: asyncio.Event) -> None:
        number = 0
        while not stop.is_set():
            token, number = f"{name}-{number}", number + 1
            acknowledged = False
            while not acknowledged:
                acknowledged = await self._submit(http, token)
                await asyncio.sleep(PAUSE_SECONDS)
            await self._read(http, token)
            await asyncio.sleep(PAUSE_SECONDS)

    async def _submit(self, http: aiohttp.ClientSession, token: str) -> bool:
        """Whether it was acknowledged."""
        sent = time.monotonic()
        status, answer = await self._ask(http, "POST", "/v1/submissions", asked_with(token))
        if status == 503:
            self._told(token, answer, ("submissionId", "clientToken"))
            return False
        if status not in (200, 202):
            self.wrong.append(f"{token} was answered {status}: {answer}")
            return False
        self._told(token, answer, ("submissionId", "clientToken", "jobName"))
        self.ids[token] = answer["submissionId"]
        self.last_sent = max(self.last_sent, sent)
        return True

    async def _read(self, http: aiohttp.ClientSession, token: str) -> None:
        """What was acknowledged can be seen, unless the store is away."""
        status, answer = await self._ask(http, "GET", f"/v1/submissions/{self.ids[token]}")
        if status == 200:
            self._told(token, answer, ("submissionId", "clientToken", "jobName"))
        elif status != 503:
            self.wrong.append(f"{token} was acknowledged, and reading it is answered {status}: {answer}")

    async def _ask(
        self, http: aiohttp.ClientSession, method: str, path: str, body: Any = None
    ) -> tuple[int, dict[str, Any]]:
        try:
            async with http.request(method, path, json=body) as response:
                answer = await response.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError) as error:
            return 0, {"error": repr(error)}
        if response.status == 503:
            refusal = Refusal(at=time.monotonic(), slug=answer["type"], detail=answer.get("detail", ""))
            self.refusals.append(refusal)
            if refusal.slug not in UNAVAILABLE or int(response.headers.get("Retry-After", 0)) < 1:
                self.wrong.append(f"a 503 that says not what it is or when to retry: {answer}, {response.headers}")
        return response.status, answer

    def _told(self, token: str, answer: dict[str, Any], members: tuple[str, ...]) -> None:
        """An answer is about what its own caller asked for."""
        own = {
            "submissionId": submission_id(namespace="anonymous", account=ACCOUNT, region=REGION, token=token),
            "clientToken": token,
            "jobName": token,
        }
        for member in members:
            if answer.get(member) != own[member]:
                self.wrong.append(f"{token} was told {member} {answer.get(member)!r}: {answer}")
