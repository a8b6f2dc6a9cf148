from __future__ import annotations

from gateway.emulator.rate import SlidingWindow, TokenBucket, new_rate
from tests.emulator.rig import Rig, emulating


async def taken(rig: Rig, calls: int) -> int:
    """How many of so many submissions at once are let through."""
    before = len(rig.emulator.jobs)
    for _ in range(calls):
        await rig.raw("/v1/submitservicejob", BODY)
    return len(rig.emulator.jobs) - before


BODY = {
    "jobName": "a",
    "jobQueue": "training",
    "serviceJobType": "SAGEMAKER_TRAINING",
    "serviceRequestPayload": "{}",
}


async def test_five_submissions_a_second_are_taken_and_the_sixth_is_told_so() -> None:
    async with emulating(submit_tps=5) as rig:
        for _ in range(5):
            await rig.submit()
        refusal = await rig.submission_refused()
        assert (refusal.status, refusal.code) == (429, "TooManyRequestsException")
        assert refusal.message == "Too Many Requests"
        assert rig.last_call.outcome == "throttled"


async def test_a_bucket_gives_back_its_rate_and_no_more_than_its_size() -> None:
    async with emulating(submit_tps=5) as rig:
        assert await taken(rig, 10) == 5
        rig.clock.advance(0.2)
        assert await taken(rig, 3) == 1
        rig.clock.advance(100)
        assert await taken(rig, 10) == 5


async def test_the_size_of_the_bucket_can_be_chosen() -> None:
    async with emulating(submit_tps=5, bucket_size=1) as rig:
        assert await taken(rig, 5) == 1
        rig.clock.advance(1)
        assert await taken(rig, 5) == 1


async def test_a_window_lets_no_second_have_more_than_its_rate() -> None:
    async with emulating(submit_tps=5, limiter="window") as rig:
        assert await taken(rig, 2) == 2
        rig.clock.advance(0.5)
        assert await taken(rig, 10) == 3
        rig.clock.advance(0.499)
        assert await taken(rig, 10) == 0
        rig.clock.advance(0.001)
        assert await taken(rig, 10) == 2
        rig.clock.advance(0.5)
        assert await taken(rig, 10) == 3


async def test_throttled_calls_do_not_count_in_the_window() -> None:
    async with emulating(submit_tps=1, limiter="window") as rig:
        assert await taken(rig, 1) == 1
        rig.clock.advance(0.9)
        assert await taken(rig, 5) == 0
        rig.clock.advance(0.1)
        assert await taken(rig, 1) == 1


async def test_refused_calls_count() -> None:
    async with emulating(submit_tps=1) as rig:
        await rig.raw("/v1/submitservicejob", {})
        assert await taken(rig, 1) == 0


async def test_all_other_calls_share_a_rate_of_their_own() -> None:
    async with emulating(submit_tps=1, read_tps=2) as rig:
        await rig.submit()
        await rig.call("describe_job_queues")
        await rig.call("list_service_jobs", jobQueue="training")
        refusal = await rig.refused("describe_job_queues")
        assert (refusal.status, refusal.code) == (429, "TooManyRequestsException")


async def test_zero_is_no_limit() -> None:
    async with emulating(submit_tps=0) as rig:
        assert await taken(rig, 100) == 100


async def test_the_rate_can_be_changed_while_it_runs() -> None:
    async with emulating(submit_tps=5) as rig:
        rig.emulator.set_rates(submit_tps=1)
        assert await taken(rig, 5) == 1
        assert await rig.admin("PUT", "/rates", {"submitTps": 3, "readTps": 0}) == {"submitTps": 3, "readTps": 0}
        assert await taken(rig, 5) == 3
        rig.emulator.reset()
        assert await rig.admin("GET", "/rates") == {"submitTps": 5, "readTps": 0}


async def test_a_bad_rate_is_refused_and_changes_nothing(rig: Rig) -> None:
    for body in ({}, {"tps": 1}, {"submitTps": -1}, {"submitTps": "5"}, {"submitTps": True}, [5]):
        assert "message" in await rig.admin("PUT", "/rates", body)
    assert await rig.admin("GET", "/rates") == {"submitTps": 0, "readTps": 0}


def test_a_rate_under_one_lets_one_call_through_at_a_time() -> None:
    for rate in (new_rate(tps=0.5, limiter="bucket", bucket_size=None, now=0), SlidingWindow(tps=0.5)):
        assert [rate.take(now) for now in (0, 1.9, 2, 3.9, 4)] == [True, False, True, False, True]


def test_a_bucket_is_not_cheated_by_rounding() -> None:
    bucket = TokenBucket(tps=5, size=1, now=0)
    assert all(bucket.take(call / 5) for call in range(1000))
