"""The commands of the store: Lua files, each run by its digest and sent whole where the store does not know it yet."""

from __future__ import annotations

from hashlib import sha1
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from redis.exceptions import NoScriptError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis

NAMES = ("admit", "lease", "reclaim", "settle", "share")


def script_text(name: str) -> str:
    """A command's text with the prelude behind its first line, which must stay first: it carries the flags."""
    folder = files("gateway.store") / "lua"
    flags, _, body = (folder / f"{name}.lua").read_text().partition("\n")
    prelude = (folder / "prelude.lua").read_text()
    return f"{flags}\n{prelude}\n{body}"


class Script:
    """One command. `run` raises redis-py's errors; `RedisStore` translates them."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self._text = text
        self._digest = sha1(text.encode(), usedforsecurity=False).hexdigest()

    async def run(self, client: Redis, keys: Sequence[str], args: Sequence[str | bytes | int | float]) -> Any:
        try:
            return await client.evalsha(self._digest, len(keys), *keys, *args)
        except NoScriptError:
            return await client.eval(self._text, len(keys), *keys, *args)


class Scripts:
    """All commands of the store by name."""

    def __init__(self) -> None:
        self.admit, self.lease, self.reclaim, self.settle, self.share = (
            Script(name, script_text(name)) for name in NAMES
        )
