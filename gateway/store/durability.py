"""What the store promises, by what it says of itself, and how a write is known to be as durable as promised."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from redis.exceptions import NoPermissionError, ResponseError

from gateway.core.errors import DurabilityUnconfirmedError, StoreUnavailableError
from gateway.store.confirming import Confirmer
from gateway.store.connection import store_errors
from gateway.store.versions import newer_writer

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from gateway.core.ports import Log
    from gateway.store.keys import Keys

Durability = Literal["memory", "fsync", "replicated"]

# A store that goes away is noticed this soon; a look costs it some hundred microseconds.
LOOK_EVERY_SECONDS = 2.0
# `everysec` writes to the disk once a second. Shorter than connection.COMMAND_SECONDS, which would say less.
CONFIRM_MS = 1500


LATE = (
    "The store does not confirm in time that a write is as durable as promised: see its disk, its replicas, and that "
    "these have an append-only file if it has one."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """The settings' `store.durability` and `store.replicas`: what a 202 promises."""

    durability: Durability
    replicas: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreFacts:
    """What a store says of itself. `fsync` and `rewrite_unsynced` are None where CONFIG may not be read."""

    role: str
    replicas: int
    eviction: str | None
    file: bool
    file_writable: bool
    fsync: str | None
    rewrite_unsynced: bool | None
    waits_for_file: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortcoming:
    """Why the store cannot keep its promise, for operators; `passing` is what may mend itself, as a lost replica."""

    sentence: str
    passing: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """The commands that wait, on the connection that wrote, until the promise is kept; what the last must answer."""

    waits: tuple[tuple[str | int, ...], ...]
    wanted: tuple[int, ...]

    def given_by(self, answer: Any) -> bool:
        """WAIT answers one number, WAITAOF two: local and replicas. An error is none."""
        got = answer if isinstance(answer, list | tuple) else [answer]
        return len(got) == len(self.wanted) and all(
            isinstance(had, int) and had >= want for had, want in zip(got, self.wanted, strict=True)
        )


async def read_facts(client: Redis) -> StoreFacts:
    """Raises StoreUnavailableError."""
    with store_errors():
        info = await client.info("persistence")
        replication = await client.info("replication")
        memory = await client.info("memory")
        config = await _config(client)
        waits_for_file = await _knows(client, "WAITAOF")
    unsynced = config.get("no-appendfsync-on-rewrite")
    return StoreFacts(
        role=replication.get("role", ""),
        replicas=sum(
            isinstance(one, dict) and one.get("state") == "online"
            for name, one in replication.items()
            if name.startswith("slave")
        ),
        eviction=config.get("maxmemory-policy") or memory.get("maxmemory_policy"),
        file=bool(info.get("aof_enabled")),
        file_writable=info.get("aof_last_write_status", "ok") == "ok",
        fsync=config.get("appendfsync"),
        rewrite_unsynced=None if unsynced is None else unsynced == "yes",
        waits_for_file=waits_for_file,
    )


def shortcomings(facts: StoreFacts, promise: Promise) -> list[Shortcoming]:
    """Why a store like this cannot keep the promise; empty where it can."""
    found = []
    if facts.role != "master":
        found.append(Shortcoming(sentence="The store is a replica: point store.url at its primary.", passing=True))
    if facts.eviction not in (None, "noeviction"):
        found.append(
            Shortcoming(
                sentence=f"The store evicts keys when full (maxmemory-policy {facts.eviction}): set noeviction."
            )
        )
    if promise.durability != "memory":
        found += [Shortcoming(sentence=one) for one in _file_shortcomings(facts, promise)]
    if promise.durability == "replicated" and facts.replicas < promise.replicas:
        found.append(
            Shortcoming(
                sentence=f"store.replicas is {promise.replicas}, but the store has {facts.replicas} online.",
                passing=True,
            )
        )
    return found


def reservations(facts: StoreFacts, promise: Promise) -> list[str]:
    """What the promise leaves out at a store like this, without a full stop, for whoever sets it up."""
    if promise.durability == "fsync" and facts.replicas:
        lost = "what the new primary had not yet received is lost; store.durability replicated waits for replicas too"
        return [f"the store has replicas ({facts.replicas}), and fsync promises nothing across a failover: {lost}"]
    if promise.durability == "replicated" and facts.replicas > promise.replicas:
        lost = f"{promise.replicas} of them have what was promised, and a failover may choose another"
        return [f"the store has {facts.replicas} replicas and store.replicas is {promise.replicas}: {lost}"]
    return []


def confirmation(facts: StoreFacts, promise: Promise) -> Confirmation | None:
    """How a write is confirmed at a store that can keep the promise; None where its own answer says all."""
    replicas = promise.replicas
    if promise.durability == "replicated" and facts.file and facts.waits_for_file:
        return Confirmation(waits=_disks_of(replicas), wanted=(1, replicas))
    if promise.durability == "replicated":
        return Confirmation(waits=(("WAIT", replicas, CONFIRM_MS),), wanted=(replicas,))
    if promise.durability == "fsync" and not _answers_after_fsync(facts):
        return Confirmation(waits=(("WAITAOF", 1, 0, CONFIRM_MS),), wanted=(1, 0))
    return None


