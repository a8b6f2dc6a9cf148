"""An emulator with real boto3 in front of it."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import aiohttp
import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from gateway.emulator import Emulator, EmulatorConfig, LedgerEntry, ManualClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

ACCESS_KEY_ID = "AKIDEXAMPLE"
ROLE_ARN = "arn:aws:iam::123456789012:role/trainer"
SUBMISSION = {
    "jobName": "first",
    "jobQueue": "training",
    "serviceJobType": "SAGEMAKER_TRAINING",
    "serviceRequestPayload": json.dumps({"RoleArn": ROLE_ARN, "ResourceConfig": {"InstanceCount": 2}}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rig:
    emulator: Emulator
    clock: ManualClock
    url: str
    http: aiohttp.ClientSession
    client: Any

    async def call(self, operation: str, /, **params: Any) -> dict[str, Any]:
        """By boto3, in a thread: `submit_service_job` and so on."""
        answer: dict[str, Any] = await asyncio.to_thread(getattr(self.client, operation), **params)
        return answer

    async def submit(self, **changes: Any) -> dict[str, Any]:
        return await self.call("submit_service_job", **(SUBMISSION | changes))

    async def describe(self, job_id: str) -> dict[str, Any]:
        return await self.call("describe_service_job", jobId=job_id)

    async def list_named(self, name: str, **params: Any) -> list[str]:
        """The ids of the jobs on one page of the filter JOB_NAME."""
        filters = [{"name": "JOB_NAME", "values": [name]}]
        answer = await self.call("list_service_jobs", jobQueue="training", filters=filters, **params)
        return [job["jobId"] for job in answer["jobSummaryList"]]

    async def refused(self, operation: str, /, **params: Any) -> Refusal:
        """The error answer that boto3 gets."""
        try:
            await self.call(operation, **params)
        except ClientError as error:
            return Refusal.of(error)
        raise AssertionError(f"{operation} was not refused")

    async def submission_refused(self, **changes: Any) -> Refusal:
        return await self.refused("submit_service_job", **(SUBMISSION | changes))

    async def raw(self, path: str, body: bytes | dict[str, Any], method: str = "POST") -> Raw:
        """Without botocore's own checks in the way."""
        data = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
        async with self.http.request(method, self.url + path, data=data) as answer:
            return Raw(status=answer.status, headers=dict(answer.headers), body=await answer.read())

    async def admin(self, method: str, page: str, body: Any = None) -> Any:
        async with self.http.request(method, f"{self.url}/_emulator{page}", json=body) as answer:
            return await answer.json()

    @property
    def last_call(self) -> LedgerEntry:
        return self.emulator.ledger()[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    status: int
    code: str
    message: str
    headers: dict[str, str]

    @classmethod
    def of(cls, error: ClientError) -> Refusal:
        answer = error.response
        return cls(
            status=answer["ResponseMetadata"]["HTTPStatusCode"],
            code=answer["Error"]["Code"],
            message=answer["Error"]["Message"],
            headers=answer["ResponseMetadata"]["HTTPHeaders"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Raw:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@asynccontextmanager
async def emulating(**options: Any) -> AsyncIterator[Rig]:
    """An emulator without a call rate, unless the options give one, on a clock that stands still."""
    clock = ManualClock()
    emulator = Emulator(EmulatorConfig(**({"submit_tps": 0, "read_tps": 0} | options)), clock=clock)
    async with emulator.serving() as url, aiohttp.ClientSession() as http:
        client = await asyncio.to_thread(new_client, url)
        try:
            yield Rig(emulator=emulator, clock=clock, url=url, http=http, client=client)
        finally:
            client.close()


def new_client(url: str, *, total_max_attempts: int = 1, read_timeout: float = 10) -> Any:
    retries = {"total_max_attempts": total_max_attempts, "mode": "standard"}
    config = Config(retries=retries, read_timeout=read_timeout, connect_timeout=5, max_pool_connections=20)
    return _session().client("batch", endpoint_url=url, region_name="us-east-1", config=config)


async def eventually(condition: Callable[[], bool], *, seconds: float = 10) -> None:
    """Lets the loop run until the condition holds."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - conditions of any kind, which set no event
            await asyncio.sleep(0.001)


@cache
def _session() -> boto3.Session:
    return boto3.Session(aws_access_key_id=ACCESS_KEY_ID, aws_secret_access_key="not checked")
