"""`gateway submissions` against a running gateway; Batch is played by the tests, which lease and settle themselves."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import socket
import struct
import subprocess
import sys
import termios
from contextlib import contextmanager
from dataclasses import dataclass, replace
from threading import Thread
from typing import TYPE_CHECKING, Any
from urllib.request import Request, urlopen

import pytest
from click.testing import CliRunner

from gateway.__main__ import main
from gateway.core.attempt import Leased, PaceSignal, Report, Verdict
from gateway.core.submission import Failure
from gateway.store.bounds import StoreBounds
from gateway.store.keys import Keys
from gateway.store.redis_store import RedisStore
from tests.contract.in_process import FORWARDED, QUICK, UPSTREAM
from tests.examples import settings, submission
from tests.processes import GatewayProcess, gateway_process

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from redis.asyncio import Redis

    from tests.servers import StoreServer

REFUSED = Report(
    verdict=Verdict.REJECT,
    outcome="refused",
    charged=True,
    proved_none=True,
    signal=PaceSignal.ANSWERED,
    failure=Failure(code="ClientException", message="no such queue"),
)
UNCLEAR = replace(REFUSED, verdict=Verdict.UNKNOWN, proved_none=False)
NOBODYS = "fb8b5596-d40f-8a2b-8937-a9c8da8f26ae"
JOB = str(FORWARDED.job_id)
ARN = str(FORWARDED.job_arn)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A gateway that forwards nothing, and its store."""

    gateway: GatewayProcess
    store: RedisStore

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """In this process, with a pipe's output: a third of the time that a process of its own takes."""
        return run_against(self.gateway.url, *arguments)

    def json(self, *arguments: str) -> list[dict[str, Any]]:
        _, out, _ = self.run(*arguments, "--json")
        return [json.loads(line) for line in out.splitlines()]

    def on_terminal(self, columns: int, *arguments: str) -> list[str]:
        """The lines that a person sees."""
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        with subprocess.Popen(self.command(*arguments), stdout=slave, stderr=slave, env=environment) as process:
            os.close(slave)
            seen = b""
            try:
                while part := os.read(master, 65536):
                    seen += part
            except OSError:  # how Linux says that nobody has the other end any more
                pass
            os.close(master)
        assert process.returncode == 0, seen
        return seen.decode().splitlines()

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "gateway", "submissions", *arguments, "--url", self.gateway.url]

    def send(self, method: str, path: str, body: object) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"}
        with urlopen(Request(self.gateway.url + path, json.dumps(body).encode(), headers, method=method)) as answer:
            return dict(json.load(answer))

    def submit(self, **members: object) -> str:
        return str(self.send("POST", "/v1/submissions", submission(**members))["submissionId"])

    def submit_many(self, count: int, **members: object) -> None:
        for begin in range(0, count, 500):
            batch = [submission(**members)] * min(500, count - begin)
            results = self.send("POST", "/v1/submissions/batch", {"submissions": batch})["results"]
            assert {one["status"] for one in results} == {202}

    async def lease(self) -> Leased:
        leased = await self.store.lease()
        assert isinstance(leased, Leased)
        return leased

    async def submit_and_settle(self, report: Report, **members: object) -> str:
        submitted = self.submit(**members)
        leased = await self.lease()
        assert leased.submission.submission_id == submitted
        await self.store.settle(leased, report)
        return submitted


@pytest.fixture
async def scene(valkey: StoreServer, client: Redis, prefix: str, tmp_path: Path) -> AsyncIterator[Scene]:
    config = settings(store_url=valkey.url, endpoint_url="http://127.0.0.1:9", prefix=prefix)
    store = RedisStore(client, Keys(prefix, UPSTREAM.tag), pace=QUICK, bounds=StoreBounds())
    with gateway_process(tmp_path, config, "--role", "api") as running:
        yield Scene(gateway=running, store=store)


# ---- list


