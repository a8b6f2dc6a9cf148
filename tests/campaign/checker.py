"""The judge: reads the evidence, knows nothing of the gateway's code, and holds what was promised.

What it cannot know it does not hold: a call without an answer may have happened or not, and a gateway that was killed
may have taken its last lines with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.campaign.cases import Cases
from tests.campaign.order import out_of_order, over_rate, too_early
from tests.campaign.places import misplaced

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.campaign.cases import Case
    from tests.campaign.evidence import Evidence

FINAL = ("forwarded", "rejected", "unknown", "canceled", "expired")
NO_JOB = ("rejected", "canceled", "expired")
# What a caller may be told, by what it did; anything else means that a right request was not understood.
ANSWERS = {
    "submit": {200, 202, 429, 503},
    "cancel": {200, 202, 409, 503},
    "reprioritise": {200, 202, 409, 503},
    "look": {200, 503},
}
REJECTION = "was rejected"
# A line is written after the store was told: a process that was killed in between has not written it.
UNWRITTEN_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A promise that was not kept; `submission` is whose history tells how."""

    rule: str
    what: str
    submission: str | None = None


def check(evidence: Evidence) -> list[Violation]:
    """All violations, by rule."""
    cases = Cases(evidence)
    found = [
        *_lost(cases),
        *_doubled(cases),
        *_canceled(cases),
        *_over_rate(cases),
        *_out_of_order(cases),
        *_misplaced(evidence),
        *_contradicted(cases),
        *_broken(evidence),
    ]
    return sorted(found, key=lambda one: one.rule)


def _lost(cases: Cases) -> Iterator[Violation]:
    """Every acknowledged submission is in Batch exactly once, or in a visible final state that explains why not."""
    for case in cases.by_id.values():
        if case.resource is None:
            if case.acknowledged is not None or case.jobs:
                what = "acknowledged" if case.acknowledged is not None else "in Batch"
                yield Violation(
                    rule="1 lost", what=f"it was {what}, and GET knows it no more", submission=case.submission_id
                )
            continue
        why = _unexplained(case, cases)
        if why:
            yield Violation(rule="1 lost", what=why, submission=case.submission_id)
    for job in cases.strays:
        yield Violation(rule="1 lost", what=f"the job {job['jobId']} ({job['jobName']}) has no submission's tag")


def _unexplained(case: Case, cases: Cases) -> str | None:
    """What is wrong with how it ended, if anything."""
    assert case.resource is not None
    state, job_ids = case.state, [job["jobId"] for job in case.jobs]
    if state not in FINAL:
        return f"it is {state} though nothing goes wrong any more"
    if state == "forwarded" and case.resource.get("jobId") not in job_ids:
        return f"it is forwarded as {case.resource.get('jobId')}; its jobs in Batch are {job_ids}"
    if state in ("rejected", "unknown") and not case.resource.get("error"):
        return f"it is {state} without an error that says why"
    # `unsettled`: the process had to end while the store was away, and had nobody left to tell.
    told = [line for line in case.said("forward") if line["verdict"] != "unsettled"]
    heard = {line["job_id"] for line in told if line["outcome"] == "submitted"}
    if state == "unknown" and heard:
        return f"it is unknown, though a gateway was told its job: {', '.join(sorted(heard))}"
    if state in NO_JOB and case.jobs and not all(_ended_late(case, job, cases) for job in case.jobs):
        return f"it is {state}, and Batch has its job {job_ids}, not terminated by a logged late_forward"
    return None


def _ended_late(case: Case, job: dict[str, object], cases: Cases) -> bool:
    """Whether the job came after the end, was terminated, and the log says so, or could not."""
    logged = any(line["job_id"] == job["jobId"] for line in case.said("late_forward"))
    return job["status"] == "FAILED" and (logged or _may_be_unwritten(job, cases))


def _may_be_unwritten(job: dict[str, object], cases: Cases) -> bool:
    made = float(str(job["createdAt"])) / 1000
    return any(
        made <= event["at"] <= made + UNWRITTEN_SECONDS
        for event in cases.evidence.history
        if event["kind"] == "fault" and event["fault"] in ("kill_gateway", "term_gateway")
    )


def _doubled(cases: Cases) -> Iterator[Violation]:
    """No token made two jobs, and every attempt sent the same bytes: else it is chance that it made one."""
    for case in cases.by_id.values():
        one = case.submission_id
        if len(case.jobs) > 1:
            ids = ", ".join(job["jobId"] for job in case.jobs)
            yield Violation(rule="2 doubled", what=f"Batch has {len(case.jobs)} jobs of it: {ids}", submission=one)
        if len({call["bodySha256"] for call in case.calls}) > 1:
            yield Violation(rule="2 doubled", what="its attempts sent different bytes", submission=one)


