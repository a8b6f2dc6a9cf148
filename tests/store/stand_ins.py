"""Sentinels and nodes of a cluster that say what a test tells them to, on the wire, and count the questions."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from tests.servers import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.store.store_url import Address

SERVICE = "mymaster"


class Refusal(str):
    """What is answered as an error."""

    __slots__ = ()


class StandIn:
    """One of them; `answers` is by a command's first two words, and others it refuses. Silent while it `hangs`."""

    def __init__(self) -> None:
        self.answers: dict[str, object] = {"HELLO": {"proto": 3}}
        self.asked = 0
        self.hangs = False
        self.address: Address = ("127.0.0.1", 0)

    def names(self, primary: Address, *, epoch: int, flags: str = "master", promoted: Address | None = None) -> None:
        """As a Sentinel: `promoted` is the replica that takes over, which is in its state only when all is done."""
        host, port = promoted or primary
        self.answers["SENTINEL MASTER"] = {
            "name": SERVICE,
            "ip": primary[0],
            "port": str(primary[1]),
            "flags": flags,
            "config-epoch": str(epoch),
        }
        self.answers["SENTINEL GET-MASTER-ADDR-BY-NAME"] = [host, str(port)]

    def owns(self, owner: Address, *others: Address) -> None:
        """As a node: `owner` has all slots, and the others follow it."""
        self.answers["CLUSTER SLOTS"] = [[0, 16383, *([host, port, "id"] for host, port in (owner, *others))]]

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[StandIn]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", free_port())
        self.address = server.sockets[0].getsockname()
        async with server:
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while words := await _command(reader):
                await self._answer(words, writer)
        finally:
            writer.close()

    async def _answer(self, words: list[str], writer: asyncio.StreamWriter) -> None:
        command = words[0] if words[0] == "HELLO" else " ".join(words[:2])
        self.asked += command in ("SENTINEL MASTER", "CLUSTER SLOTS")
        if not self.hangs:
            writer.write(_encoded(self.answers.get(command, Refusal("ERR no such thing"))))
            await writer.drain()


@asynccontextmanager
async def stand_ins(number: int) -> AsyncIterator[list[StandIn]]:
    async with AsyncExitStack() as opened:
        yield [await opened.enter_async_context(StandIn().listening()) for _ in range(number)]


async def _command(reader: asyncio.StreamReader) -> list[str]:
    """Its words; none where the other side has gone."""
    try:
        count = int((await reader.readline())[1:] or 0)
        words = []
        for _ in range(count):
            length = int((await reader.readline())[1:])
            words.append((await reader.readexactly(length + 2))[:-2].decode())
    except (OSError, asyncio.IncompleteReadError):
        return []
    return words


def _encoded(answer: object) -> bytes:
    if isinstance(answer, dict):
        return b"%%%d\r\n" % len(answer) + b"".join(_encoded(one) for pair in answer.items() for one in pair)
    if isinstance(answer, list):
        return b"*%d\r\n" % len(answer) + b"".join(map(_encoded, answer))
    if isinstance(answer, int):
        return b":%d\r\n" % answer
    if isinstance(answer, Refusal):
        return b"-%s\r\n" % answer.encode()
    text = str(answer).encode()
    return b"$%d\r\n%s\r\n" % (len(text), text)
