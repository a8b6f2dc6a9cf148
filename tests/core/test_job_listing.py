"""ListServiceJobs of the gateway: each job once a walk, wherever it is meanwhile."""

from __future__ import annotations

import asyncio
import json
import random
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from gateway.core import job_listing
from gateway.core.attempt import Answer, AnswerKind, Leased
from gateway.core.caller import Caller
from gateway.core.errors import TooManyReadsError
from gateway.core.job_listing import JobListing
from gateway.core.outlook import Outlook
from gateway.core.reads import Aged, PacedCalls, Reads
from gateway.core.reconcile import CallFailedError
from gateway.core.share import ShareLimits
from gateway.core.submission import SUBMISSION_TAG, State
from gateway.core.upstream import Routes, Upstream
from gateway.emulator.arns import Arns
from gateway.emulator.errors import BatchError
from gateway.emulator.jobs import Job, Jobs
from gateway.emulator.listing import list_jobs
from gateway.store.queue_listing import WaitingRoom
from tests.conftest import eventually
from tests.core.fakes import ScriptedBudget
from tests.store.world import (
    ACCOUNT,
    NO_PACE,
    REGION,
    World,
    forwarded,
    new_submission,
    reconcile,
    refused,
    throttled,
    unclear,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from redis.asyncio import Redis

    from gateway.core.identity import SubmissionId
    from gateway.core.submission import Submission
    from tests.store.world import Part

OPERATOR = Caller()
VISION, TEXT = (Caller(name=name, namespace=name, operator=False) for name in ("vision", "text"))
LIMITS = ShareLimits(max_queued=1_000_000)
UPSTREAM = Upstream(name="main", region=REGION, account=ACCOUNT)


def only(name: str, *values: str) -> list[dict[str, Any]]:
    return [{"name": name, "values": list(values)}]


ALL = {"filters": only("AFTER_CREATED_AT", "0")}


class RealTime(World):
    """By the server's own clock: the listing reads it."""

    def _clocked(self, part: Part) -> Part:
        return part


@dataclass
class EmulatedBatch:
    """The emulator's jobs and lists without HTTP; `around` happens before and after each list."""

    jobs: Jobs = field(default_factory=lambda: Jobs(arns=Arns(region=REGION, account=ACCOUNT), seconds=1000.0))
    seconds: float = 0.0
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    failure: Exception | None = None
    undescribed: bool = False
    around: Callable[[], Awaitable[object]] | None = None

    async def call(self, operation: str, params: Mapping[str, Any]) -> dict[str, Any]:
        self.asked.append((operation, dict(params)))
        if self.failure:
            raise self.failure
        if operation == "DescribeServiceJob":
            job = self.jobs.get(params["jobId"])
            if job is None or self.undescribed:
                raise CallFailedError(Answer(kind=AnswerKind.REFUSED, code="ClientException"))
            return job.description(self.seconds)
        assert operation == "ListServiceJobs"
        if self.around:
            await self.around()
        try:
            answer = list_jobs(self.jobs, params, queue=params["jobQueue"].rpartition("/")[2], now=self.seconds)
        except BatchError as error:
            raise CallFailedError(Answer(kind=AnswerKind.REFUSED, code="ClientException")) from error
        if self.around:
            await self.around()
        return answer

    def now(self) -> float:
        return time.monotonic()

    async def aged(self, operation: str, params: Mapping[str, Any], **_: Any) -> Aged:
        """As Reads, with nothing kept."""
        return Aged(answer=await self.call(operation, params), seconds=0.0)

    async def describe(self, job_id: str, **_: Any) -> Aged | None:
        """As JobReads."""
        return await self.aged("DescribeServiceJob", {"jobId": job_id})

    def make(self, epoch_ms: int = 1, **request: Any) -> Job:
        params = {"jobName": "resnet", "serviceJobType": "SAGEMAKER_TRAINING", "serviceRequestPayload": "{}", **request}
        return self.jobs.create(params, queue="training", now=self.seconds, epoch_ms=epoch_ms)

    def asked_for(self, operation: str) -> list[dict[str, Any]]:
        return [params for name, params in self.asked if name == operation]


@dataclass
class Scene:
    world: World
    batch: EmulatedBatch
    listing: JobListing
    upstream: Upstream = UPSTREAM

    async def submit(
        self, name: str = "resnet", *, namespace: str = "vision", share_kind: str = "shareIdentifier", **members: Any
    ) -> SubmissionId:
        new = new_submission(uuid4().hex, namespace=namespace, **members)
        request = {
            "jobName": name,
            "jobQueue": new.job_queue,
            "serviceJobType": "SAGEMAKER_TRAINING",
            "serviceRequestPayload": "{}",
            share_kind: new.share.name,
            "tags": {SUBMISSION_TAG: new.submission_id},
        }
        new = replace(new, job_name=name, share_kind=share_kind, request=json.dumps(request).encode())
        return (await self.world.store.admit(new, LIMITS, None)).submission.submission_id

    async def queue(self, number: int, **members: Any) -> list[SubmissionId]:
        return [await self.submit(**members) for _ in range(number)]

    async def made(self, leased: Leased) -> Job:
        """Batch takes a call: there is a job, and the gateway does not know it yet."""
        now_ms = await self.world.index.now_ms()
        return self.batch.make(now_ms, **json.loads(leased.submission.request))

    async def settled(self, leased: Leased, job: Job) -> None:
        await self.world.settle(leased, replace(forwarded(job.job_id), job_arn=job.arn))

    async def forward(self, number: int = 1) -> list[Job]:
        jobs = []
        for _ in range(number):
            leased = await self.world.lease()
            jobs.append(await self.made(leased))
            await self.settled(leased, jobs[-1])
        return jobs

    async def page(self, caller: Caller = OPERATOR, **params: Any) -> dict[str, Any]:
        page = await self.listing.page({"jobQueue": "training"} | params, caller)
        return json.loads(json.dumps(page.answer))  # type: ignore[no-any-return]

    async def walk(
        self, caller: Caller = OPERATOR, *, between: Callable[[], Awaitable[object]] | None = None, **params: Any
    ) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        token: dict[str, Any] = {}
        for _ in range(10_000):
            page = await self.page(caller, **params, **token)
            assert len(page["jobSummaryList"]) <= params.get("maxResults", 100)
            found += page["jobSummaryList"]
            if "nextToken" not in page:
                return found
            token = {"nextToken": page["nextToken"]}
            if between:
                await between()
        raise AssertionError("the walk does not end")

    async def ids(self, caller: Caller = OPERATOR, **how: Any) -> list[str]:
        return [item["jobId"] for item in await self.walk(caller, **how)]

    async def found(self, wanted: SubmissionId) -> Submission:
        submission = await self.world.index.get(wanted)
        assert submission is not None
        return submission


@asynccontextmanager
async def scene_of(client: Redis, **changes: Any) -> AsyncIterator[Scene]:
    world = await RealTime(client, pace=NO_PACE).open()
    upstream, batch, outlook = replace(UPSTREAM, **changes), EmulatedBatch(), Outlook(world.store)
    tag = upstream.tag
    listing = JobListing(
        routes=Routes([upstream]),
        stores={tag: world.index},
        queues={tag: WaitingRoom(client, world.keys)},
        outlooks={tag: outlook},
        reads={tag: batch},
        job_reads={tag: batch},
    )
    try:
        yield Scene(world, batch, listing, upstream)
    finally:
        await outlook.aclose()


@pytest.fixture
async def scene(client: Redis) -> AsyncIterator[Scene]:
    async with scene_of(client) as scene:
        yield scene


# ---- What is in a list


async def test_what_waits_comes_first_then_batchs_jobs_then_what_ended_here(scene: Scene) -> None:
    rejected, canceled, *_ = await scene.queue(2)
    await scene.world.changes.cancel(canceled, "enough")
    await scene.world.attempt(refused())
    await scene.queue(2)
    jobs = await scene.forward(2)
    waiting = await scene.queue(2)
    expected = [*waiting[::-1], *(job.job_id for job in jobs[::-1]), canceled, rejected]
    for size in (1, 2, 4, 5, 100):
        found = await scene.ids(**ALL, maxResults=size)
        assert sorted(found[:2] + found[4:]) == sorted(expected[:2] + expected[4:])  # those of one millisecond by id
        assert found[2:4] == expected[2:4]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({}, set()),  # only what runs
        ({"jobStatus": "RUNNING"}, set()),
        ({"jobStatus": "SUBMITTED"}, {"waits", "job"}),
        ({"jobStatus": "FAILED"}, {"failed"}),
        ({"filters": []}, set()),
        (ALL, {"waits", "job", "failed"}),
        ({"jobStatus": "FAILED", **ALL}, {"waits", "job", "failed"}),
        ({"filters": only("JOB_NAME", "WAITS")}, {"waits"}),
        ({"filters": only("JOB_NAME", "*")}, {"waits", "job", "failed"}),
        ({"filters": only("JOB_NAME", "Fai*")}, {"failed"}),
        ({"filters": only("JOB_NAME", "fai")}, set()),
        ({"filters": only("AFTER_CREATED_AT", "99999999999999")}, set()),
        ({"filters": only("BEFORE_CREATED_AT", "99999999999999")}, {"waits", "job", "failed"}),
        ({"filters": only("BEFORE_CREATED_AT", "1")}, set()),
        ({"filters": only("SHARE_IDENTIFIER", "vision")}, {"waits", "job", "failed"}),
        ({"filters": only("SHARE_IDENTIFIER", "vision"), "jobStatus": "FAILED"}, {"failed"}),
        ({"filters": only("SHARE_IDENTIFIER", "vision"), "jobStatus": "SUBMITTED"}, {"waits", "job"}),
        ({"filters": only("SHARE_IDENTIFIER", "vision"), "jobStatus": "RUNNING"}, set()),
        ({"filters": only("SHARE_IDENTIFIER", "text")}, set()),
        ({"filters": only("QUOTA_SHARE_NAME", "text")}, {"quota"}),
        ({"filters": only("QUOTA_SHARE_NAME", "vision")}, set()),
    ],
)
async def test_filters_and_statuses_mean_what_they_mean_to_batch(
    scene: Scene, asked: dict[str, Any], found: set[str]
) -> None:
    for name, queue in (("failed", "training"), ("failed elsewhere", "elsewhere"), ("job", "training")):
        await scene.submit(name, queue=queue)
    for _ in range(2):
        await scene.world.attempt(refused())
    await scene.forward()
    await scene.submit("waits")
    if "quota" in found:
        await scene.submit("quota", share="text", share_kind="quotaShareName")
    await scene.submit("waits elsewhere", queue="elsewhere")
    assert {item["jobName"] for item in await scene.walk(**asked)} == found


