"""Within a version a release may add members: no command of the one before drops them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from hashlib import sha1
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import msgpack
import pytest
from redis.exceptions import ResponseError

from gateway.store.scripts import NAMES, script_text
from tests.store.test_scripts import walk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

    from redis.asyncio import Redis

    from tests.store.world import World

# Of every kind that Lua carries.
ADDED = {"text": "größe", "number": 2**53, "fraction": 0.1, "yes": True, "list": [1, [2]], "map": {"deep": {"a": 1}}}
FOLDER = files("gateway.store") / "lua"
READERS = {name for name in NAMES if "read_record(" in (FOLDER / f"{name}.lua").read_text()}


class NextRelease:
    """A client that adds to all that is in the store before each command, as a later release would have; afterwards
    it is still there."""

    def __init__(self, client: Redis, prefix: str) -> None:
        self._client: Any = client
        self._prefix = prefix
        self.ran: set[str] = set()
        self.kept = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def evalsha(self, digest: str, numkeys: int, *values: Any) -> Any:
        return await self._run(digest, self._client.evalsha(digest, numkeys, *values))

    async def eval(self, text: str, numkeys: int, *values: Any) -> Any:
        digest = sha1(text.encode()).hexdigest()  # noqa: S324
        return await self._run(digest, self._client.eval(text, numkeys, *values))

    @asynccontextmanager
    async def pipeline(self, **options: Any) -> AsyncIterator[Any]:
        async with self._client.pipeline(**options) as pipe:
            evalsha, execute = pipe.evalsha, pipe.execute
            digests: list[str] = []

            def remember(digest: str, numkeys: int, *values: Any) -> Any:
                digests.append(digest)
                return evalsha(digest, numkeys, *values)

            async def executed(**how: Any) -> Any:
                answer = await self._run(digests[0] if digests else "", execute(**how))
                self.ran.update(digests)
                return answer

            pipe.evalsha, pipe.execute = remember, executed
            yield pipe

    async def _run(self, digest: str, command: Awaitable[Any]) -> Any:
        before = {key: await self._add(key) async for key in self._client.scan_iter(match=f"{self._prefix}:*")}
        answer = await command
        self.ran.add(digest)
        for key, rest in before.items():
            if rest is not None and await self._client.exists(key):
                await self._hold(key, rest)
        return answer

    async def _add(self, key: bytes) -> bytes | None:
        """What stands in a record behind the map that changes; None where nothing can be added."""
        if b":sub:" in key:
            changing, rest = opened(await self._client.get(key))
            await self._client.set(key, msgpack.packb(changing | {"next": ADDED}) + rest, keepttl=True)
            return rest
        if await self._client.type(key) == b"hash" and key.rpartition(b"}:")[2].startswith((b"upstream", b"share:")):
            await self._client.hset(key, "next", "added")
            return b""
        return None

    async def _hold(self, key: bytes, rest: bytes) -> None:
        self.kept += 1
        if b":sub:" not in key:
            assert await self._client.hget(key, "next") == b"added", key
            return
        changing, left = opened(await self._client.get(key))
        assert changing["next"] == ADDED, key
        assert rest.startswith(left), "the request may go, and nothing before it"
        assert len(left) >= changing["identity"]


def opened(value: bytes) -> tuple[dict[str, Any], bytes]:
    """(what the scripts change of a record, the rest)"""
    unpacker = msgpack.Unpacker(raw=False)
    unpacker.feed(value)
    changing = unpacker.unpack()
    return changing, value[unpacker.tell() :]


async def test_no_command_drops_what_it_does_not_know(any_world: World) -> None:
    release = NextRelease(any_world.client, any_world.prefix)
    await walk(any_world, release)  # type: ignore[arg-type]
    ran = {name for name in NAMES if sha1(script_text(name).encode()).hexdigest() in release.ran}  # noqa: S324
    assert ran >= READERS
    assert release.kept > 3 * len(READERS)


@pytest.mark.parametrize("value", [None, {}, b"bytes", 2**53 + 1], ids=repr)
async def test_what_lua_does_not_carry_is_no_member(any_world: World, value: Any) -> None:
    """The README says what a release may add; here is why."""
    packed = msgpack.packb({"next": value, "other": 1})
    carry = any_world.client.eval("return cmsgpack.pack(cmsgpack.unpack(ARGV[1]))", 0, packed)
    if isinstance(value, bytes):
        with pytest.raises(ResponseError, match="Bad data format"):
            await carry
    else:
        assert msgpack.unpackb(await carry).get("next", "gone") != value
