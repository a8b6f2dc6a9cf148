"""Which of Batch's jobs is a submission's own, when no answer told. Decides; does not look."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.core.attempt import Answer
    from gateway.core.identity import SubmissionId

# Jobs created up to five minutes before the first attempt count: Batch's clock and the store's may differ.
CLOCKS_DIFFER = timedelta(minutes=5)
# Batch lists a job late at times: looks at 5, 30 and 120 s, as waits one after another.
LOOK_AFTER_SECONDS = (5.0, 25.0, 90.0)


class CallFailedError(Exception):
    """Batch could not be asked now; `answer` says why."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.code)
        self.answer = answer


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedJobs:
    """Ids of jobs of one queue and name, newest first, each once; `complete` where these are all."""

    ids: Sequence[str]
    complete: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A job of the right queue and name; `submission` is what its tag says, None without the tag.

    Batch may list a job and not describe it yet; nothing is known of its tag then, and `job_arn` is empty.
    """

    job_id: str
    job_arn: str
    submission: str | None

    @property
    def is_described(self) -> bool:
        return bool(self.job_arn)


def own_job(candidates: Sequence[Candidate], wanted: SubmissionId) -> Candidate | None:
    """The one job that is surely ours: tagged with this submission, and no other like it."""
    tagged = [one for one in candidates if one.submission == wanted]
    return tagged[0] if len(tagged) == 1 else None


def possible_jobs(candidates: Sequence[Candidate], wanted: SubmissionId) -> list[Candidate]:
    """Those that may be ours: tagged so, or untagged. A job with another submission's tag is not."""
    return [one for one in candidates if one.submission in (wanted, None)]
