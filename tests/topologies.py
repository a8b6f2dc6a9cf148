"""Real stores of more than one server: a cluster of three primaries and three replicas, and a primary under Sentinel.

Everything here blocks, and nothing longer than its deadline: in a test with an event loop, call it by
`asyncio.to_thread`. Servers are StoreServers; `kill`, `start`, `pause` and `resume` work on each of them.
"""

from __future__ import annotations

import subprocess
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from redis import Redis
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import RedisError
from redis.retry import Retry

from tests.servers import StoreServer, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

Found = TypeVar("Found")

# A node that is silent so long is called failed by the others; a replica then takes over within a second or two.
NODE_TIMEOUT_MS = 1000
# Under a second, Sentinels that have just heard of a new primary call it down before they have reached it.
SENTINEL_DOWN_MS = 1500
# Far beyond what a takeover needs: a machine that is busy with other things makes no test fail.
SETTLE_SECONDS = 30.0
PRIMARIES = 3
SLOTS = 16384
MASTER = "mymaster"
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


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a node of a cluster says of itself."""

    node: StoreServer
    node_id: str
    epoch: int
    primary_id: str | None  # None: it is one itself
    slots: tuple[range, ...]
    moving: frozenset[int]  # slots that it gives away or takes in just now

    def has(self, slot: int) -> bool:
        return self.primary_id is None and any(slot in run for run in self.slots)


@dataclass(kw_only=True)
class RunningCluster:
    """Three primaries with a replica each; a key belongs to the primary of its slot."""

    nodes: tuple[StoreServer, ...]

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def primary_of(self, key: str) -> StoreServer:
        """Who has the key's slot now; waits while nobody does."""
        return until(lambda: self._owner(key), f"a primary of {key}").node

    def replica_of(self, primary: StoreServer) -> StoreServer:
        """A live one behind this primary, in step with it."""

        def find() -> StoreServer | None:
            claims = self._claims()
            ids = {one.node_id for one in claims if one.node is primary}
            return next((one.node for one in claims if one.primary_id in ids and _follows(one.node)), None)

        return until(find, "a replica in step")

    def failover(self, key: str) -> StoreServer:
        """A planned one, which loses nothing: the replica takes over and is given back."""
        replica = self.replica_of(self.primary_of(key))
        replica.ask("CLUSTER FAILOVER")
        until(lambda: self.primary_of(key) is replica, f"{key} fails over")
        return replica

    def kill_primary_of(self, key: str) -> StoreServer:
        """Kill -9; gives the dead node, for `start` later. The replica takes over by itself, see `primary_of`."""
        primary = self.primary_of(key)
        primary.kill()
        return primary

    def other_primary(self, key: str) -> StoreServer:
        """One that has not the key's slot."""
        owner = self.primary_of(key)
        return until(
            lambda: next((one.node for one in self._claims() if one.slots and one.node is not owner), None),
            f"a primary without {key}",
        )

    def migration(self, key: str, to: StoreServer) -> SlotMigration:
        """A move of the key's slot, not begun yet."""
        source = until(lambda: self._owner(key), f"a primary of {key}")
        target = until(lambda: next((one for one in self._claims() if one.node is to), None), "the target answers")
        assert target.primary_id is None, "a slot moves to a primary"
        return SlotMigration(cluster=self, slot=key_slot(key.encode()), source=source, target=target)

    def healthy(self, seconds: float = SETTLE_SECONDS) -> None:
        """Waits until every node serves, all agree on who has what, and each primary has a replica in step."""

        def whole() -> bool:
            claims = self._claims()
            primaries = [one for one in claims if one.primary_id is None and one.slots]
            replicas = [one for one in claims if one.primary_id in {primary.node_id for primary in primaries}]
            return (
                len(claims) == len(self.nodes)
                and len(primaries) == PRIMARIES
                and len(primaries) + len(replicas) == len(self.nodes)
                and sum(len(run) for primary in primaries for run in primary.slots) == SLOTS
                and not any(one.moving for one in claims)
                and all(_follows(one.node) for one in replicas)
                and all(_agrees(one.node, primaries) for one in claims)
            )

        until(whole, "the cluster is whole", seconds)

    def down(self, seconds: float = SETTLE_SECONDS) -> None:
        """Waits until every node that is left says that the cluster does not serve."""
        until(lambda: all(_state(one.node) == "fail" for one in self._claims()), "the cluster is down", seconds)

    def _owner(self, key: str) -> Claim | None:
        """The newest claim to the key's slot, as nobody else need know yet."""
        slot = key_slot(key.encode())
        return max((one for one in self._claims() if one.has(slot)), key=lambda one: one.epoch, default=None)

    def _claims(self) -> list[Claim]:
        """Of all nodes that answer."""
        claims = []
        for node in self.nodes:
            if node.serves:
                try:
                    claims.append(_claim(node))
                except (RedisError, OSError):
                    continue
        return claims


