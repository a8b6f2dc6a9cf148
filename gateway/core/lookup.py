"""Finding submissions again: by id, by Batch's job id or ARN, by page; and waiting for what becomes of one."""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from gateway.core.errors import NotFoundError
from gateway.core.identity import TAG_CHARACTERS, SubmissionId, submission_id
from gateway.core.ports import Indexed
from gateway.core.submission import State, Submission

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.core.caller import Caller
    from gateway.core.ports import LookupStore, SettledHints
    from gateway.core.share import Share
    from gateway.core.upstream import Routes, Upstream

# Hints arrive in milliseconds; where one is lost, a waiting caller learns of the end this much later. Thousands may
# wait, and each look is a command of the store's that forwarding wants too.
POLL_SECONDS = 5.0
# So many submissions are looked at for a page: where few fit the filters, it is short and has a cursor.
SCAN_AT_ONCE, SCAN_MOST = 200, 1000

_JOB_ARN = re.compile(r"arn:aws[a-z-]*:batch:(?P<region>[a-z0-9-]+):(?P<account>[0-9]{12}):service-job/(?P<id>.+)")
_JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """What a list shall hold; None: any. `job_queue` is a queue's name or ARN."""

    client_token: str | None = None
    job_queue: str | None = None
    share: Share | None = None
    state: State | None = None

    @property
    def narrow(self) -> bool:
        return self != Filters()


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """What an id stands for: a submission, or only a job of Batch's, of the upstream or of any where that is None.

    `as_submission` is the id in the gateway's own form, where it was asked for by that one.
    """

    submission: Submission | None = None
    job_id: str | None = None
    upstream: Upstream | None = None
    as_submission: SubmissionId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Submissions, newest first; `after` is where the next page begins, None at the end."""

    items: Sequence[Submission]
    after: Indexed | None


class Lookup:
    """Looks in the stores of all upstreams, by their tags. A caller sees its own namespace, an operator all."""

    def __init__(
        self,
        *,
        routes: Routes,
        stores: Mapping[str, LookupStore],
        hints: Mapping[str, SettledHints],
        draining: asyncio.Event,
    ) -> None:
        self._routes = routes
        self._stores = stores
        self._hints = hints
        self._draining = draining

    async def find(self, wanted: str, caller: Caller) -> Submission:
        """By submissionId, or by Batch's job id or ARN. Raises NotFoundError, for another namespace's ones too."""
        for look in (self._by_submission_id, self._by_job):
            found = await look(wanted)
            if found is not None and caller.sees(found):
                return found
        raise NotFoundError(f"No submission {wanted[:256]} is known here.{await self._trace(wanted, caller)}")

    async def locate(self, wanted: str, caller: Caller) -> Located:
        """As `find`, and for operators also what has no record here any more or never had one.

        Raises NotFoundError: for what is not the caller's, and for what can be no job's id.
        """
        arn = _JOB_ARN.fullmatch(wanted)
        bare = arn["id"] if arn else wanted
        own = _submission_id(bare) if self._is_here(arn, bare) else None
        found = await self._by_submission_id(bare) if own else None
        if found is not None and caller.sees(found):
            upstream = self._routes.of(found.submission_id)
            return Located(submission=found, job_id=found.job_id, upstream=upstream, as_submission=found.submission_id)
        by_job = await self._by_job(wanted)
        if by_job is not None and caller.sees(by_job):
            upstream = self._routes.of(by_job.submission_id)
            return Located(submission=by_job, job_id=by_job.job_id, upstream=upstream)
        if not caller.operator or not _JOB_ID.fullmatch(bare):
            raise NotFoundError(f"No submission or job {wanted[:256]} is known here.")
        upstream = self._routes.of(own) if own else None
        if own and upstream and (job_id := await self._stores[upstream.tag].job_of(own)):
            return Located(job_id=job_id, upstream=upstream, as_submission=own)
        return Located(job_id=bare, upstream=self._upstream_of(wanted) if arn else None)

    def _upstream_of(self, arn: str) -> Upstream:
        """Raises NotFoundError for an account or Region of others."""
        upstream = self._routes.of_arn(arn)
        if upstream is None:
            raise NotFoundError(f"{arn[:256]} is of an account or Region that this gateway does not forward to.")
        return upstream

    async def find_settled(self, submission: Submission, caller: Caller, seconds: float) -> Submission:
        """The submission once it has left `queued`; as it stands after so many seconds, or when this process drains."""
        hints = self._hints[submission.submission_id[:TAG_CHARACTERS]]
        deadline = time.monotonic() + seconds
        with hints.watching(submission.submission_id) as changed:
            while True:  # look only once the hint would be heard, so that no end falls between the two
                submission = await self.find(submission.submission_id, caller)
                left = deadline - time.monotonic()
                if submission.state is not State.QUEUED or self._draining.is_set() or left <= 0:
                    return submission
                with suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), min(left, POLL_SECONDS))
                changed.clear()

    def own_arn(self, submission: Submission) -> str:
        """The submission's ARN in the gateway's own form."""
        upstream = self._routes.of(submission.submission_id)
        return upstream.job_arn(submission.submission_id) if upstream else submission.submission_id

    async def owns(self, job: str, caller: Caller) -> bool:
        """Whether a job of Batch's, by its id or ARN, is of a submission that the caller sees."""
        found = await self._by_job(job)
        return found is not None and caller.sees(found)

    async def seconds_since_settled(self, submission: Submission) -> float:
        """By the store's clock; 0 for one that is not settled."""
        if submission.settled_at is None:
            return 0.0
        now_ms = await self._stores[submission.submission_id[:TAG_CHARACTERS]].now_ms()
        return max(0.0, now_ms / 1000 - submission.settled_at.timestamp())

    async def page(self, filters: Filters, caller: Caller, *, limit: int, before: Indexed | None = None) -> Page:
        """The newest submissions that fit, past `before`. Raises ValueError where the queue is none of ours.

        What is accepted or expires meanwhile neither moves nor repeats the others: places are times, and never change.
        """
        upstreams, queue = list(self._routes), None
        if filters.job_queue is not None:
            upstream, queue = self._routes.resolve(filters.job_queue)
            upstreams = [upstream] if filters.job_queue.startswith("arn:") else upstreams
        sources = [
            (upstream, namespace)
            for upstream in upstreams
            for namespace in (await self._stores[upstream.tag].namespaces() if caller.operator else [caller.namespace])
        ]
        if filters.client_token is not None:
            return await self._page_of_token(filters, queue, sources, limit=limit, before=before)
        items: list[Submission] = []
        at_once = SCAN_AT_ONCE if filters.narrow else limit
        for _ in range(SCAN_MOST // at_once):
            places = await self._places(sources, before, at_once)
            for place, submission in zip(places, await self._read(places), strict=True):
                before = place
                if submission is not None and _fits(submission, filters, queue):
                    items.append(submission)
                    if len(items) == limit:
                        return Page(items=items, after=before)
            if len(places) < at_once:
                return Page(items=items, after=None)
        return Page(items=items, after=before)

    async def _by_submission_id(self, wanted: str) -> Submission | None:
        canonical = _submission_id(wanted)
        upstream = self._routes.of(canonical) if canonical else None
        return await self._stores[upstream.tag].get(canonical) if canonical and upstream else None

    async def _trace(self, wanted: str, caller: Caller) -> str:
        """What is still known of one whose record has expired. For operators: whose it was is not."""
        canonical = _submission_id(wanted)
        upstream = self._routes.of(canonical) if canonical and caller.operator else None
        job_id = await self._stores[upstream.tag].job_of(canonical) if canonical and upstream else None
        return f" Its record has expired; Batch made job {job_id} of it." if job_id else ""

    async def _by_job(self, wanted: str) -> Submission | None:
        arn = _JOB_ARN.fullmatch(wanted)
        job_id = arn["id"] if arn else wanted
        if not _JOB_ID.fullmatch(job_id):
            return None
        for upstream in self._routes:
            if arn is None or (upstream.account, upstream.region) == (arn["account"], arn["region"]):
                owner = await self._stores[upstream.tag].of_job(job_id)
                if owner is not None:
                    return await self._stores[upstream.tag].get(owner)
        return await self._by_submission_id(job_id) if arn and self._is_here(arn, job_id) else None

    def _is_here(self, arn: re.Match[str] | None, bare: str) -> bool:
        """Whether an ARN, where there is one, is of the upstream that the submissionId in it begins with."""
        if arn is None:
            return True
        own = _submission_id(bare)
        upstream = self._routes.of(own) if own else None
        return upstream is not None and upstream is self._routes.of_arn(arn[0])

    async def _page_of_token(
        self,
        filters: Filters,
        queue: str | None,
        sources: Sequence[tuple[Upstream, str]],
        *,
        limit: int,
        before: Indexed | None,
    ) -> Page:
        """A token and a namespace make the id: no list is walked."""
        found = []
        for upstream, namespace in sources:
            wanted = submission_id(
                namespace=namespace,
                account=upstream.account,
                region=upstream.region,
                token=filters.client_token or "",
            )
            submission = await self._stores[upstream.tag].get(wanted)
            if submission is not None and _fits(submission, filters, queue):
                found.append((_place_of(submission), submission))
        found.sort(key=lambda pair: pair[0], reverse=True)
        rest = [pair for pair in found if before is None or pair[0] < before]
        after = rest[limit - 1][0] if len(rest) > limit else None
        return Page(items=[submission for _, submission in rest[:limit]], after=after)

    async def _places(
        self, sources: Sequence[tuple[Upstream, str]], before: Indexed | None, limit: int
    ) -> list[Indexed]:
        """The next places of all sources together: each gives as many as may be needed of it."""
        places: list[Indexed] = []
        for upstream, namespace in sources:
            places += await self._stores[upstream.tag].accepted_before(namespace, before, limit)
        return sorted(places, reverse=True)[:limit]

    async def _read(self, places: Sequence[Indexed]) -> list[Submission | None]:
        """In the order of `places`; None where a record has expired."""
        found: dict[SubmissionId, Submission | None] = {}
        for upstream in self._routes:
            wanted = [one.submission_id for one in places if one.submission_id.startswith(upstream.tag)]
            found.update(zip(wanted, await self._stores[upstream.tag].get_many(wanted), strict=True))
        return [found.get(one.submission_id) for one in places]


def _submission_id(text: str) -> SubmissionId | None:
    """The id as the store has it, None for what is no UUID."""
    with suppress(ValueError):
        return SubmissionId(str(UUID(text)))
    return None


def _place_of(submission: Submission) -> Indexed:
    return Indexed(accepted_ms=round(submission.accepted_at.timestamp() * 1000), submission_id=submission.submission_id)


def _fits(submission: Submission, filters: Filters, queue: str | None) -> bool:
    return (
        (queue is None or submission.share.queue == queue)
        and (filters.share is None or submission.share == filters.share)
        and (filters.state is None or submission.state is filters.state)
    )
