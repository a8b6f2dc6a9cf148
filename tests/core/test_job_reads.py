"""How jobs stand at Batch: few are described one by one, many are refreshed by pages of a list."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from gateway.core import job_reads as module
from gateway.core.attempt import Answer, AnswerKind
from gateway.core.errors import StoreUnavailableError
from gateway.core.job_reads import JobReads
from gateway.core.reads import PacedCalls
from gateway.core.reconcile import CallFailedError
from tests.core.fakes import ListLog, ScriptedBudget, ScriptedOperations
from tests.core.test_reads import NOT_SENT, REFUSED, Clock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.core.reads import Aged

QUEUE = "arn:aws:batch:us-east-1:123456789012:job-queue/training"
DESCRIBE, LIST = "DescribeServiceJob", "ListServiceJobs"
DENIED = Answer(kind=AnswerKind.DENIED, code="AccessDeniedException")
THROTTLED = Answer(kind=AnswerKind.THROTTLED, code="TooManyRequestsException", wait_seconds=2)
PAYLOAD = {"serviceRequestPayload": "{}", "tags": {"team": "vision"}, "attempts": []}


class Batch(ScriptedOperations):
    """Jobs `job-0`, `job-1`, ... created a second apart, each with a status; the newest is listed first."""

    def __init__(self, number: int = 60) -> None:
        super().__init__(self._answer)
        self.statuses = {f"job-{one}": "RUNNING" for one in range(number)}
        self.trouble: dict[str, Answer] = {}

    def summary(self, job_id: str) -> dict[str, Any]:
        return {"jobId": job_id, "jobName": "n", "createdAt": created_ms(job_id), "status": self.statuses[job_id]}

    def _answer(self, operation: str, params: dict[str, Any]) -> dict[str, Any]:
        if operation in self.trouble:
            raise CallFailedError(self.trouble[operation])
        if operation == DESCRIBE:
            return {**self.summary(params["jobId"]), "jobQueue": QUEUE, "startedAt": 1, **PAYLOAD}
        (before,) = params["filters"][0]["values"]
        start = int(params.get("nextToken", "0"))
        fitting = [one for one in reversed(self.statuses) if created_ms(one) < int(before)]
        page = fitting[start : start + params["maxResults"]]
        more = {"nextToken": str(start + len(page))} if start + len(page) < len(fitting) else {}
        return {"jobSummaryList": [self.summary(one) for one in page], **more}


def created_ms(job_id: str) -> int:
    return 1_000_000 + 1000 * int(job_id.removeprefix("job-"))


@asynccontextmanager
async def reading(
    batch: Batch, budget: ScriptedBudget, clock: Clock, log: ListLog | None = None
) -> AsyncIterator[JobReads]:
    reads = JobReads(PacedCalls(batch, budget), upstream="main", log=log or ListLog(), clock=clock)
    try:
        yield reads
    finally:
        await reads.aclose()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(module, "LONG_PATIENCE_SECONDS", 0.2)


async def described(reads: JobReads, job_id: str, **how: Any) -> Aged | None:
    """As one asks for a submission's job, of which queue and time are known."""
    return await reads.describe(job_id, **{"queue_arn": QUEUE, "created_ms": created_ms(job_id), **how})


async def status(reads: JobReads, job_id: str) -> str:
    found = await described(reads, job_id)
    assert found is not None
    return str(found.answer["status"])


async def describe_all(reads: JobReads, job_ids: list[str], **about: Any) -> list[Aged | None]:
    return list(await asyncio.gather(*(described(reads, one, **about) for one in job_ids)))


async def settled(reads: JobReads) -> None:
    """Until nothing is under way."""
    async with asyncio.timeout(5):
        while reads._tasks or (reads._pump and not reads._pump.done()):  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_who_asks_for_one_job_at_once_shares_a_call_and_its_answer_for_a_second() -> None:
    batch, clock = Batch(), Clock()
    async with reading(batch, ScriptedBudget(), clock) as reads:
        found = await describe_all(reads, ["job-1"] * 20)
        assert {one.answer["jobId"] for one in found if one} == {"job-1"}
        clock.now += 0.9
        await described(reads, "job-1")
        assert batch.calls == [(DESCRIBE, {"jobId": "job-1"})]
        clock.now += 0.2
        await described(reads, "job-1")
    assert len(batch.calls) == 2