async def unconfirmed(client: Redis, keys: Keys, how: Confirmation | None) -> list[str]:
    """Whether a write is not confirmed now, in a sentence; a store may say that it could and not do it.

    Replicas without a file never confirm, and no primary tells of their files. Raises StoreUnavailableError.
    """
    try:
        await Confirmer(client, keys, lambda: how).confirm()
    except DurabilityUnconfirmedError:
        return [LATE]
    return []


def _disks_of(replicas: int) -> tuple[tuple[str | int, ...], ...]:
    """A replica is asked how far its disk is when a wait begins, and tells by itself once a second only.

    Asked at once it has the write and not yet on its disk; so it is asked again when it has, and later again.
    """
    return ("WAIT", replicas, 400), *(("WAITAOF", 1, replicas, milliseconds) for milliseconds in (20, 80, 1000))


def _answers_after_fsync(facts: StoreFacts) -> bool:
    return facts.fsync == "always" and not facts.rewrite_unsynced


def _file_shortcomings(facts: StoreFacts, promise: Promise) -> list[str]:
    named = f"store.durability is {promise.durability}"
    if not facts.file and promise.durability == "replicated":
        return []  # replicas hold what no disk does: WAIT
    if not facts.file:
        return [f"{named}, but the store has no append-only file: set appendonly yes."]
    found = []
    if not facts.file_writable:
        found.append("The store cannot write its append-only file (aof_last_write_status).")
    if facts.waits_for_file:
        if facts.fsync == "no":
            found.append(f"{named}, but the store's appendfsync is no: set it to always or everysec.")
        return found
    if facts.fsync != "always":
        found.append(f"{named}, but the store's appendfsync is {facts.fsync or 'not readable'}: set it to always.")
    if facts.rewrite_unsynced:
        found.append("The store does not fsync while it rewrites its file: set no-appendfsync-on-rewrite no.")
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


async def _knows(client: Any, command: str) -> bool:
    """Whether the server has this command, as far as this user may know."""
    with suppress(NoPermissionError):
        (row,) = await client.execute_command("COMMAND INFO", command)
        return row is not None
    return False


def _text(value: str | bytes | None) -> str:
    return value.decode() if isinstance(value, bytes) else value or ""


class StoreWatch:
    """Looks at the store every other second: what readiness lacks, and whether and how acceptances may be promised."""

    def __init__(self, client: Redis, promise: Promise, log: Log) -> None:
        self._client = client
        self._promise = promise
        self._log = log
        self._facts: StoreFacts | None = None  # None: not seen yet
        self._unreachable = ""
        self._upstreams: list[Keys] = []
        self._newer: list[Shortcoming] = []
        self._late: list[str] = []

    def mind(self, keys: Keys) -> None:
        """Also watches this upstream's part of the store: whether a newer gateway has written, and writes last."""
        self._upstreams.append(keys)

    @property
    def missing(self) -> list[str]:
        """What the store lacks for this process to be ready, in sentences."""
        if self._unreachable:
            return [self._unreachable]
        return [one.sentence for one in self.shortcomings] + self._late

    @property
    def broken_promises(self) -> list[str]:
        """Why a 202 would promise too much."""
        if self._facts is None:
            return ["The store has not been seen yet."]
        return [one.sentence for one in self.shortcomings]

    @property
    def shortcomings(self) -> list[Shortcoming]:
        """What the store itself was seen to lack."""
        return [] if self._facts is None else shortcomings(self._facts, self._promise) + self._newer

    @property
    def confirmation(self) -> Confirmation | None:
        """How a write is confirmed. Raises StoreUnavailableError while the promise cannot be kept."""
        broken = self.broken_promises
        if broken or self._facts is None:
            raise StoreUnavailableError(" ".join(broken))
        return confirmation(self._facts, self._promise)

    async def look(self) -> None:
        before = self.missing
        try:
            self._facts = await read_facts(self._client)
            newer = [one for keys in self._upstreams for one in await newer_writer(self._client, keys)]
            self._newer = [Shortcoming(sentence=one) for one in newer]
            self._late = await self._lateness()
            self._unreachable = ""
        except StoreUnavailableError as error:
            self._unreachable = f"The store does not answer as it should: {error.cause}."
        if self.missing and self.missing != before:
            self._log.error("store_unavailable", missing=self.missing)
        elif before and not self.missing:
            self._log.info("store_available")

    async def _lateness(self) -> list[str]:
        if self.broken_promises or not self._upstreams:
            return []
        return await unconfirmed(self._client, self._upstreams[0], self.confirmation)

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), LOOK_EVERY_SECONDS)
            await self.look()
