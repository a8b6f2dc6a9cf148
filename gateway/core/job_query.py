"""What one call of ListServiceJobs asks for, by Batch's rules (FACTS.md, "The call")."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from gateway.core.errors import MalformedError
from gateway.core.identity import SubmissionId
from gateway.core.ports import Indexed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.core.submission import Submission
    from gateway.core.upstream import Routes, Upstream

MAX_RESULTS = 100
STATUSES = ("SUBMITTED", "PENDING", "RUNNABLE", "SCHEDULED", "STARTING", "RUNNING", "SUCCEEDED", "FAILED")
# With these alone a status narrows the list; with the others it is ignored.
SHARE_FILTERS = {"SHARE_IDENTIFIER": "shareIdentifier", "QUOTA_SHARE_NAME": "quotaShareName"}
FILTERS = ("JOB_NAME", "BEFORE_CREATED_AT", "AFTER_CREATED_AT", *SHARE_FILTERS)
MAX_VALUE_CHARACTERS = 1024

MEMBERS = frozenset({"jobQueue", "jobStatus", "maxResults", "nextToken", "filters"})

_MOMENT = re.compile(r"[0-9]{1,15}")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobQuery:
    """`job_queue` is the queue as the caller named it; `filter` and `value` are empty without a filter."""

    upstream: Upstream
    queue: str
    job_queue: str
    status: str | None = None
    filter: str = ""
    value: str = ""
    size: int = MAX_RESULTS

    def wants(self, status: str) -> bool:
        """Whether jobs in this status can be in the list."""
        if self.filter in SHARE_FILTERS:
            return self.status in (None, status)
        return bool(self.filter) or status == (self.status or "RUNNING")

    def fits(self, submission: Submission) -> bool:
        """Whether it is of the queue, the name and the share, whatever its status; `start` and `is_past` tell times."""
        if submission.share.queue != self.queue:
            return False
        if self.filter == "JOB_NAME":
            name, value = submission.job_name.lower(), self.value.lower()
            return name.startswith(value[:-1]) if value.endswith("*") else name == value
        if self.filter in SHARE_FILTERS:
            return (submission.share_kind, submission.share.name) == (SHARE_FILTERS[self.filter], self.value)
        return True

    @property
    def share(self) -> str | None:
        return self.value if self.filter in SHARE_FILTERS else None

    @property
    def start(self) -> Indexed | None:
        """The place past which all that fits is, newest first."""
        if self.filter != "BEFORE_CREATED_AT":
            return None
        return Indexed(accepted_ms=int(self.value), submission_id=SubmissionId(""))

    def is_past(self, place: Indexed) -> bool:
        """Whether nothing fits at this place or behind it."""
        return self.filter == "AFTER_CREATED_AT" and place.accepted_ms <= int(self.value)

    @property
    def params(self) -> dict[str, Any]:
        """What Batch is asked for, but for the page."""
        params: dict[str, Any] = {"jobQueue": self.job_queue}
        if self.status:
            params["jobStatus"] = self.status
        if self.filter:
            params["filters"] = [{"name": self.filter, "values": [self.value]}]
        return params

    @property
    def digest(self) -> str:
        """Of all but the page's size, which may change on the way as it may with Batch."""
        asked = json.dumps([self.upstream.tag, self.params], sort_keys=True)
        return hashlib.sha256(asked.encode()).hexdigest()[:16]


def query_of(params: Mapping[str, Any], routes: Routes) -> JobQuery:
    """Raises MalformedError with what is wrong; null is as good as absent, as with Batch."""
    for member in sorted(params.keys() - MEMBERS):
        refuse(member[:64], "is not a member that is known here")
    job_queue = params.get("jobQueue")
    if job_queue is None:
        refuse("jobQueue", "is required")
    if not isinstance(job_queue, str):
        refuse("jobQueue", "must be a string")
    try:
        upstream, queue = routes.resolve(job_queue)
    except ValueError as error:
        refuse("jobQueue", str(error))
    status = params.get("jobStatus")
    if status is not None and status not in STATUSES:
        refuse("jobStatus", f"must be one of {', '.join(STATUSES)}")
    size = params.get("maxResults")
    size = MAX_RESULTS if size is None else size
    if isinstance(size, float) and size.is_integer():
        size = int(size)
    if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= MAX_RESULTS:
        refuse("maxResults", f"must be a whole number from 1 to {MAX_RESULTS}")
    name, value = _filter(params.get("filters"))
    return JobQuery(
        upstream=upstream, queue=queue, job_queue=job_queue, status=status, filter=name, value=value, size=size
    )


def refuse(member: str, problem: str) -> NoReturn:
    """In the manner of Batch: `filters[0].values: must have one value`."""
    raise MalformedError(f"{member}: {problem}")


def _filter(filters: Any) -> tuple[str, str]:
    if filters is None or filters == []:
        return "", ""
    if not isinstance(filters, list):
        refuse("filters", "must be a list")
    if len(filters) > 1:
        refuse("filters", "only one filter can be used at a time")
    if not isinstance(filters[0], dict):
        refuse("filters[0]", "must be an object")
    name, values = filters[0].get("name"), filters[0].get("values")
    if name not in FILTERS:
        refuse("filters[0].name", f"must be one of {', '.join(FILTERS)}")
    if not isinstance(values, list) or len(values) != 1:
        refuse("filters[0].values", "must have one value")
    (value,) = values
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_VALUE_CHARACTERS:
        refuse("filters[0].values", f"must be a string of 1 to {MAX_VALUE_CHARACTERS} characters")
    if name.endswith("_CREATED_AT") and not _MOMENT.fullmatch(value):
        refuse("filters[0].values", "must be milliseconds since 1970, as a string of digits")
    return name, value
