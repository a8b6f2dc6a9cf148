"""The header of each command is its contract: held here to the text, to the callers and to what the store holds."""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha1
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import pytest

from gateway.core.audit import whole_round
from gateway.core.ports import Errand, ErrandReport
from gateway.core.share import Share
from gateway.core.submission import Failure
from gateway.store.audit import StoreAudit
from gateway.store.changes import SubmissionChanges
from gateway.store.confirming import Confirmer
from gateway.store.durability import Confirmation
from gateway.store.errands import ErrandQueue
from gateway.store.index import SubmissionIndex
from gateway.store.read_budget import StoreReadBudget
from gateway.store.redis_store import RedisStore
from gateway.store.scripts import NAMES, SHARED, script_text
from tests.store.world import World, forwarded, refused, unclear

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis

FOLDER = files("gateway.store") / "lua"
SECTIONS = ("KEYS", "ARGV", "Returns", "Guarantee:")


@dataclass
class Contract:
    """A command's file: what its header says, and the text below."""

    sentence: str
    sections: dict[str, str]
    body: str

    @property
    def key_types(self) -> list[str]:
        rows = re.findall(r"^\s*(\d+) (\w+) {2,}\S", self.sections["KEYS"], re.MULTILINE)
        assert [int(number) for number, _ in rows] == list(range(1, len(rows) + 1))
        return [kind for _, kind in rows]

    @property
    def args(self) -> list[str]:
        """Numbers of the arguments; the last may be `n..` for any more."""
        numbers = re.findall(r"(?:^|  )(\d+(?:\.\.)?) \S", self.sections["ARGV"], re.MULTILINE)
        assert [int(number.rstrip(".")) for number in numbers] == list(range(1, len(numbers) + 1))
        return numbers

    def each(self, section: str) -> int:
        """How many rows or words with a + there are: what comes again for each submission of a call."""
        return len(re.findall(r"(?:^ *|  )\+ \w", self.sections[section], re.MULTILINE))

    @property
    def verdicts(self) -> dict[str, bool]:
        """Whether anything was written, by verdict."""
        found = {}
        for row in self.sections["Returns"].splitlines():
            words = re.match(r"\s*\{'(\w+)'(?: or '(\w+)')?", row)
            assert words, f"a row of Returns without a verdict: {row!r}"
            written = re.search(r"(nothing )?written", row) or re.search(r"denied ones were put aside", row)
            assert written, f"a verdict that does not say whether anything was written: {row!r}"
            found.update({word: not written[0].startswith("nothing") for word in words.groups() if word})
        return found


def contract(name: str) -> Contract:
    shebang, *lines = (FOLDER / f"{name}.lua").read_text().splitlines()
    assert re.fullmatch(r"#!lua( flags=(allow-oom|no-writes))?", shebang)
    header = []
    while lines and lines[0].startswith("--"):
        header.append(lines.pop(0)[2:])
    split = header.index("")
    sections: dict[str, str] = {}
    section = ""
    for line in header[split + 1 :]:
        for title in SECTIONS:
            if line.startswith(f" {title}"):
                section = title
                line = " " * len(title) + line[len(title) + 1 :]  # noqa: PLW2901
        sections[section] = sections.get(section, "") + line + "\n"
    assert tuple(sections) == SECTIONS, f"{name}.lua: the header has other parts, or in another order"
    return Contract(
        sentence=" ".join(line.strip() for line in header[:split]),
        sections={title: text.rstrip("\n") for title, text in sections.items()},
        body="\n".join(lines),
    )


