"""Composition root: open, wire, run, drain, close. Nothing else opens anything."""

from __future__ import annotations

import asyncio
import gc
import time
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Literal, Protocol

from aiohttp import web

from gateway.api.app import make_app
from gateway.api.auth import NoAuthentication
from gateway.api.codec import Decoder
from gateway.batch.batch_client import Endpoint, open_batch_client
from gateway.batch.payload import TrainingJobCheck
from gateway.batch.reconcile import ERRAND_CONNECTIONS
from gateway.core.audit import SelfAudit
from gateway.core.changes import Changes
from gateway.core.errands import Errands
from gateway.core.errors import StoreUnavailableError
from gateway.core.explanation import Explainer
from gateway.core.forwarder import Forwarder
from gateway.core.intake import Intake
from gateway.core.job_search import JobSearch
from gateway.core.journal import Journal
from gateway.core.lookup import Lookup
from gateway.core.outlook import Outlook
from gateway.core.pace import PaceRules
from gateway.core.share import ShareLimits, ShareRule, ShareRules
from gateway.core.status import StatusReport
from gateway.core.upstream import Routes, Upstream
from gateway.store.audit import StoreAudit
from gateway.store.bounds import StoreBounds
from gateway.store.changes import SubmissionChanges
from gateway.store.confirming import Confirmer
from gateway.store.connection import Connections
from gateway.store.durability import Promise, StoreWatch
from gateway.store.errands import ErrandQueue
from gateway.store.hints import Hints
from gateway.store.holdings import UpstreamNote, moved_queues
from gateway.store.index import SubmissionIndex
from gateway.store.keys import Keys, noted_upstreams
from gateway.store.redis_store import RedisStore
from gateway.store.store_url import parse_store_url
from gateway.store.sweep import IndexSweep
from gateway.store.versions import VERSION_WRITTEN

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio import Redis

    from gateway.core.ports import Log
    from gateway.settings import Settings, UpstreamSettings

Role = Literal["api", "forwarder", "all"]

# At the end of the drain: a handler under way waits for the store at most this long.
HANDLER_GRACE_SECONDS = 3.0


class Part(Protocol):
    """A long-lived part: `run` returns when told to stop and drained, and raises when broken."""

    async def run(self, stop: asyncio.Event) -> None: ...


