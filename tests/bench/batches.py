"""A batch call against single calls: submissions a second that one process accepts, on the disk each."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tests.bench.main_job import DURABLE
from tests.examples import settings, submission
from tests.processes import gateway_process
from tests.servers import running, valkey_binary

if TYPE_CHECKING:
    from tests.bench.figures import Figures

SUBMISSIONS = 4000
CONNECTIONS = 32
A_BATCH, BATCHES_AT_ONCE = 500, 4
ROUNDS = 3


class Calls:
    """POSTs of one body over kept connections, as cheap as a caller can be: what is measured is the gateway."""

    def __init__(self, url: str, path: str, body: bytes) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname, parts.port
        head = (
            f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._request = head.encode() + body

    async def seconds(self, calls: int, at_once: int) -> float:
        """How long so many take."""
        began = time.perf_counter()
        await asyncio.gather(*(self._worker(calls // at_once) for _ in range(at_once)))
        return time.perf_counter() - began

    async def _worker(self, calls: int) -> None:
        reader, writer = await asyncio.open_connection(self._host, self._port, limit=2**24)
        for _ in range(calls):
            await self._call(reader, writer)
        writer.close()

    async def _call(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self._request)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith((b"HTTP/1.1 202", b"HTTP/1.1 200")), head
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(int(length.split(b":")[1]))


def _cpu_seconds(pid: int) -> float:
    """What the process has used so far: it says more than a watch on a machine with other work."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure(figures: Figures) -> None:
    """Side by side, in turns: the machine is noisy."""
    share = '[[share]]\nqueue = "training"\nshare = "*"\nmax_queued = 1000000\n'
    with tempfile.TemporaryDirectory(prefix="gw") as folder:
        (Path(folder) / "store").mkdir()
        with running(valkey_binary(), Path(folder) / "store", *DURABLE) as store:
            config = settings(store_url=store.url, endpoint_url="http://127.0.0.1:9", prefix="b", upstream=share)
            config = config.replace('"memory"', '"fsync"')
            with gateway_process(Path(folder) / "one", config, "--role", "api") as gateway:
                single = Calls(gateway.url, "/v1/submissions", json.dumps(submission()).encode())
                batch_body = json.dumps({"submissions": [submission()] * A_BATCH}).encode()
                batch = Calls(gateway.url, "/v1/submissions/batch", batch_body)
                singles, batches = [], []
                spent = [_cpu_seconds(gateway.process.pid)]
                for _ in range(ROUNDS):
                    singles.append(SUBMISSIONS / await single.seconds(SUBMISSIONS, CONNECTIONS))
                    spent.append(_cpu_seconds(gateway.process.pid))
                    batches.append(SUBMISSIONS / await batch.seconds(SUBMISSIONS // A_BATCH, BATCHES_AT_ONCE))
                    spent.append(_cpu_seconds(gateway.process.pid))
    figures.show("single calls: submissions a second, best of 3", max(singles))
    figures.show("batch calls: submissions a second, best of 3", max(batches))
    costs = [(after - before) / SUBMISSIONS * 1e6 for before, after in pairwise(spent)]
    figures.show("single calls: the process's CPU time a submission, us", min(costs[::2]))
    figures.show("batch calls: the process's CPU time a submission, us", min(costs[1::2]))
    ratio = max(batches) / max(singles)
    figures.show("batch calls against single calls", ratio, ">= 2", holds=ratio >= 2)
