"""Composition root: open, run, drain, close. Nothing else opens anything; `wiring.py` says who knows whom."""

from __future__ import annotations

import asyncio
import gc
import time
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Literal

from aiohttp import web

from gateway.batch.batch_client import Endpoint, open_batch_client
from gateway.core.errors import StoreUnavailableError
from gateway.core.identity import upstream_tag
from gateway.core.upstream import Routes
from gateway.store.connection import Connections
from gateway.store.durability import Promise, StoreWatch
from gateway.store.holdings import UpstreamNote, moved_queues
from gateway.store.keys import Keys, noted_upstreams
from gateway.store.store_url import parse_store_url
from gateway.store.versions import VERSION_WRITTEN
from gateway.wiring import forwarding_parts, http_face, open_upstream

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio import Redis

    from gateway.batch.batch_client import BatchClient
    from gateway.core.ports import Log
    from gateway.settings import Settings, UpstreamSettings
    from gateway.store.hints import Hints
    from gateway.wiring import OpenUpstream, Part

Role = Literal["api", "forwarder", "all"]

# At the end of the drain: a handler under way waits for the store at most this long.
HANDLER_GRACE_SECONDS = 3.0


class PromiseBrokenError(Exception):
    """The store cannot keep what the settings promise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsKeys:
    """Fixed credentials, where the usual AWS chain shall not be asked: `gateway dev` has nobody to ask."""

    access_key_id: str
    secret_access_key: str


class Gateway:
    """One process of the gateway, from its settings to its end."""

    def __init__(
        self,
        settings: Settings,
        log: Log,
        *,
        role: Role = "all",
        aws_keys: AwsKeys | None = None,
        shared_port: bool = False,
    ) -> None:
        """`shared_port` lets other processes listen on the same port: the workers of one machine do."""
        self._settings = settings
        self._log = log
        self._role = role
        self._aws_keys = aws_keys
        self._shared_port = shared_port
        self._draining = asyncio.Event()
        self._watches: dict[int, StoreWatch] = {}

    async def run(
        self,
        stop: asyncio.Event,
        *,
        hurry: asyncio.Event | None = None,
        started: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Serve until told to stop, then drain; `started` is called with the port once it is listening.

        `hurry` ends the first part of the drain, in which an unready process serves on: nobody sends it requests.

        Raises PromiseBrokenError at the start where the store does not keep what the settings promise, and whatever
        breaks a part later.
        """
        async with AsyncExitStack() as opened:
            connections = await opened.enter_async_context(Connections(self._settings.store.url))
            # of its own: callers who wait must not hold forwarding up
            forwarding = await opened.enter_async_context(Connections(self._settings.store.url))
            upstreams = [self._open(section, connections) for section in self._settings.upstream]
            watches = list(self._watches.values())
            await self._look_first(watches)
            parts: list[Part] = [*watches]
            await self._tell_of_moves(connections, upstreams)
            clients = [await self._batch(opened, one.section) for one in upstreams]
            for one, batch in zip(upstreams, clients, strict=True):
                parts.append(one.hints)
                if self._role != "api":
                    client = forwarding.to(one.keys.root)
                    parts += forwarding_parts(self._settings, one, batch=batch, client=client, log=self._log)
            note = connections.to(noted_upstreams(self._settings.store.prefix))
            parts.append(UpstreamNote(note, self._settings.store.prefix, [one.upstream for one in upstreams]))
            port = None
            if self._role != "forwarder":
                face = http_face(
                    self._settings,
                    list(zip(upstreams, clients, strict=True)),
                    log=self._log,
                    draining=self._draining,
                    missing=self._missing,
                )
                for close in face.closers:
                    opened.push_async_callback(close)
                port = await self._listen(opened, face.app)
            gc.freeze()  # what is there by now stays: a collection that walks through it holds requests up for 50 ms
            self._tell_started(port)
            started(port or 0)
            await self._run_parts(parts, [one.hints for one in upstreams], stop, hurry or asyncio.Event())
            began = time.monotonic()
        self._log.info("stopped", seconds=round(time.monotonic() - began + self._drained_seconds, 3))

    _drained_seconds = 0.0

    async def _run_parts(
        self, parts: list[Part], hints: list[Hints], stop: asyncio.Event, hurry: asyncio.Event
    ) -> None:
        """Until stopped and drained. A part that breaks ends the process: TaskGroup cancels the others and raises."""
        drain = self._settings.http.drain_seconds
        parts_stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(part.run(parts_stop), name=type(part).__name__) for part in parts]
            try:
                await stop.wait()
            except asyncio.CancelledError:  # a part broke; one that is just connecting can swallow its cancellation
                parts_stop.set()
                raise
            began = time.monotonic()
            serve_on = self._settings.http.unready_seconds if self._role != "forwarder" else 0.0
            self._log.info("draining", unready_seconds=serve_on)
            self._draining.set()
            parts_stop.set()
            for hint in hints:
                hint.release()
            with suppress(TimeoutError):
                await asyncio.wait_for(hurry.wait(), serve_on)
            left = drain - (time.monotonic() - began) - HANDLER_GRACE_SECONDS
            _, unfinished = await asyncio.wait(running, timeout=max(0.0, left))
            for task in unfinished:
                task.cancel()
            self._drained_seconds = time.monotonic() - began

    async def _look_first(self, watches: list[StoreWatch]) -> None:
        """What nobody but an operator can mend ends the process here; what may pass makes it unready."""
        lasting = []
        for watch in watches:
            await watch.look()
            lasting += [one.sentence for one in watch.shortcomings if not one.passing]
        if lasting:
            raise PromiseBrokenError("\n".join(dict.fromkeys(lasting)))

    def _watch(self, client: Redis) -> StoreWatch:
        """One a server: upstreams share it, or have one each where each has a primary of its own."""
        if id(client) not in self._watches:
            store = self._settings.store
            promise = Promise(durability=store.durability, replicas=store.replicas)
            self._watches[id(client)] = StoreWatch(client, promise, self._log)
        return self._watches[id(client)]

    def _missing(self) -> list[str]:
        """What this process lacks to be ready, in sentences.

        Where upstreams have a primary each, one that fails takes only its own submissions away: 503 says so.
        """
        lacking = [watch.missing for watch in self._watches.values()]
        missing = [one for watch in lacking for one in watch] if all(lacking) else []
        return [*dict.fromkeys(missing), *(["This process is draining."] if self._draining.is_set() else [])]

    def _open(self, section: UpstreamSettings, connections: Connections) -> OpenUpstream:
        keys = Keys(self._settings.store.prefix, upstream_tag(section.account, section.region))
        client = connections.to(keys.root)
        watch = self._watch(client)
        watch.mind(keys)
        return open_upstream(self._settings, section, client=client, watch=watch, log=self._log)

    async def _batch(self, opened: AsyncExitStack, section: UpstreamSettings) -> BatchClient:
        forward = self._settings.forward
        return await opened.enter_async_context(
            open_batch_client(
                Endpoint(
                    region=section.region,
                    url=section.endpoint_url,
                    access_key_id=self._aws_keys.access_key_id if self._aws_keys else None,
                    secret_access_key=self._aws_keys.secret_access_key if self._aws_keys else None,
                    role_arn=section.role_arn,
                ),
                concurrency=forward.concurrency,
                call_timeout_seconds=forward.call_timeout_seconds,
            )
        )

    async def _listen(self, opened: AsyncExitStack, app: web.Application) -> int:
        http = self._settings.http
        runner = web.AppRunner(
            app,
            access_log=None,
            keepalive_timeout=http.keepalive_seconds,
            shutdown_timeout=HANDLER_GRACE_SECONDS,
            handler_cancellation=False,  # a caller who hangs up must not leave a submission half-way
        )
        await runner.setup()
        opened.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, http.host, http.port, reuse_port=self._shared_port, backlog=1024)
        await site.start()
        port: int = runner.addresses[0][1]
        return port

    async def _tell_of_moves(self, connections: Connections, upstreams: list[OpenUpstream]) -> None:
        """What `gateway check` refuses is loud here, and no more: a gateway that does not start takes nothing."""
        routes = Routes([one.upstream for one in upstreams])
        with suppress(StoreUnavailableError):
            for problem in await moved_queues(connections, self._settings.store.prefix, routes):
                self._log.error("queue_moved", problem=problem)

    def _tell_started(self, port: int | None) -> None:
        self._log.info(
            "started",
            role=self._role,
            host=self._settings.http.host if port else None,
            port=port,
            store=parse_store_url(self._settings.store.url).place,
            durability=self._settings.store.durability,
            upstreams=[one.name for one in self._settings.upstream],
            version=version("batch-gateway"),
            record_version=VERSION_WRITTEN,
        )
