"""What must be true at the end of the demo: every accepted submission became exactly one job, and nothing else did."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.core.submission import SUBMISSION_TAG

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.emulator import Emulator


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A job that a call made, and the submission that its tag names."""

    job_id: str
    submission_id: str | None


def made_by(emulator: Emulator) -> list[Made]:
    """From the ledger, which records each call as it is decided, and not from what the gateway says of itself."""
    tags = {job.job_id: job.tags.get(SUBMISSION_TAG) for job in emulator.jobs}
    return [
        Made(job_id=call.job_id, submission_id=tags.get(call.job_id))
        for call in emulator.ledger()
        if call.created and call.job_id
    ]


def violations(accepted: Mapping[str, str | None], made: Sequence[Made]) -> list[str]:
    """What is wrong, in sentences; empty if all is well. `accepted` has the job that the gateway tells, by id."""
    jobs: defaultdict[str | None, list[str]] = defaultdict(list)
    for one in made:
        jobs[one.submission_id].append(one.job_id)
    found = []
    for submission_id, told in accepted.items():
        its = jobs.pop(submission_id, [])
        if not its:
            found.append(f"{submission_id} was accepted and has no job")
        elif len(its) > 1:
            found.append(f"{submission_id} has {len(its)} jobs: {', '.join(its)}")
        elif told not in its:
            found.append(f"{submission_id} is job {its[0]}, and the gateway says {told}")
    for stranger, its in jobs.items():
        whose = f"is of {stranger}, which was not accepted" if stranger else "is of no submission"
        found += [f"job {job_id} {whose}" for job_id in its]
    return found