async def test_the_moment_of_a_filter_is_in_neither_half(scene: Scene) -> None:
    wanted = await scene.submit()
    at = (await scene.page(**ALL))["jobSummaryList"][0]["createdAt"]
    for name, beyond in (("BEFORE_CREATED_AT", at + 1), ("AFTER_CREATED_AT", at - 1)):
        assert await scene.ids(filters=only(name, str(at))) == []
        assert await scene.ids(filters=only(name, str(beyond))) == [wanted]
        await scene.world.changes.cancel(wanted, "")
        assert await scene.ids(filters=only(name, str(at))) == []
        assert await scene.ids(filters=only(name, str(beyond))) == [wanted]


async def test_others_see_their_own_alone_and_operators_all(scene: Scene) -> None:
    stranger = scene.batch.make().job_id
    own: dict[str, set[str]] = {}
    for name in ("vision", "text"):
        ended = await scene.submit(namespace=name)
        await scene.world.changes.cancel(ended, "")
        await scene.submit(namespace=name)
        (job,) = await scene.forward()
        own[name] = {ended, job.job_id}
    for name, its in own.items():
        its.add(await scene.submit(namespace=name))
    assert set(await scene.ids(VISION, **ALL)) == own["vision"]
    assert set(await scene.ids(TEXT, **ALL, maxResults=1)) == own["text"]
    assert set(await scene.ids(**ALL)) == own["vision"] | own["text"] | {stranger}