async def test_a_list_tells_where_each_one_stands(scene: Scene) -> None:
    assert scene.run("list") == (0, "No submission fits.\n", "")
    rejected = await scene.submit_and_settle(REFUSED)
    forwarded = await scene.submit_and_settle(FORWARDED)
    scene.run("cancel", forwarded)
    queued = scene.submit(jobName="later", jobQueue="arn:aws:batch:us-east-1:123456789012:job-queue/training")
    code, out, err = scene.run("list")
    header, _, first, second, third = out.splitlines()
    assert (code, err) == (0, "")
    assert header.split() == ["submission", "state", "age", "share", "job", "name", "where"]
    assert (first.split()[:2], "training/vision  later" in first) == ([queued, "queued"], True)
    assert "  number 1, " in first
    assert (second.split()[:2], second.endswith(f"  cancel requested, job {JOB}")) == ([forwarded, "forwarded"], True)
    assert (third.split()[:2], third.split()[-1]) == ([rejected, "rejected"], "ClientException")


async def test_a_list_is_filtered_by_token_queue_share_and_state(scene: Scene) -> None:
    rejected = await scene.submit_and_settle(REFUSED)
    text = scene.submit(shareIdentifier="text", clientToken="nightly")
    other = scene.submit(jobQueue="inference")

    def found(*filters: str) -> list[str]:
        (page,) = scene.json("list", *filters)
        return [item["submissionId"] for item in page["items"]]

    assert found() == [other, text, rejected]
    assert found("--token", "nightly") == [text]
    assert found("--queue", "inference") == [other]
    assert found("--share", "training/vision") == [rejected]
    assert found("--state", "rejected", "--queue", "training") == [rejected]
    assert found("--state", "expired") == []


def test_a_limit_is_of_all_pages_together_and_what_it_leaves_out_is_told(scene: Scene) -> None:
    scene.submit_many(260)
    code, out, err = scene.run("list", "--limit", "230")
    assert (code, len(out.splitlines()), err) == (0, 2 + 230, "There may be more: see --limit and --all.\n")
    assert len(scene.run("list")[1].splitlines()) == 2 + 50
    (page,) = scene.json("list", "--limit", "230")
    assert (len(page["items"]), bool(page["nextCursor"])) == (230, True)
    code, out, err = scene.run("list", "--limit", "261")
    assert (code, len({line.split()[0] for line in out.splitlines()[2:]}), err) == (0, 260, "")


def test_all_are_walked_over_pages_that_are_empty(scene: Scene) -> None:
    oldest = scene.submit(shareIdentifier="text")
    scene.submit_many(1010)  # more than the gateway looks at for a page
    assert scene.run("list", "--share", "training/text")[1].splitlines()[-1].split()[0] == oldest
    every = scene.json("list", "--all")
    assert (len(every), len({item["submissionId"] for item in every})) == (1011, 1011)
    assert (every[-1]["submissionId"], every[0]["state"]) == (oldest, "queued")
    assert scene.json("list", "--all", "--state", "unknown") == []


