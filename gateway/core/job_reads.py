"""How jobs stand at Batch: described one by one while few are asked for, refreshed by pages of a list when many are.

A list has no payload, tags and attempts: these stay as they were described, and a job whose status has changed is
described again when there is room.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gateway.core.attempt import AnswerKind
from gateway.core.errors import StoreUnavailableError
from gateway.core.reads import FRESH_SECONDS, LONG_PATIENCE_SECONDS, PATIENCE_SECONDS, Aged, is_refusal
from gateway.core.reconcile import CallFailedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gateway.core.ports import Log
    from gateway.core.reads import PacedCalls

FINAL_SECONDS = 3600.0
FINAL = frozenset({"SUCCEEDED", "FAILED"})
# So many of one queue that wait together are cheaper by a page of its list: it may show a hundred.
LIST_FROM = 4
PAGE_JOBS = 100
# Described jobs carry their payload, some 12 KB each: 50 MB.
MAX_JOBS, MAX_STRANGERS = 4000, 200
# Of so many calls one is for a stranger's id, where both wait.
STRANGERS_TURN = 4
CALLS_IN_FLIGHT = 8
# Whoever may not list is asked again once a minute.
NO_LIST_SECONDS = 60.0
REST_SECONDS = 1.0
LOG_SECONDS = 60.0
# What nobody has asked for any more is not described again.
ASKED_WITHIN_SECONDS = 10.0


@dataclass(slots=True, kw_only=True)
class _Job:
    """What is known of one: `at` is when that was asked for, `whole` whether it is a description of how it stands.

    `told` is there while somebody is to be told: then it is among those wanted, or a call for it is under way.
    """

    job_id: str
    queue: str | None = None
    created_ms: int | None = None
    known: dict[str, Any] | None = None
    at: float = 0.0
    changed_at: float = 0.0
    whole: bool = False
    unlisted: bool = False
    asked_at: float = 0.0
    waiting: int = 0
    strange: bool = False
    told: asyncio.Event | None = None
    error: Exception | None = None


class JobReads:
    """Descriptions of one upstream's jobs, at most a second old; final ones an hour.

    Where Batch or the budget cannot give a new one in time, the old one is given, with its age.
    """

    def __init__(
        self, calls: PacedCalls, *, upstream: str, log: Log, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._calls = calls
        self._upstream = upstream
        self._log = log
        self._logged_at = -LOG_SECONDS
        self._clock = clock
        # Jobs of submissions; and strangers' ids, which callers may invent: these push none of the others out, and wait
        # in a line of their own.
        self._jobs: OrderedDict[str, _Job] = OrderedDict()
        self._strangers: OrderedDict[str, _Job] = OrderedDict()
        self._wanted: OrderedDict[str, _Job] = OrderedDict()
        self._strangers_wanted: OrderedDict[str, _Job] = OrderedDict()
        self._turn = 0
        self._partial: OrderedDict[str, _Job] = OrderedDict()
        self._room = asyncio.Semaphore(CALLS_IN_FLIGHT)
        self._tasks: set[asyncio.Task[None]] = set()
        self._pump: asyncio.Task[None] | None = None
        self._lists_from = 0.0
        self._rests_until = 0.0

    async def describe(
        self, job_id: str, *, queue_arn: str | None = None, created_ms: int | None = None, patient: bool = True
    ) -> Aged | None:
        """As DescribeServiceJob answers; None where nothing is known in time, sooner for who is not `patient`.

        `queue_arn` and when it was created, or a little later, are known of jobs of submissions, and let one be found
        in a list before it was ever described; ids without them are strangers'. Raises CallFailedError,
        StoreUnavailableError.
        """
        job = self._job(job_id, queue_arn, created_ms)
        if not self._is_fresh(job):
            error = await self._ask(job, LONG_PATIENCE_SECONDS if patient and job.known is None else PATIENCE_SECONDS)
            if error is not None and (job.known is None or is_refusal(error)):
                raise error
        return None if job.known is None else Aged(answer=job.known, seconds=self._clock() - job.at)

    def forget(self, job_id: str) -> None:
        """It was changed just now: what is known of it is old, whenever it was asked for."""
        if job_id in self._jobs:
            self._jobs[job_id].changed_at = self._clock()

    async def aclose(self) -> None:
        """Ends what is under way: nobody waits for it any more."""
        tasks = [*self._tasks, *([self._pump] if self._pump else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _job(self, job_id: str, queue_arn: str | None, created_ms: int | None) -> _Job:
        jobs, most = (self._strangers, MAX_STRANGERS) if queue_arn is None else (self._jobs, MAX_JOBS)
        job = jobs.get(job_id)
        if job is None:
            job = jobs[job_id] = _Job(job_id=job_id, queue=queue_arn, created_ms=created_ms, strange=queue_arn is None)
            oldest = next(iter(jobs.values()))
            if len(jobs) > most and not oldest.waiting:
                del jobs[oldest.job_id]
        jobs.move_to_end(job_id)
        job.asked_at = self._clock()
        return job

    def _is_fresh(self, job: _Job) -> bool:
        if job.known is None or job.at < job.changed_at:
            return False
        final = job.whole and job.known.get("status") in FINAL
        return self._clock() - job.at < (FINAL_SECONDS if final else FRESH_SECONDS)

    async def _ask(self, job: _Job, seconds: float) -> Exception | None:
        """The error, where there was one; back at the latest after so many seconds."""
        if job.told is None:
            job.told = asyncio.Event()
            self._want(job)
        told = job.told
        job.waiting += 1
        try:
            async with asyncio.timeout(seconds):
                await told.wait()
        except TimeoutError:
            return None
        finally:
            job.waiting -= 1
        return job.error

    def _want(self, job: _Job) -> None:
        (self._strangers_wanted if job.strange else self._wanted)[job.job_id] = job
        self._start()

    def _start(self) -> None:
        if self._pump is None or self._pump.done():
            self._pump = asyncio.create_task(self._run(), name="job reads")

    async def _run(self) -> None:
        """A call for each slot of the budget, as long as somebody wants to know something."""
        while self._wanted or self._strangers_wanted or self._partial:
            await self._room.acquire()
            try:
                await asyncio.sleep(max(0.0, self._rests_until - self._clock()))
                await self._calls.slot(for_jobs=True)
            except BaseException as error:
                self._room.release()
                if isinstance(error, StoreUnavailableError):
                    self._tell([*self._wanted.values(), *self._strangers_wanted.values()], error)
                    for line in (self._wanted, self._strangers_wanted, self._partial):
                        line.clear()
                    return
                raise
            task = asyncio.create_task(self._call(self._next()), name="job read")
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._room.release()
        if not task.cancelled() and (error := task.exception()) is not None:
            task.get_loop().call_exception_handler({"message": "A job cannot be read.", "exception": error})

    def _next(self) -> list[_Job]:
        """One to describe, or many of one queue to look for in its list; empty where nobody waits any more."""
        self._drop_abandoned()
        self._turn += 1
        if self._strangers_wanted and (not self._wanted or self._turn % STRANGERS_TURN == 0):
            _, stranger = self._strangers_wanted.popitem(last=False)
            return [stranger]
        if self._wanted:
            first = next(iter(self._wanted.values()))
            alike = [one for one in self._wanted.values() if _is_listed(one) and one.queue == first.queue]
            by_list = _is_listed(first) and len(alike) >= LIST_FROM and self._clock() >= self._lists_from
            chosen = alike if by_list else [first]  # who waits longest goes first, also past a list that has it not
            for job in chosen:
                del self._wanted[job.job_id]
            return chosen
        while self._partial:
            _, job = self._partial.popitem(last=False)
            if not job.whole and self._clock() - job.asked_at < ASKED_WITHIN_SECONDS:
                return [job]
        return []

    def _drop_abandoned(self) -> None:
        """Those that nobody waits for any more. Who polls a job comes back: it keeps its place for a while."""
        now = self._clock()
        for line, keep_seconds in ((self._wanted, ASKED_WITHIN_SECONDS), (self._strangers_wanted, 0.0)):
            for job in [one for one in line.values() if not one.waiting and now - one.asked_at >= keep_seconds]:
                del line[job.job_id]
                job.told = None

    async def _call(self, jobs: Sequence[_Job]) -> None:
        try:
            if len(jobs) >= LIST_FROM:
                await self._list(jobs)
            elif jobs:
                await self._describe(jobs[0])
        except CallFailedError as error:
            if error.answer.kind is AnswerKind.THROTTLED:
                self._rests_until = self._clock() + max(error.answer.wait_seconds, REST_SECONDS)
            refused = error.answer.kind in (AnswerKind.REFUSED, AnswerKind.DENIED)
            if len(jobs) > 1 and refused:  # a gateway that may not list can still describe
                self._lists_from = self._clock() + NO_LIST_SECONDS
                for job in jobs:
                    self._want(job)
            else:
                self._tell(jobs, error)
            self._log_failure(error)
        except StoreUnavailableError as error:  # between two pages of a list: the store has the budget
            self._tell(jobs, error)
        except asyncio.CancelledError:
            self._tell(jobs, None)
            raise
        except Exception as error:
            self._tell(jobs, error)
            raise

    def _log_failure(self, error: CallFailedError) -> None:
        """Callers get older answers meanwhile: somebody must hear of it."""
        now = self._clock()
        if error.answer.kind is not AnswerKind.REFUSED and now - self._logged_at >= LOG_SECONDS:
            self._logged_at = now
            self._log.warning("reads_failing", upstream=self._upstream, error_code=error.answer.code)

    async def _describe(self, job: _Job) -> None:
        began = self._clock()
        described = await self._calls.at_once("DescribeServiceJob", {"jobId": job.job_id})
        if not _is_overtaken(job, described, began):
            job.known, job.at, job.whole = described, began, True
        job.unlisted = False
        job.queue, job.created_ms = described.get("jobQueue") or job.queue, described.get("createdAt") or job.created_ms
        self._tell([job], None)

    async def _list(self, jobs: Sequence[_Job]) -> None:
        """The newest of them and what is older, page by page while that finds more than describing would.

        A page refreshes all jobs on it that anybody has asked for lately, so that these need no call of their own.
        """
        left = {job.job_id: job for job in jobs}
        before_ms = max(job.created_ms or 0 for job in jobs) + 1
        query: dict[str, Any] = {
            "jobQueue": jobs[0].queue,
            "filters": [{"name": "BEFORE_CREATED_AT", "values": [str(before_ms)]}],
            "maxResults": PAGE_JOBS,
        }
        while True:
            began = self._clock()
            page = await self._calls.at_once("ListServiceJobs", query)
            found = [(self._jobs[one["jobId"]], one) for one in page["jobSummaryList"] if one["jobId"] in self._jobs]
            for job, summary in found:
                left.pop(job.job_id, None)
                self._wanted.pop(job.job_id, None)
                self._take(job, summary, began)
            self._tell([job for job, _ in found], None)
            asked_for = sum(began - job.asked_at < ASKED_WITHIN_SECONDS for job, _ in found)
            if len(left) < LIST_FROM or asked_for < LIST_FROM or not page.get("nextToken"):
                break
            query["nextToken"] = page["nextToken"]
            await self._calls.slot(for_jobs=True)
        for job in left.values():
            job.unlisted = True
            self._want(job)

    def _take(self, job: _Job, summary: Mapping[str, Any], began: float) -> None:
        if _is_overtaken(job, summary, began):
            return
        same = job.known is not None and all(
            job.known.get(name) == summary.get(name) for name in ("status", "latestAttempt", "statusReason")
        )
        base = job.known or {"jobQueue": job.queue, "startedAt": 0}
        job.known, job.at, job.whole = {**base, **summary}, began, job.whole and same
        job.created_ms = summary.get("createdAt") or job.created_ms
        if not job.whole and began - job.asked_at < ASKED_WITHIN_SECONDS:
            self._partial[job.job_id] = job
            self._start()

    def _tell(self, jobs: Sequence[_Job], error: Exception | None) -> None:
        for job in jobs:
            job.error = error
            if job.told is not None:
                job.told.set()
                job.told = None


def _is_overtaken(job: _Job, told: Mapping[str, Any], began: float) -> bool:
    """Whether what was asked then is older than what is known: no job goes back from its end, nor by a slow answer."""
    if job.known is None:
        return False
    return began < max(job.at, job.changed_at) or (job.known.get("status") in FINAL and told.get("status") not in FINAL)


def _is_listed(job: _Job) -> bool:
    return job.queue is not None and job.created_ms is not None and not job.unlisted