class Recorder:
    """A client that remembers how scripts were called."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        self.calls: list[tuple[str, list[Any], list[Any], Any]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def evalsha(self, digest: str, numkeys: int, *values: Any) -> Any:
        answer = await self._client.evalsha(digest, numkeys, *values)
        self.calls.append((digest, list(values[:numkeys]), list(values[numkeys:]), answer))
        return answer

    @asynccontextmanager
    async def pipeline(self, **options: Any) -> AsyncIterator[Any]:
        async with self._client.pipeline(**options) as pipe:
            asked: list[tuple[str, list[Any], list[Any]]] = []
            evalsha, execute = pipe.evalsha, pipe.execute

            def remember(digest: str, numkeys: int, *values: Any) -> Any:
                asked.append((digest, list(values[:numkeys]), list(values[numkeys:])))
                return evalsha(digest, numkeys, *values)

            async def answered(**how: Any) -> Any:
                answers = await execute(**how)
                self.calls += [(*one, answer) for one, answer in zip(asked, answers, strict=False)]
                return answers

            pipe.evalsha, pipe.execute = remember, answered
            yield pipe


def test_every_lua_file_is_a_command_or_shared_by_them() -> None:
    assert {file.name for file in FOLDER.iterdir()} == {f"{name}.lua" for name in (*NAMES, *SHARED)}


@pytest.mark.parametrize("name", NAMES)
def test_a_header_begins_with_one_sentence(name: str) -> None:
    sentence = contract(name).sentence
    assert re.fullmatch(r"[A-Z][^.]*\.", sentence), sentence


@pytest.mark.parametrize("name", NAMES)
def test_a_header_counts_the_keys_and_arguments_that_the_script_uses(name: str) -> None:
    command = contract(name)
    assert {int(number) for number in re.findall(r"KEYS\[(\d+)\]", command.body)} == set(
        range(1, len(command.key_types) + 1)
    )
    fixed = [int(number) for number in command.args if not number.endswith("..")]
    used = {int(number) for number in re.findall(r"ARGV\[(\d+)\]", command.body)}
    assert used == set(fixed)
    if len(fixed) < len(command.args):
        assert f"for position = {len(fixed) + 1}, #ARGV" in command.body


def test_the_header_of_admit_counts_what_comes_again_for_each_submission() -> None:
    command = contract("admit")
    (counts,) = re.findall(r"= (\d+), (\d+), (\d+), (\d+)$", command.body, re.MULTILINE)
    told = len(command.key_types), len(command.args), command.each("KEYS"), command.each("ARGV")
    assert tuple(map(int, counts)) == told


@pytest.mark.parametrize("name", NAMES)
def test_a_header_names_every_verdict_that_the_script_returns(name: str) -> None:
    command = contract(name)
    returned = re.findall(r"^ *return \{ ([^,}]*)", command.body, re.MULTILINE)
    words = {word for first in returned for word in re.findall(r"'(\w+)'", first)}
    assert words == set(command.verdicts)


@pytest.mark.parametrize("name", NAMES)
async def test_a_command_loads_as_the_server_knows_it(name: str, any_client: Redis) -> None:
    text = script_text(name)
    loaded = await any_client.script_load(text)
    assert loaded in {sha1(text.encode()).hexdigest(), sha1(text.encode()).hexdigest().encode()}  # noqa: S324


@pytest.mark.parametrize("name", NAMES)
async def test_a_command_is_sent_whole_where_the_server_has_forgotten_it(name: str, any_world: World) -> None:
    await any_world.client.script_flush()
    assert await any_world.client.script_exists(sha1(script_text(name).encode()).hexdigest()) == [False]  # noqa: S324
    await walk(any_world, Recorder(any_world.client))


async def walk(world: World, recorder: Recorder) -> None:
    """A life that calls every command; by the server's own time, for the digests are those of the product's scripts."""
    store = RedisStore(recorder, world.keys, pace=world.pace, bounds=world.bounds)  # type: ignore[arg-type]
    index = SubmissionIndex(recorder, world.keys)  # type: ignore[arg-type]
    changes = SubmissionChanges(recorder, world.keys, bounds=world.bounds)  # type: ignore[arg-type]
    errands = ErrandQueue(recorder, world.keys, bounds=world.bounds)  # type: ignore[arg-type]
    outer, world.store = world.store, store
    share = Share("training", "vision")
    await world.queue(3)
    await store.set_share(share, {"rate": "5", "weight": "2"})
    await store.set_share(share, {"rate": None, "paused": "1"})
    await store.set_share(share, {"paused": None, "weight": None})
    first = await world.lease()
    await world.settle(first, forwarded())
    # The server's clock cannot be set: so a lease's end is set back, and the pace's next slot taken away.
    await world.client.hdel(world.keys.upstream, "slot")
    second = await world.lease()
    await world.client.zadd(world.keys.leased, {second.submission.submission_id: 1})
    await world.client.hdel(world.keys.upstream, "slot")
    third = await world.lease()
    await world.settle(third, unclear(60))
    await world.client.hdel(world.keys.upstream, "slot")
    (fourth,) = await world.queue(1, deadline=datetime.now(UTC) + timedelta(minutes=1))
    await changes.reprioritize(fourth, 7)
    leased = await world.lease()
    assert leased.submission.submission_id == fourth
    await world.settle(leased, refused())
    await changes.redrive(fourth)
    await changes.cancel(third.submission.submission_id, "changed our minds")
    await world.client.zadd(world.keys.errands, {third.submission.submission_id: 1})
    look = await errands.lease()
    assert isinstance(look, Errand)
    await errands.settle(look, ErrandReport(verdict="unknown", failure=Failure(code="NotFound", message="")))
    await changes.resolve(third.submission.submission_id, "job-3", "arn:job-3")
    await store.set_upstream({"rate": "4"})
    nobody = Confirmation(waits=(("WAIT", 0, 1),), wanted=(0,))
    await Confirmer(recorder, world.keys, lambda: nobody).confirm()  # type: ignore[arg-type]
    await StoreReadBudget(recorder, world.keys, rate=30.0).take()  # type: ignore[arg-type]
    await index.sweep("index:n", accepted_before_ms=2**50, passed_over=0)
    await whole_round(StoreAudit(recorder, world.keys, bounds=world.bounds))  # type: ignore[arg-type]
    world.store = outer


async def test_callers_pass_as_many_keys_and_arguments_as_the_headers_count(any_world: World) -> None:
    recorder = Recorder(any_world.client)
    await walk(any_world, recorder)
    digests = {sha1(script_text(name).encode()).hexdigest(): name for name in NAMES}  # noqa: S324
    called = [(digests[digest], keys, args) for digest, keys, args, _ in recorder.calls]
    assert {name for name, _, _ in called} == set(NAMES)
    for name, keys, args in called:
        command = contract(name)
        each = command.each("KEYS")
        submissions = (len(keys) - len(command.key_types)) // each if each else 0
        assert len(keys) == len(command.key_types) + submissions * each, name
        if command.args and command.args[-1].endswith(".."):
            fixed = len(command.args) - 1
            assert len(args) > fixed, name
            assert (len(args) - fixed) % 2 == 0, name
        else:
            assert len(args) == len(command.args) + submissions * command.each("ARGV"), name


async def test_keys_hold_what_the_headers_say(any_world: World) -> None:
    recorder = Recorder(any_world.client)
    await walk(any_world, recorder)
    digests = {sha1(script_text(name).encode()).hexdigest(): name for name in NAMES}  # noqa: S324
    seen: dict[tuple[str, int], set[str]] = {}
    for digest, keys, _, _ in recorder.calls:
        for position, key in enumerate(keys):
            kind = (await any_world.client.type(key)).decode()
            if kind != "none":
                seen.setdefault((digests[digest], position), set()).add(kind)
    for (name, position), kinds in seen.items():
        command = contract(name)
        again = position - len(command.key_types)
        each = re.findall(r"^ *\+ (\w+) {2,}", command.sections["KEYS"], re.MULTILINE)
        kind = command.key_types[position] if again < 0 else each[again % len(each)]
        assert kinds == {kind}, (name, position + 1)
    assert len(seen) > 20  # most keys hold something at the end of this walk


@pytest.mark.parametrize("name", NAMES)
def test_what_drains_a_full_store_may_run_on_one(name: str) -> None:
    shebang = (FOLDER / f"{name}.lua").read_text().splitlines()[0]
    assert ("allow-oom" in shebang or "no-writes" in shebang) == (name != "admit")


@pytest.mark.parametrize("name", NAMES)
def test_the_server_holds_a_command_that_writes_nothing_to_it(name: str) -> None:
    shebang = (FOLDER / f"{name}.lua").read_text().splitlines()[0]
    assert ("no-writes" in shebang) == (not any(contract(name).verdicts.values()))
