"""The aiohttp application: routes, middleware, and the parts that handlers ask for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from gateway.api import (
    batch_face,
    batches,
    docs,
    edits,
    explanations,
    health,
    keys,
    lists,
    shares,
    submissions,
    upstreams,
)
from gateway.api.middleware import middlewares

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gateway.api.auth import Authenticator
    from gateway.api.codec import Decoder
    from gateway.core.changes import Changes
    from gateway.core.explanation import Explainer
    from gateway.core.intake import Intake
    from gateway.core.job_listing import JobListing
    from gateway.core.lookup import Lookup
    from gateway.core.ports import Log, ShareStore, UpstreamStore
    from gateway.core.queue_reads import QueueReads
    from gateway.core.service_jobs import ServiceJobs
    from gateway.core.share import ShareRules
    from gateway.core.upstream import Routes

# Batch takes 30 KiB; JSON may write a character in six (\u0041), so this is all that could become such a request.
MAX_BODY_BYTES = 256 * 1024
# Requests in hand at once, long polls among them, of some 50 KB each; bodies are small, or must come within a time.
MAX_REQUESTS = 10_000


def make_app(
    *,
    intake: Intake,
    lookup: Lookup,
    changes: Changes,
    explainer: Explainer,
    service_jobs: ServiceJobs,
    job_listing: JobListing,
    queue_reads: QueueReads,
    wait_seconds: float,
    decoder: Decoder,
    authenticator: Authenticator,
    queue_routes: Routes,
    share_rules: ShareRules,
    share_stores: Mapping[str, ShareStore],
    upstream_stores: Mapping[str, UpstreamStore],
    log: Log,
    missing: Callable[[], list[str]],
    draining: asyncio.Event | None = None,
) -> web.Application:
    """`wait_seconds` is how long SubmitServiceJob may hold its answer; `missing` says what readiness lacks now.

    `share_stores` and `upstream_stores` are by tag.
    """
    app = web.Application(middlewares=middlewares(), client_max_size=MAX_BODY_BYTES)
    app[keys.INTAKE] = intake
    app[keys.LOOKUP] = lookup
    app[keys.CHANGES] = changes
    app[keys.EXPLAINER] = explainer
    app[keys.SERVICE_JOBS] = service_jobs
    app[keys.JOB_LISTING] = job_listing
    app[keys.QUEUE_READS] = queue_reads
    app[keys.WAIT_SECONDS] = wait_seconds
    app[keys.DECODER] = decoder
    app[keys.AUTHENTICATOR] = authenticator
    app[keys.ROUTES] = queue_routes
    app[keys.SHARE_RULES] = share_rules
    app[keys.SHARES] = share_stores
    app[keys.UPSTREAMS] = upstream_stores
    app[keys.LOG] = log
    app[keys.MISSING] = missing
    app[keys.DRAINING] = draining or asyncio.Event()
    app[keys.MAX_REQUESTS] = MAX_REQUESTS
    for module in (batch_face, submissions, batches, lists, edits, explanations, shares, upstreams, health, docs):
        app.add_routes(module.routes())
    return app
