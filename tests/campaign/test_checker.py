"""The judge against small made-up evidence: it passes what is right, and finds each kind of thing that is not."""

from __future__ import annotations

import subprocess
import sys
from copy import deepcopy
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from tests.campaign.checker import check
from tests.campaign.evidence import Evidence
from tests.campaign.report import summary, told

if TYPE_CHECKING:
    from collections.abc import Callable

BEGAN = 1_700_000_000.0
TAG = "gateway:submission-id"
FACTS = {
    "seed": 7,
    "store": "standalone",
    "repeats": "reject",
    "lease_seconds": 3.0,
    "longest_stop_seconds": 5.0,
    "shares": {
        "training/free": {"rate": 0.0, "burst": 0, "over_limit": "reject"},
        "training/limited": {"rate": 2.0, "burst": 2, "over_limit": "reject"},
        "training/delayed": {"rate": 2.0, "burst": 2, "over_limit": "delay"},
    },
}


def moment(at: float) -> str:
    return datetime.fromtimestamp(BEGAN + at, UTC).isoformat()


def record(share: str = "training/free", **fields: Any) -> dict[str, Any]:
    return {"state": "forwarded", "share": share, "size": 100, "place": 1, "token": "t", **fields}


class World:
    """Evidence in the making: `forwarded` adds a submission that went as it should; a test then spoils something."""

    def __init__(self) -> None:
        self.history: list[dict[str, Any]] = []
        self.calls: list[dict[str, Any]] = []
        self.jobs: list[dict[str, Any]] = []
        self.resources: dict[str, dict[str, Any]] = {}
        self.lines: list[dict[str, Any]] = []
        self.snapshots: list[dict[str, Any]] = [
            {"at": BEGAN + 60, "everything": True, "zsets": {}, "hashes": {"upstream": {"queued": "0"}}, "records": {}}
        ]

    def asked(self, one: str, act: str, at: float, status: int | None = 202, **fields: Any) -> dict[str, Any]:
        about = {"submission": one} if act != "submit" else {"token": f"t-{one}", "name": f"n-{one}"}
        event = {
            "kind": "call",
            "at": BEGAN + at,
            "ended": BEGAN + at + 0.1,
            "caller": 1,
            "gateway": 0,
            "act": act,
            "status": status,
            "failure": None if status else "TimeoutError",
            **about,
            "answer": {"submissionId": one, "state": "queued"} if status in (200, 202) else {},
            **fields,
        }
        self.history.append(event)
        return event

    def forwarded(
        self, one: str, at: float, *, share: str = "training/free", priority: int = 0, called: float | None = None
    ) -> None:
        called = at + 1 if called is None else called
        self.asked(one, "submit", at, share=share, priority=priority)
        self.resources[one] = {
            "status": 200,
            "body": {
                "state": "forwarded",
                "acceptedAt": moment(at + 0.05),
                "jobId": f"job-{one}",
                "attempts": [{"at": moment(called - 0.01), "outcome": "submitted"}],
            },
        }
        self.called(one, called)
        self.made(one, called)
        self.say(one, called, "forward", outcome="submitted", verdict="settled", job_id=f"job-{one}")
        self.snapshots[-1]["records"][one] = record(share, token=f"t-{one}")

    def called(self, one: str, at: float, **fields: Any) -> None:
        call = {
            "number": len(self.calls) + 1,
            "at": round((BEGAN + at) * 1000),
            "operation": "SubmitServiceJob",
            "outcome": "created",
            "status": 200,
            "created": True,
            "answered": True,
            "faults": [],
            "clientToken": f"batch-{one}",
            "jobName": f"n-{one}",
            "jobId": f"job-{one}",
            "bodySha256": f"body-{one}",
        }
        self.calls.append({**call, **fields})

    def made(self, one: str, at: float, **fields: Any) -> None:
        job = {
            "jobId": f"job-{one}",
            "jobName": f"n-{one}",
            "createdAt": round((BEGAN + at) * 1000),
            "status": "SUBMITTED",
            "clientToken": f"batch-{one}",
            "tags": {TAG: one},
        }
        self.jobs.append({**job, **fields})

    def ended(self, one: str, state: str, **members: Any) -> None:
        body = self.resources[one]["body"]
        body.pop("jobId", None)
        body.update({"state": state, **members})

    def fault(self, kind: str, at: float) -> None:
        self.history.append({"kind": "fault", "at": BEGAN + at, "fault": kind})

    def say(self, one: str | None, at: float, event: str, **fields: Any) -> None:
        self.lines.append({"at": BEGAN + at, "event": event, "submission_id": one, "gateway": 0, **fields})

    def snapshot(self, **zsets: dict[str, float]) -> dict[str, Any]:
        """One more, at a moment in which `b` is queued and everything is as it should be."""
        queued = {
            "at": BEGAN + 2,
            "everything": False,
            "zsets": {"waiting:training/free": {"b": 1.0}, "backlog": {"training/free": 1.0}, **zsets},
            "hashes": {"upstream": {"queued": "1", "bytes": "100"}, "queues": {"training": "1"}},
            "records": {"b": record(state="queued", token="t-b")},
        }
        self.snapshots.insert(0, queued)
        return queued

    def evidence(self) -> Evidence:
        return Evidence(
            facts=FACTS,
            history=sorted(self.history, key=lambda one: one["at"]),
            calls=self.calls,
            jobs=self.jobs,
            resources=self.resources,
            lines=self.lines,
            snapshots=self.snapshots,
        )

    def found(self) -> set[str]:
        """The rules that are broken."""
        return {violation.rule for violation in check(self.evidence())}


