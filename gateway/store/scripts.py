"""The commands of the store: Lua files, each run by its digest and sent whole where the store does not know it yet."""

from __future__ import annotations

from hashlib import sha1
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from redis.exceptions import NoScriptError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis

NAMES = (
    "admit",
    "cancel",
    "lease",
    "lease_errand",
    "priority",
    "reclaim",
    "redrive",
    "resolve",
    "settle",
    "settle_errand",
    "share",
    "sweep",
    "upstream",
)
# What commands share, in the order in which it stands before each of them.
SHARED = ("prelude", "line", "pace")


def script_text(name: str) -> str:
    """A command's text with what is shared behind its first line, which must stay first: it carries the flags."""
    folder = files("gateway.store") / "lua"
    flags, _, body = (folder / f"{name}.lua").read_text().partition("\n")
    shared = "\n".join((folder / f"{one}.lua").read_text() for one in SHARED)
    return f"{flags}\n{shared}\n{body}"


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
    """All commands of the store, by name."""

    def __init__(self) -> None:
        self._scripts = {name: Script(name, script_text(name)) for name in NAMES}

    def __getitem__(self, name: str) -> Script:
        return self._scripts[name]

    def __setitem__(self, name: str, script: Script) -> None:
        self._scripts[name] = script
