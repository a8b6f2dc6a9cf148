"""Connections to the store, and the one place where its errors become the gateway's."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    BusyLoadingError,
    ClusterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)
from redis.exceptions import (
    TimeoutError as RedisTimeoutError,
)

from gateway.core.errors import StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

# An fsync of a busy disk takes tens of milliseconds; a store that is silent for two seconds is not going to answer.
COMMAND_SECONDS = 2.0
CONNECT_SECONDS = 1.0
MAX_CONNECTIONS = 32

UNAVAILABLE = "The store does not answer as it should. A retry with the same token is safe."

# Answers of a store that is there and cannot serve: their first words, where redis-py has no class for them.
_UNSERVING = ("MISCONF", "NOREPLICAS", "MASTERDOWN", "LOADING", "READONLY", "OOM", "CLUSTERDOWN", "TRYAGAIN", "BUSY")


def connect(url: str) -> Redis:
    """A client for `redis://`, `rediss://` or `unix://`; it connects when first used and never repeats a command.

    A repeated script would be a second lease or a second settlement; who asked decides what a lost answer means.
    """
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=MAX_CONNECTIONS,
        timeout=COMMAND_SECONDS,
        socket_timeout=COMMAND_SECONDS,
        socket_connect_timeout=CONNECT_SECONDS,
        retry=Retry(NoBackoff(), 0),
        retry_on_timeout=False,
        health_check_interval=0,
    )
    return Redis.from_pool(pool)


@contextmanager
def store_errors() -> Iterator[None]:
    """Raises StoreUnavailableError for what a store out of service does; lets the rest through, for it is a bug."""
    try:
        yield
    except (
        RedisConnectionError,
        RedisTimeoutError,
        BusyLoadingError,
        ReadOnlyError,
        OutOfMemoryError,
        ClusterDownError,
        TryAgainError,
        OSError,
    ) as error:
        raise StoreUnavailableError(UNAVAILABLE, cause=_gist(error)) from error
    except ResponseError as error:
        if str(error).startswith(_UNSERVING):
            raise StoreUnavailableError(UNAVAILABLE, cause=_gist(error)) from error
        raise


def _gist(error: BaseException) -> str:
    """For operators: what failed and where, in a line; redis-py names address and reason, and never credentials."""
    first = (str(error).splitlines() or [""])[0].rstrip(".")
    return first or type(error).__name__
