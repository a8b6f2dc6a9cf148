"""What the faces share of the application, and what a request carries along, under typed keys."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from aiohttp import web

from gateway.api.auth import Authenticator
from gateway.api.codec import Decoder
from gateway.core.caller import Caller
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

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(slots=True, kw_only=True)
class Told:
    """What a request's canonical line says beyond its HTTP: filled in on the way."""

    KEY: ClassVar[web.RequestKey[Told]]

    principal: str | None = None
    problem: str | None = None
    submission_id: str | None = None
    share: str | None = None
    replayed: bool | None = None
    items: int | None = None
    accepted: int | None = None


Told.KEY = web.RequestKey("told", Told)

INTAKE = web.AppKey("intake", Intake)
LOOKUP = web.AppKey("lookup", Lookup)
CHANGES = web.AppKey("changes", Changes)
EXPLAINER = web.AppKey("explainer", Explainer)
DECODER = web.AppKey("decoder", Decoder)
AUTHENTICATOR = web.AppKey("authenticator", Authenticator)
ROUTES = web.AppKey("routes", Routes)
SHARE_RULES = web.AppKey("share_rules", ShareRules)
SHARES: web.AppKey[Mapping[str, ShareStore]] = web.AppKey("shares")
UPSTREAMS: web.AppKey[Mapping[str, UpstreamStore]] = web.AppKey("upstreams")
SERVICE_JOBS = web.AppKey("service_jobs", ServiceJobs)
JOB_LISTING = web.AppKey("job_listing", JobListing)
QUEUE_READS = web.AppKey("queue_reads", QueueReads)
WAIT_SECONDS = web.AppKey("wait_seconds", float)
LOG = web.AppKey("log", Log)
MISSING: web.AppKey[Callable[[], list[str]]] = web.AppKey("missing")
DRAINING = web.AppKey("draining", asyncio.Event)
MAX_REQUESTS = web.AppKey("max_requests", int)

CALLER = web.RequestKey("caller", Caller)
REQUEST_ID = web.RequestKey("request_id", str)
TRACEPARENT = web.RequestKey("traceparent", str)
