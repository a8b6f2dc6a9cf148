"""ListServiceJobs: what waits in the gateway, then Batch's own pages, then what ended in the gateway; each once a walk.

While a walk goes on, submissions go from the first to the second or the third. So those that wait are shown first, each
part as it stood at one moment of the store's, and the token says which parts were read when: whoever left the queue
after its part was read has been shown, and is passed over later. Whoever left before is in one of the other two.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gateway.core.errors import TooManyReadsError
from gateway.core.job_query import query_of
from gateway.core.job_view import milliseconds, status_of, summary
from gateway.core.job_walk import Stage, Walk, resumed
from gateway.core.reads import Aged
from gateway.core.reconcile import CLOCKS_DIFFER, CallFailedError
from gateway.core.share import NO_SHARE, Share
from gateway.core.submission import SUBMISSION_TAG

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.core.caller import Caller
    from gateway.core.identity import SubmissionId
    from gateway.core.job_query import JobQuery
    from gateway.core.job_reads import JobReads
    from gateway.core.outlook import Outlook
    from gateway.core.read_ports import JobOwnerStore, QueueListing
    from gateway.core.reads import Reads
    from gateway.core.submission import Submission
    from gateway.core.upstream import Routes

# So much is done for a page: where few records or jobs fit, it is short and has a token.
RECORDS_AT_ONCE, RECORDS_MOST, CALLS_MOST = 200, 1000, 4
# Jobs that may be those of submissions shown already are few: as many as calls are in flight.
DESCRIBED_MOST = 20
# Below the time-outs of clients and of what stands between; a read may wait eight seconds, and a page needs several.
PAGE_SECONDS = 10.0

Job = dict[str, Any]


@dataclass(slots=True, kw_only=True)
class _Page:
    """One answer in the making, for one caller and query; the counts are what may still be done for it, until `until`.

    `age` is in seconds, that of the oldest answer of Batch's in it.
    """

    query: JobQuery
    caller: Caller
    walk: Walk
    until: float
    items: list[Job] = field(default_factory=list)
    records: int = RECORDS_MOST
    calls: int = CALLS_MOST
    age: float = 0.0
    is_over: bool = False

    @property
    def is_full(self) -> bool:
        return self.is_over or not (self.room and self.records > 0 and self.calls)

    @property
    def room(self) -> int:
        return self.query.size - len(self.items)

    @property
    def at_once(self) -> int:
        """How many that wait to look at for the rest of the page: all of them fit where only a name could be amiss."""
        fitting = self.query.filter != "JOB_NAME" and self.caller.operator
        return self.room if fitting else RECORDS_AT_ONCE

    def passes_over(self) -> None:
        """The stages in which nothing can fit."""
        while (self.walk.stage is Stage.WAITING and not self.query.wants("SUBMITTED")) or (
            self.walk.stage is Stage.ENDED and not self.query.wants("FAILED")
        ):
            self.walk.goes_on()

    def shows(self, submission: Submission) -> bool:
        """Whether it is one for this caller and query, whatever its status."""
        return self.caller.sees(submission) and self.query.fits(submission)


class JobListing:
    """All collaborators are by the upstream's tag."""

    def __init__(
        self,
        *,
        routes: Routes,
        stores: Mapping[str, JobOwnerStore],
        queues: Mapping[str, QueueListing],
        outlooks: Mapping[str, Outlook],
        reads: Mapping[str, Reads],
        job_reads: Mapping[str, JobReads],
    ) -> None:
        self._routes = routes
        self._stores = stores
        self._queues = queues
        self._outlooks = outlooks
        self._reads = reads
        self._job_reads = job_reads

    async def page(self, params: Mapping[str, Any], caller: Caller) -> Aged:
        """ListServiceJobs' answer to its parameters, both as its JSON has them, as old as the oldest in it.

        An operator sees all, others what they submitted. Raises MalformedError, StoreUnavailableError, and what
        `reads` raises.
        """
        query = query_of(params, self._routes)
        token = params.get("nextToken")
        walk = Walk(digest=query.digest) if token is None else resumed(token, query.digest)
        page = _Page(query=query, caller=caller, walk=walk, until=asyncio.get_running_loop().time() + PAGE_SECONDS)
        steps = {Stage.WAITING: self._waiting, Stage.BATCH: self._batch, Stage.ENDED: self._ended}
        page.passes_over()
        while walk.stage is not Stage.OVER and not page.is_full:
            await steps[walk.stage](page)
            page.passes_over()
        more = {} if walk.stage is Stage.OVER else {"nextToken": walk.token()}
        # A page over the border of two stages: who takes the first of a name wants the newest.
        page.items.sort(key=lambda job: job.get("createdAt") or 0, reverse=True)
        return Aged(answer={"jobSummaryList": page.items, **more}, seconds=page.age)

    async def _waiting(self, page: _Page) -> None:
        query, walk, upstream = page.query, page.walk, page.query.upstream
        seen = await self._queues[upstream.tag].waiting(
            query.queue, share=query.share, before=walk.place or query.start, limit=page.at_once
        )
        last, past = None, False
        for place, submission in zip(seen.places, seen.records, strict=True):
            past = query.is_past(place)
            if past or not page.room:
                break
            last, page.records = place, page.records - 1
            if submission is None or not page.shows(submission):
                continue
            if submission.settled_at is not None and milliseconds(submission.settled_at) <= seen.at_ms:
                walk.left_at_once.add(submission.submission_id)
            if query.wants(status_of(submission)):
                page.items.append(summary(await self._outlooks[upstream.tag].with_forecast(submission), upstream))
        if last is not None:
            walk.has_seen(seen.places[0], last, seen.at_ms)
            walk.place = last
        if past or (not seen.more and (last is None or last == seen.places[-1])):
            walk.goes_on()

    async def _batch(self, page: _Page) -> None:
        """A whole page of Batch's or nothing of it: its token can stand only at its end.

        Its size is the caller's, whatever room is left, so that all who list ask the same question.
        """
        query, walk, reads = page.query, page.walk, self._reads[page.query.upstream.tag]
        params = {**query.params, "maxResults": query.size}
        if walk.batch_token is not None:
            params["nextToken"] = walk.batch_token
        # Who left the queue before it was read is in Batch's first page, unless that one is older still.
        joins = query.wants("SUBMITTED") and walk.batch_token is None
        try:
            async with asyncio.timeout_at(page.until):
                aged = await reads.aged("ListServiceJobs", params, since=reads.now() if joins else -math.inf)
        except (TimeoutError, TooManyReadsError) as error:
            if page.calls == CALLS_MOST:  # what waits, without a word of Batch's, looks like all there is
                raise TooManyReadsError from error
            page.is_over = True
            return
        page.calls -= 1
        kept = await self._kept(page, aged.answer["jobSummaryList"])
        if page.items and len(kept) > page.room:
            page.is_over = True
            return
        page.items += kept
        page.age = max(page.age, aged.seconds)
        walk.batch_token = aged.answer.get("nextToken")
        if walk.batch_token is None:
            walk.goes_on()

    async def _ended(self, page: _Page) -> None:
        query, walk, store = page.query, page.walk, self._stores[page.query.upstream.tag]
        places = await store.ended_before(query.queue, walk.place or query.start, RECORDS_AT_ONCE)
        for place, submission in zip(places, await store.get_many([one.submission_id for one in places]), strict=True):
            if query.is_past(place):
                walk.goes_on()
                return
            walk.place, page.records = place, page.records - 1
            if submission is None or status_of(submission) != "FAILED" or submission.job_id is not None:
                continue  # Batch lists those that it has
            if page.shows(submission) and not walk.saw_waiting(submission):
                page.items.append(summary(submission, query.upstream))
                if not page.room:
                    return
        if len(places) < RECORDS_AT_ONCE:
            walk.goes_on()

    async def _kept(self, page: _Page, jobs: Sequence[Job]) -> list[Job]:
        """Those of Batch's jobs that the caller may see, and that this walk has not shown while they waited here."""
        shown = {item["jobId"] for item in page.items}  # Batch's pages move on while jobs are made
        unique = {job["jobId"]: job for job in jobs if job["jobId"] not in shown}
        if page.caller.operator and not page.walk.parts:
            return list(unique.values())
        owners = await self._owners(page, unique)
        wanted = list(set(owners.values()))
        found = await self._stores[page.query.upstream.tag].get_many(wanted)
        records = dict(zip(wanted, found, strict=True))
        kept = []
        for job_id, job in unique.items():
            owner = records.get(owners[job_id]) if job_id in owners else None
            seen = page.caller.sees(owner) if owner else page.caller.operator
            if seen and not (owner and page.walk.saw_waiting(owner)):
                kept.append(job)
        return kept

    async def _owners(self, page: _Page, jobs: Mapping[str, Job]) -> dict[str, SubmissionId]:
        """Whose jobs these are, also where the answer to a submission is still on its way to the store."""
        tag = page.query.upstream.tag
        owners = dict(await self._stores[tag].owners(list(jobs)))
        unowned = {job_id: job for job_id, job in jobs.items() if job_id not in owners}
        if not unowned or not page.caller.operator:
            return owners
        shares = {_share_of(job, page.query.queue) for job in unowned.values()}
        unsettled = [one for one in await self._queues[tag].under_way(shares) if page.walk.saw_waiting(one)]
        owners.update(await self._stores[tag].owners(list(unowned)))  # who is not under way any more is settled
        unowned = {job_id: job for job_id, job in unowned.items() if job_id not in owners}
        return owners | await self._probable_owners(page, unowned, unsettled)

    async def _probable_owners(
        self, page: _Page, jobs: Mapping[str, Job], unsettled: Sequence[Submission]
    ) -> dict[str, SubmissionId]:
        """Of jobs that may be those of unsettled submissions. Their tags say so; where none can be had, their names."""
        free = {one.submission_id: one for one in unsettled}
        likely = [job_id for job_id, job in jobs.items() if _fitting(job, free, page.query.queue)]
        tags: dict[str, str | None] = {}
        if page.query.upstream.submission_tag:
            described = likely[:DESCRIBED_MOST]
            told = await asyncio.gather(*(self._tag_of(page.query.upstream.tag, job_id) for job_id in described))
            tags = dict(zip(described, told, strict=True))
        owners: dict[str, SubmissionId] = {}
        for job_id in likely:
            fitting, named = _fitting(jobs[job_id], free, page.query.queue), tags.get(job_id)
            owner = next((one for one in fitting if named in (None, one)), None)
            if owner is not None:
                owners[job_id] = owner
                del free[owner]
        return owners

    async def _tag_of(self, tag: str, job_id: str) -> str | None:
        """Which submission a job's tag names, "" where it has none; None where Batch does not say within a second."""
        try:
            described = await self._job_reads[tag].describe(job_id, patient=False)
        except CallFailedError:  # it may be listed and not described yet
            return None
        if described is None or "serviceRequestPayload" not in described.answer:  # as a list has it, without tags
            return None
        return str((described.answer.get("tags") or {}).get(SUBMISSION_TAG, ""))


def _fitting(job: Job, submissions: Mapping[SubmissionId, Submission], queue: str) -> list[SubmissionId]:
    return [one for one, submission in submissions.items() if _may_be_of(job, submission, queue)]


def _share_of(job: Job, queue: str) -> Share:
    return Share(queue, job.get("shareIdentifier") or job.get("quotaShareName") or NO_SHARE)


def _may_be_of(job: Job, submission: Submission, queue: str) -> bool:
    created_ms = job.get("createdAt")
    soonest = milliseconds(submission.accepted_at - CLOCKS_DIFFER)
    return (
        job.get("jobName") == submission.job_name
        and _share_of(job, queue) == submission.share
        and (created_ms is None or created_ms >= soonest)
    )
