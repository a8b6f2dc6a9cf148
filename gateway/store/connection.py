"""Connections to the store, and the one place where its errors become the gateway's.

All keys of an upstream are one slot, so there is one server to speak to: the primary that holds it. redis-py's own
cluster client repeats commands and closes what others use when a node fails; here nothing is repeated but what was
proved not to have run, and each connection goes to wherever the primary is known to be.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from redis.asyncio import BlockingConnectionPool, Connection, Redis, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    BusyLoadingError,
    ClusterDownError,
    MovedError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)
from redis.exceptions import (
    TimeoutError as RedisTimeoutError,
)
from redis.maint_notifications import MaintNotificationsConfig

from gateway.core.errors import StoreUnavailableError
from gateway.store.primary import Primary, SentinelFinder, SlotFinder
from gateway.store.store_url import parse_store_url

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Self

    from gateway.store.store_url import Address

# An fsync of a busy disk takes tens of milliseconds; a store that is silent for two seconds is not going to answer.
COMMAND_SECONDS = 2.0
CONNECT_SECONDS = 1.0
MAX_CONNECTIONS = 32
# A primary that Sentinel has deposed takes writes for ten seconds more, which are thrown away then: it does not say so.
SENTINEL_TRUSTED_SECONDS = 1.0

FULL = "The store is full and takes nothing new until it has drained. A retry with the same token is safe."
UNAVAILABLE = "The store does not answer as it should. A retry with the same token is safe."

# Answers of a store that is there and cannot serve: their first words, where redis-py has no class for them.
_UNSERVING = (
    "MISCONF", "NOREPLICAS", "MASTERDOWN", "LOADING", "READONLY", "OOM", "CLUSTERDOWN", "TRYAGAIN", "BUSY", "UNBLOCKED",
    "NEWER",
)  # fmt: skip
_AFTER_COMMAND = " of pipeline caused error: "
# What a script is told in the middle of a slot's migration or of its cluster's failure.
_UNSERVING_SCRIPTS = ("non local key in a cluster node", "while the cluster is down")
# Answers that no primary gives, or none that has these keys: it is elsewhere now.
_ELSEWHERE = ("READONLY", "MASTERDOWN", "CLUSTERDOWN", "UNBLOCKED", "LOADING")


class _Following:
    """A connection that goes to the primary as it is known, and doubts that when it is answered as by none."""

    def __init__(self, *, primary: Primary | None, **options: Any) -> None:
        """`primary` is None where there is one server at one address; a name is looked up again at each connect."""
        self.primary = primary
        self.goes_to: Address | None = None
        super().__init__(**options)

    async def _connect(self) -> None:
        if self.primary is not None:
            self.goes_to = await self.primary.address()
            self.host, self.port = self.goes_to
        try:
            await super()._connect()  # type: ignore[misc]
        except (OSError, RedisError):
            self._doubt()
            raise

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:  # noqa: FBT001, FBT002 - redis-py's
        try:
            await super().send_packed_command(command, check_health)  # type: ignore[misc]
        except RuntimeError as error:  # uvloop's word for what the other side has closed since: nothing was sent
            if "the handler is closed" not in str(error):
                raise
            self._doubt()
            raise RedisConnectionError("Connection closed by server.") from error

    async def read_response(self, disable_decoding: bool = False, timeout: float | None = None, **options: Any) -> Any:  # noqa: ASYNC109, FBT001, FBT002 - redis-py's
        try:
            return await super().read_response(disable_decoding, timeout, **options)  # type: ignore[misc]
        except (RedisConnectionError, RedisTimeoutError):
            if timeout is None:  # a subscriber's silence tells nothing
                self._doubt()
            raise
        except ResponseError as error:
            if isinstance(error, MovedError) and self.primary is not None:
                self.primary.moved((error.host or (self.goes_to or ("", 0))[0], error.port))  # no host: the same one
                self.mark_for_reconnect()  # type: ignore[attr-defined]
            elif isinstance(error, ReadOnlyError | ClusterDownError) or str(error).startswith(_ELSEWHERE):
                self._doubt()
                self.mark_for_reconnect()  # type: ignore[attr-defined]
            raise

    def _doubt(self) -> None:
        if self.primary is not None:
            self.primary.doubt(self.goes_to)


class _Tcp(_Following, Connection):
    pass


class _Tls(_Following, SSLConnection):
    pass


class _Unix(_Following, UnixDomainSocketConnection):
    pass


_CLASSES: dict[type, type] = {Connection: _Tcp, SSLConnection: _Tls, UnixDomainSocketConnection: _Unix}


class _Pool(BlockingConnectionPool):
    """Waits for a free connection; one that still leads to a former primary is made anew before its next use."""

    async def ensure_connection(self, connection: Any) -> None:
        if connection.is_connected and await is_left_behind(connection):
            await connection.disconnect()
        await super().ensure_connection(connection)


async def is_left_behind(connection: Any) -> bool:
    """Whether it leads to another server than the primary, as that is known now; raises what looking for it raises."""
    primary: Primary | None = connection.primary
    return primary is not None and connection.goes_to != await primary.address()


class Connections:
    """The store's clients of one process: one for all keys, or in a cluster one for each slot that is asked for."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._cluster = parse_store_url(url).kind == "cluster"
        self._clients: dict[int, Redis] = {}

    def to(self, key: str) -> Redis:
        """The client for this key and all that share its hash tag."""
        slot = key_slot(key.encode()) if self._cluster else 0
        if slot not in self._clients:
            self._clients[slot] = connect(self._url, key)
        return self._clients[slot]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in self._clients.values():
            await client.aclose()


