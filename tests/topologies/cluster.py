"""A cluster of three primaries with a replica each, on ports of the loopback."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from redis.crc import key_slot
from redis.exceptions import RedisError

from tests.servers import free_port
from tests.topologies.members import DURABLE, REPLICATING, SETTLE_SECONDS, follows, start_member, until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.servers import StoreServer

# A node that is silent so long is called failed by the others; a replica then takes over within a second or two.
NODE_TIMEOUT_MS = 1000
PRIMARIES = 3
SLOTS = 16384


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
            return next((one.node for one in claims if one.primary_id in ids and follows(one.node)), None)

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
        return SlotMigration(slot=key_slot(key.encode()), source=source, target=target)

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
                and all(follows(one.node) for one in replicas)
                and all(_agrees(one.node, primaries) for one in claims)
            )

        until(whole, "the cluster is whole", seconds)

    def down(self, seconds: float = SETTLE_SECONDS) -> None:
        """Waits until every node that is left says that the cluster does not serve."""

        def fails() -> bool:
            return {_state(one.node) for one in self._claims()} == {"fail"}

        until(fails, "the cluster is down", seconds)

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
            start_member(started, binary, folder / f"node{number}", "--cluster-port", str(free_port()), *options)
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
        until(partial(_replicates, replica, primary_id), "a replica knows its primary")
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
