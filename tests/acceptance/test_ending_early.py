"""Cancel, deadline and priority against the emulator: before, during and after a call, with Batch asked for real."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from gateway.emulator import Emulator, EmulatorConfig, Fault
from tests.conftest import eventually
from tests.examples import settings, submission
from tests.processes import GatewayProcess, gateway_process, submits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.servers import StoreServer


@dataclass
class Scene:
    """A gateway as a process, an emulator in this one, and a caller."""

    emulator: Emulator
    gateway: GatewayProcess
    http: aiohttp.ClientSession

    async def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        async with self.http.request(method, path, json=body, headers=headers) as answer:
            return answer.status, await answer.json()

    async def post(self, **headers: str) -> str:
        status, body = await self.call("POST", "/v1/submissions", submission(), **headers)
        assert status in (200, 202), body
        return str(body["submissionId"])

    async def show(self, one: str) -> dict[str, Any]:
        _, body = await self.call("GET", f"/v1/submissions/{one}")
        return dict(body)

    async def cancel(self, one: str, reason: str = "wrong data") -> tuple[int, Any]:
        return await self.call("POST", f"/v1/submissions/{one}/cancel", {"reason": reason})

    async def forwarding(self, *, on: bool) -> None:
        status, _ = await self.call("PATCH", "/v1/upstreams/main", {"forwarding": on})
        assert status == 200

    async def until(self, one: str, **members: Any) -> dict[str, Any]:
        """The submission once it has these members."""
        found: dict[str, Any] = {}

        async def there() -> bool:
            found.update(await self.show(one))
            return all(found.get(name) == value for name, value in members.items())

        await eventually(there, 20)
        return found

    async def until_called(self, number: int = 1) -> None:
        await eventually(lambda: asyncio.sleep(0, len(submits(self.emulator)) >= number))

    async def line(self, event: str, **fields: Any) -> dict[str, Any]:
        """The first line of the log with these fields; this loop, which Batch lives in, goes on meanwhile."""
        wanted = {"event": event, **fields}
        return await asyncio.to_thread(self.gateway.find, lambda line: wanted.items() <= line.items())

    async def until_terminated(self) -> str | None:
        (job,) = self.emulator.jobs
        await eventually(lambda: asyncio.sleep(0, job.terminated_after is not None), 20)
        return job.termination_reason


@pytest.fixture
async def scene(valkey: StoreServer, prefix: str, tmp_path: Path) -> AsyncIterator[Scene]:
    async with a_scene(valkey, prefix, tmp_path) as scene:
        yield scene


@asynccontextmanager
async def a_scene(
    valkey: StoreServer, prefix: str, tmp_path: Path, emulator: Emulator | None = None
) -> AsyncIterator[Scene]:
    emulator = emulator or Emulator(EmulatorConfig(submit_tps=0, repeats="reject", job_seconds=3600))
    async with emulator.serving() as endpoint:
        config = settings(store_url=valkey.url, endpoint_url=endpoint, prefix=prefix, upstream="rate = 200.0")
        with gateway_process(tmp_path, config) as gateway:
            async with aiohttp.ClientSession(gateway.url) as http:
                yield Scene(emulator=emulator, gateway=gateway, http=http)


def by(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


# ---- Before a call


async def test_what_is_canceled_in_line_never_reaches_batch(scene: Scene) -> None:
    await scene.forwarding(on=False)
    one, other = await scene.post(), await scene.post()
    assert (await scene.cancel(one))[0] == 200
    await scene.forwarding(on=True)
    await scene.until(other, state="forwarded")
    assert (await scene.show(one))["state"] == "canceled"
    assert len(scene.emulator.jobs) == 1


async def test_what_is_still_in_line_at_its_deadline_expires(scene: Scene) -> None:
    await scene.forwarding(on=False)
    one = await scene.post(Deadline=by(0.5))
    await scene.until(one, state="expired", cancelRequested=False)
    line = await scene.line("submission_settled")
    assert (line["state"], line["submission_id"]) == ("expired", one)
    assert not submits(scene.emulator)


# ---- During a call


async def test_a_job_that_is_just_being_made_when_it_is_canceled_is_terminated(scene: Scene) -> None:
    scene.emulator.set_faults(Fault(kind="slow", times=1, seconds=0.7))
    one = await scene.post()
    await scene.until(one, position=0)
    status, body = await scene.cancel(one, "changed our minds")
    assert (status, body["state"], body["cancelRequested"]) == (202, "queued", True)
    await scene.until(one, state="forwarded", cancelRequested=True)
    assert await scene.until_terminated() == "changed our minds"


async def test_a_throttled_call_whose_submission_was_canceled_meanwhile_is_the_last(scene: Scene) -> None:
    scene.emulator.set_faults(Fault(kind="slow", times=1, seconds=0.7), Fault(kind="throttle", times=1))
    one = await scene.post()
    await scene.until(one, position=0)
    assert (await scene.cancel(one))[0] == 202
    await scene.until(one, state="canceled")
    assert not scene.emulator.jobs


async def test_a_job_that_is_just_being_made_at_its_deadline_is_terminated(scene: Scene) -> None:
    scene.emulator.set_faults(Fault(kind="slow", times=1, seconds=1.5))
    one = await scene.post(Deadline=by(0.7))
    await scene.until(one, state="forwarded", cancelRequested=True)
    assert await scene.until_terminated()


# ---- After a call whose answer was lost


@pytest.mark.parametrize("canceled", [True, False])
async def test_a_job_whose_answer_was_lost_is_found_by_its_name_and_tag(
    valkey: StoreServer, prefix: str, tmp_path: Path, *, canceled: bool
) -> None:
    async with a_scene(valkey, prefix, tmp_path) as scene:
        other = await scene.post()  # of the same name: only the tag tells them apart
        await scene.until(other, state="forwarded")
        scene.emulator.set_faults(Fault(kind="lost_answer", times=1))
        one = await scene.post()
        await scene.until_called(2)
        if canceled:
            assert (await scene.cancel(one))[0] == 202
        found = await scene.until(one, state="forwarded", cancelRequested=canceled)
        jobs = {job.tags["gateway:submission-id"]: job for job in scene.emulator.jobs}
        assert len(scene.emulator.jobs) == len(jobs) == 2
        assert found["jobId"] == jobs[one].job_id
        if canceled:  # not tried again, but looked for; else a look goes before the next try
            errand = await scene.line("errand")
            assert (errand["kind"], errand["submission_id"], errand["verdict"]) == ("look", one, "settled")
            await eventually(lambda: asyncio.sleep(0, jobs[one].terminated_after is not None), 20)
        assert jobs[other].terminated_after is None


# ---- After the job was made


async def test_a_job_is_terminated_however_often_batch_fails_to(scene: Scene) -> None:
    scene.emulator.set_faults(
        Fault(kind="throttle", times=1, operation="TerminateServiceJob"),
        Fault(kind="error_500", times=1, operation="TerminateServiceJob"),
    )
    one = await scene.post()
    await scene.until(one, state="forwarded")
    assert (await scene.cancel(one, "too dear"))[0] == 202
    assert await scene.until_terminated() == "too dear"
    await scene.line("errand", outcome="done")
    status, body = await scene.cancel(one)
    assert (status, body["state"], body["cancelRequested"]) == (200, "forwarded", True)
    assert body["terminatedAt"] >= body["forwardedAt"]


async def test_a_termination_is_owed_over_a_kill(valkey: StoreServer, prefix: str, tmp_path: Path) -> None:
    emulator = Emulator(EmulatorConfig(submit_tps=0, job_seconds=3600))
    async with a_scene(valkey, prefix, tmp_path / "one", emulator) as scene:
        one = await scene.post()
        await scene.until(one, state="forwarded")
        emulator.set_faults(Fault(kind="error_500", operation="TerminateServiceJob"))
        assert (await scene.cancel(one))[0] == 202
        await scene.line("errand", outcome="later")
        scene.gateway.kill()
    emulator.set_faults()
    async with a_scene(valkey, prefix, tmp_path / "two", emulator) as scene:
        assert await scene.until_terminated() == "wrong data"


async def test_batch_is_told_of_a_new_priority_before_and_after_it_has_the_job(scene: Scene) -> None:
    await scene.forwarding(on=False)
    one = await scene.post()
    path = f"/v1/submissions/{one}"
    assert (await scene.call("PATCH", path, {"schedulingPriority": 7}))[0] == 200
    await scene.forwarding(on=True)
    await scene.until(one, state="forwarded", schedulingPriority=7)
    (job,) = scene.emulator.jobs
    assert "schedulingPriority" not in job.request, "the request is as it was accepted"
    await eventually(lambda: asyncio.sleep(0, job.priority == 7))
    assert (await scene.call("PATCH", path, {"schedulingPriority": 9}))[0] == 202
    await eventually(lambda: asyncio.sleep(0, job.priority == 9))
