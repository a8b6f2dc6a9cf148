"""The commands of the store: Lua files, each run by its digest and sent whole where the store does not know it yet."""

from __future__ import annotations

from hashlib import sha1
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from redis.exceptions import NoScriptError, ResponseError

from gateway.store.connection import was_moved

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.store.durability import Confirmation

    Argument = str | bytes | int | float
    Call = tuple["Script", Sequence[str], Sequence[Argument]]  # with KEYS and ARGV

NAMES = (
    "admit",
    "audit",
    "audit_job",
    "audit_share",
    "cancel",
    "lease",
    "lease_errand",
    "priority",
    "read",
    "reclaim",
    "redrive",
    "resolve",
    "settle",
    "settle_errand",
    "share",
    "sweep",
    "touch",
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
    """One command. Raises redis-py's errors; who runs it translates them."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self._text = text
        self._digest = sha1(text.encode(), usedforsecurity=False).hexdigest()

    async def run(self, client: Any, keys: Sequence[str], args: Sequence[Argument]) -> Any:
        try:
            return await client.evalsha(self._digest, len(keys), *keys, *args)
        except ResponseError as error:
            if not _did_not_run(error):
                raise
        return await client.eval(self._text, len(keys), *keys, *args)

    def add_to(self, pipe: Any, keys: Sequence[str], args: Sequence[Argument], *, whole: bool) -> None:
        """Put it into a pipeline: by its digest, or whole where the server may not know it."""
        if whole:
            pipe.eval(self._text, len(keys), *keys, *args)
        else:
            pipe.evalsha(self._digest, len(keys), *keys, *args)


async def run_all(client: Any, calls: Sequence[Call], confirmation: Confirmation | None) -> tuple[list[Any], bool]:
    """(an answer or an error each, in order; whether all that was written is confirmed), in one round trip."""
    answers, confirmed = await _pipelined(client, calls, confirmation, whole=False)
    again = [number for number, answer in enumerate(answers) if _did_not_run(answer)]
    if again:
        late, also = await _pipelined(client, [calls[number] for number in again], confirmation, whole=True)
        confirmed = confirmed and also
        for number, answer in zip(again, late, strict=True):
            answers[number] = answer
    return answers, confirmed


async def _pipelined(
    client: Any, calls: Sequence[Call], confirmation: Confirmation | None, *, whole: bool
) -> tuple[list[Any], bool]:
    """All on one connection, as the wait demands: it covers the connection's own writes alone."""
    async with client.pipeline(transaction=False) as pipe:
        for script, keys, args in calls:
            script.add_to(pipe, keys, args, whole=whole)
        if confirmation is not None:
            for wait in confirmation.waits:
                pipe.execute_command(*wait)
        answers: list[Any] = await pipe.execute(raise_on_error=False)
    return answers[: len(calls)], confirmation is None or confirmation.given_by(answers[-1])


def _did_not_run(answer: Any) -> bool:
    """Whether a server has said that it does not know the script, or that the keys are another's: run it again."""
    return isinstance(answer, NoScriptError) or was_moved(answer)


class Scripts:
    """All commands of the store, by name."""

    def __init__(self) -> None:
        self._scripts = {name: Script(name, script_text(name)) for name in NAMES}

    def __getitem__(self, name: str) -> Script:
        return self._scripts[name]

    def __setitem__(self, name: str, script: Script) -> None:
        self._scripts[name] = script
