"""What the store promises: read from the store itself, at start and again and again."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

from redis.exceptions import NoPermissionError, ResponseError

from gateway.core.errors import StoreUnavailableError
from gateway.store.connection import store_errors

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from gateway.core.ports import Log

Durability = Literal["memory", "fsync", "replicated"]

# A store that goes away is noticed this soon; a look costs it some hundred microseconds.
LOOK_EVERY_SECONDS = 2.0


async def shortcomings(client: Redis, durability: Durability) -> list[str]:
    """Why the store cannot keep this promise, in sentences for operators. Raises StoreUnavailableError."""
    with store_errors():
        info = await client.info("persistence")
        replication = await client.info("replication")
        memory = await client.info("memory")
        config = await _config(client)
    found = []
    if replication.get("role") != "master":
        found.append("The store is a replica: point store.url at its primary.")
    policy = config.get("maxmemory-policy") or memory.get("maxmemory_policy")
    if policy not in (None, "noeviction"):
        found.append(f"The store evicts keys when full (maxmemory-policy {policy}): set noeviction.")
    if durability == "fsync":
        found += _fsync_shortcomings(info, config)
    return found


def _fsync_shortcomings(info: dict[str, Any], config: dict[str, str]) -> list[str]:
    if not info.get("aof_enabled"):
        return ["store.durability is fsync, but the store has no append-only file: set appendonly yes."]
    found = []
    fsync = config.get("appendfsync")
    if fsync != "always":
        found.append(
            f"store.durability is fsync, but the store's appendfsync is {fsync or 'not readable'}: set it to always."
        )
    if config.get("no-appendfsync-on-rewrite") == "yes":
        found.append("The store does not fsync while it rewrites its file: set no-appendfsync-on-rewrite no.")
    if info.get("aof_last_write_status", "ok") != "ok":
        found.append("The store cannot write its append-only file (aof_last_write_status).")
    return found


async def _config(client: Redis) -> dict[str, str]:
    """The settings that matter; empty where CONFIG is not allowed, as on managed services."""
    try:
        answer = await client.config_get("maxmemory-policy", "appendfsync", "no-appendfsync-on-rewrite")
    except NoPermissionError:
        return {}
    except ResponseError as error:
        if "unknown command" in str(error).lower():
            return {}
        raise
    return {_text(name): _text(value) for name, value in answer.items()}


def _text(value: str | bytes | None) -> str:
    return value.decode() if isinstance(value, bytes) else value or ""


class StoreWatch:
    """Looks at the store every other second: what readiness lacks, and whether acceptances may be promised."""

    def __init__(self, client: Redis, durability: Durability, log: Log) -> None:
        self._client = client
        self._durability = durability
        self._log = log
        self._broken: list[str] | None = None  # None: not seen yet
        self._unreachable = ""

    @property
    def missing(self) -> list[str]:
        """What the store lacks for this process to be ready, in sentences."""
        return [self._unreachable] if self._unreachable else self._broken or []

    @property
    def broken_promises(self) -> list[str]:
        """Why a 202 would promise too much."""
        return ["The store has not been seen yet."] if self._broken is None else self._broken

    @property
    def seen_broken(self) -> list[str]:
        """What the store itself was seen to lack."""
        return self._broken or []

    async def look(self) -> None:
        before = self.missing
        try:
            self._broken = await shortcomings(self._client, self._durability)
            self._unreachable = ""
        except StoreUnavailableError as error:
            self._unreachable = f"The store does not answer as it should: {error.cause}."
        if self.missing and not before:
            self._log.error("store_unavailable", missing=self.missing)
        elif before and not self.missing:
            self._log.info("store_available")

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), LOOK_EVERY_SECONDS)
            await self.look()
