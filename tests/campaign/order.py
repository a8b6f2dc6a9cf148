"""What holds between submissions of a share: its rate, and its order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.campaign.cases import seconds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.campaign.cases import Case, Cases

# Answers give times in whole milliseconds.
ROUNDED_SECONDS = 0.002
Found = tuple[str, str]


def _accepted(cases: Cases, share: str) -> list[tuple[float, Case]]:
    """All that a share took, whether a caller heard of it or not, by the store's own time."""
    taken = [case for case in cases.by_id.values() if case.resource and case.share == share]
    return sorted(
        ((seconds(case.resource["acceptedAt"]), case) for case in taken if case.resource), key=lambda one: one[0]
    )


def _rooms(cases: Cases, share: str, rate: float, burst: int) -> Iterator[tuple[float, Case, float]]:
    """(when it was taken, which one, what was left of the burst then) of each; below zero the bucket had run dry."""
    room, before = float(burst), None
    for at, case in _accepted(cases, share):
        if before is not None:
            room = min(float(burst), room + (at - before) * rate)
        room, before = room - 1, at
        yield at, case, room


def over_rate(cases: Cases) -> Iterator[Found]:
    """Shares that refuse what is over their rate: in no window more than rate times window + burst.

    That is a bucket that would have run dry: one pass sees every window.
    """
    for share, limits in cases.evidence.facts["shares"].items():
        rate, burst = limits["rate"], limits["burst"]
        if not rate or limits["over_limit"] != "reject":
            continue
        for _, case, room in _rooms(cases, share, rate, burst):
            if room < -ROUNDED_SECONDS * rate:
                yield case.submission_id, f"{share} took {-room:.2f} more than {rate:g} a second and {burst} at once"
                break


def too_early(cases: Cases) -> Iterator[Found]:
    """Shares that delay what is over their rate: nothing is called for before it conforms."""
    for share, limits in cases.evidence.facts["shares"].items():
        rate, burst = limits["rate"], limits["burst"]
        if not rate or limits["over_limit"] != "delay":
            continue
        for at, case, room in _rooms(cases, share, rate, burst):
            due = at + max(0.0, -room / rate)
            called = min((call["at"] / 1000 for call in case.calls), default=None)
            # Those of one millisecond may have been taken in another order than they are read here.
            alike = 1 / rate
            if called is not None and called < due - alike - ROUNDED_SECONDS:
                yield case.submission_id, f"{share} let it go {due - called:.3f} s before it conformed to the rate"


def out_of_order(cases: Cases) -> Iterator[Found]:
    """Of one share, what was acknowledged before another was sent goes first, unless the other's priority is higher.

    Held of those that had one attempt each, and that nobody changed. Leases are compared to the millisecond, for one
    script hands them out. Calls run side by side after that: each may take as long as its lease, and longer where its
    gateway stood still.
    """
    facts = cases.evidence.facts
    apart = facts["lease_seconds"] + facts["longest_stop_seconds"]
    for share, limits in facts["shares"].items():
        if limits["rate"] and limits["over_limit"] == "delay":
            continue
        plain = [case for case in cases.by_id.values() if case.share == share and _went_straight(case)]
        yield from _later_than_the_next(plain, "leased", lambda case: seconds(case.attempts[0]["at"]), 0.0)
        called = [case for case in plain if case.calls]
        yield from _later_than_the_next(called, "called for", lambda case: case.calls[0]["at"] / 1000, apart)


def _went_straight(case: Case) -> bool:
    once = len(case.attempts) == 1 and case.attempts[0]["outcome"] == "submitted"
    return once and case.state == "forwarded" and not case.changed


def _later_than_the_next(cases: list[Case], what: str, moment: Any, apart: float) -> Iterator[Found]:
    """One pass: for each, the latest of those acknowledged before it was sent, by priority."""
    acknowledged = sorted(
        (case for case in cases if case.acknowledged is not None), key=lambda one: one.acknowledged or 0
    )
    latest: dict[int, tuple[float, Case]] = {}
    position = 0
    for case in sorted((one for one in cases if one.sent is not None), key=lambda one: one.sent or 0):
        while position < len(acknowledged) and acknowledged[position].acknowledged < case.sent:  # type: ignore[operator]
            before = acknowledged[position]
            at = moment(before)
            if before.priority not in latest or at > latest[before.priority][0]:
                latest[before.priority] = (at, before)
            position += 1
        for priority, (at, before) in latest.items():
            if priority >= case.priority and at > moment(case) + apart:
                ahead = f"{before.submission_id} (priority {priority}), acknowledged before it was sent"
                yield case.submission_id, f"it was {what} {at - moment(case):.3f} s before {ahead}"