def _canceled(cases: Cases) -> Iterator[Violation]:
    """No confirmed cancel was forwarded, or taken back."""
    for case in cases.by_id.values():
        confirmed = any(
            event["act"] == "cancel" and event["status"] == 200 and event["answer"].get("state") == "canceled"
            for event in case.asked
        )
        if not confirmed:
            continue
        if case.state != "canceled":
            what = f"a cancel was confirmed, and it is {case.state}"
            yield Violation(rule="3 canceled", what=what, submission=case.submission_id)
        elif not all(_ended_late(case, job, cases) for job in case.jobs):
            what = "a cancel was confirmed, and Batch has its job, not terminated by a logged late_forward"
            yield Violation(rule="3 canceled", what=what, submission=case.submission_id)


def _over_rate(cases: Cases) -> Iterator[Violation]:
    """No share took more new submissions in any window than its rate and burst allow, or let them go too early."""
    for found in (over_rate(cases), too_early(cases)):
        for submission_id, what in found:
            yield Violation(rule="4 rate", what=what, submission=submission_id)


def _out_of_order(cases: Cases) -> Iterator[Violation]:
    for submission_id, what in out_of_order(cases):
        yield Violation(rule="5 order", what=what, submission=submission_id)


def _misplaced(evidence: Evidence) -> Iterator[Violation]:
    """Each queued id is in exactly one place, and counters equal lengths, whenever one looks."""
    told: set[tuple[str | None, str]] = set()
    began = min((event["at"] for event in evidence.history), default=0.0)
    for snapshot in evidence.snapshots:
        for submission_id, what in misplaced(snapshot):
            if (submission_id, what) not in told:  # what is wrong once stays wrong: say it once
                told.add((submission_id, what))
                when = f"{snapshot['at'] - began:.1f} s"
                yield Violation(rule="6 places", what=f"{what} (seen at {when})", submission=submission_id)


def _contradicted(cases: Cases) -> Iterator[Violation]:
    """What callers were told agrees with itself, and with Batch."""
    ids_of: dict[str, set[str]] = {}
    for case in cases.by_id.values():
        one, job_ids = case.submission_id, {job["jobId"] for job in case.jobs}
        for event in case.asked:
            answer = event["answer"] or {}
            if event["act"] == "submit" and answer.get("submissionId"):
                ids_of.setdefault(event["token"], set()).add(answer["submissionId"])
            if answer.get("jobId") and answer["jobId"] not in job_ids:
                what = f"a caller was told the job {answer['jobId']}; Batch has {sorted(job_ids)}"
                yield Violation(rule="7 answers", what=what, submission=one)
            late = case.acknowledged is not None and event["at"] > case.acknowledged
            if event["act"] != "submit" and late and event["status"] == 404:
                what = f"it was acknowledged, and a later {event['act']} got 404"
                yield Violation(rule="7 answers", what=what, submission=one)
    for token, ids in ids_of.items():
        if len(ids) > 1:
            what = f"the token {token} was answered with {len(ids)} submissions: {', '.join(sorted(ids))}"
            yield Violation(rule="7 answers", what=what, submission=min(ids))


def _broken(evidence: Evidence) -> Iterator[Violation]:
    """No gateway ended by itself, none answered 500 or nonsense, and each that was told to end did, in time."""
    for event in evidence.history:
        if event["kind"] == "ended" and not event["planned"]:
            what = f"the gateway {event['gateway']} ended with code {event['code']}, not as it was told"
            yield Violation(rule="8 broken", what=what)
        if event["kind"] == "call" and event["status"] is not None and event["status"] not in ANSWERS[event["act"]]:
            if event.get("face") == "batch" and REJECTION in str((event["answer"] or {}).get("title")):
                continue  # Batch's own face tells of a rejected one as Batch would have
            if event["status"] == 404:
                continue  # whether that was right is rule 7's to say
            what = f"a {event['act']} was answered {event['status']} ({(event['answer'] or {}).get('title')})"
            yield Violation(rule="8 broken", what=what, submission=event.get("submission"))
    for line in evidence.lines:
        if line["event"] == "unexpected_error":
            last = str(line.get("exception", "")).strip().splitlines()[-1:]
            yield Violation(rule="8 broken", what=f"gateway {line['gateway']}: an unexpected error: {' '.join(last)}")
