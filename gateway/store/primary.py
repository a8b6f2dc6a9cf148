"""Where the primary is that holds some keys: what Sentinels say of it, or whose slot it is in a cluster."""

from __future__ import annotations

import asyncio
import math
import ssl
import time
from collections import Counter, defaultdict
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

from gateway.store.store_url import written

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping, Sequence

    from gateway.store.store_url import Address

# A node that says nothing for a second is not asked for the way: the others know it.
ASK_SECONDS = 1.0
# Every command asks while no address is known: who refuses at once must not be asked a hundred times a second.
AGAIN_SECONDS = 0.2
# Who has not looked for this many times as long as a look is trusted has asked for nothing: much may have changed.
IDLE_TIMES = 3

Answer = TypeVar("Answer")


class Finder(Protocol):
    """Asks somebody who knows. Raises redis-py's errors and OSError where nobody answers."""

    async def __call__(self) -> Address: ...


class Primary:
    """The primary's address as it is known; looked for once for all who ask at the same time."""

    def __init__(self, find: Finder, *, trusted_seconds: float = math.inf) -> None:
        """What is older than `trusted_seconds` is still used, and looked for again meanwhile.

        Where nobody has looked for much longer, because nobody asked, the look comes first. One that fails takes away
        nothing that is known, and is no reason to look sooner than after one that does not.
        """
        self._find = find
        self._trusted_seconds = trusted_seconds
        self._known: Address | None = None
        self._looked_at = -math.inf
        self._looking: asyncio.Task[Address] | None = None

    async def address(self) -> Address:
        """Raises what the finder raises, where nothing is known."""
        since = time.monotonic() - self._looked_at
        if self._known is not None and since <= self._trusted_seconds:
            return self._known
        if self._looking is None:
            self._looking = asyncio.create_task(self._look(AGAIN_SECONDS - since))
            self._looking.add_done_callback(_heard)
        if self._known is not None and since <= IDLE_TIMES * self._trusted_seconds:
            return self._known
        try:
            return await asyncio.shield(self._looking)  # who goes away takes the look from nobody else
        except (RedisError, OSError):
            if self._known is None:
                raise
            return self._known

    def doubt(self, address: Address | None) -> None:
        """Whoever was reached there does not serve as a primary does: it is looked for again."""
        if self._known == address:
            self._known = None

    def moved(self, address: Address) -> None:
        """A node of the cluster has said whose the keys are now."""
        self._known = address

    async def _look(self, in_seconds: float) -> Address:
        try:
            await asyncio.sleep(in_seconds)
            self._known = await self._find()
        finally:
            self._looked_at = time.monotonic()
            self._looking = None
        return self._known


def _heard(task: asyncio.Task[Any]) -> None:
    """What nobody waits for may fail: the next one asks again."""
    if not task.cancelled():
        task.exception()


class _Questions:
    """Put to many at once. Stragglers end by themselves: a connection that is cut off while it opens stays open."""

    def __init__(self) -> None:
        self._open: set[asyncio.Task[Any]] = set()

    def put(self, questions: Iterable[Coroutine[Any, Any, Answer]]) -> list[asyncio.Task[Answer]]:
        asked = [asyncio.create_task(question) for question in questions]
        for task in asked:
            self._open.add(task)
            task.add_done_callback(self._open.discard)
            task.add_done_callback(_heard)
        return asked


class _Unnamed(Exception):  # noqa: N818 - an answer like any other
    """What one Sentinel does in place of naming a primary."""