class PromiseBrokenError(Exception):
    """The store cannot keep what the settings promise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsKeys:
    """Fixed credentials, where the usual AWS chain shall not be asked: `gateway dev` has nobody to ask."""

    access_key_id: str
    secret_access_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenUpstream:
    """One account and Region, and what of the store and the log belongs to it alone."""

    upstream: Upstream
    keys: Keys
    pace: PaceRules
    watch: StoreWatch
    store: RedisStore
    index: SubmissionIndex
    changes: SubmissionChanges
    hints: Hints
    journal: Journal


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
            upstreams = [self._upstream(section, connections) for section in self._settings.upstream]
            watches = list(self._watches.values())
            await self._look_first(watches)
            parts: list[Part] = [*watches]
            await self._tell_of_moves(connections, upstreams)
            for section, upstream in zip(self._settings.upstream, upstreams, strict=True):
                parts.append(upstream.hints)
                if self._role != "api":
                    parts += await self._forwarding(opened, section, upstream, forwarding)
            note = connections.to(noted_upstreams(self._settings.store.prefix))
            parts.append(UpstreamNote(note, self._settings.store.prefix, [one.upstream for one in upstreams]))
            port = None
            if self._role != "forwarder":
                rules = _share_rules(self._settings)
                outlooks = {one.upstream.tag: Outlook(one.store, rules) for one in upstreams}
                for outlook in outlooks.values():
                    opened.push_async_callback(outlook.aclose)
                port = await self._listen(opened, self._app(upstreams, outlooks, rules))
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

    def _upstream(self, section: UpstreamSettings, connections: Connections) -> OpenUpstream:
        upstream = _upstream(section)
        keys, bounds = Keys(self._settings.store.prefix, upstream.tag), self._bounds()
        pace = PaceRules(rate=section.rate, burst=section.burst)
        client = connections.to(keys.root)
        watch = self._watch(client)
        watch.mind(keys)
        confirmer = Confirmer(client, keys, lambda: watch.confirmation)
        return OpenUpstream(
            upstream=upstream,
            keys=keys,
            pace=pace,
            watch=watch,
            store=RedisStore(client, keys, pace=pace, bounds=bounds, confirmer=confirmer),
            index=SubmissionIndex(client, keys),
            changes=SubmissionChanges(client, keys, bounds=bounds, confirmer=confirmer),
            hints=Hints(client, keys),
            journal=Journal(section.name, self._log),
        )

    async def _forwarding(
        self, opened: AsyncExitStack, section: UpstreamSettings, upstream: OpenUpstream, connections: Connections
    ) -> list[Part]:
        """What one upstream needs to be forwarded, on the store's connections of its own."""
        forward, bounds, client = self._settings.forward, self._bounds(), connections.to(upstream.keys.root)
        confirmer = Confirmer(client, upstream.keys, lambda: upstream.watch.confirmation)
        batch = await opened.enter_async_context(
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
        queue = ErrandQueue(client, upstream.keys, bounds=bounds)
        forwarder = Forwarder(
            search=JobSearch(batch=batch.errands, owners=queue),
            store=RedisStore(client, upstream.keys, pace=upstream.pace, bounds=bounds, confirmer=confirmer),
            batch=batch,
            wakeup=upstream.hints,
            journal=upstream.journal,
            max_attempts=forward.max_attempts,
            lease_seconds=forward.lease_seconds,
            call_timeout_seconds=forward.call_timeout_seconds,
            concurrency=forward.concurrency,
        )
        errands = Errands(
            store=queue,
            batch=batch.errands,
            journal=upstream.journal,
            concurrency=ERRAND_CONNECTIONS,
            lease_seconds=forward.lease_seconds,
        )
        return [
            forwarder,
            errands,
            StatusReport(upstream=section.name, store=upstream.store, log=self._log),
            IndexSweep(upstream.index, retention_seconds=bounds.retention_seconds),
            SelfAudit(upstream=section.name, store=StoreAudit(client, upstream.keys, bounds=bounds), log=self._log),
        ]

    def _app(self, upstreams: list[OpenUpstream], outlooks: dict[str, Outlook], rules: ShareRules) -> web.Application:
        http = self._settings.http
        routes = Routes([one.upstream for one in upstreams])
        stores = {one.upstream.tag: one.store for one in upstreams}
        intake = Intake(
            routes=routes,
            stores=stores,
            outlooks=outlooks,
            rules=rules,
            duplicates=http.duplicates,
            require_token=http.require_token,
        )
        lookup = Lookup(
            routes=routes,
            stores={one.upstream.tag: one.index for one in upstreams},
            hints={one.upstream.tag: one.hints for one in upstreams},
            draining=self._draining,
        )
        changes = Changes(
            routes=routes,
            lookup=lookup,
            stores={one.upstream.tag: one.changes for one in upstreams},
            journals={one.upstream.tag: one.journal for one in upstreams},
        )
        decoder = Decoder(
            queue_name=lambda queue: routes.resolve(queue)[1],
            payload_check=TrainingJobCheck(),
            policy=http.payload_check,
        )
        return make_app(
            intake=intake,
            lookup=lookup,
            changes=changes,
            explainer=Explainer(
                shares=stores,
                upstreams=stores,
                denials={one.upstream.tag: one.index for one in upstreams},
                outlooks=outlooks,
            ),
            decoder=decoder,
            authenticator=NoAuthentication(),
            queue_routes=routes,
            share_rules=rules,
            share_stores=stores,
            upstream_stores=stores,
            log=self._log,
            draining=self._draining,
            missing=self._missing,
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

    def _bounds(self) -> StoreBounds:
        store, forward = self._settings.store, self._settings.forward
        return StoreBounds(
            max_queued=store.max_queued,
            max_queued_bytes=store.max_queued_bytes,
            max_shares_per_queue=forward.max_shares_per_queue,
            retention_seconds=store.retention_seconds,
            alias_retention_seconds=store.alias_retention_seconds,
            lease_seconds=forward.lease_seconds,
            max_attempts=forward.max_attempts,
            attempt_window_seconds=forward.attempt_window_seconds,
        )

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


def _upstream(section: UpstreamSettings) -> Upstream:
    return Upstream(
        name=section.name,
        region=section.region,
        account=section.account,
        rate=section.rate,
        burst=section.burst,
        submission_tag=section.submission_tag,
        queues=section.queues,
    )


def _share_rules(settings: Settings) -> ShareRules:
    return ShareRules(
        [
            ShareRule(
                queue=one.queue,
                share=one.share,
                limits=ShareLimits(
                    rate=one.rate,
                    burst=one.burst,
                    weight=one.weight,
                    max_queued=one.max_queued,
                    over_limit=one.over_limit,
                ),
            )
            for one in settings.share
        ]
    )
