"""The HTTP face in this process over a real store, with nobody forwarding; every answer is held to the contract."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import aiohttp
import structlog
from aiohttp import web
from yarl import URL

from gateway import events
from gateway.api import keys as app_keys
from gateway.api.app import make_app
from gateway.api.auth import NoAuthentication
from gateway.api.codec import Decoder
from gateway.batch.payload import TrainingJobCheck
from gateway.core.attempt import Answer as BatchAnswer
from gateway.core.attempt import AnswerKind, Leased, PaceSignal, Report, Verdict
from gateway.core.changes import Changes
from gateway.core.explanation import Explainer
from gateway.core.intake import Intake
from gateway.core.job_listing import JobListing
from gateway.core.job_reads import JobReads
from gateway.core.journal import Journal
from gateway.core.lookup import Lookup
from gateway.core.outlook import Outlook
from gateway.core.pace import PaceRules
from gateway.core.queue_reads import QueueReads
from gateway.core.reads import PacedCalls, Reads
from gateway.core.reconcile import CallFailedError
from gateway.core.service_jobs import ServiceJobs
from gateway.core.share import ShareRules
from gateway.core.upstream import Routes, Upstream
from gateway.store.bounds import StoreBounds
from gateway.store.changes import SubmissionChanges
from gateway.store.confirming import Confirmer
from gateway.store.hints import Hints
from gateway.store.index import SubmissionIndex
from gateway.store.keys import Keys
from gateway.store.queue_listing import WaitingRoom
from gateway.store.read_budget import StoreReadBudget
from gateway.store.redis_store import RedisStore
from tests.contract.document import contract
from tests.examples import ACCOUNT, REGION, submission

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from multidict import CIMultiDictProxy
    from redis.asyncio import Redis

    from gateway.api.auth import Authenticator
    from gateway.api.codec import PayloadPolicy
    from gateway.core.intake import Duplicates
    from gateway.core.queue_check import QueueCheck
    from gateway.core.read_ports import OperationCalls
    from gateway.core.share import ShareRule

FORWARDED = Report(
    verdict=Verdict.FORWARDED,
    outcome="submitted",
    signal=PaceSignal.ANSWERED,
    job_id="3a1b6c1e-6a0e-4d0a-9a54-6d1d1b4f5a10",
    job_arn=f"arn:aws:batch:{REGION}:{ACCOUNT}:service-job/3a1b6c1e-6a0e-4d0a-9a54-6d1d1b4f5a10",
)
UPSTREAM = Upstream(name="main", region=REGION, account=ACCOUNT)


class NobodyThere:
    """Batch, as one meets it without a network."""

    async def call(self, operation: str, params: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        raise CallFailedError(BatchAnswer(kind=AnswerKind.NOT_SENT, code="EndpointConnectionError"))


QUICK = PaceRules(rate=1000.0, burst=100)


@dataclass(frozen=True, kw_only=True)
class Answer:
    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def lasting(self) -> Any:
        """The JSON without its forecast, which moves with the time."""
        return {name: value for name, value in self.json.items() if name != "estimatedForwardAt"}

    @property
    def slug(self) -> str:
        return str(self.json["type"]).removeprefix("/problems/")

    @property
    def kind(self) -> tuple[int, str]:
        return self.status, self.slug

    @property
    def pointers(self) -> list[str]:
        return [one["pointer"] for one in self.json["errors"]]


@dataclass(kw_only=True)
class InProcessGateway:
    http: aiohttp.ClientSession
    port: int
    store: RedisStore
    confirmer: Confirmer
    hints: Hints
    draining: asyncio.Event
    missing: list[str] = field(default_factory=list)
    log: io.StringIO

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.getvalue().splitlines()]

    def lines_of(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["event"] == event]

    async def call(
        self, method: str, path: str, body: Any = None, *, headers: Mapping[str, str] | None = None, data: Any = None
    ) -> Answer:
        """One request; `body` is sent as JSON, `data` as it is. An answer that the contract has not fails the test."""
        url = URL(path, encoded=True)
        sent = {"json": body} if body is not None else {"data": data}
        async with self.http.request(method, url, headers=headers, **sent) as response:
            answer = Answer(status=response.status, headers=response.headers, body=await response.read())
        contract().check(method, path, answer.status, answer.headers, answer.body)
        return answer

    async def raw(self, request: bytes) -> bytes:
        """What the server answers to these bytes until it closes the connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(request)
        try:
            return await reader.read()
        finally:
            writer.close()
            await writer.wait_closed()

    async def post(self, body: Any = None, **how: Any) -> Answer:
        return await self.call("POST", "/v1/submissions", submission() if body is None else body, **how)

    async def post_text(self, text: str | bytes, content_type: str = "application/json", **headers: str) -> Answer:
        """A body byte by byte."""
        data = text.encode() if isinstance(text, str) else text
        return await self.call("POST", "/v1/submissions", data=data, headers={"Content-Type": content_type, **headers})

    async def get(self, path: str, **how: Any) -> Answer:
        return await self.call("GET", path, **how)

    async def show(self, submission_id: str, **how: Any) -> Answer:
        return await self.get(f"/v1/submissions/{submission_id}", **how)

    async def lease(self) -> Leased:
        leased = await self.store.lease()
        assert isinstance(leased, Leased)
        return leased

    async def settle(self, report: Report = FORWARDED) -> None:
        """What a forwarder does with the first in line."""
        assert (await self.store.settle(await self.lease(), report)).verdict == "settled"

    def drain(self) -> None:
        self.draining.set()
        self.hints.release()