def connect(url: str, key: str = "") -> Redis:
    """A client for the server that has `key`; it connects when first used and never repeats a command.

    A repeated script would be a second lease or a second settlement; who asked decides what a lost answer means.
    """
    parsed = parse_store_url(url)
    options: dict[str, Any] = {**parse_url(parsed.server_url), **parsed.options}
    plain = options.pop("connection_class", Connection)
    primary = None
    if parsed.kind == "sentinel":
        theirs = {**parsed.sentinel_options, "connection_class": plain}
        finder = SentinelFinder(parsed.hosts, parsed.service, theirs)
        primary = Primary(finder, trusted_seconds=SENTINEL_TRUSTED_SECONDS)
    elif parsed.kind == "cluster":
        options.pop("db", None)
        primary = Primary(SlotFinder(parsed.hosts, key, {**options, "connection_class": plain}))
    ours: dict[str, Any] = {
        "max_connections": MAX_CONNECTIONS,
        "timeout": COMMAND_SECONDS,
        "socket_timeout": COMMAND_SECONDS,
        "socket_connect_timeout": CONNECT_SECONDS,
        "retry": Retry(NoBackoff(), 0),
        "retry_on_timeout": False,
        "health_check_interval": 0,
        # With these, redis-py hands out idle connections that the server has closed without looking at them.
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }
    return Redis.from_pool(_Pool(connection_class=_CLASSES[plain], primary=primary, **{**ours, **options}))


@contextmanager
def store_errors() -> Iterator[None]:
    """Raises StoreUnavailableError for what a store out of service does; lets the rest through, for it is a bug."""
    try:
        yield
    except (RedisError, OSError) as error:
        if not is_out_of_service(error):
            raise
        raise unavailable(error) from error


def is_out_of_service(error: BaseException) -> bool:
    """Whether it tells of a store that is away or cannot serve, and not of a bug."""
    if isinstance(
        error,
        RedisConnectionError
        | RedisTimeoutError
        | BusyLoadingError
        | ReadOnlyError
        | OutOfMemoryError
        | ClusterDownError
        | TryAgainError
        | AskError
        | NoPermissionError
        | OSError,
    ):
        return True
    text = _words(error)
    return isinstance(error, ResponseError) and (
        text.startswith(_UNSERVING) or any(words in text for words in _UNSERVING_SCRIPTS)
    )


def was_moved(error: object) -> bool:
    """Whether the server has only said that the keys are another's: nothing has run."""
    return isinstance(error, MovedError)


def unavailable(error: BaseException) -> StoreUnavailableError:
    detail = FULL if isinstance(error, OutOfMemoryError) else UNAVAILABLE
    return StoreUnavailableError(detail, cause=_gist(error))


def _words(error: BaseException) -> str:
    """What the server said. In a pipeline redis-py puts the command before it, and that may hold a payload."""
    command, told, said = str(error).rpartition(_AFTER_COMMAND)
    return said.strip("(\"',)") if told and command.startswith("Command # ") else str(error)  # a tuple's text


def _gist(error: BaseException) -> str:
    """For operators: what failed and where, in a line; redis-py names address and reason, and never credentials."""
    if isinstance(error, MovedError):  # redis-py leaves the word out, of both
        return f"MOVED {error}: the store is a cluster, for which store.url begins with redis+cluster://"
    if isinstance(error, AskError):
        return f"ASK {error}"
    first = (_words(error).splitlines() or [""])[0].partition(" script: ")[0].rstrip(".")  # then comes where it stands
    return first or type(error).__name__