async def test_a_job_that_has_ended_is_kept_for_an_hour() -> None:
    batch, clock = Batch(), Clock()
    batch.statuses["job-1"] = "SUCCEEDED"
    async with reading(batch, ScriptedBudget(), clock) as reads:
        await described(reads, "job-1")
        clock.now += 3599
        assert await status(reads, "job-1") == "SUCCEEDED"
        assert len(batch.calls) == 1
        clock.now += 2
        await described(reads, "job-1")
    assert len(batch.calls) == 2


async def test_many_that_are_known_are_refreshed_by_one_page_and_keep_what_a_list_has_not() -> None:
    batch, clock = Batch(), Clock()
    jobs = list(batch.statuses)[:50]
    async with reading(batch, ScriptedBudget(), clock) as reads:
        for one in jobs:
            await described(reads, one)
        batch.calls.clear()
        clock.now += 1.5
        batch.statuses["job-7"] = "SUCCEEDED"
        found = await describe_all(reads, jobs)
        assert [operation for operation, _ in batch.calls if operation == LIST] == [LIST]
        assert {one.answer["jobId"]: one.answer["status"] for one in found if one}["job-7"] == "SUCCEEDED"
        assert all(one and one.seconds == 0 and one.answer["tags"] == {"team": "vision"} for one in found)
        await settled(reads)
    assert batch.of(DESCRIBE) == [{"jobId": "job-7"}]  # whose attempts have changed, which a list does not show


async def test_jobs_that_were_never_described_are_found_in_a_list_too_and_described_when_there_is_room() -> None:
    batch, clock, budget = Batch(), Clock(), ScriptedBudget(1)
    jobs = list(batch.statuses)[:30]
    async with reading(batch, budget, clock) as reads:
        found = await describe_all(reads, jobs, queue_arn=QUEUE, created_ms=created_ms("job-59"))
        assert [one.answer["status"] if one else None for one in found] == ["RUNNING"] * 30
        assert all(one and one.answer["jobQueue"] == QUEUE and "startedAt" in one.answer for one in found)
        assert len(batch.calls) == 1
        budget.left = 30
        await settled(reads)
        assert len(batch.of(DESCRIBE)) == 30
        again = await describe_all(reads, jobs)
    assert all(one and one.answer["serviceRequestPayload"] == "{}" for one in again)


async def test_what_a_list_does_not_show_soon_is_described() -> None:
    batch, clock = Batch(5000), Clock()
    near, far = [f"job-{one}" for one in range(4990, 5000)], ["job-1", "job-2"]
    async with reading(batch, ScriptedBudget(), clock) as reads:
        await describe_all(reads, [*near, *far])
        await settled(reads)
        batch.calls.clear()
        clock.now += 2
        found = await describe_all(reads, [*near, *far])
        assert all(one and one.seconds == 0 for one in found)
        assert len(batch.of(LIST)) == 1
        assert {one["jobId"] for one in batch.of(DESCRIBE)} == set(far)


async def test_a_page_refreshes_all_jobs_on_it_that_were_asked_for_lately() -> None:
    batch, clock = Batch(), Clock()
    jobs = list(batch.statuses)
    async with reading(batch, ScriptedBudget(), clock) as reads:
        for one in jobs:
            await described(reads, one)
        batch.calls.clear()
        clock.now += 1.5
        await describe_all(reads, jobs[-5:])
        clock.now += 0.5
        await describe_all(reads, jobs)
    assert [operation for operation, _ in batch.calls] == [LIST]


async def test_an_answer_that_comes_late_takes_no_job_back_from_where_it_is() -> None:
    batch, clock = Batch(), Clock()
    slow = batch.answer
    hold, held = asyncio.Event(), asyncio.Event()

    async def call(operation: str, params: dict[str, Any]) -> dict[str, Any]:
        answer = slow(operation, params)
        batch.calls.append((operation, params))
        if operation == LIST:
            held.set()
            await hold.wait()
        return answer

    batch.call = call  # type: ignore[method-assign,assignment]
    jobs = list(batch.statuses)[:6]
    async with reading(batch, ScriptedBudget(), clock) as reads:
        listed = asyncio.create_task(describe_all(reads, jobs, queue_arn=QUEUE, created_ms=created_ms("job-59")))
        await held.wait()
        batch.statuses["job-1"] = "SUCCEEDED"
        clock.now += 0.1
        reads._want(reads._jobs["job-1"])
        reads._jobs["job-1"].waiting += 1
        while not reads._jobs["job-1"].whole:  # noqa: ASYNC110
            await asyncio.sleep(0)
        hold.set()
        found = {one.answer["jobId"]: one.answer["status"] for one in await listed if one}
    assert (found["job-1"], found["job-2"]) == ("SUCCEEDED", "RUNNING")


