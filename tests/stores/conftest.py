"""One emulator for the folder, and for each kind of store one gateway: their tests all run in the session's loop."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from gateway.emulator import Emulator, EmulatorConfig
from tests.servers import StoreServer, free_port, valkey_binary
from tests.stores.stage import Stage, staged
from tests.topologies import DURABLE, running_cluster

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.topologies import RunningCluster


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def emulator() -> AsyncIterator[Emulator]:
    """It takes what it is sent, and knows a token again: what is told twice is one job to it."""
    emulator = Emulator(EmulatorConfig(submit_tps=0, read_tps=0, repeats="replay"))
    async with emulator.serving():
        yield emulator


@pytest.fixture(scope="module")
def folder(short_folder: Path) -> Path:
    return Path(tempfile.mkdtemp(dir=short_folder))


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[StoreServer]:
    """A single server, as durable as the settings ask by default."""
    (folder / "store").mkdir()
    server = StoreServer(binary=valkey_binary(), folder=folder / "store", options=DURABLE, port=free_port())
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def stage(folder: Path, emulator: Emulator, server: StoreServer) -> Iterator[Stage]:
    with staged(folder / "gateway", emulator, server.url, lambda _: server, promise='durability = "fsync"') as stage:
        yield stage


@pytest.fixture(scope="session")
def running(short_folder: Path) -> Iterator[RunningCluster]:
    """One for all: it takes seconds to start."""
    with running_cluster(valkey_binary(), short_folder / "cluster") as cluster:
        yield cluster


@pytest.fixture
def cluster(running: RunningCluster) -> RunningCluster:
    """Whole again, whatever the test before has done to it."""
    for node in running.nodes:
        if node.paused:
            node.resume()
        if not node.serves:
            node.start()
    running.healthy()
    return running
