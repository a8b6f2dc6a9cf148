"""Calls of Batch through aiobotocore: one client an upstream, one try a call, a deadline on each."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from aiobotocore.config import AioConfig
from aiobotocore.httpsession import AIOHTTPSession
from aiobotocore.session import get_session

from gateway.batch.answers import name_in
from gateway.batch.credentials import ChainCredentials, session_as, session_with
from gateway.batch.failures import answer_of
from gateway.batch.reads import READ_CONNECTIONS, OperationClient
from gateway.batch.reconcile import ERRAND_CONNECTIONS, ErrandClient
from gateway.core.attempt import Answer, AnswerKind

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

# A connection that Batch closes while we send would leave the outcome open; so ours end first.
KEEPALIVE_SECONDS = 10
CONNECT_SECONDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where and as whom Batch is called. Without keys the usual AWS chain finds them; without a URL, AWS's own.

    With a role, these credentials assume it.
    """

    region: str
    url: str | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = None
    role_arn: str | None = None


class _NoRedirects(AIOHTTPSession):  # type: ignore[misc]
    """A redirect would repeat the call outside the pace, and send the payload to somebody else."""

    async def _get_session(self, proxy_url: str | None) -> Any:
        session = await super()._get_session(proxy_url)
        return SimpleNamespace(request=partial(session.request, allow_redirects=False))


class BatchClient:
    """The core's BatchCalls. Never raises for what the network or Batch does.

    `errands` are its ErrandCalls and `operations` its OperationCalls, through the same client: whoever is called, and
    as whom, is one.
    """

    def __init__(self, client: Any, *, call_timeout_seconds: float) -> None:
        self._client = client
        self._call_timeout_seconds = call_timeout_seconds
        self.errands = ErrandClient(client, call_timeout_seconds=call_timeout_seconds)
        self.operations = OperationClient(client, call_timeout_seconds=call_timeout_seconds)

    async def submit(self, request: bytes) -> Answer:
        try:
            async with asyncio.timeout(self._call_timeout_seconds):
                job = await self._client.submit_service_job(**json.loads(request))
            return Answer(kind=AnswerKind.SUBMITTED, job_id=name_in(job, "jobId"), job_arn=name_in(job, "jobArn"))
        except Exception as error:  # noqa: BLE001 - whatever it is, a job may exist: it must be settled, not lost
            return answer_of(error)


@asynccontextmanager
async def open_batch_client(
    endpoint: Endpoint, *, concurrency: int, call_timeout_seconds: float
) -> AsyncIterator[BatchClient]:
    """A client that is ready for so many submissions at a time, and for errands and reads beside them.

    Making it calls nobody and blocks the loop for about 100 ms, with a role 200: do it before serving.
    """
    config = AioConfig(
        region_name=endpoint.region,
        connect_timeout=min(CONNECT_SECONDS, call_timeout_seconds),
        read_timeout=call_timeout_seconds,
        max_pool_connections=concurrency + ERRAND_CONNECTIONS + READ_CONNECTIONS,
        retries={"total_max_attempts": 1},  # the gateway owns the retries
        http_session_cls=_NoRedirects,
        connector_args={"keepalive_timeout": KEEPALIVE_SECONDS},
    )
    session = get_session()
    if endpoint.access_key_id is not None:
        session.set_credentials(endpoint.access_key_id, endpoint.secret_access_key)
    if endpoint.role_arn is not None:
        session = await session_as(endpoint.role_arn, session, config=config, call_timeout_seconds=call_timeout_seconds)
    else:
        session = session_with(ChainCredentials(session, call_timeout_seconds=call_timeout_seconds))
    async with session.create_client("batch", endpoint_url=endpoint.url, config=config) as client:
        yield BatchClient(client, call_timeout_seconds=call_timeout_seconds)
