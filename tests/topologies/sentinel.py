"""A primary with replicas under three Sentinels, on ports of the loopback."""

from __future__ import annotations

import subprocess
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.servers import free_port
from tests.topologies.members import DURABLE, REPLICATING, SETTLE_SECONDS, follows, start_member, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers import StoreServer

MASTER = "mymaster"
# Under a second, Sentinels that have just heard of a new primary call it down before they have reached it.
SENTINEL_DOWN_MS = 1500
SENTINELS = 3


@dataclass(kw_only=True)
class SentinelProcess:
    """One of those that watch the primary and agree on the next."""

    process: subprocess.Popen[bytes]
    port: int

    def ask(self, *command: str) -> Any:
        with Redis(port=self.port, socket_timeout=2, retry=Retry(NoBackoff(), 0), decode_responses=True) as client:
            return client.execute_command(*command)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@dataclass(kw_only=True)
class RunningSentinel:
    """A primary, its replicas and three sentinels, two of which agree."""

    nodes: tuple[StoreServer, ...]
    sentinels: tuple[SentinelProcess, ...]

    @property
    def url(self) -> str:
        return "redis+sentinel://" + ",".join(f"127.0.0.1:{one.port}" for one in self.sentinels) + f"/{MASTER}/0"

    def primary(self) -> StoreServer:
        """Whom all sentinels name and who says so itself; waits while there is none."""

        def find() -> StoreServer | None:
            ports = {int(one.ask("SENTINEL GET-MASTER-ADDR-BY-NAME", MASTER)[1]) for one in self.sentinels}
            named = [node for node in self.nodes if ports == {node.port} and node.serves]
            return next((node for node in named if node.ask("INFO", "replication")["role"] == "master"), None)

        return until(find, "a primary that all sentinels name")

    def failover(self) -> StoreServer:
        """One that is asked for: a replica takes over while the old primary is still there, and is given back."""
        # Asked for while the last one is still under way somewhere, two would run side by side, to different ends.
        until(lambda: all(one.ask("SENTINEL MASTER", MASTER)["flags"] == "master" for one in self.sentinels), "calm")
        before = self.primary()
        self.sentinels[0].ask("SENTINEL FAILOVER", MASTER)
        return until(lambda: next((one for one in [self.primary()] if one is not before), None), "another primary")

    def demote(self, former: StoreServer) -> None:
        """Makes a former primary a replica at once, as Sentinel does when it has said otherwise for ten seconds."""
        former.ask("REPLICAOF", "127.0.0.1", self.primary().port)

    def kill_primary(self) -> StoreServer:
        """Kill -9; gives the dead node, for `start` later. A replica takes over by itself, see `primary`."""
        primary = self.primary()
        primary.kill()
        return primary

    def healthy(self, seconds: float = SETTLE_SECONDS) -> None:
        """Waits until every sentinel knows all others and all replicas, and these follow the primary."""

        def whole() -> bool:
            primary = self.primary()
            replicas = [node for node in self.nodes if node is not primary]
            return all(map(follows, replicas)) and all(map(self._knows_all, self.sentinels))

        until(whole, "primary, replicas and sentinels know each other", seconds)

    def _knows_all(self, sentinel: SentinelProcess) -> bool:
        state = sentinel.ask("SENTINEL MASTER", MASTER)
        known = int(state["num-slaves"]), int(state["num-other-sentinels"])
        return known == (len(self.nodes) - 1, len(self.sentinels) - 1) and "down" not in state["flags"]


@contextmanager
def running_sentinel(
    binary: str, folder: Path, *, replicas: int = 2, durable: bool = True
) -> Iterator[RunningSentinel]:
    """A whole set on ports of the loopback; `durable` writes each change to the disk before it is answered."""
    options = (*REPLICATING, *(DURABLE if durable else ()))
    with ExitStack() as started:
        primary = start_member(started, binary, folder / "node0", *options)
        behind = ("--replicaof", f"127.0.0.1 {primary.port}")
        following = [
            start_member(started, binary, folder / f"node{number}", *behind, *options)
            for number in range(1, replicas + 1)
        ]
        sentinels = [
            _start_sentinel(started, binary, folder / f"sentinel{one}", primary.port) for one in range(SENTINELS)
        ]
        running = RunningSentinel(nodes=(primary, *following), sentinels=tuple(sentinels))
        running.healthy()
        yield running


def _start_sentinel(started: ExitStack, binary: str, folder: Path, primary_port: int) -> SentinelProcess:
    folder.mkdir(parents=True)
    port, config = free_port(), folder / "sentinel.conf"
    config.write_text(f"""\
bind 127.0.0.1
port {port}
dir {folder}
sentinel monitor {MASTER} 127.0.0.1 {primary_port} 2
sentinel down-after-milliseconds {MASTER} {SENTINEL_DOWN_MS}
sentinel failover-timeout {MASTER} 3000
sentinel parallel-syncs {MASTER} 2
""")
    silent = subprocess.DEVNULL
    process = subprocess.Popen([binary, str(config), "--sentinel"], stdout=silent, stderr=silent)
    sentinel = SentinelProcess(process=process, port=port)
    started.callback(sentinel.stop)
    until(lambda: sentinel.ask("PING"), "the sentinel answers")
    return sentinel
