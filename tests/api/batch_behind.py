"""A gateway in this process with an emulated Batch behind it, called as Batch's clients call."""

from __future__ import annotations

import json
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from gateway.batch.batch_client import BatchClient, Endpoint, open_batch_client
from gateway.core.upstream import Upstream
from gateway.emulator import Emulator, EmulatorConfig, ManualClock, QueueConfig, QuotaShareConfig
from tests.api.callers import ByHeader
from tests.contract.in_process import FORWARDED, Answer, InProcessGateway, in_process_gateway
from tests.examples import ACCOUNT, REGION, submission, training_job

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from redis.asyncio import Redis

# Reads as many as there are: how few a second go is test_read_budget.py's to hold.
UPSTREAM = Upstream(name="main", region=REGION, account=ACCOUNT, rate=1000.0)
QUEUES = (
    QueueConfig(name="quota", policy="quota", quota_shares=(QuotaShareConfig(name="vision"),)),
    QueueConfig(name="fair", policy="fairshare"),
)
JOB_SECONDS = 100.0
# When a job waits for capacity.
RUNNABLE_SECONDS = 15.0
ARN = f"arn:aws:batch:{REGION}:{ACCOUNT}:"


@dataclass(frozen=True, kw_only=True)
class World:
    """Nobody forwards by itself: `forward` does it once. Batch's time stands still."""

    gateway: InProcessGateway
    emulator: Emulator
    clock: ManualClock
    batch: BatchClient

    async def ask(
        self,
        operation: str,
        members: Mapping[str, Any] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        data: Any = None,
    ) -> Answer:
        """One of Batch's operations, by its name; an answer that the contract has not fails the test."""
        return await self.gateway.call("POST", f"/v1/{operation.lower()}", members, headers=headers, data=data)

    async def submit(self, *, headers: Mapping[str, str] | None = None, **members: Any) -> Answer:
        return await self.ask("SubmitServiceJob", request(**members), headers=headers)

    async def submitted(self, **how: Any) -> str:
        """The submissionId."""
        return (await self.submit(**how)).headers["x-gateway-submission-id"]

    async def forward(self) -> str:
        """What a forwarder does with the first in line; gives Batch's id of the job."""
        leased = await self.gateway.lease()
        answer = await self.batch.submit(leased.submission.request)
        assert answer.job_id
        report = replace(FORWARDED, job_id=answer.job_id, job_arn=answer.job_arn)
        assert (await self.gateway.store.settle(leased, report)).verdict == "settled"
        return answer.job_id

    async def made_by_another(self, **members: Any) -> str:
        """A job that the gateway knows nothing of."""
        answer = await self.batch.submit(json.dumps(request(**members)).encode())
        assert answer.job_id
        return answer.job_id

    @property
    def asked(self) -> list[str]:
        """The operations that reached Batch."""
        return [entry.operation for entry in self.emulator.ledger()]


def request(**members: Any) -> dict[str, Any]:
    """As a client of Batch's sends it: the payload is a string, and there is a token."""
    return submission(**{"serviceRequestPayload": json.dumps(training_job()), **members})


def own_arn(submission_id: str) -> str:
    return f"{ARN}service-job/{submission_id}"


@asynccontextmanager
async def batch_behind(client: Redis, prefix: str, **options: Any) -> AsyncIterator[World]:
    clock = ManualClock(start_epoch_ms=round(time.time() * 1000))
    emulator = Emulator(EmulatorConfig(queues=QUEUES, submit_tps=0, read_tps=0, job_seconds=JOB_SECONDS), clock=clock)
    async with emulator.serving() as url:
        endpoint = Endpoint(region=REGION, url=url, access_key_id="AKIDEXAMPLE", secret_access_key="not checked")
        async with open_batch_client(endpoint, concurrency=1, call_timeout_seconds=5) as batch:
            how = {"upstream": UPSTREAM, "authenticator": ByHeader(), "batch": batch.operations, **options}
            async with in_process_gateway(client, prefix, **how) as gateway:
                yield World(gateway=gateway, emulator=emulator, clock=clock, batch=batch)