async def test_what_ended_is_found_without_a_look_at_what_batch_has(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = await scene.submit("resnet")
    await scene.world.attempt(refused())
    many = await scene.submit("resnet")
    (job,) = await scene.forward()
    looked_at = _looked_at(scene, monkeypatch)
    async with _many_more_like(scene.world, many, 100_000):
        for caller in (OPERATOR, VISION):
            page = await scene.page(caller, jobStatus="FAILED")
            assert [item["jobId"] for item in page.pop("jobSummaryList")] == [wanted]
            assert page == {}
            assert sum(looked_at) == 1
            looked_at.clear()
        page = await scene.page(filters=only("JOB_NAME", "resnet"))
        assert {item["jobId"] for item in page.pop("jobSummaryList")} == {wanted, job.job_id}
        assert page == {}
        assert sum(looked_at) == 1


@asynccontextmanager
async def _many_more_like(world: World, one: SubmissionId, number: int) -> AsyncIterator[None]:
    """Accepted later, and gone afterwards: other tests look through every key of the server."""
    copies = """
    for number = 1, tonumber(ARGV[2]) do
      local id = string.sub(ARGV[1], 1, -13) .. string.format('%012d', number)
      if ARGV[3] == '1' then
        redis.call('COPY', KEYS[1] .. ARGV[1], KEYS[1] .. id)
        redis.call('ZADD', KEYS[2], ARGV[4], id)
      else
        redis.call('DEL', KEYS[1] .. id)
      end
    end"""
    args = [world.keys.record(one).removesuffix(one), world.keys.index("vision"), one, number]
    later_ms = await world.index.now_ms() + 1
    await world.client.eval(copies, 2, *args, 1, later_ms)
    try:
        assert await world.client.zcard(world.keys.index("vision")) > number
        yield
    finally:
        await world.client.eval(copies, 2, *args, 0, later_ms)


def _looked_at(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many records are read at a time from now on, but for what waits."""
    read, looked_at = scene.world.index.get_many, list[int]()

    async def counted(ids: Any) -> Any:
        looked_at.append(len(ids))
        return await read(ids)

    monkeypatch.setattr(scene.world.index, "get_many", counted)
    return looked_at


async def test_what_ended_is_listed_no_longer_than_its_record(scene: Scene) -> None:
    gone, there = await scene.queue(2)
    for one in (gone, there):
        await scene.world.changes.cancel(one, "")
    await scene.world.client.delete(scene.world.keys.record(gone))
    assert await scene.ids(jobStatus="FAILED") == [there]


async def test_what_an_older_gateway_redrove_or_forwarded_has_not_ended(scene: Scene) -> None:
    """It leaves the entries in the list that it does not know."""
    redriven, late = await scene.queue(2)
    await scene.world.attempt(refused())
    leased = await scene.world.lease()
    await scene.world.settle(leased, refused(maybe_sent=True))
    entries = await scene.world.client.zrange(scene.world.keys.ended("training"), 0, -1, withscores=True)
    assert set(await scene.ids(jobStatus="FAILED")) == {redriven, late}
    await scene.world.changes.redrive(redriven)
    await scene.settled(leased, await scene.made(leased))
    await scene.world.client.zadd(scene.world.keys.ended("training"), dict(entries))
    assert await scene.ids(jobStatus="FAILED") == []


async def test_jobs_whose_records_have_expired_are_operators_only(scene: Scene) -> None:
    (wanted,) = await scene.queue(1)
    (job,) = await scene.forward()
    await scene.world.client.delete(scene.world.keys.record(wanted))
    await scene.queue(1, namespace="text")
    assert await scene.ids(VISION, **ALL) == []
    assert job.job_id in await scene.ids(**ALL)


async def test_a_queue_may_be_named_by_its_arn_as_batch_is_told_it(scene: Scene) -> None:
    (wanted,) = await scene.queue(1)
    arn = f"arn:aws:batch:{REGION}:{ACCOUNT}:job-queue/training"
    assert await scene.ids(jobQueue=arn, **ALL) == [wanted]
    assert scene.batch.asked[-1] == ("ListServiceJobs", {"jobQueue": arn, **ALL, "maxResults": 100})


async def test_a_page_is_filled_over_the_borders_where_all_of_batchs_page_fits(scene: Scene) -> None:
    """All who list ask Batch the same question, whatever waits here."""
    await scene.queue(4)
    jobs = await scene.forward(2)
    page = await scene.page(**ALL, maxResults=4)
    assert {job.job_id for job in jobs} < {one["jobId"] for one in page["jobSummaryList"]}
    await scene.queue(1)
    page = await scene.page(**ALL, maxResults=4)
    assert len(page["jobSummaryList"]) == 3
    page = await scene.page(**ALL, maxResults=4, nextToken=page["nextToken"])
    assert [one["jobId"] for one in page["jobSummaryList"]] == [job.job_id for job in jobs[::-1]]
    assert [one["maxResults"] for one in scene.batch.asked_for("ListServiceJobs")] == [4, 4, 4]


async def test_each_page_is_bounded_work(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_listing, "RECORDS_AT_ONCE", 3)
    monkeypatch.setattr(job_listing._Page, "__init__", _small_page(job_listing._Page.__init__))
    wanted = await scene.submit("needle")
    for one in (wanted, *await scene.queue(30)):
        await scene.world.changes.cancel(one, "")
    looked_at = _looked_at(scene, monkeypatch)
    pages: list[int] = []

    async def turn() -> None:
        pages.append(sum(looked_at))
        looked_at.clear()

    assert await scene.ids(filters=only("JOB_NAME", "needle"), between=turn) == [wanted]
    assert len(pages) >= 5
    assert max(pages) <= 9


def _small_page(init: Callable[..., None]) -> Callable[..., None]:
    def made(self: Any, **members: Any) -> None:
        init(self, **members, records=6, calls=2)

    return made


async def test_a_job_that_has_moved_to_batchs_next_page_meanwhile_is_shown_once(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    await scene.queue(1)
    (job,) = await scene.forward()
    answers: list[dict[str, Any]] = []

    async def call(*_: Any) -> Any:
        return answers.pop(0)

    monkeypatch.setattr(scene.batch, "call", call)
    for caller in (OPERATOR, VISION):
        answers += [{"jobSummaryList": [job.summary(0)], "nextToken": "b"}, {"jobSummaryList": [job.summary(0)]}]
        assert await scene.ids(caller, **ALL) == [job.job_id]


async def test_what_is_too_old_for_a_filter_is_not_looked_at(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    for one in await scene.queue(9):
        await scene.world.changes.cancel(one, "")
    newest_ms = max(item["createdAt"] for item in await scene.walk(**ALL))
    monkeypatch.setattr(job_listing, "RECORDS_AT_ONCE", 2)
    looked_at = _looked_at(scene, monkeypatch)
    assert await scene.ids(filters=only("AFTER_CREATED_AT", str(newest_ms))) == []
    assert looked_at == [2]


async def test_who_waits_is_told_its_place_and_about_when_it_goes(scene: Scene) -> None:
    await scene.queue(2)
    reasons = {item["statusReason"].partition(" at ")[0] for item in await scene.walk(jobStatus="SUBMITTED")}
    assert reasons == {
        f"Queued in the gateway, position {place} of its share; expected to go to Batch" for place in (1, 2)
    }


async def test_batch_is_asked_again_for_the_rest_of_a_page_a_few_times(scene: Scene) -> None:
    for _ in range(40):
        scene.batch.make()
    await scene.queue(1)
    page = await scene.page(VISION, **ALL, maxResults=5)
    assert len(page["jobSummaryList"]) == 1
    assert len(scene.batch.asked) == job_listing.CALLS_MOST
    assert "nextToken" in page


# ---- While things move


async def test_who_is_forwarded_between_pages_is_not_shown_again(scene: Scene) -> None:
    wanted = await scene.queue(6)
    jobs: list[Job] = []

    async def moves() -> None:
        if len(jobs) < 6:
            jobs.extend(await scene.forward(2))  # the oldest: not shown yet, and at last shown

    for status in (ALL, {"jobStatus": "SUBMITTED"}):
        jobs.clear()
        found = await scene.ids(**status, maxResults=2, between=moves)
        owners = {job.job_id: job.request["tags"][SUBMISSION_TAG] for job in scene.batch.jobs.all()}
        assert sorted(owners.get(one, one) for one in found) == sorted(wanted)
        await scene.forward(6 - len(jobs)) if len(jobs) < 6 else None
        wanted = sorted({*wanted, *await scene.queue(6)})


@pytest.mark.parametrize("end", ["cancel", "reject"])
async def test_who_ends_here_between_pages_is_shown_once(scene: Scene, end: str) -> None:
    wanted = await scene.queue(6)

    async def moves() -> None:
        queued = [one for one in wanted if (await scene.found(one)).state is State.QUEUED]
        if not queued:
            return
        if end == "reject":
            await scene.world.attempt(refused(uuid4().hex))
        else:
            await scene.world.changes.cancel(queued[-1], "")

    assert sorted(await scene.ids(**ALL, maxResults=2, between=moves)) == sorted(wanted)


async def test_what_comes_after_the_walk_began_disturbs_nobody(scene: Scene) -> None:
    wanted = await scene.queue(6)

    async def comes() -> None:
        await scene.queue(1)

    assert sorted(await scene.ids(**ALL, maxResults=2, between=comes)) == sorted(wanted)


async def test_what_came_and_went_on_after_the_walk_began_is_batchs_alone(scene: Scene) -> None:
    (wanted,) = await scene.queue(1)
    page = await scene.page(**ALL, maxResults=1)
    await scene.world.changes.cancel(wanted, "")
    await scene.queue(2)
    jobs = await scene.forward()
    jobs.append(await scene.made(await scene.world.lease()))
    rest = await scene.page(**ALL, nextToken=page["nextToken"])
    assert [one["jobId"] for one in rest["jobSummaryList"]] == [job.job_id for job in jobs[::-1]]
    assert scene.batch.asked_for("DescribeServiceJob") == []


@pytest.mark.parametrize("change", ["tagged", "untagged", "undescribed", "unknown", "known from a list"])
async def test_a_job_that_batch_lists_before_its_answer_is_heard_is_not_shown_twice(
    client: Redis, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    async with scene_of(client, submission_tag=change != "untagged") as scene:
        (wanted,) = await scene.queue(1)
        if change == "untagged":
            await scene.world.changes.cancel(wanted, "")
            wanted = (await scene.world.admit(request=b'{"jobName": "resnet"}')).submission.submission_id
        scene.batch.undescribed = change == "undescribed"

        async def told(job_id: str, **_: Any) -> Aged | None:
            return None if change == "unknown" else Aged(answer={"jobId": job_id, "startedAt": 0}, seconds=0.0)

        if change in ("unknown", "known from a list"):
            monkeypatch.setattr(scene.batch, "describe", told)
        made: list[tuple[Leased, Job]] = []

        async def calls() -> None:
            if not made:
                leased = await scene.world.lease()
                request = {"shareIdentifier": "vision", **json.loads(leased.submission.request)}
                job = scene.batch.make(await scene.world.index.now_ms(), **request)
                made.append((leased, job))

        scene.batch.around = calls
        assert await scene.ids(jobStatus="SUBMITTED") == [wanted]
        assert await scene.ids(jobStatus="SUBMITTED", maxResults=1) == [wanted]
        await scene.settled(*made[0])
        assert await scene.ids(jobStatus="SUBMITTED") == [made[0][1].job_id]


@pytest.mark.parametrize("report", [None, unclear(delay_seconds=30), unclear(), reconcile()])
async def test_nor_is_one_whose_answer_was_lost(scene: Scene, report: Any) -> None:
    (wanted,) = await scene.queue(1)
    leased = await scene.world.lease()
    await scene.made(leased)
    if report:
        await scene.world.settle(leased, report)
    assert await scene.ids(**ALL) == [wanted]


async def test_one_that_ended_here_and_has_a_job_all_the_same_is_batchs(scene: Scene) -> None:
    (wanted,) = await scene.queue(1)
    leased = await scene.world.lease()
    job = await scene.made(leased)
    await scene.world.settle(leased, throttled())
    await scene.world.changes.cancel(wanted, "")
    assert (await scene.found(wanted)).state is State.CANCELED
    await scene.settled(leased, job)
    assert await scene.ids(**ALL) == [job.job_id]


async def test_others_jobs_are_not_taken_for_those_that_are_on_their_way(scene: Scene) -> None:
    (wanted,) = await scene.queue(1)
    leased = await scene.world.lease()
    await scene.made(leased)
    now_ms = await scene.world.index.now_ms()
    like = {"jobName": "resnet", "shareIdentifier": "vision"}
    others = [
        scene.batch.make(now_ms, **like),  # alike, and not tagged
        scene.batch.make(now_ms, **like, tags={SUBMISSION_TAG: str(uuid4())}),
        scene.batch.make(now_ms, **{**like, "jobName": "other"}),
        scene.batch.make(now_ms, **{**like, "shareIdentifier": "text"}),
        scene.batch.make(now_ms - 600_000, **like),
    ]
    assert sorted(await scene.ids(**ALL)) == sorted([wanted, *(one.job_id for one in others)])
    assert len(scene.batch.asked_for("DescribeServiceJob")) == 3  # only those that might be it


async def test_without_tags_one_job_of_a_name_is_taken_for_each_that_is_on_its_way(scene: Scene) -> None:
    scene.batch.undescribed = True
    await scene.queue(1)
    await scene.made(await scene.world.lease())
    scene.batch.make(await scene.world.index.now_ms(), shareIdentifier="vision")
    assert len(await scene.ids(**ALL)) == 2


async def test_few_jobs_are_described_for_a_page(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_listing, "DESCRIBED_MOST", 2)
    await scene.queue(1)
    await scene.world.lease()
    now_ms = await scene.world.index.now_ms()
    for _ in range(5):
        scene.batch.make(now_ms, shareIdentifier="vision")
    await scene.page(**ALL)
    assert len(scene.batch.asked_for("DescribeServiceJob")) == 2


@pytest.mark.parametrize("others", [0, 1])
async def test_one_that_settles_while_its_job_is_looked_up_is_not_shown_twice(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, others: int
) -> None:
    wanted = [*await scene.queue(1), *await scene.queue(others, share="text")]
    leased = [await scene.world.lease() for _ in wanted]
    jobs = [await scene.made(one) for one in leased]
    owners, settled = scene.world.index.owners, []

    async def slow(job_ids: Any) -> Any:
        answer = await owners(job_ids)
        if not settled:
            settled.append(await scene.settled(leased[0], jobs[0]))
        return answer

    monkeypatch.setattr(scene.world.index, "owners", slow)
    assert sorted(await scene.ids(**ALL)) == sorted(wanted)
    assert settled


class Kept(Reads):
    """Reads as they are, over an emulated Batch; `clock` stands until it is moved."""

    def __init__(self, batch: EmulatedBatch, budget: ScriptedBudget | None = None) -> None:
        self.clock = 1000.0
        super().__init__(PacedCalls(batch, budget or ScriptedBudget()), clock=lambda: self.clock)


async def test_the_first_list_is_never_older_than_the_look_at_what_waits(scene: Scene) -> None:
    """Who was forwarded just before is in it; later pages, and lists without what waits, may be a second old."""
    reads = Kept(scene.batch)
    scene.listing._reads = {UPSTREAM.tag: reads}
    await scene.queue(3)
    assert len(await scene.ids(**ALL)) == 3
    reads.clock += 0.1
    jobs = await scene.forward(3)
    assert await scene.ids(**ALL, maxResults=2) == [job.job_id for job in jobs[::-1]]
    reads.clock += 0.1
    scene.batch.asked.clear()
    assert len(await scene.ids(**ALL, maxResults=2)) == 3
    assert len(scene.batch.asked) == 1
    for _ in range(2):
        await scene.ids(jobStatus="RUNNING")
    assert len(scene.batch.asked) == 2


async def test_equal_lists_of_what_waits_share_a_call_where_the_budget_is_short(scene: Scene) -> None:
    budget = ScriptedBudget(0)
    scene.listing._reads = {UPSTREAM.tag: (reads := Kept(scene.batch, budget))}
    asked = []
    for _ in range(5):
        asked.append(asyncio.create_task(scene.ids(jobStatus="SUBMITTED")))

        async def is_listed(number: int = len(asked)) -> bool:
            return sum(flight.waiting for flight in reads._flights.values()) == number

        await eventually(is_listed)
        await scene.submit()  # so that each sees another number of waiting ones
    budget.left = 5
    assert [len(ids) for ids in await asyncio.gather(*asked)] == [0, 1, 2, 3, 4]
    assert len(scene.batch.asked) == 1


@pytest.mark.parametrize("error", [CallFailedError(Answer(kind=AnswerKind.THROTTLED)), TooManyReadsError()])
async def test_where_batch_cannot_answer_an_older_list_is_given_with_its_age_where_no_job_is_lost(
    scene: Scene, error: Exception
) -> None:
    reads = Kept(scene.batch)
    scene.listing._reads = {UPSTREAM.tag: reads}
    for query in (ALL, {"jobStatus": "RUNNING"}):
        assert (await scene.listing.page({"jobQueue": "training", **query}, OPERATOR)).seconds == 0
    await scene.queue(1)
    await scene.forward(1)
    scene.batch.failure = error
    reads.clock += 30
    assert (await scene.listing.page({"jobQueue": "training", "jobStatus": "RUNNING"}, OPERATOR)).seconds == 30
    with pytest.raises(type(error)):  # the older list has not the job that went to Batch since
        await scene.page(**ALL)
    reads.clock += 31
    with pytest.raises(type(error)):
        await scene.page(jobStatus="RUNNING")


async def test_a_page_is_as_old_as_the_oldest_in_it(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(4):
        scene.batch.make()
    ages = [3.0, 7.0, 5.0, 0.0]
    aged = scene.batch.aged

    async def of_some_age(*args: Any, **how: Any) -> Aged:
        return replace(await aged(*args, **how), seconds=ages.pop(0))

    monkeypatch.setattr(scene.batch, "aged", of_some_age)
    page = await scene.listing.page({"jobQueue": "training", **ALL, "maxResults": 1}, VISION)
    assert page.seconds == 7


@pytest.mark.parametrize("error", [CallFailedError(Answer(kind=AnswerKind.THROTTLED)), TooManyReadsError()])
async def test_what_keeps_batch_from_answering_comes_through(scene: Scene, error: Exception) -> None:
    await scene.queue(1)
    scene.batch.failure = error
    with pytest.raises(type(error)):
        await scene.page(**ALL)


# ---- No page takes long


async def test_a_page_ends_in_time_with_what_there_is(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_listing, "PAGE_SECONDS", 0.3)
    for _ in range(4):
        scene.batch.make()
    await scene.queue(1)
    (job,) = await scene.forward()
    answered: list[int] = []

    async def slow() -> None:
        answered.append(1)
        if len(answered) > 2:  # two for the first answer: before and after it
            await asyncio.Event().wait()

    scene.batch.around = slow
    async with asyncio.timeout(5):
        page = await scene.page(VISION, **ALL, maxResults=2)
    assert [one["jobId"] for one in page["jobSummaryList"]] == [job.job_id]
    scene.batch.around = None
    assert "nextToken" in page
    assert (await scene.page(VISION, **ALL, nextToken=page["nextToken"]))["jobSummaryList"] == []


@pytest.mark.parametrize("waiting", [0, 1])
async def test_where_batch_does_not_answer_at_all_in_time_it_says_so(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, waiting: int
) -> None:
    monkeypatch.setattr(job_listing, "PAGE_SECONDS", 0.1)
    await scene.queue(waiting)
    scene.batch.around = asyncio.Event().wait
    async with asyncio.timeout(5):
        with pytest.raises(TooManyReadsError):
            await scene.page(**ALL)


async def test_without_a_slot_for_the_rest_of_a_page_it_is_short(scene: Scene) -> None:
    for _ in range(4):
        scene.batch.make()
    around: list[int] = []

    async def fails() -> None:
        around.append(1)
        if len(around) > 2:
            raise TooManyReadsError

    scene.batch.around = fails
    page = await scene.page(VISION, **ALL, maxResults=1)
    assert page["jobSummaryList"] == []
    assert "nextToken" in page


async def test_the_jobs_of_a_page_are_described_at_the_same_time(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    await scene.queue(1)
    await scene.world.lease()
    now_ms = await scene.world.index.now_ms()
    for _ in range(5):
        scene.batch.make(now_ms, shareIdentifier="vision")
    asked: list[bool] = []
    describe, all_asked = scene.batch.describe, asyncio.Event()

    async def slow(job_id: str, *, patient: bool) -> Aged | None:
        asked.append(patient)
        if len(asked) == 5:
            all_asked.set()
        await all_asked.wait()
        return await describe(job_id)

    monkeypatch.setattr(scene.batch, "describe", slow)
    async with asyncio.timeout(5):
        assert len((await scene.page(**ALL))["jobSummaryList"]) == 6
    assert asked == [False] * 5


# ---- Whatever happens


class Churn:
    """All that becomes of submissions, at random, while somebody walks."""

    def __init__(self, scene: Scene, rng: random.Random) -> None:
        self.scene = scene
        self.rng = rng
        self.known: dict[str, SubmissionId] = {}  # by the ids under which they may be shown
        self.under_way: list[tuple[Leased, Job]] = []
        self.busy = False

    async def accept(self) -> None:
        one = await self.scene.submit(
            self.rng.choice(("a", "b")), share=self.rng.choice("xyz"), namespace=self.rng.choice(("vision", "text"))
        )
        self.known[one] = one

    async def call(self) -> None:
        leased = await self.scene.world.try_lease()
        if isinstance(leased, Leased):
            job = await self.scene.made(leased)
            self.known[job.job_id] = leased.submission.submission_id
            self.under_way.append((leased, job))

    async def answer(self) -> None:
        if self.under_way:
            await self.scene.settled(*self.under_way.pop(self.rng.randrange(len(self.under_way))))

    async def forward(self) -> None:
        await self.call()
        if self.under_way:
            await self.scene.settled(*self.under_way.pop())

    async def reject(self) -> None:
        leased = await self.scene.world.try_lease()
        if isinstance(leased, Leased):
            await self.scene.world.settle(leased, refused(uuid4().hex))

    async def cancel(self) -> None:
        await self.scene.world.changes.cancel(self.rng.choice(sorted(set(self.known.values()))), "")

    async def step(self) -> None:
        if not self.busy:
            self.busy = True
            for _ in range(self.rng.randrange(4)):
                await self.rng.choice(
                    (self.accept, self.call, self.answer, self.forward, self.forward, self.reject, self.cancel)
                )()
            self.busy = False


@pytest.mark.parametrize("seed", range(40))
async def test_none_twice_and_none_left_out_whatever_happens_meanwhile(
    scene: Scene, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(seed)
    churn = Churn(scene, rng)
    for _ in range(rng.randrange(5, 40)):
        await churn.accept()
    for _ in range(5):
        await churn.step()
    look = scene.world.client.time

    async def happens() -> Any:
        await churn.step()
        return await look()

    monkeypatch.setattr(scene.world.client, "time", happens)  # between a reading and its records, too
    scene.batch.around = churn.step
    monkeypatch.setattr(job_listing, "RECORDS_AT_ONCE", rng.choice((2, 5, 200)))
    caller = rng.choice((OPERATOR, VISION))
    query = rng.choice((ALL, {"filters": only("JOB_NAME", "a")}, {"filters": only("SHARE_IDENTIFIER", "x")}))
    for _ in range(3):
        before = set(churn.known.values())
        items = await scene.walk(caller, **query, maxResults=rng.choice((1, 2, 7, 100)), between=churn.step)
        shown = [churn.known[item["jobId"]] for item in items]
        assert len(shown) == len(set(shown)), "one is there twice"
        expected = set()
        for one in before:
            found = await scene.found(one)
            name, share = query["filters"][0]["values"], query["filters"][0]["name"]
            fits = {"JOB_NAME": found.job_name, "SHARE_IDENTIFIER": found.share.name}.get(share, name[0]) == name[0]
            if fits and caller.sees(found):
                expected.add(one)
        missing = expected - set(shown)
        assert not missing, "one is left out"
