"""What a campaign tells at its end: figures, and of each violation the whole history of its submission."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from tests.campaign.cases import Case, Cases

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.campaign.checker import Violation
    from tests.campaign.evidence import Evidence

# One bug breaks many submissions: some of them tell it all.
MOST_TOLD = 5
_ASKED = ("token", "name", "share", "priority", "deadline")
_DULL = (
    "timestamp",
    "level",
    "event",
    "submission_id",
    "at",
    "gateway",
    "principal",
    "upstream",
    "request_id",
    "trace_id",
)


def summary(evidence: Evidence, violations: Sequence[Violation], *, seconds: float) -> dict[str, Any]:
    """Figures of a campaign, as plain data."""
    cases = Cases(evidence)
    history, calls = evidence.history, evidence.calls
    met = Counter(fault for call in calls for fault in call["faults"])
    done = Counter(event["fault"] for event in history if event["kind"] == "fault" and not event.get("over"))
    asked = [event for event in history if event["kind"] == "call"]
    known = [case for case in cases.by_id.values() if case.resource]
    return {
        "seed": evidence.facts["seed"],
        "store": evidence.facts["store"],
        "repeats": evidence.facts["repeats"],
        "seconds": round(seconds, 1),
        "calls": len(asked),
        "unanswered": sum(event["status"] is None for event in asked),
        "submissions": len(known),
        "acknowledged": sum(case.acknowledged is not None for case in cases.by_id.values()),
        "states": dict(Counter(case.state for case in known)),
        "jobs": len(evidence.jobs),
        "batchCalls": len(calls),
        "faults": dict(done),
        "metByBatch": dict(met),
        "lateForwards": sum(line["event"] == "late_forward" for line in evidence.lines),
        "unknown": [
            {"submissionId": case.submission_id, "error": case.resource["error"], "jobs": len(case.jobs)}
            for case in known
            if case.state == "unknown" and case.resource
        ],
        "snapshots": len(evidence.snapshots),
        "violations": dict(Counter(one.rule for one in violations)),
    }


def told(evidence: Evidence, violations: Sequence[Violation]) -> Iterator[str]:
    """Lines for a person: each violation, and the history of what it is about."""
    if not violations:
        return
    cases = Cases(evidence)
    seed = evidence.facts["seed"]
    yield f"VIOLATIONS: {len(violations)}, with the seed {seed}"
    shown: set[str | None] = {None}
    for violation in violations:
        yield f"rule {violation.rule}: {violation.submission or ''} {violation.what}"
        if violation.submission in shown or len(shown) > MOST_TOLD:
            continue
        shown.add(violation.submission)
        case = cases.by_id.get(violation.submission or "")
        if case is not None:
            yield from story(case, evidence)
        yield f"  (seed {seed})"


def story(case: Case, evidence: Evidence) -> Iterator[str]:
    """All that is known of a submission, and what went wrong around it, in time order; times since the beginning."""
    began = min(event["at"] for event in evidence.history)
    moments: list[tuple[float, str]] = []
    for event in case.asked:
        came = f"{event['status'] or event['failure']} after {event['ended'] - event['at']:.3f} s {event['answer']}"
        asked = {name: event[name] for name in _ASKED if name in event}
        moments.append(
            (
                event["at"],
                f"caller {event['caller']} → gateway {event['gateway']}: {event['act']} {asked} → {came}",
            )
        )
    for call in case.calls:
        what = {name: call[name] for name in ("number", "outcome", "status", "created", "answered", "faults", "jobId")}
        moments.append((call["at"] / 1000, f"Batch: {what}"))
    moments += [
        (job["createdAt"] / 1000, f"Batch has the job {job['jobId']}, now {job['status']}, token {job['clientToken']}")
        for job in case.jobs
    ]
    for line in case.lines:
        rest = {name: value for name, value in line.items() if name not in _DULL and value is not None}
        moments.append((line["at"], f"gateway {line['gateway']} logs {line['event']}: {rest}"))
    first = min((at for at, _ in moments), default=began)
    last = max((at for at, _ in moments), default=began)
    for event in evidence.history:
        if event["kind"] != "call" and first - 1 <= event["at"] <= last + 1:
            rest = {name: value for name, value in event.items() if name not in ("kind", "at")}
            moments.append((event["at"], f"-- {event['kind']} {rest}"))
    for at, told_line in sorted(moments):
        yield f"  {at - began:8.3f} {told_line}"
    yield f"      end: GET says {json.dumps(case.resource)}"
    yield f"      end: its record is {case.record}"