def test_a_reader_that_has_enough_ends_a_list_without_a_word(scene: Scene) -> None:
    scene.submit_many(450)
    with subprocess.Popen(
        scene.command("list", "--all"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as listing:
        assert listing.stdout is not None
        assert listing.stderr is not None
        assert listing.stdout.readline().startswith("submission")
        listing.stdout.close()
        assert listing.stderr.read() == ""


@pytest.mark.parametrize(("columns", "lines"), [(80, 2), (140, 1)])
async def test_a_row_fits_the_terminal(scene: Scene, columns: int, lines: int) -> None:
    submitted = await scene.submit_and_settle(FORWARDED, jobName="resnet-" + "x" * 100, shareIdentifier="y" * 60)
    _, _, *below = shown = scene.on_terminal(columns, "list")
    below = below[lines - 1 :]
    assert max(map(len, shown)) <= columns
    assert (len(below), below[0].split()[:2]) == (lines, [submitted, "forwarded"])
    assert below[-1].endswith(f"…  job {JOB}")
    scene.run("cancel", submitted)
    shown = scene.on_terminal(columns, "list")
    assert max(map(len, shown)) <= columns
    assert "cancel requested" in shown[-2]
    assert shown[-1].endswith(f"job {JOB}")


def test_a_watched_list_is_drawn_again_until_it_is_interrupted(scene: Scene) -> None:
    submitted = scene.submit()
    watch = subprocess.Popen(scene.command("list", "--watch"), stdout=subprocess.PIPE, text=True)

    def looked_at() -> int:
        return len([line for line in scene.gateway.events if line.get("status") == 200])

    scene.gateway.find(lambda _: looked_at() > 1)
    watch.send_signal(signal.SIGINT)
    out, _ = watch.communicate(timeout=20)
    assert (watch.returncode, submitted in out) == (0, True)


# ---- show


@pytest.mark.parametrize("by", [JOB, ARN])
async def test_one_is_found_by_its_job_too(scene: Scene, by: str) -> None:
    submitted = await scene.submit_and_settle(FORWARDED)
    code, out, _ = scene.run("show", by)
    assert (code, out.splitlines()[0]) == (0, f"Batch has it as job {JOB}.")
    assert {submitted, "forwarded", ARN, "submitted"} <= set(out.split())


async def test_what_holds_a_queued_one_is_shown(scene: Scene) -> None:
    submitted = scene.submit(clientToken="nightly")
    scene.submit()
    scene.send("PATCH", "/v1/upstreams/main", {"forwarding": False})
    code, out, _ = scene.run("show", submitted)
    sentence, _, *lines = out.splitlines()
    fields = dict(line.split(maxsplit=1) for line in lines)
    assert (code, sentence) == (0, "An operator switched forwarding off for its upstream.")
    assert (fields["state"], fields["clientToken"], fields["position"]) == ("queued", "nightly", "1")
    assert fields["held"].startswith("by  ")
    assert fields["held"].endswith(f"forwarding-off: {sentence}")
    assert fields["acceptedAt"].endswith((" ago", "now"))
    (found,) = scene.json("show", submitted)
    assert (found["state"], found["explanation"]["holds"][0]["kind"]) == ("queued", "forwarding-off")


async def test_who_is_ahead_of_one_is_shown(scene: Scene) -> None:
    scene.submit(shareIdentifier="text")
    scene.submit()
    out = scene.run("show", scene.submit())[1]
    (ahead,) = [line for line in out.splitlines() if line.startswith("callsBefore")]
    assert ahead.split(maxsplit=1)[1] in (
        "2: 1 of training/text, 1 of training/vision",
        "2: 1 of training/vision, 1 of training/text",
    )


# ---- cancel, redrive, resolve, reprioritize


async def test_each_of_several_is_canceled_and_a_refusal_stops_none(scene: Scene) -> None:
    rejected = await scene.submit_and_settle(REFUSED)
    first, last = scene.submit(), scene.submit()
    code, out, err = scene.run("cancel", first, rejected, NOBODYS, last, "--reason", "wrong data")
    assert code == 1
    assert out.splitlines() == [f"{first}  canceled", f"{last}  canceled"]
    assert err.splitlines() == [
        f"{rejected}  refused: The submission is rejected, which is final.",
        f"{NOBODYS}  refused: No submission {NOBODYS} is known here.",
    ]
    assert "  cancel requested" not in scene.run("list", "--state", "canceled")[1]


async def test_a_cancel_that_is_only_requested_says_so(scene: Scene) -> None:
    submitted = scene.submit()
    leased = await scene.lease()
    code, out, _ = scene.run("cancel", submitted)
    asked = f"{submitted}  cancel requested: Batch is asked first whether it has a job of it\n"
    assert (code, out) == (0, asked)
    assert "  cancel requested, with Batch now\n" in scene.run("list")[1]
    await scene.store.settle(leased, FORWARDED)
    assert scene.run("cancel", ARN)[1] == f"{ARN}  cancel requested: Batch is being told to terminate job {JOB}\n"
    assert {"forwarded,", "cancel", "requested"} <= set(scene.run("show", JOB)[1].split())


async def test_scripts_learn_the_status_and_the_problem_of_each(scene: Scene) -> None:
    submitted = scene.submit()
    done, refused = scene.json("cancel", submitted, NOBODYS)
    assert (done["id"], done["status"], done["submission"]["state"]) == (submitted, 200, "canceled")
    assert (refused["id"], refused["status"], refused["problem"]["type"]) == (NOBODYS, 404, "/problems/not-found")


async def test_rejected_ones_are_put_back_in_line(scene: Scene) -> None:
    first = await scene.submit_and_settle(REFUSED)
    queued = scene.submit()
    code, out, err = scene.run("redrive", queued, first)
    assert (code, err) == (1, f"{queued}  refused: It is queued; only rejected ones are put back in line.\n")
    assert out.startswith(f"{first}  queued: number 2, ")


async def test_an_unknown_one_is_resolved_either_way(scene: Scene) -> None:
    first = await scene.submit_and_settle(UNCLEAR)
    assert scene.run("redrive", first)[2] == f"{first}  refused: It may be in Batch: resolve it first.\n"
    code, out, _ = scene.run("resolve", first, "--not-submitted")
    assert (code, out) == (0, f"{first}  rejected; `gateway submissions redrive` puts it back in line\n")
    second = await scene.submit_and_settle(UNCLEAR)
    assert scene.run("resolve", second, "--job", "job-1") == (0, f"{second}  forwarded: job job-1\n", "")
    assert scene.run("resolve", second, "--not-submitted")[0] == 1


async def test_a_higher_priority_takes_one_to_the_front_and_batch_is_told_of_a_later_one(scene: Scene) -> None:
    scene.submit()
    last = scene.submit()
    code, out, _ = scene.run("reprioritize", last, "7")
    assert (code, out.startswith(f"{last}  priority 7, queued: number 1, ")) == (0, True)
    await scene.store.settle(await scene.lease(), FORWARDED)
    assert scene.run("reprioritize", last, "9")[1] == f"{last}  priority 9, forwarded: job {JOB}; Batch is told\n"


# ---- Wrong use, and a gateway that is not there


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("list", "--share", "vision"), "is written queue/share"),
        (("list", "--state", "done"), "is not one of"),
        (("list", "--limit", "0"), "is not in the range"),
        (("list", "--all", "--limit", "5"), "--all has no --limit"),
        (("list", "--watch", "--all"), "--watch goes with neither"),
        (("list", "--watch", "--json"), "--watch goes with neither"),
        (("cancel",), "Missing argument"),
        (("resolve", NOBODYS), "one of --not-submitted, --job"),
        (("resolve", NOBODYS, "--not-submitted", "--job", "j"), "one of --not-submitted, --job"),
        (("reprioritize", NOBODYS, "10000"), "is not in the range"),
    ],
)
def test_wrong_use_asks_no_gateway(arguments: tuple[str, ...], complaint: str) -> None:
    code, _, err = run_against("http://127.0.0.1:9", *arguments)
    assert (code, complaint in err) == (2, True), err


