"""Which parts there are, and who knows whom. Opens nothing and runs nothing: `runtime.py` does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from gateway.api.app import make_app
from gateway.api.auth import NoAuthentication
from gateway.api.codec import Decoder
from gateway.batch.payload import TrainingJobCheck
from gateway.batch.reconcile import ERRAND_CONNECTIONS
from gateway.core.audit import SelfAudit
from gateway.core.changes import Changes
from gateway.core.errands import Errands
from gateway.core.explanation import Explainer
from gateway.core.forwarder import Forwarder
from gateway.core.intake import Intake
from gateway.core.job_listing import JobListing
from gateway.core.job_reads import JobReads
from gateway.core.job_search import JobSearch
from gateway.core.journal import Journal
from gateway.core.lookup import Lookup
from gateway.core.outlook import Outlook
from gateway.core.pace import PaceRules
from gateway.core.queue_check import QueueCheck
from gateway.core.queue_reads import QueueReads
from gateway.core.reads import PacedCalls, Reads
from gateway.core.service_jobs import ServiceJobs
from gateway.core.share import ShareLimits, ShareRule, ShareRules
from gateway.core.status import StatusReport
from gateway.core.upstream import Routes, Upstream
from gateway.store.audit import StoreAudit
from gateway.store.bounds import StoreBounds
from gateway.store.changes import SubmissionChanges
from gateway.store.confirming import Confirmer
from gateway.store.errands import ErrandQueue
from gateway.store.hints import Hints
from gateway.store.index import SubmissionIndex
from gateway.store.keys import Keys
from gateway.store.queue_listing import WaitingRoom
from gateway.store.read_budget import StoreReadBudget
from gateway.store.redis_store import RedisStore
from gateway.store.sweep import IndexSweep

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Sequence

    from aiohttp import web
    from redis.asyncio import Redis

    from gateway.batch.batch_client import BatchClient
    from gateway.core.ports import Log
    from gateway.settings import Settings, UpstreamSettings
    from gateway.store.durability import StoreWatch


class Part(Protocol):
    """A long-lived part: `run` returns when told to stop and drained, and raises when broken."""

    async def run(self, stop: asyncio.Event) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenUpstream:
    """One account and Region, and what of the store and the log belongs to it alone."""

    section: UpstreamSettings
    upstream: Upstream
    client: Redis
    keys: Keys
    pace: PaceRules
    watch: StoreWatch
    store: RedisStore
    index: SubmissionIndex
    changes: SubmissionChanges
    hints: Hints
    journal: Journal


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpFace:
    """The application, and what ends the work that it has begun beside its callers."""

    app: web.Application
    closers: Sequence[Callable[[], Awaitable[None]]]


def open_upstream(
    settings: Settings, section: UpstreamSettings, *, client: Redis, watch: StoreWatch, log: Log
) -> OpenUpstream:
    upstream = _upstream(section)
    keys, bounds = Keys(settings.store.prefix, upstream.tag), store_bounds(settings)
    pace = PaceRules(rate=section.rate, burst=section.burst)
    confirmer = Confirmer(client, keys, lambda: watch.confirmation)
    return OpenUpstream(
        section=section,
        upstream=upstream,
        client=client,
        keys=keys,
        pace=pace,
        watch=watch,
        store=RedisStore(client, keys, pace=pace, bounds=bounds, confirmer=confirmer),
        index=SubmissionIndex(client, keys),
        changes=SubmissionChanges(client, keys, bounds=bounds, confirmer=confirmer),
        hints=Hints(client, keys),
        journal=Journal(section.name, log),
    )


def forwarding_parts(
    settings: Settings, one: OpenUpstream, *, batch: BatchClient, client: Redis, log: Log
) -> list[Part]:
    """What one upstream needs to be forwarded; `client` is a connection to the store that callers do not use."""
    forward, bounds = settings.forward, store_bounds(settings)
    confirmer = Confirmer(client, one.keys, lambda: one.watch.confirmation)
    queue = ErrandQueue(client, one.keys, bounds=bounds)
    forwarder = Forwarder(
        search=JobSearch(batch=batch.errands, owners=queue),
        store=RedisStore(client, one.keys, pace=one.pace, bounds=bounds, confirmer=confirmer),
        batch=batch,
        wakeup=one.hints,
        journal=one.journal,
        max_attempts=forward.max_attempts,
        lease_seconds=forward.lease_seconds,
        call_timeout_seconds=forward.call_timeout_seconds,
        concurrency=forward.concurrency,
    )
    errands = Errands(
        store=queue,
        batch=batch.errands,
        journal=one.journal,
        concurrency=ERRAND_CONNECTIONS,
        lease_seconds=forward.lease_seconds,
    )
    return [
        forwarder,
        errands,
        StatusReport(upstream=one.section.name, store=one.store, log=log),
        IndexSweep(one.index, retention_seconds=bounds.retention_seconds),
        SelfAudit(upstream=one.section.name, store=StoreAudit(client, one.keys, bounds=bounds), log=log),
    ]


def http_face(
    settings: Settings,
    upstreams: Sequence[tuple[OpenUpstream, BatchClient]],
    *,
    log: Log,
    draining: asyncio.Event,
    missing: Callable[[], list[str]],
) -> HttpFace:
    """Both faces of the gateway over HTTP."""
    http, rules = settings.http, _share_rules(settings)
    opened = {one.upstream.tag: one for one, _ in upstreams}
    routes = Routes([one.upstream for one in opened.values()])
    stores = {tag: one.store for tag, one in opened.items()}
    indexes = {tag: one.index for tag, one in opened.items()}
    outlooks = {tag: Outlook(one.store, rules) for tag, one in opened.items()}
    calls = {
        one.upstream.tag: PacedCalls(
            batch.operations, StoreReadBudget(one.client, one.keys, rate=one.section.describe_rate)
        )
        for one, batch in upstreams
    }
    reads = {tag: Reads(paced) for tag, paced in calls.items()}
    job_reads = {tag: JobReads(calls[tag], upstream=one.section.name, log=log) for tag, one in opened.items()}
    queue_checks = {
        tag: QueueCheck(upstream=one.section.name, calls=calls[tag].urgent, log=log) for tag, one in opened.items()
    }
    lookup = Lookup(
        routes=routes, stores=indexes, hints={tag: one.hints for tag, one in opened.items()}, draining=draining
    )
    changes = Changes(
        routes=routes,
        lookup=lookup,
        stores={tag: one.changes for tag, one in opened.items()},
        journals={tag: one.journal for tag, one in opened.items()},
    )
    app = make_app(
        intake=Intake(
            routes=routes,
            stores=stores,
            outlooks=outlooks,
            rules=rules,
            queue_checks=queue_checks,
            duplicates=http.duplicates,
            require_token=http.require_token,
        ),
        lookup=lookup,
        changes=changes,
        explainer=Explainer(shares=stores, upstreams=stores, denials=indexes, outlooks=outlooks),
        service_jobs=ServiceJobs(
            routes=routes, lookup=lookup, changes=changes, reads=job_reads, calls=calls, outlooks=outlooks
        ),
        job_listing=JobListing(
            routes=routes,
            stores=indexes,
            queues={tag: WaitingRoom(one.client, one.keys) for tag, one in opened.items()},
            outlooks=outlooks,
            reads=reads,
            job_reads=job_reads,
        ),
        queue_reads=QueueReads(routes=routes, lookup=lookup, reads=reads),
        wait_seconds=http.wait_seconds,
        decoder=Decoder(
            queue_name=lambda queue: routes.resolve(queue)[1],
            payload_check=TrainingJobCheck(),
            policy=http.payload_check,
        ),
        authenticator=NoAuthentication(),
        queue_routes=routes,
        share_rules=rules,
        share_stores=stores,
        upstream_stores=stores,
        log=log,
        draining=draining,
        missing=missing,
    )
    closers = [part.aclose for parts in (outlooks, reads, job_reads, queue_checks) for part in parts.values()]
    return HttpFace(app=app, closers=closers)


def store_bounds(settings: Settings) -> StoreBounds:
    store, forward = settings.store, settings.forward
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
