"""ListServiceJobs: which jobs, newest first, page by page."""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from gateway.emulator.errors import BatchError
from gateway.emulator.jobs import Job, Jobs
from gateway.emulator.paging import page_size, place_in, token_for

Condition = Callable[[Job], bool]

_SHARE_FILTERS = {"SHARE_IDENTIFIER": "shareIdentifier", "QUOTA_SHARE_NAME": "quotaShareName"}


def list_jobs(jobs: Jobs, params: Mapping[str, Any], *, queue: str, now: float) -> dict[str, Any]:
    """The answer for one page of the queue's jobs. Raises BatchError for a bad filter, size or token.

    With a filter the status plays no part, but for the share filters, where it narrows if it is given; without one only
    RUNNING jobs are shown unless another status is asked for.
    """
    query = {name: params.get(name) for name in ("jobStatus", "filters")} | {"queue": queue}
    size = page_size(params)
    candidates, fits = _selection(jobs, params, queue=queue, now=now)
    page: list[Job] = []
    for job in _older_than(candidates, place_in(params, query)):
        if job.listed_from > now or not fits(job):
            continue
        if len(page) == size:
            return {"jobSummaryList": _shown(page, now), "nextToken": token_for(page[-1].number, query)}
        page.append(job)
    return {"jobSummaryList": _shown(page, now)}


def _shown(page: list[Job], now: float) -> list[dict[str, Any]]:
    return [job.summary(now) for job in page]


def _older_than(candidates: Sequence[Job], number: int | None) -> Iterator[Job]:
    end = len(candidates) if number is None else bisect_left(candidates, number, key=lambda job: job.number)
    return (candidates[index] for index in range(end - 1, -1, -1))


def _selection(jobs: Jobs, params: Mapping[str, Any], *, queue: str, now: float) -> tuple[Sequence[Job], Condition]:
    """Jobs in the order of their creation, and which of them fit."""
    status = params.get("jobStatus")

    def in_status(wanted: str) -> Condition:
        return lambda job: job.progress(now).status == wanted

    filters = params.get("filters") or []
    if not filters:
        return jobs.of_queue(queue), in_status(status or "RUNNING")
    name, value = _only_filter(filters)
    if name in _SHARE_FILTERS:
        member = _SHARE_FILTERS[name]
        has_status = in_status(status) if status else lambda _: True
        return jobs.shares(queue).get(value, []), lambda job: job.request.get(member) == value and has_status(job)
    if name == "JOB_NAME":
        return _named(jobs, queue, value)
    return jobs.of_queue(queue), _created(name, value)


def _only_filter(filters: list[dict[str, Any]]) -> tuple[str, str]:
    if len(filters) > 1:
        raise BatchError("filters: only one filter can be used at a time")
    name, values = filters[0].get("name"), filters[0].get("values") or []
    known = {"JOB_NAME", "BEFORE_CREATED_AT", "AFTER_CREATED_AT", *_SHARE_FILTERS}
    if name not in known:
        raise BatchError(f"filters[0].name: must be one of {', '.join(sorted(known))}")
    if len(values) != 1:
        raise BatchError("filters[0].values: must have one value")
    return name, values[0]


def _named(jobs: Jobs, queue: str, value: str) -> tuple[Sequence[Job], Condition]:
    if not value.endswith("*"):
        return jobs.of_name(queue, value), lambda _: True
    prefix = value[:-1].lower()
    return jobs.of_queue(queue), lambda job: job.name.lower().startswith(prefix)


def _created(name: str, value: str) -> Condition:
    try:
        limit = int(value)
    except ValueError:
        raise BatchError("filters[0].values: must be milliseconds since 1970, as a string of digits") from None
    if name == "BEFORE_CREATED_AT":
        return lambda job: job.created_at < limit
    return lambda job: job.created_at > limit
