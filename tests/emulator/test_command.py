from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from click.testing import CliRunner

from gateway.emulator import KINDS, QueueConfig, QuotaShareConfig
from gateway.emulator.command import emulator_command, read_queues
from tests.emulator.rig import SUBMISSION

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@asynccontextmanager
async def running(*options: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """The command as a process of its own, and the line that it says when it is ready."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway.emulator", "--port", "0", *options),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        yield process, (await asyncio.wait_for(process.stdout.readline(), 30)).decode()
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


async def post(url: str, body: dict[str, Any]) -> int:
    async with aiohttp.ClientSession() as http, http.post(f"{url}/v1/submitservicejob", json=body) as answer:
        return answer.status


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
async def test_it_says_where_it_listens_and_ends_cleanly(by: signal.Signals) -> None:
    async with running() as (process, line):
        assert line.startswith("AWS Batch emulator on http://127.0.0.1:")
        assert await post(line.split()[4], SUBMISSION) == 200
        process.send_signal(by)
        out, err = await asyncio.wait_for(process.communicate(), 10)
        assert (process.returncode, out, err) == (0, b"", b"")


async def test_its_options_reach_the_emulator() -> None:
    options = "--json --tps 1 --no-auto-queues --queue q:quota --quota-share q/open --quota-share q/shut:DISABLED"
    async with running(*options.split(), "--region", "eu-west-1", "--account", "1") as (_, line):
        ready = json.loads(line)
        assert (ready["event"], ready["region"], ready["account"]) == ("started", "eu-west-1", "1")
        job = SUBMISSION | {"jobQueue": "q", "quotaShareName": "open"}
        assert await post(ready["url"], job) == 200
        assert await post(ready["url"], job) == 429


async def test_a_port_that_is_taken_is_said_and_ends_with_1() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway.emulator", "--port", str(port)), stderr=asyncio.subprocess.PIPE
        )
        _, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in err.decode()


def test_queues_are_read_from_the_options() -> None:
    assert read_queues(["a", "b:fairshare", "c:quota"], ["c/x", "c/y:DISABLED"]) == (
        QueueConfig(name="a", policy="none"),
        QueueConfig(name="b", policy="fairshare"),
        QueueConfig(
            name="c",
            policy="quota",
            quota_shares=(QuotaShareConfig(name="x"), QuotaShareConfig(name="y", state="DISABLED")),
        ),
    )


@pytest.mark.parametrize(
    "options",
    [
        ["--queue", "a:lottery"],
        ["--queue", "a b"],
        ["--queue", "a", "--queue", "a:quota"],
        ["--quota-share", "a/x"],
        ["--queue", "a:quota", "--quota-share", "a"],
        ["--queue", "a:quota", "--quota-share", "a/x:ASLEEP"],
        ["--queue", "a:none", "--quota-share", "a/x"],
        ["--limiter", "sieve"],
        ["--tps", "-1"],
    ],
)
def test_wrong_options_end_with_2_and_name_the_option(options: list[str]) -> None:
    result = CliRunner().invoke(emulator_command, options)
    assert result.exit_code == 2
    assert "queue" in result.output or options[0] in result.output


def test_the_help_names_every_option_and_every_fault_and_shows_commands_to_copy() -> None:
    names = {name for parameter in emulator_command.params for name in parameter.opts}
    text = CliRunner().invoke(emulator_command, ["--help"]).output
    assert [name for name in sorted(names) if name not in text] == []
    assert [kind for kind in KINDS if f"\n    {kind} " not in text] == []
    assert """\n    curl -X PUT localhost:9100/_emulator/faults -d '{"kind": "throttle", "times": 3}'\n""" in text
