"""One AWS account and Region: one call budget, one pace, one set of credentials. And which one a queue belongs to."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import TYPE_CHECKING

from gateway.core.identity import upstream_tag

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_QUEUE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
_ARN = re.compile(r"arn:aws[a-z-]*:batch:(?P<region>[a-z0-9-]+):(?P<account>[0-9]{12}):")
_QUEUE_ARN = re.compile(
    r"arn:aws[a-z-]*:batch:(?P<region>[a-z0-9-]+):(?P<account>[0-9]{12}):job-queue/(?P<name>[A-Za-z0-9][A-Za-z0-9_-]{0,127})"
)

_PARTITIONS = {"cn-": "aws-cn", "us-gov-": "aws-us-gov"}


@dataclass(frozen=True, kw_only=True)
class Upstream:
    """`rate` is what Batch allows, in calls a second; `burst` how many may go at once after a pause."""

    name: str
    region: str
    account: str
    rate: float = 5.0
    burst: int = 1
    submission_tag: bool = True
    queues: tuple[str, ...] = ("*",)

    def job_arn(self, job_id: str) -> str:
        """The ARN of a service job here."""
        return self._arn("service-job", job_id)

    def queue_arn(self, queue: str) -> str:
        """The ARN of the job queue of this name."""
        return self._arn("job-queue", queue)

    def _arn(self, kind: str, name: str) -> str:
        partition = next((name for prefix, name in _PARTITIONS.items() if self.region.startswith(prefix)), "aws")
        return f"arn:{partition}:batch:{self.region}:{self.account}:{kind}/{name}"

    @cached_property
    def tag(self) -> str:
        return upstream_tag(self.account, self.region)

    def has(self, queue: str) -> bool:
        """Whether its globs fit the queue's name."""
        return any(fnmatchcase(queue, glob) for glob in self.queues)


class Routes:
    """Which upstream has a queue: the first whose globs fit its name; an ARN must be of that account and Region."""

    def __init__(self, upstreams: Sequence[Upstream]) -> None:
        self._upstreams = tuple(upstreams)

    def __iter__(self) -> Iterator[Upstream]:
        return iter(self._upstreams)

    def resolve(self, job_queue: str) -> tuple[Upstream, str]:
        """(upstream, queue's name); raises ValueError with a sentence where the queue is none of ours."""
        match = _QUEUE_ARN.fullmatch(job_queue)
        if match is None and not _QUEUE_NAME.fullmatch(job_queue):
            raise ValueError("must be a job queue's name (1-128 letters, digits, - and _) or its ARN")
        name = match["name"] if match else job_queue
        fitting = [one for one in self._upstreams if one.has(name)]
        if match:
            fitting = [one for one in fitting if (one.account, one.region) == (match["account"], match["region"])]
            if not fitting:
                raise ValueError("is a queue of an account or Region that this gateway does not forward to")
        if not fitting:
            raise ValueError("is no queue that this gateway forwards to")
        return fitting[0], name

    def named(self, name: str) -> Upstream | None:
        return next((one for one in self._upstreams if one.name == name), None)

    def of_arn(self, arn: str) -> Upstream | None:
        """The upstream with the account and Region of any ARN of Batch's."""
        match = _ARN.match(arn)
        if match is None:
            return None
        wanted = match["account"], match["region"]
        return next((one for one in self._upstreams if (one.account, one.region) == wanted), None)

    def of(self, submission_id: str) -> Upstream | None:
        """The upstream that an id begins with."""
        return next((one for one in self._upstreams if submission_id.startswith(one.tag)), None)
