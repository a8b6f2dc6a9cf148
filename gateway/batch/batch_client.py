"""Calls of SubmitServiceJob through aiobotocore: one client an upstream, one try a call, a deadline on each."""

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

from gateway.batch.failures import answer_of
from gateway.core.attempt import Answer, AnswerKind

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

# A connection that Batch closes while we send would leave the outcome open; so ours end first.
KEEPALIVE_SECONDS = 10
CONNECT_SECONDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where and as whom Batch is called. Without keys the usual AWS chain finds them; without a URL, AWS's own."""

    region: str
    url: str | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = None


class _NoRedirects(AIOHTTPSession):  # type: ignore[misc]
    """A redirect would repeat the call outside the pace, and send the payload to somebody else."""

    async def _get_session(self, proxy_url: str | None) -> Any:
        session = await super()._get_session(proxy_url)
        return SimpleNamespace(request=partial(session.request, allow_redirects=False))


# Batch's ids are UUIDs, its ARNs some hundred characters long.
MAX_NAME_CHARACTERS = 512


def _is_name(value: object) -> bool:
    """Whether this can be an id or ARN: what the wire says is not what the model says."""
    return isinstance(value, str) and value.isascii() and value.isprintable() and 0 < len(value) <= MAX_NAME_CHARACTERS


class BatchClient:
    """The core's BatchCalls. Never raises for what the network or Batch does."""

    def __init__(self, client: Any, *, call_timeout_seconds: float) -> None:
        self._client = client
        self._call_timeout_seconds = call_timeout_seconds

    async def submit(self, request: bytes) -> Answer:
        try:
            async with asyncio.timeout(self._call_timeout_seconds):
                response = await self._client.submit_service_job(**json.loads(request))
        except Exception as error:  # noqa: BLE001 - whatever it is, a job may exist: it must be settled, not lost
            return answer_of(error)
        job_id, job_arn = response.get("jobId"), response.get("jobArn")
        if not (_is_name(job_id) and _is_name(job_arn)):
            return Answer(kind=AnswerKind.UNCLEAR, code="NoJobId", message="Batch answered 200 without a job's id.")
        return Answer(kind=AnswerKind.SUBMITTED, job_id=job_id, job_arn=job_arn)


@asynccontextmanager
async def open_batch_client(
    endpoint: Endpoint, *, concurrency: int, call_timeout_seconds: float
) -> AsyncIterator[BatchClient]:
    """A client that is ready to call; making it blocks the loop for about 100 ms, so do it before serving."""
    config = AioConfig(
        connect_timeout=min(CONNECT_SECONDS, call_timeout_seconds),
        read_timeout=call_timeout_seconds,
        max_pool_connections=concurrency,
        retries={"total_max_attempts": 1},  # the gateway owns the retries
        http_session_cls=_NoRedirects,
        connector_args={"keepalive_timeout": KEEPALIVE_SECONDS},
    )
    async with get_session().create_client(
        "batch",
        region_name=endpoint.region,
        endpoint_url=endpoint.url,
        aws_access_key_id=endpoint.access_key_id,
        aws_secret_access_key=endpoint.secret_access_key,
        config=config,
    ) as client:
        yield BatchClient(client, call_timeout_seconds=call_timeout_seconds)