@pytest.fixture
def world() -> World:
    """Three submissions of a share without limits, all in Batch."""
    made = World()
    for number, one in enumerate("abc"):
        made.forwarded(one, float(number))
    return made


def test_it_passes_what_is_right(world: World) -> None:
    world.snapshot(**{"ready:training/free": {"b": 1.0}, "active": {"training/free": 0.0}})
    assert check(world.evidence()) == []


def test_it_knows_nothing_of_the_gateway() -> None:
    code = (
        "import sys, tests.campaign.checker, tests.campaign.keyspace, tests.campaign.evidence\n"
        "sys.exit(any(name.split('.')[0] == 'gateway' for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---- What is right though it looks wrong


def unanswered(world: World) -> None:
    """A call without an answer may have made a submission or not."""
    world.asked("d", "submit", 3, status=None, share="training/free", priority=0)


def unanswered_cancel_of_a_job(world: World) -> None:
    world.asked("a", "cancel", 0.5, status=None)


def requested_cancel_of_a_job(world: World) -> None:
    world.asked("a", "cancel", 0.5, status=202)


def unknown_with_a_job_that_nobody_heard_of(world: World) -> None:
    world.ended("a", "unknown", error={"code": "JobNotFound"})
    world.lines.clear()


def unknown_with_a_job_whose_answer_nobody_could_settle(world: World) -> None:
    world.ended("a", "unknown", error={"code": "JobNotFound"})
    world.lines[0]["verdict"] = "unsettled"


def canceled_with_a_job_that_was_terminated(world: World) -> None:
    world.asked("a", "cancel", 0.5, status=200, answer={"submissionId": "a", "state": "canceled"})
    world.ended("a", "canceled")
    world.jobs[0]["status"] = "FAILED"
    world.say("a", 2, "late_forward", job_id="job-a")


def terminated_by_a_gateway_that_was_killed_before_it_could_say_so(world: World) -> None:
    world.ended("a", "expired")
    world.jobs[0]["status"] = "FAILED"
    world.fault("kill_gateway", 1.5)


def later_priority_goes_first(world: World) -> None:
    world.forwarded("low", 10, priority=0, called=20)
    world.forwarded("high", 12, priority=5, called=13)


def retried_goes_later(world: World) -> None:
    world.forwarded("a1", 10, called=20)
    attempts = world.resources["a1"]["body"]["attempts"]
    attempts.insert(0, {"at": moment(10.2), "outcome": "throttled"})
    world.forwarded("a2", 12, called=13)


def reprioritised_goes_later(world: World) -> None:
    world.forwarded("a1", 10, priority=1, called=20)
    world.asked("a1", "reprioritise", 10.5, status=None)
    world.forwarded("a2", 12, priority=1, called=13)


def two_at_once_go_in_any_order(world: World) -> None:
    world.forwarded("a1", 10, called=20)
    world.forwarded("a2", 10.05, called=13)


def limited_share_at_its_limit(world: World) -> None:
    for number, at in enumerate((10, 10, 10.5, 11.0)):
        world.forwarded(f"l{number}", at, share="training/limited", called=30)


@pytest.mark.parametrize(
    "happens",
    [
        unanswered,
        unanswered_cancel_of_a_job,
        requested_cancel_of_a_job,
        unknown_with_a_job_that_nobody_heard_of,
        unknown_with_a_job_whose_answer_nobody_could_settle,
        canceled_with_a_job_that_was_terminated,
        terminated_by_a_gateway_that_was_killed_before_it_could_say_so,
        later_priority_goes_first,
        retried_goes_later,
        reprioritised_goes_later,
        two_at_once_go_in_any_order,
        limited_share_at_its_limit,
    ],
    ids=lambda one: one.__name__,
)
def test_it_accuses_nobody_of(world: World, happens: Callable[[World], None]) -> None:
    happens(world)
    assert check(world.evidence()) == []


# ---- What is wrong


def forgotten(world: World) -> None:
    world.resources["a"] = {"status": 404, "body": {}}


def still_queued(world: World) -> None:
    world.ended("a", "queued")


def forwarded_without_a_job(world: World) -> None:
    world.jobs.pop(0)


def rejected_without_a_reason(world: World) -> None:
    world.ended("a", "rejected")
    world.jobs.pop(0)


def rejected_with_a_job(world: World) -> None:
    world.ended("a", "rejected", error={"code": "ClientException"})


def expired_with_a_job_that_is_terminated_and_not_logged(world: World) -> None:
    world.ended("a", "expired")
    world.jobs[0]["status"] = "FAILED"


def expired_with_a_job_that_is_logged_and_not_terminated(world: World) -> None:
    world.ended("a", "expired")
    world.say("a", 2, "late_forward", job_id="job-a")


def unknown_though_a_gateway_heard_of_its_job(world: World) -> None:
    world.ended("a", "unknown", error={"code": "JobNotFound"})


def a_job_of_nobody(world: World) -> None:
    world.made("x", 3, tags={})


def a_job_that_the_gateway_does_not_know(world: World) -> None:
    world.made("x", 3)
    world.resources["x"] = {"status": 404, "body": {}}


def two_jobs(world: World) -> None:
    world.made("a", 5, jobId="job-a-again")


def another_body(world: World) -> None:
    world.called("a", 5, outcome="repeat_rejected", created=False, bodySha256="another")


def canceled_and_in_batch(world: World) -> None:
    world.asked("a", "cancel", 0.5, status=200, answer={"submissionId": "a", "state": "canceled"})
    world.ended("a", "canceled")


def canceled_and_taken_back(world: World) -> None:
    world.asked("a", "cancel", 0.5, status=200, answer={"submissionId": "a", "state": "canceled"})


def over_its_rate(world: World) -> None:
    for number, at in enumerate((10, 10, 10.4)):
        world.forwarded(f"l{number}", at, share="training/limited", called=30)


def delayed_and_let_go_early(world: World) -> None:
    for number in range(6):  # the last conforms two seconds later
        world.forwarded(f"d{number}", 10, share="training/delayed", called=10.2)


def overtaken(world: World) -> None:
    world.forwarded("a1", 10, called=20)
    world.forwarded("a2", 12, called=13)


def overtaken_by_a_lower_priority(world: World) -> None:
    world.forwarded("a1", 10, priority=3, called=20)
    world.forwarded("a2", 12, priority=2, called=13)


def called_much_later_than_leased(world: World) -> None:
    world.forwarded("a1", 10, called=12.5)
    world.forwarded("a2", 12, called=13)
    world.calls[-2]["at"] = round((BEGAN + 30) * 1000)


def in_two_places(world: World) -> None:
    world.snapshot(**{"ready:training/free": {"b": 1.0}, "active": {"training/free": 0.0}, "delayed": {"b": 5.0}})


def in_no_place(world: World) -> None:
    world.snapshot()


def in_another_shares_line(world: World) -> None:
    world.snapshot(**{"ready:training/limited": {"b": 1.0}, "active": {"training/limited": 0.0}})


def in_line_and_asleep(world: World) -> None:
    world.snapshot(**{"ready:training/free": {"b": 1.0}})


def leased_without_a_lease(world: World) -> None:
    world.snapshot(leased={"b": 1.0})


def at_another_place(world: World) -> None:
    world.snapshot(**{"ready:training/free": {"b": 9.0}, "active": {"training/free": 0.0}})


def without_a_record(world: World) -> None:
    world.snapshot(delayed={"b": 1.0, "gone": 2.0})["records"]["gone"] = None


def a_wrong_counter(world: World) -> None:
    world.snapshot(delayed={"b": 1.0})["hashes"]["upstream"]["queued"] = "2"


def a_wrong_size(world: World) -> None:
    world.snapshot(delayed={"b": 1.0})["hashes"]["upstream"]["bytes"] = "99"


def a_wrong_backlog(world: World) -> None:
    world.snapshot(delayed={"b": 1.0}, backlog={"training/free": 2.0})


def queued_by_its_record_alone(world: World) -> None:
    world.snapshots[-1]["records"]["a"]["state"] = "queued"


def two_ids_for_a_token(world: World) -> None:
    world.asked("a", "submit", 5, share="training/free", priority=0, answer={"submissionId": "other"})
    world.resources["other"] = deepcopy(world.resources["a"])


def another_job_told(world: World) -> None:
    world.asked("a", "look", 5, status=200, answer={"submissionId": "a", "state": "forwarded", "jobId": "job-b"})


def not_found_later(world: World) -> None:
    world.asked("a", "look", 5, status=404)


def a_crash(world: World) -> None:
    world.history.append({"kind": "ended", "at": BEGAN + 5, "gateway": 1, "code": 1, "planned": False})


def a_500(world: World) -> None:
    world.asked("a", "look", 5, status=500)


def a_right_request_refused(world: World) -> None:
    world.asked("d", "submit", 5, status=422, share="training/free", priority=0)


def an_unexpected_error(world: World) -> None:
    world.say(None, 5, "unexpected_error", exception="Traceback\nValueError: no")


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        (forgotten, "1 lost"),
        (still_queued, "1 lost"),
        (forwarded_without_a_job, "1 lost"),
        (rejected_without_a_reason, "1 lost"),
        (rejected_with_a_job, "1 lost"),
        (expired_with_a_job_that_is_terminated_and_not_logged, "1 lost"),
        (expired_with_a_job_that_is_logged_and_not_terminated, "1 lost"),
        (unknown_though_a_gateway_heard_of_its_job, "1 lost"),
        (a_job_of_nobody, "1 lost"),
        (a_job_that_the_gateway_does_not_know, "1 lost"),
        (two_jobs, "2 doubled"),
        (another_body, "2 doubled"),
        (canceled_and_in_batch, "3 canceled"),
        (canceled_and_taken_back, "3 canceled"),
        (over_its_rate, "4 rate"),
        (delayed_and_let_go_early, "4 rate"),
        (overtaken, "5 order"),
        (overtaken_by_a_lower_priority, "5 order"),
        (called_much_later_than_leased, "5 order"),
        (in_two_places, "6 places"),
        (in_no_place, "6 places"),
        (in_another_shares_line, "6 places"),
        (in_line_and_asleep, "6 places"),
        (leased_without_a_lease, "6 places"),
        (at_another_place, "6 places"),
        (without_a_record, "6 places"),
        (a_wrong_counter, "6 places"),
        (a_wrong_size, "6 places"),
        (a_wrong_backlog, "6 places"),
        (queued_by_its_record_alone, "6 places"),
        (two_ids_for_a_token, "7 answers"),
        (another_job_told, "7 answers"),
        (not_found_later, "7 answers"),
        (a_crash, "8 broken"),
        (a_500, "8 broken"),
        (a_right_request_refused, "8 broken"),
        (an_unexpected_error, "8 broken"),
    ],
    ids=lambda one: getattr(one, "__name__", one),
)
def test_it_finds(world: World, wrong: Callable[[World], None], rule: str) -> None:
    wrong(world)
    assert rule in world.found()


