"""What servers that replicate each other have in common, and the wait for what they do by themselves."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

from redis.exceptions import RedisError

from tests.servers import StoreServer, free_port

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import ExitStack
    from pathlib import Path

Found = TypeVar("Found")

# Far beyond what a takeover needs: a machine that is busy with other things makes no test fail.
SETTLE_SECONDS = 30.0
# Replication begins at once, and a server that is told to end does not wait for replicas that are gone.
REPLICATING = ("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1", "--shutdown-timeout", "0")
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


def until(find: Callable[[], Found | None], what: str, seconds: float = SETTLE_SECONDS) -> Found:
    """What `find` finds, asked again until it does; an error of a server is nothing found."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            found = find()
        except (RedisError, OSError):
            found = None
        if found:
            return found
        assert time.monotonic() < deadline, f"not in {seconds:.0f} s: {what}"
        time.sleep(0.02)


def follows(node: StoreServer) -> bool:
    """A replica that has all that its primary had a moment ago."""
    state = node.ask("INFO", "replication")
    return (state["role"], state.get("master_link_status")) == ("slave", "up")


def start_member(started: ExitStack, binary: str, folder: Path, *options: str) -> StoreServer:
    folder.mkdir(parents=True)
    server = StoreServer(binary=binary, folder=folder, options=options, port=free_port())
    server.start()
    started.callback(server.stop)
    return server
