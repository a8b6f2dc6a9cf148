"""The main job with everything real: HTTP, store, aiobotocore, an endpoint that speaks Batch, processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import aiohttp

from gateway.emulator import Emulator, EmulatorConfig
from tests.examples import settings, submission
from tests.processes import gateway_process

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers import StoreServer


async def test_a_submission_becomes_exactly_one_job(any_store: StoreServer, prefix: str, tmp_path: Path) -> None:
    emulator = Emulator(EmulatorConfig())
    async with emulator.serving() as endpoint:
        config = settings(store_url=any_store.url, endpoint_url=endpoint, prefix=prefix)
        with gateway_process(tmp_path, config) as gateway:
            async with aiohttp.ClientSession(gateway.url) as http:
                headers = {"Prefer": "wait=10"}
                async with http.post("/v1/submissions", json=submission(clientToken="t1"), headers=headers) as answer:
                    first = await answer.json()
                    assert (answer.status, first["state"]) == (200, "forwarded")
                async with http.post("/v1/submissions", json=submission(clientToken="t1")) as answer:
                    assert answer.headers["Idempotent-Replayed"] == "true"
                    assert await answer.json() == first
                async with http.get(f"/v1/submissions/{first['submissionId']}") as answer:
                    assert await answer.json() == first
            assert gateway.terminate() == 0
    (job,) = emulator.jobs
    assert job.job_id == first["jobId"]
    assert job.tags == {"gateway:submission-id": first["submissionId"]}