def test_a_violation_is_told_with_the_seed_and_the_whole_history_of_its_submission(world: World) -> None:
    world.asked("a", "cancel", 3, status=None)
    world.fault("stop_gateway", 4)
    two_jobs(world)
    evidence = world.evidence()
    lines = list(told(evidence, check(evidence)))
    assert "with the seed 7" in lines[0]
    assert "rule 2 doubled: a Batch has 2 jobs of it" in lines[1]
    order = [
        next(number for number, line in enumerate(lines) if words in line)
        for words in (
            "submit {'token': 't-a'",
            "Batch: {'number': 1",
            "gateway 0 logs forward",
            "cancel {} → TimeoutError",
            "-- fault {'fault': 'stop_gateway'}",
            "Batch has the job job-a-again",
            "end: GET says",
            "end: its record is",
        )
    ]
    assert order == sorted(order)


def test_the_summary_counts_what_happened(world: World) -> None:
    world.fault("kill_gateway", 4)
    world.calls[0]["faults"] = ["lost_answer"]
    two_jobs(world)
    evidence = world.evidence()
    found = summary(evidence, check(evidence), seconds=1)
    assert found["faults"] == {"kill_gateway": 1}
    assert found["metByBatch"] == {"lost_answer": 1}
    assert found["violations"] == {"2 doubled": 1}
    assert (found["acknowledged"], found["jobs"], found["states"]) == (3, 4, {"forwarded": 3})