@pytest.mark.parametrize("arguments", [("list",), ("list", "--all", "--json"), ("cancel", NOBODYS, NOBODYS)])
def test_a_gateway_that_is_not_there_is_told_once(arguments: tuple[str, ...]) -> None:
    complaint = "http://127.0.0.1:9 is not reachable: [Errno 111] Connection refused\n"
    assert run_against("http://127.0.0.1:9", *arguments) == (3, "", complaint)


@pytest.mark.parametrize(
    ("sent", "code", "complaint"),
    [
        (b"-ERR unknown command\r\n", 3, "does not answer as a gateway: -ERR unknown command"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", 3, "does not answer as a gateway: IncompleteRead"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n<html", 3, "does not answer as a gateway: Expecting value"),
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 5\r\n\r\n<html", 1, "HTTP Error 502: Bad Gateway"),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 2\r\n\r\n[]", 1, "HTTP Error 503: Busy"),
    ],
)
def test_what_does_not_speak_as_a_gateway_gets_a_sentence(sent: bytes, code: int, complaint: str) -> None:
    with server_that_sends(sent) as url:
        found, _, err = run_against(url, "list")
    assert (found, complaint in err, len(err.splitlines())) == (code, True, 1), err


@contextmanager
def server_that_sends(answer: bytes) -> Iterator[str]:
    """Whatever it is asked, once."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


def run_against(url: str, *arguments: str) -> tuple[int, str, str]:
    ended = CliRunner().invoke(main, ["submissions", *arguments, "--url", url])
    return ended.exit_code, ended.stdout, ended.stderr