@cache
def payload_check() -> TrainingJobCheck:
    """Making one takes 200 ms."""
    return TrainingJobCheck()


@asynccontextmanager
async def in_process_gateway(
    client: Redis,
    prefix: str,
    *,
    upstream: Upstream = UPSTREAM,
    rules: tuple[ShareRule, ...] = (),
    bounds: StoreBounds | None = None,
    pace: PaceRules = QUICK,
    duplicates: Duplicates = "replay",
    require_token: bool = False,
    payload_policy: PayloadPolicy = "strict",
    authenticator: Authenticator | None = None,
    max_requests: int | None = None,
    batch: OperationCalls | None = None,
    wait_seconds: float = 0.0,
    queue_check: QueueCheck | None = None,
) -> AsyncIterator[InProcessGateway]:
    keys, bounds = Keys(prefix, upstream.tag), bounds or StoreBounds()
    confirmer = Confirmer(client, keys, lambda: None)
    store = RedisStore(client, keys, pace=pace, bounds=bounds, confirmer=confirmer)
    hints = Hints(client, keys)
    routes = Routes([upstream])
    draining = asyncio.Event()
    missing: list[str] = []
    stream = io.StringIO()
    handlers = set(logging.getLogger().handlers)
    log, share_rules = events.configure(stream), ShareRules(rules)
    index, outlooks = SubmissionIndex(client, keys), {upstream.tag: Outlook(store, share_rules)}
    lookup = Lookup(
        routes=routes,
        stores={upstream.tag: index},
        hints={upstream.tag: hints},
        draining=draining,
    )
    changes = Changes(
        routes=routes,
        lookup=lookup,
        stores={upstream.tag: SubmissionChanges(client, keys, bounds=bounds, confirmer=confirmer)},
        journals={upstream.tag: Journal(upstream.name, log)},
    )
    calls = PacedCalls(batch or NobodyThere(), StoreReadBudget(client, keys, rate=upstream.rate))
    reads, job_reads = Reads(calls), JobReads(calls, upstream=upstream.name, log=log)
    app = make_app(
        intake=Intake(
            routes=routes,
            stores={upstream.tag: store},
            outlooks=outlooks,
            rules=share_rules,
            queue_checks={upstream.tag: queue_check} if queue_check else {},
            duplicates=duplicates,
            require_token=require_token,
        ),
        lookup=lookup,
        explainer=Explainer(
            shares={upstream.tag: store},
            upstreams={upstream.tag: store},
            denials={upstream.tag: index},
            outlooks=outlooks,
        ),
        changes=changes,
        service_jobs=ServiceJobs(
            routes=routes,
            lookup=lookup,
            changes=changes,
            reads={upstream.tag: job_reads},
            calls={upstream.tag: calls},
            outlooks=outlooks,
        ),
        job_listing=JobListing(
            routes=routes,
            stores={upstream.tag: index},
            queues={upstream.tag: WaitingRoom(client, keys)},
            outlooks=outlooks,
            reads={upstream.tag: reads},
            job_reads={upstream.tag: job_reads},
        ),
        queue_reads=QueueReads(routes=routes, lookup=lookup, reads={upstream.tag: reads}),
        wait_seconds=wait_seconds,
        decoder=Decoder(
            queue_name=lambda queue: routes.resolve(queue)[1], payload_check=payload_check(), policy=payload_policy
        ),
        authenticator=authenticator or NoAuthentication(),
        queue_routes=routes,
        share_rules=share_rules,
        share_stores={upstream.tag: store},
        upstream_stores={upstream.tag: store},
        log=log,
        missing=lambda: missing,
    )
    if max_requests is not None:
        app[app_keys.MAX_REQUESTS] = max_requests
    stop = asyncio.Event()
    listening = asyncio.create_task(hints.run(stop))
    try:
        async with _serving(app) as port, _calling(port) as http:
            yield InProcessGateway(
                http=http,
                port=port,
                store=store,
                confirmer=confirmer,
                hints=hints,
                draining=draining,
                missing=missing,
                log=stream,
            )
    finally:
        await reads.aclose()
        await job_reads.aclose()
        stop.set()
        listening.cancel()  # Python 3.11's wait_for may swallow this
        with suppress(asyncio.CancelledError):
            await listening
        structlog.reset_defaults()
        for handler in set(logging.getLogger().handlers) - handlers:
            logging.getLogger().removeHandler(handler)


def _calling(port: int) -> aiohttp.ClientSession:
    """Each call on a connection of its own: the server closes one whose body it has not read."""
    return aiohttp.ClientSession(f"http://127.0.0.1:{port}", connector=aiohttp.TCPConnector(force_close=True))


@asynccontextmanager
async def _serving(app: web.Application) -> AsyncIterator[int]:
    """As runtime.py serves it: handlers outlive their callers."""
    runner = web.AppRunner(app, access_log=None, handler_cancellation=False, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