async def test_what_has_ended_has_ended_whatever_a_list_says_later() -> None:
    batch, clock = Batch(), Clock()
    batch.statuses["job-1"] = "FAILED"
    async with reading(batch, ScriptedBudget(), clock) as reads:
        await described(reads, "job-1")
        batch.statuses["job-1"] = "RUNNING"
        clock.now += 2
        await describe_all(reads, list(batch.statuses)[:20], queue_arn=QUEUE, created_ms=created_ms("job-59"))
        assert await status(reads, "job-1") == "FAILED"


async def test_a_list_is_walked_on_while_it_shows_more_than_describing_would() -> None:
    batch, clock = Batch(300), Clock()
    jobs = list(batch.statuses)
    async with reading(batch, ScriptedBudget(), clock) as reads:
        found = await describe_all(reads, jobs, queue_arn=QUEUE, created_ms=created_ms("job-299"))
        assert all(one and one.answer["status"] == "RUNNING" for one in found)
        assert len(batch.of(LIST)) == 3


async def test_where_the_budget_is_used_up_the_old_answer_is_given_with_its_age() -> None:
    batch, clock, budget = Batch(), Clock(), ScriptedBudget(1)
    async with reading(batch, budget, clock) as reads:
        await described(reads, "job-1")
        clock.now += 30
        found = await described(reads, "job-1")
        assert found is not None
        assert found.seconds == 30
        assert await described(reads, "job-2") is None
        assert await described(reads, "job-3", patient=False) is None
    assert len(batch.calls) == 1


async def test_what_nobody_has_asked_for_lately_is_not_asked_of_batch() -> None:
    batch, clock, budget = Batch(), Clock(), ScriptedBudget(0)
    async with reading(batch, budget, clock) as reads:
        assert await described(reads, "job-1", patient=False) is None
        assert await described(reads, "job-2", patient=False) is None
        clock.now += 9
        assert await described(reads, "job-2", patient=False) is None
        clock.now += 2
        assert await reads.describe("job-3", patient=False) is None  # a stranger's, whom nobody waits for now
        budget.left = 5
        await settled(reads)
    assert batch.of(DESCRIBE) == [{"jobId": "job-2"}]


async def test_strangers_ids_neither_hold_up_nor_push_out_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_STRANGERS", 20)
    batch, clock, budget = Batch(), Clock(), ScriptedBudget(0)
    async with reading(batch, budget, clock) as reads:
        await_strangers = [asyncio.create_task(reads.describe(f"job-{one}")) for one in range(30)]
        while len(reads._strangers_wanted) < 30:  # noqa: ASYNC110
            await asyncio.sleep(0)
        ours = [asyncio.create_task(described(reads, f"job-{one}")) for one in range(30, 33)]
        while len(reads._wanted) < 3:  # noqa: ASYNC110
            await asyncio.sleep(0)
        budget.left = 4
        assert all(await asyncio.gather(*ours))
        assert len(batch.calls) <= 4
        budget.left = 100
        assert all(await asyncio.gather(*await_strangers))
        await reads.describe("job-59")
        assert (len(reads._jobs), len(reads._strangers) <= 30) == (3, True)


async def test_a_refusal_is_told_and_other_failures_leave_the_old_answer() -> None:
    batch, clock = Batch(), Clock()
    async with reading(batch, ScriptedBudget(), clock) as reads:
        await described(reads, "job-1")
        clock.now += 2
        batch.trouble = {DESCRIBE: NOT_SENT}
        found = await described(reads, "job-1")
        assert found is not None
        assert found.seconds == 2
        with pytest.raises(CallFailedError):
            await described(reads, "job-2")
        batch.trouble = {DESCRIBE: REFUSED}
        with pytest.raises(CallFailedError, match="ClientException"):
            await described(reads, "job-1")


async def test_who_may_not_list_describes() -> None:
    batch, clock = Batch(), Clock()
    batch.trouble = {LIST: DENIED}
    async with reading(batch, ScriptedBudget(), clock) as reads:
        found = await describe_all(reads, list(batch.statuses)[:10], queue_arn=QUEUE, created_ms=created_ms("job-59"))
        assert all(one and one.answer["status"] == "RUNNING" for one in found)
        clock.now += 2
        await describe_all(reads, list(batch.statuses)[:10])
    assert (len(batch.of(LIST)), len(batch.of(DESCRIBE))) == (1, 20)


