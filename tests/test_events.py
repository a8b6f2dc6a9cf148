"""The log: its lines, and the one list of events that document and code hold to."""

from __future__ import annotations

import ast
import io
import json
import logging
import re
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from gateway import events
from gateway.core.identity import upstream_tag
from gateway.core.pace import PaceRules
from gateway.events import COMMON, EVENTS
from gateway.store.bounds import StoreBounds
from gateway.store.keys import Keys
from gateway.store.redis_store import RedisStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redis.asyncio import Redis

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "deploy" / "EVENTS.md"
LEVELS = ("info", "warning", "error")
# Mappings that are laid into a line and that no literal in the same module tells: the module and what is laid in,
# with its fields. `test_the_fields_of_the_upstream_are_those_that_the_store_tells` holds the first.
SPREADS = {
    ("gateway/core/status.py", "await self._store.pace()"): {
        "rate", "queued", "queued_bytes", "leased", "delayed", "errands", "forwarded", "throttled", "accepting",
        "forwarding", "condition",
    },
}  # fmt: skip


@dataclass(frozen=True)
class LogCall:
    where: str
    level: str
    event: str
    fields: frozenset[str]


@cache
def log_calls() -> tuple[LogCall, ...]:
    """Every call of `….info|warning|error(…)` on something that is called log."""
    modules = [(path, ast.parse(path.read_text(encoding="utf-8"))) for path in sorted((ROOT / "gateway").rglob("*.py"))]
    return tuple(
        log_call(node, node.func.attr, module, path.relative_to(ROOT).as_posix())
        for path, module in modules
        for node in ast.walk(module)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in LEVELS
        and ast.unparse(node.func.value).rstrip("]").lower().endswith("log")
    )


def log_call(node: ast.Call, level: str, module: ast.Module, name: str) -> LogCall:
    where = f"{name}:{node.lineno}"
    assert len(node.args) == 1, f"{where}: an event's values belong into fields"
    assert isinstance(node.args[0], ast.Constant), f"{where}: an event's name is static"
    fields: set[str] = set()
    for keyword in node.keywords:
        if keyword.arg == "exc_info":
            fields.add("exception")
        elif keyword.arg is not None:
            fields.add(keyword.arg)
        else:
            spread = ast.unparse(keyword.value)
            fields |= SPREADS.get((name, spread)) or literal_fields(module, spread, where)
    return LogCall(where=where, level=level, event=node.args[0].value, fields=frozenset(fields))


def literal_fields(module: ast.Module, name: str, where: str) -> set[str]:
    """The keys of the one dict that is assigned to this name in the module."""
    found = [
        {ast.literal_eval(key) for key in node.value.keys if key}
        for node in ast.walk(module)
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Dict)
        and [ast.unparse(target) for target in node.targets] == [name]
    ]
    assert len(found) == 1, f"{where}: say in SPREADS which fields **{name} has"
    return found[0]


def documented() -> dict[str, tuple[str, str, dict[str, str]]]:
    """The document, read back: event → (level, meaning, fields)."""
    sections = re.split(r"^## ", DOCUMENT.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    found = {}
    for section in sections:
        heading, _, text = section.partition("\n")
        match = re.fullmatch(r"`(\w+)` · (.+)", heading)
        assert match, heading
        meaning = text.strip().partition("\n\n")[0].replace("\n", " ")
        found[match[1]] = (match[2], meaning, dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", text, re.MULTILINE)))
    return found


def test_the_document_lists_the_events_of_the_code() -> None:
    assert list(documented()) == list(EVENTS)
    assert {event: (meaning, fields) for event, (_, meaning, fields) in documented().items()} == {
        event: (meaning, dict(fields)) for event, (meaning, fields) in EVENTS.items()
    }


def test_the_document_says_what_every_line_has() -> None:
    head = DOCUMENT.read_text(encoding="utf-8").partition("\n## ")[0]
    assert dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", head, re.MULTILINE)) == COMMON


def test_the_document_says_at_which_level_an_event_is_logged() -> None:
    used: defaultdict[str, set[str]] = defaultdict(set)
    for call in log_calls():
        used[call.event].add(call.level)
    assert {event: level for event, (level, *_) in documented().items()} == {
        event: ", ".join(sorted(levels)) for event, levels in used.items()
    }


@pytest.mark.parametrize("call", log_calls(), ids=lambda call: f"{call.event}@{call.where}")
def test_each_line_is_a_listed_event_with_listed_fields(call: LogCall) -> None:
    assert call.event in EVENTS
    assert call.fields <= EVENTS[call.event][1].keys()


def test_each_listed_event_is_logged_somewhere_with_each_listed_field() -> None:
    used: defaultdict[str, set[str]] = defaultdict(set)
    for call in log_calls():
        used[call.event] |= call.fields
    assert used == {event: set(fields) for event, (_, fields) in EVENTS.items()}


def test_no_event_takes_the_name_of_what_every_line_has() -> None:
    for event, (_, fields) in EVENTS.items():
        assert not fields.keys() & COMMON.keys(), event


async def test_the_fields_of_the_upstream_are_those_that_the_store_tells(client: Redis, prefix: str) -> None:
    keys = Keys(prefix, upstream_tag("1", "r"))
    store = RedisStore(client, keys, pace=PaceRules(), bounds=StoreBounds())
    assert set(await store.pace()) == SPREADS["gateway/core/status.py", "await self._store.pace()"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    handlers = set(logging.getLogger().handlers)
    yield
    structlog.reset_defaults()
    for handler in set(logging.getLogger().handlers) - handlers:
        logging.getLogger().removeHandler(handler)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_one_json_object_with_a_time_in_utc() -> None:
    stream = io.StringIO()
    events.configure(stream).warning("upstream_paced", upstream="größe", rate=2.5)
    (line,) = lines(stream)
    assert line.pop("timestamp").endswith("Z")
    assert line == {"level": "warning", "event": "upstream_paced", "upstream": "größe", "rate": 2.5}
    assert "größe" in stream.getvalue()


def test_a_line_break_in_a_value_breaks_no_line() -> None:
    stream = io.StringIO()
    events.configure(stream).error("store_unavailable", missing=["one\ntwo\u2028three"])
    assert stream.getvalue().count("\n") == 1


def fail_with_a_secret() -> None:
    secret = "hunter2"
    raise RuntimeError(f"a bug of {len(secret)} letters")


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()], ids=["json", "terminal"])
def test_a_traceback_shows_no_values(stream: io.StringIO) -> None:
    log = events.configure(stream)
    try:
        fail_with_a_secret()
    except RuntimeError:
        log.error("unexpected_error", request_id="r", exc_info=True)  # noqa: G201 - the port has no other
    assert "RuntimeError" in stream.getvalue()
    assert "a bug of 7 letters" in stream.getvalue()
    assert "hunter2" not in stream.getvalue()


def quote_a_secret() -> None:
    secret = "hunter2"
    raise ValueError(f"Authorization: Bearer {secret}")


def test_a_library_is_heard_without_the_values_that_it_quotes(capfd: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    events.configure(io.StringIO())
    events.configure(stream)
    library = logging.getLogger("some.library")
    try:
        quote_a_secret()
    except ValueError:
        library.exception("Error handling %s\nof hunter2", "hunter2")
    library.info("not heard")
    (line,) = lines(stream)
    assert (line["event"], line["logger"], line["message"], line["error"]) == (
        "library_warning",
        "some.library",
        "Error handling %s",
        "ValueError",
    )
    assert "quote_a_secret" in line["frames"]
    assert "hunter2" not in stream.getvalue()
    assert not any(capfd.readouterr())
