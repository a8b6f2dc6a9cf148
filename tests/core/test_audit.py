"""Whose turn it is to audit, how long it works, and what it says."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.core import audit as module
from gateway.core.audit import IDS_TOLD, REMEDIES, TURN_SECONDS, WORK_SECONDS, Audited, SelfAudit, whole_round
from gateway.core.errors import StoreUnavailableError
from gateway.core.ports import AuditStep, Drift
from tests.core.fakes import ListLog

LOST = Drift(kind="lost", about="a", problem="it has no record")


class Store:
    """Gives the steps in turn, the last one for ever; `free_in` is how long somebody else still has the turn."""

    def __init__(self, *steps: AuditStep | Exception, free_in: float = 0.0) -> None:
        self._steps = list(steps)
        self.free_in = free_in
        self.begun = self.made = self.left = 0
        self.before_step: Any = lambda: None
        self.asked = asyncio.Event()

    async def begin(self, seconds: float) -> float:
        assert seconds == TURN_SECONDS
        self.begun += 1
        self.asked.set()
        return self.free_in

    async def step(self) -> AuditStep:
        self.made += 1
        self.before_step()
        step = self._steps.pop(0) if len(self._steps) > 1 else self._steps[0]
        if isinstance(step, Exception):
            raise step
        return step

    async def leave(self) -> None:
        self.left += 1


class Clock:
    """The process's clock, where the audit looks at it."""

    def __init__(self) -> None:
        self.now = 5000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0)
    return clock


async def turn(store: Store) -> tuple[float, ListLog]:
    """(what is left of the turn in seconds, the log)"""
    log = ListLog()
    left = await SelfAudit(upstream="main", store=store, log=log).turn(asyncio.Event())
    return left, log


async def test_a_turn_ends_with_the_round_and_says_what_it_saw(clock: Clock) -> None:
    end = AuditStep(looked_at=1, round_seconds=7.04, bytes_compared=True)
    store = Store(AuditStep(looked_at=50), AuditStep(), AuditStep(looked_at=2), end)
    store.before_step = lambda: setattr(clock, "now", clock.now + 2)
    left, log = await turn(store)
    assert (store.made, store.left, left) == (4, 1, TURN_SECONDS - 8)
    assert log.lines == [
        (
            "audit",
            {"upstream": "main", "looked_at": 53, "drifts": 0, "round_seconds": 7.0, "bytes_compared": True},
        )
    ]


async def test_a_long_round_is_left_to_the_next_turn(clock: Clock) -> None:
    store = Store(AuditStep(looked_at=50))
    store.before_step = lambda: setattr(clock, "now", clock.now + 1)
    left, log = await turn(store)
    assert (store.made, store.left, left) == (WORK_SECONDS, 1, TURN_SECONDS - WORK_SECONDS)
    (line,) = log.of("audit")
    assert (line["looked_at"], line["round_seconds"], line["bytes_compared"]) == (50 * WORK_SECONDS, None, False)


@pytest.mark.usefixtures("clock")
async def test_each_kind_of_drift_is_one_line_with_all_that_it_is_about() -> None:
    others = tuple(Drift(kind="share", about=f"training/{n:02}", problem=f"problem {n}") for n in range(30))
    store = Store(AuditStep(drifts=(LOST, *others)), AuditStep(drifts=(LOST,)), AuditStep(round_seconds=1))
    _, log = await turn(store)
    lost, share = log.of("audit_drift")
    assert lost == {
        "upstream": "main",
        "kind": "lost",
        "ids": ["a"],
        "count": 1,
        "problem": "it has no record",
        "remedy": REMEDIES["lost"],
    }
    assert (share["kind"], share["count"], share["problem"]) == ("share", 30, "problem 0")
    assert share["ids"] == [one.about for one in others][:IDS_TOLD]
    assert log.of("audit")[0]["drifts"] == 31


@pytest.mark.usefixtures("clock")
async def test_what_was_found_is_told_also_where_the_store_goes_away_then() -> None:
    log = ListLog()
    store = Store(AuditStep(looked_at=3, drifts=(LOST,)), StoreUnavailableError("gone"))
    with pytest.raises(StoreUnavailableError):
        await SelfAudit(upstream="main", store=store, log=log).turn(asyncio.Event())
    assert [event for event, _ in log.lines] == ["audit_drift", "audit"]
    assert store.left == 0  # the last that was put down stands


async def test_who_has_not_the_turn_looks_at_nothing() -> None:
    log, stop, store = ListLog(), asyncio.Event(), Store(AuditStep(), free_in=30.0)
    running = asyncio.create_task(SelfAudit(upstream="main", store=store, log=log).run(stop))
    await store.asked.wait()
    stop.set()
    await running
    assert (store.begun, store.made, log.lines) == (1, 0, [])


async def test_it_stops_in_the_middle_of_a_round_and_puts_it_down() -> None:
    log, stop, store = ListLog(), asyncio.Event(), Store(AuditStep(looked_at=1))
    store.before_step = lambda: stop.set() if store.made == 2 else None
    async with asyncio.timeout(5):
        await SelfAudit(upstream="main", store=store, log=log).run(stop)
    assert (store.made, store.left) == (2, 1)
    assert [line["looked_at"] for line in log.of("audit")] == [2]


async def test_a_store_that_is_away_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AWAY_SECONDS", 0)
    log, stop = ListLog(), asyncio.Event()
    store = Store(StoreUnavailableError("gone"), AuditStep(round_seconds=1))
    store.before_step = lambda: stop.set() if store.made == 2 else None
    async with asyncio.timeout(5):
        await SelfAudit(upstream="main", store=store, log=log).run(stop)
    assert (store.begun, store.left) == (2, 1)


async def test_an_audit_that_fails_is_told_and_ends_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FAILED_SECONDS", 0)
    log, stop = ListLog(), asyncio.Event()
    store = Store(AuditStep(looked_at=3, drifts=(LOST,)), ValueError("a bug"), AuditStep(round_seconds=1))
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0)
    store.before_step = lambda: stop.set() if store.made == 3 else None
    async with asyncio.timeout(5):
        await SelfAudit(upstream="main", store=store, log=log).run(stop)
    assert [event for event, _ in log.lines] == ["audit_drift", "audit", "audit_failed", "audit"]
    assert log.of("audit_failed") == [{"upstream": "main", "exc_info": True}]
    assert (store.begun, store.left) == (2, 1)


async def test_a_whole_round_has_each_drift_once_and_says_what_to_do() -> None:
    shares = [f"training/{number:02}" for number in range(IDS_TOLD + 3)]
    more = tuple(Drift(kind="counts", about=share, problem="its backlog is 1") for share in shares)
    end = AuditStep(looked_at=1, drifts=more, round_seconds=2.5, bytes_compared=False)
    audited = await whole_round(Store(AuditStep(looked_at=5, drifts=(LOST,)), AuditStep(drifts=(LOST,)), end))
    assert audited == Audited(looked_at=6, drifts=(LOST, *more), seconds=2.5, bytes_compared=False)
    lost, counts = audited.sentences
    assert lost == f"lost: a: it has no record. {REMEDIES['lost']}"
    assert counts.startswith("counts: training/00, training/01, ")
    assert f"training/{IDS_TOLD - 1} and 3 more: its backlog is 1, the first of them. " in counts
    assert audited.summary.startswith(f"6 looked at in 2.5 s, {1 + len(more)} wrong; bytes not compared")
    assert [one["about"] for one in audited.told["drifts"]] == ["a", *shares]
    assert audited.told["remedies"].keys() == {"lost", "counts"}