async def test_a_throttle_makes_all_reads_rest_as_told(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    real_sleep = asyncio.sleep

    async def remember(seconds: float) -> None:
        slept.append(seconds)
        await real_sleep(0)

    batch, clock = Batch(), Clock()
    async with reading(batch, ScriptedBudget(), clock) as reads:
        batch.trouble = {DESCRIBE: THROTTLED}
        with pytest.raises(CallFailedError):
            await described(reads, "job-1")
        batch.trouble = {}
        monkeypatch.setattr(module.asyncio, "sleep", remember)
        await described(reads, "job-1")
    assert slept[0] == 2


async def test_a_store_that_is_away_is_told_to_all_who_wait() -> None:
    class Away:
        async def take(self) -> float:
            raise StoreUnavailableError("away")

    clock = Clock()
    async with reading(Batch(), Away(), clock) as reads:  # type: ignore[arg-type]
        for one in await asyncio.gather(*(described(reads, f"job-{n}") for n in range(3)), return_exceptions=True):
            assert isinstance(one, StoreUnavailableError)


async def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_JOBS", 10)
    batch, clock = Batch(), Clock()
    async with reading(batch, ScriptedBudget(), clock) as reads:
        for one in batch.statuses:
            await described(reads, one)
        assert len(reads._jobs) == 10
        assert await status(reads, "job-0") == "RUNNING"


async def test_a_store_that_goes_away_between_two_pages_leaves_no_job_behind() -> None:
    class Going(ScriptedBudget):
        away = False

        async def take(self) -> float:
            if self.away or (self.taken == 1 and not batch.healed):
                self.away = True
                raise StoreUnavailableError("away")
            return await super().take()

    class Healing(Batch):
        healed = False

    batch, clock, budget = Healing(300), Clock(), Going()
    jobs = list(batch.statuses)
    async with reading(batch, budget, clock) as reads:
        about = {"queue_arn": QUEUE, "created_ms": created_ms("job-299")}
        asked = [asyncio.create_task(described(reads, one, **about)) for one in jobs]
        results = await asyncio.gather(*asked, return_exceptions=True)
        assert sum(isinstance(one, StoreUnavailableError) for one in results) == 200
        budget.away, batch.healed = False, True
        clock.now += 2
        again = await describe_all(reads, jobs[:20], **about)
    assert all(one and one.seconds == 0 for one in again)


async def test_what_was_changed_is_asked_for_again_and_its_age_is_told_as_it_is() -> None:
    batch, clock = Batch(), Clock()
    async with reading(batch, ScriptedBudget(), clock) as reads:
        await described(reads, "job-1")
        clock.now += 0.2
        reads.forget("job-1")
        batch.trouble = {DESCRIBE: NOT_SENT}
        found = await described(reads, "job-1")
        assert found is not None
        assert round(found.seconds, 3) == 0.2
        batch.trouble = {}
        clock.now += 0.1
        found = await described(reads, "job-1")
    assert found is not None
    assert found.seconds == 0


async def test_failing_reads_are_told_once_a_minute() -> None:
    batch, clock, log = Batch(), Clock(), ListLog()
    batch.trouble = {DESCRIBE: DENIED}
    async with reading(batch, ScriptedBudget(), clock, log) as reads:
        for seconds in (0, 30, 29, 2):
            clock.now += seconds
            with pytest.raises(CallFailedError):
                await described(reads, "job-1")
        batch.trouble = {DESCRIBE: REFUSED}
        clock.now += 100
        with pytest.raises(CallFailedError):
            await described(reads, "job-1")
    assert log.of("reads_failing") == [{"upstream": "main", "error_code": "AccessDeniedException"}] * 2


async def test_a_job_that_no_list_shows_has_its_turn_however_many_others_wait() -> None:
    batch, clock, budget = Batch(5000), Clock(), ScriptedBudget(0)
    async with reading(batch, budget, clock) as reads:
        far = asyncio.create_task(reads.describe("job-1", queue_arn=QUEUE, created_ms=created_ms("job-1")))
        while "job-1" not in reads._wanted:  # noqa: ASYNC110
            await asyncio.sleep(0)
        reads._jobs["job-1"].unlisted = True
        near = asyncio.create_task(
            describe_all(reads, [f"job-{one}" for one in range(4990, 5000)], queue_arn=QUEUE, created_ms=6_000_000)
        )
        while len(reads._wanted) < 11:  # noqa: ASYNC110
            await asyncio.sleep(0)
        budget.left = 1
        found = await far
        assert found is not None
        assert found.answer["jobId"] == "job-1"
        near.cancel()