class SentinelFinder:
    """Asks all Sentinels at once, and believes the latest election that any of them knows of.

    One that was cut off together with a deposed primary still calls that one up, with the number of an older election.
    """

    def __init__(self, hosts: Sequence[Address], service: str, options: Mapping[str, Any]) -> None:
        """`options` are those of connections to Sentinels, as redis-py knows them."""
        self._hosts = list(hosts)
        self._questions = _Questions()
        self._service = service
        self._options = dict(options)

    async def __call__(self) -> Address:
        """Waits for as many as are the majority. The error has a reason for each Sentinel, in words of ours alone."""
        asked = self._questions.put(self._ask(sentinel) for sentinel in self._hosts)
        named: Counter[tuple[int, Address]] = Counter()
        for answer in asyncio.as_completed(asked):
            with suppress(_Unnamed):
                named[await answer] += 1
                if 2 * named.total() > len(asked):
                    break
        if not named:
            reasons = ", ".join(str(task.exception()) for task in asked)
            raise RedisConnectionError(f"No Sentinel names a primary that is up: {reasons}")
        _, address = max(named, key=lambda answer: (answer[0], named[answer]))
        return address

    async def _ask(self, sentinel: Address) -> tuple[int, Address]:
        """(number of the election, who won it) as this Sentinel knows; raises _Unnamed.

        Who leads a failover has counted its election and calls the old primary down in its state, until all replicas
        follow the new one: this is named by address already, and a second question asks for that.
        """
        try:
            async with _client(sentinel, {**self._options, "decode_responses": True}) as client:
                state = await client.execute_command("SENTINEL MASTER", self._service)
                address = await client.execute_command("SENTINEL GET-MASTER-ADDR-BY-NAME", self._service)
        except (RedisError, OSError) as error:
            raise _Unnamed(f"{written(sentinel)} {_why(error)}") from error
        if address == (state["ip"], state["port"]) and {"s_down", "o_down", "disconnected"} & _flags(state):
            raise _Unnamed(f"{written(sentinel)} calls it down")
        host, port = address
        return int(state["config-epoch"]), (host, int(port))


def _flags(state: Mapping[str, Any]) -> set[str]:
    return set(state["flags"].split(","))


def _why(error: Exception) -> str:
    """Nothing of what was said itself: some servers repeat the password that they were sent."""
    if isinstance(error, AuthenticationError | NoPermissionError):
        return "wants other credentials"
    if "no such master" in str(error).lower():
        return "does not know the name"
    if isinstance(error, ResponseError):
        return "is no Sentinel, or refuses us"
    if isinstance(error.__context__, ssl.SSLError):
        return f"fails at TLS ({error.__context__.reason})"
    return "does not answer"


class SlotFinder:
    """Asks all nodes of the cluster that are known whose slot it is, and believes what most of them say.

    One that was cut off and has just come back may take itself for the owner still.
    """

    def __init__(self, seeds: Sequence[Address], key: str, options: Mapping[str, Any]) -> None:
        self._seeds = frozenset(seeds)
        self._nodes = set(seeds)
        self._questions = _Questions()
        self._slot = key_slot(key.encode())
        self._options = dict(options)

    async def __call__(self) -> Address:
        """From now on the seeds are asked and whom the majority names: a node that has left has no voice."""
        asked = self._questions.put(self._ask(node) for node in self._nodes)
        votes: Counter[Address] = Counter()
        named: defaultdict[Address | None, set[Address]] = defaultdict(set)
        failure: Exception = RedisConnectionError("No node of the cluster answers.")
        for answer in asyncio.as_completed(asked):
            try:
                owner, nodes = await answer
            except (RedisError, OSError) as error:
                failure = error
                continue
            named[owner] |= nodes
            if owner is not None:
                votes[owner] += 1
                if 2 * votes[owner] > len(asked):
                    break
        if votes:
            winner = votes.most_common(1)[0][0]
            self._nodes = {*self._seeds, *named[winner]}
            return winner
        if named:
            self._nodes |= named[None]
            raise RedisConnectionError(f"No node of the cluster has slot {self._slot}.")
        raise failure

    async def _ask(self, node: Address) -> tuple[Address | None, set[Address]]:
        """(who has the slot, all nodes), as this node sees it."""
        async with _client(node, self._options) as client:
            rows = await client.execute_command("CLUSTER SLOTS")
        owner, nodes = None, set()
        for first, last, *members in rows:
            # a node that does not know its own name leaves it out: it is the one that was asked
            addresses = [((name or b"").decode() or node[0], int(port)) for name, port, *_ in members]
            nodes.update(addresses)
            if first <= self._slot <= last:
                owner = addresses[0]
        return owner, nodes


@asynccontextmanager
async def _client(node: Address, options: Mapping[str, Any]) -> AsyncIterator[Any]:
    host, port = node
    pool = ConnectionPool(**{**options, **_ASKED_ONCE, "host": host, "port": port})
    async with Redis.from_pool(pool) as client:
        yield client


_ASKED_ONCE: dict[str, Any] = {
    "socket_timeout": ASK_SECONDS,
    "socket_connect_timeout": ASK_SECONDS,
    "retry": Retry(NoBackoff(), 0),
}