@dataclass(kw_only=True)
class SlotMigration:
    """One slot on its way to another primary, step by step: between any two of them a test may stop and look.

    From `begin` to `finish` scripts are refused whose keys are partly here and partly there (TRYAGAIN), or not here
    (ASK); after it the old owner answers MOVED.
    """

    cluster: RunningCluster
    slot: int
    source: Claim
    target: Claim

    def begin(self) -> None:
        self._set_slot(self.target.node, "IMPORTING", self.source.node_id)
        self._set_slot(self.source.node, "MIGRATING", self.target.node_id)

    def move_keys(self, most: int = 1000) -> int:
        """Moves so many keys and says how many there were to move."""
        keys = self.source.node.ask("CLUSTER GETKEYSINSLOT", self.slot, most)
        self.move(keys)
        return len(keys)

    def move(self, keys: Sequence[str | bytes]) -> None:
        """These go ahead of the others."""
        _send(self.source.node, self.target.node, keys)

    def give_up(self) -> None:
        """As if it had never begun; while nobody uses the keys, for those that went ahead are missed for a moment.

        Raises redis-py's error where a key is at both ends.
        """
        self._set_slot(self.source.node, "STABLE")
        _send(self.target.node, self.source.node, self.target.node.ask("CLUSTER GETKEYSINSLOT", self.slot, 1000))
        self._set_slot(self.target.node, "STABLE")

    def finish(self) -> None:
        """The rest of the keys, then the slot, first where the keys are."""
        until(lambda: self.move_keys() == 0, f"slot {self.slot} is empty")
        for node in (self.target.node, self.source.node):
            self._set_slot(node, "NODE", self.target.node_id)

    def _set_slot(self, node: StoreServer, *state: str) -> None:
        node.ask("CLUSTER SETSLOT", self.slot, *state, seconds=10)


def _send(source: StoreServer, target: StoreServer, keys: Sequence[str | bytes]) -> None:
    milliseconds = 5000
    if keys:
        source.ask("MIGRATE", "127.0.0.1", target.port, "", 0, milliseconds, "KEYS", *keys, seconds=10)


@contextmanager
def running_cluster(binary: str, folder: Path, *, durable: bool = True) -> Iterator[RunningCluster]:
    """A whole cluster on ports of the loopback; `durable` writes each change to the disk before it is answered."""
    options = (
        *("--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf"),
        *("--cluster-node-timeout", str(NODE_TIMEOUT_MS)),
        *("--cluster-replica-validity-factor", "0"),  # a replica that was cut off for long may still take over
        *("--cluster-allow-replica-migration", "no"),  # each primary keeps the replica that it began with
        *REPLICATING,
        *(DURABLE if durable else ()),
    )
    with ExitStack() as started:
        nodes = tuple(
            _start(started, binary, folder / f"node{number}", "--cluster-port", str(free_port()), *options)
            for number in range(2 * PRIMARIES)
        )
        cluster = RunningCluster(nodes=nodes)
        _form(cluster)
        yield cluster


def _form(cluster: RunningCluster) -> None:
    primaries, replicas = cluster.nodes[:PRIMARIES], cluster.nodes[PRIMARIES:]
    for number, node in enumerate(primaries):
        first, behind = number * SLOTS // PRIMARIES, (number + 1) * SLOTS // PRIMARIES
        node.ask("CLUSTER ADDSLOTSRANGE", first, behind - 1)
        node.ask("CLUSTER SET-CONFIG-EPOCH", number + 1)
    for number, node in enumerate(cluster.nodes):
        for other in cluster.nodes[:number]:  # everybody with everybody: gossip would get there too, but later
            node.ask("CLUSTER MEET", "127.0.0.1", other.port, _bus_port(other))
    for replica, primary in zip(replicas, primaries, strict=True):
        primary_id = _claim(primary).node_id
        until(lambda node=replica, wanted=primary_id: _replicates(node, wanted), "a replica knows its primary")
    cluster.healthy()


def _replicates(node: StoreServer, primary_id: str) -> bool:
    """Until the two have met, the node is told that there is no such primary."""
    node.ask("CLUSTER REPLICATE", primary_id)
    return True


def _claim(node: StoreServer) -> Claim:
    for row in _rows(node):
        if "myself" in row["flags"]:
            return Claim(
                node=node,
                node_id=row["node_id"],
                epoch=int(row["epoch"]),
                primary_id=None if row["master_id"] == "-" else row["master_id"],
                slots=_slots(row),
                moving=frozenset(int(move["slot"]) for move in row["migrations"]),
            )
    raise AssertionError("a node knows itself")


def _agrees(node: StoreServer, primaries: list[Claim]) -> bool:
    """It serves, and sees the slots where their owners say that they are."""
    if _state(node) != "ok":
        return False
    seen = {row["node_id"]: _slots(row) for row in _rows(node)}
    return all(seen.get(one.node_id) == one.slots for one in primaries)


def _state(node: StoreServer) -> str:
    return str(node.ask("CLUSTER INFO")["cluster_state"])


def _rows(node: StoreServer) -> list[dict[str, Any]]:
    return list(node.ask("CLUSTER NODES").values())


def _slots(row: dict[str, Any]) -> tuple[range, ...]:
    return tuple(range(int(run[0]), int(run[-1]) + 1) for run in row["slots"])


def _bus_port(node: StoreServer) -> int:
    return int(node.options[node.options.index("--cluster-port") + 1])


def _follows(node: StoreServer) -> bool:
    """A replica that has all that its primary had a moment ago."""
    state = node.ask("INFO", "replication")
    return state["role"] == "slave" and state["master_link_status"] == "up"


def _start(started: ExitStack, binary: str, folder: Path, *options: str) -> StoreServer:
    folder.mkdir(parents=True)
    server = StoreServer(binary=binary, folder=folder, options=options, port=free_port())
    server.start()
    started.callback(server.stop)
    return server


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
            return all(map(_follows, replicas)) and all(map(self._knows_all, self.sentinels))

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
        primary = _start(started, binary, folder / "node0", *options)
        behind = ("--replicaof", f"127.0.0.1 {primary.port}")
        following = [
            _start(started, binary, folder / f"node{number}", *behind, *options) for number in range(1, replicas + 1)
        ]
        sentinels = [_start_sentinel(started, binary, folder / f"sentinel{one}", primary.port) for one in range(3)]
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
