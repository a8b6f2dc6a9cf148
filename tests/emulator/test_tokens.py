from __future__ import annotations

from typing import Any

import pytest

from tests.emulator.rig import emulating

DAY = 86_400


async def test_a_repeat_is_refused_and_not_told_the_job() -> None:
    async with emulating() as rig:
        job_id = (await rig.submit(clientToken="t"))["jobId"]
        refusal = await rig.submission_refused(clientToken="t")
        assert (refusal.status, refusal.code) == (400, "ClientException")
        assert job_id not in refusal.message
        assert rig.last_call.outcome == "repeat_rejected"
        assert rig.last_call.job_id is None
        assert len(rig.emulator.jobs) == 1


async def test_a_repeat_can_be_answered_again() -> None:
    async with emulating(repeats="replay") as rig:
        first, second = await rig.submit(clientToken="t"), await rig.submit(clientToken="t")
        assert (first["jobId"], first["jobArn"]) == (second["jobId"], second["jobArn"])
        assert (rig.last_call.outcome, rig.last_call.created) == ("replayed", False)
        assert len(rig.emulator.jobs) == 1


async def test_a_repeat_can_be_another_job() -> None:
    async with emulating(repeats="forgotten") as rig:
        first, second = await rig.submit(clientToken="t"), await rig.submit(clientToken="t", jobName="other")
        assert first["jobId"] != second["jobId"]


@pytest.mark.parametrize("repeats", ["reject", "replay"])
@pytest.mark.parametrize("changes", [{"jobName": "other"}, {"tags": {"a": "b"}}, {"serviceRequestPayload": "{}"}])
async def test_a_token_with_another_request_is_refused(repeats: str, changes: dict[str, Any]) -> None:
    async with emulating(repeats=repeats) as rig:
        await rig.submit(clientToken="t")
        refusal = await rig.submission_refused(clientToken="t", **changes)
        assert refusal.code == "ClientException"
        assert refusal.message.startswith("clientToken:")
        assert rig.last_call.outcome == "repeat_rejected"


@pytest.mark.parametrize("repeats", ["reject", "replay"])
async def test_a_token_is_forgotten_after_its_time(repeats: str) -> None:
    async with emulating(repeats=repeats, token_ttl_seconds=60) as rig:
        await rig.submit(clientToken="t")
        rig.clock.advance(59.9)
        await rig.submit(clientToken="u")
        if repeats == "reject":
            await rig.submission_refused(clientToken="t")
        rig.clock.advance(0.1)
        await rig.submit(clientToken="t")
        assert len(rig.emulator.jobs) == 3


async def test_a_token_lives_a_day_by_default() -> None:
    async with emulating() as rig:
        await rig.submit(clientToken="t")
        rig.clock.advance(DAY - 1)
        await rig.submission_refused(clientToken="t")
        rig.clock.advance(1)
        await rig.submit(clientToken="t")


async def test_a_token_of_a_refused_request_is_not_used_up() -> None:
    async with emulating() as rig:
        await rig.submission_refused(clientToken="t", jobName="a b")
        await rig.submit(clientToken="t")


async def test_requests_without_a_token_are_never_repeats() -> None:
    async with emulating() as rig:
        body = {"jobName": "a", "jobQueue": "q", "serviceJobType": "SAGEMAKER_TRAINING", "serviceRequestPayload": "{}"}
        for _ in range(2):
            assert (await rig.raw("/v1/submitservicejob", body)).status == 200
