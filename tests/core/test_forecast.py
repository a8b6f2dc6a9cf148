"""The forecast against the scheduler itself, served one by one."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import forecast as module
from gateway.core.forecast import (
    EXACT_CALLS,
    Forecast,
    ShareLoad,
    Snapshot,
    Timetable,
    calls_before,
    forward_at,
    shares_ahead,
)
from gateway.core.share import Share

if TYPE_CHECKING:
    from collections.abc import Iterable

# A weight of 0.3 or 10 has tags that rounding puts beside those of 1, and not upon them.
WEIGHTS = [0.1, 0.25, 0.3, 0.5, 0.6, 0.7, 1.0, 1.5, 2.0, 3.0, 10.0]
A = Share("q", "a")

loads = st.builds(
    ShareLoad,
    start=st.one_of(st.just(0.0), st.floats(0, 20).map(lambda tag: round(tag, 3))),
    weight=st.one_of(st.sampled_from(WEIGHTS), st.floats(0.1, 10)),
    ready=st.integers(0, 30),
)


def named(given_loads: Iterable[ShareLoad]) -> dict[Share, ShareLoad]:
    return {Share(f"q{number % 3}", f"s{number:02}"): load for number, load in enumerate(given_loads)}


def backlog(*given_loads: ShareLoad, rate: float = 5.0) -> Snapshot:
    return Snapshot(taken_at=1000.0, shares=named(given_loads), rate=rate, limit=rate)


def served(shares: dict[Share, ShareLoad]) -> list[tuple[Share, int]]:
    """(share, position) in the order in which lua/lease.lua takes them."""
    tags = {share: load.start for share, load in shares.items() if load.ready}
    taken = dict.fromkeys(shares, 0)
    order = []
    while tags:
        share = min(tags, key=lambda one: (tags[one], str(one)))
        taken[share] += 1
        order.append((share, taken[share]))
        tags[share] += 1 / shares[share].weight
        if taken[share] == shares[share].ready:
            del tags[share]
    return order


@given(st.lists(loads, min_size=1, max_size=12))
def test_what_goes_before_is_what_the_scheduler_serves_before(given_loads: list[ShareLoad]) -> None:
    snapshot = backlog(*given_loads)
    forecast = Forecast.of(snapshot)
    for before, (share, position) in enumerate(served(named(given_loads))):
        assert calls_before(snapshot, share, position) == before
        assert forecast.calls_before(share, position) == before


def test_ties_go_as_rounding_decides_them() -> None:
    """Ten tenths are less than one: the eleventh of the heavy share goes before everybody's second."""
    snapshot = backlog(*[ShareLoad(start=0.0, weight=1.0, ready=5)] * 30, ShareLoad(start=0.0, weight=10.0, ready=30))
    heavy = Share("q0", "s30")
    assert calls_before(snapshot, heavy, 11) == Forecast.of(snapshot).calls_before(heavy, 11) == 30 + 10


@given(st.lists(loads, min_size=1, max_size=8), st.integers(1, 40), st.integers(0, 7))
def test_those_that_arrived_since_are_in_the_order_that_the_scheduler_would_serve(
    given_loads: list[ShareLoad], more: int, which: int
) -> None:
    share = list(named(given_loads))[which % len(given_loads)]
    before = [*given_loads]
    load = given_loads[which % len(given_loads)]
    before[which % len(given_loads)] = ShareLoad(start=load.start, weight=load.weight, ready=load.ready + more)
    order = served(named(before))
    forecast = Forecast.of(backlog(*given_loads))
    for position in range(load.ready + 1, load.ready + more + 1):
        assert forecast.calls_before(share, position) == order.index((share, position))


def test_a_share_that_the_snapshot_does_not_know_enters_where_the_order_stands() -> None:
    snapshot = Snapshot(
        taken_at=1000, shares={A: ShareLoad(start=7.0, weight=1.0, ready=50)}, rate=5, limit=5, virtual=7.0
    )
    new = Share("q", "b")
    forecast = Forecast(snapshot, lambda share: {new: 2.0}[share])
    list(forecast.prepared())
    assert [forecast.calls_before(new, position) for position in (1, 2, 3)] == [1, 2, 4]
    assert forward_at(snapshot, new, 1) == pytest.approx(1000.2)


@given(st.lists(loads, min_size=1, max_size=12), st.data())
def test_a_position_of_later_is_counted_from_what_has_gone_by_then(
    given_loads: list[ShareLoad], data: st.DataObject
) -> None:
    """Positions are of now, the snapshot is up to a second old: its share may have had a turn since."""
    order = served(named(given_loads))
    gone = data.draw(st.integers(0, len(order)))
    forecast = Forecast.of(backlog(*given_loads))
    left: dict[Share, int] = {}
    for before, (share, _) in enumerate(order[gone:], start=gone):
        left[share] = left.get(share, 0) + 1
        assert forecast.calls_before(share, left[share], gone) == before


def test_a_share_that_was_through_meanwhile_enters_anew_where_the_order_stands() -> None:
    snapshot = backlog(ShareLoad(start=0.0, weight=1.0, ready=90), ShareLoad(start=0.0, weight=10.0, ready=1))
    forecast = Forecast.of(snapshot)
    light = Share("q1", "s01")
    assert forecast.calls_before(light, 1, 41) == 41  # what it had is long paid for
    assert forecast.forward_at(light, 1, 8.15) == pytest.approx(1000 + 41 / 5)


def test_a_share_that_has_nothing_ready_now_keeps_what_it_owes() -> None:
    """One submission at a time, each when the last is gone."""
    earlier = backlog(ShareLoad(start=3.0, weight=1.0, ready=40), ShareLoad(start=3.0, weight=0.1, ready=1))
    light = Share("q1", "s01")
    now = Snapshot(
        taken_at=1001,
        shares={Share("q0", "s00"): ShareLoad(start=5.0, weight=1.0, ready=38)},
        rate=5,
        limit=5,
        virtual=4.0,
    )
    later = now.remembering(earlier)
    assert later.shares[light] == ShareLoad(start=13.0, weight=0.1, ready=0)
    assert Forecast.of(later).calls_before(light, 1) == calls_before(later, light, 1) == 9
    assert light in now.remembering(later).shares
    passed = Snapshot(taken_at=1002, shares={}, rate=5, limit=5, virtual=13.0)
    assert light not in passed.remembering(later).shares


@given(
    st.lists(
        st.builds(ShareLoad, start=st.floats(0, 3), weight=st.sampled_from(WEIGHTS), ready=st.integers(1, 400)),
        min_size=1,
        max_size=60,
    )
)
def test_far_behind_shares_flow_and_nobody_is_off_by_a_tenth(given_loads: list[ShareLoad]) -> None:
    snapshot = backlog(*given_loads)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "EXACT_CALLS", 50)  # as if there were thousands of shares
        forecast = Forecast.of(snapshot)
    for share, load in snapshot.shares.items():
        for position in {1, load.ready // 3 + 1, load.ready, load.ready + 9}:
            exact, found = calls_before(snapshot, share, position), forecast.calls_before(share, position)
            assert exact is not None
            assert found is not None
            assert abs(found - exact) <= len(given_loads) / 2 + 1e-6
            assert abs(found - exact) <= 0.1 * exact + 1e-6


@given(st.lists(loads, min_size=1, max_size=20))
def test_positions_of_a_share_go_one_after_the_other(given_loads: list[ShareLoad]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "EXACT_CALLS", 20)
        patch.setattr(module, "EXACT_ROUNDS", 1)
        forecast = Forecast.of(backlog(*given_loads))
    for share, load in named(given_loads).items():
        found = [forecast.calls_before(share, position) or 0.0 for position in range(1, load.ready + 5)]
        assert all(later >= earlier + 1 - 1e-6 for earlier, later in pairwise(found)), found


def test_what_comes_when_nothing_was_left_is_called_from_then_on() -> None:
    """The snapshot of an idle upstream is of use for a second too."""
    idle = Forecast.of(Snapshot(taken_at=1000, shares={}, rate=5, limit=5))
    assert [idle.forward_at(A, position, 0.9) for position in (1, 2, 6)] == pytest.approx([1000.9, 1001.1, 1001.9])
    called = Snapshot(taken_at=1000, shares={A: ShareLoad(start=0, weight=1, ready=1)}, rate=0.5, limit=0.5)
    assert Forecast.of(called).forward_at(A, 1, 0.9) == pytest.approx(1002.0)  # after the slot of the first


def test_the_work_is_done_a_stretch_at_a_time() -> None:
    stretches = list(Forecast(backlog(*[ShareLoad(start=0.0, weight=1.0, ready=9999)] * 3)).prepared())
    assert len(stretches) == EXACT_CALLS / module.AT_A_STRETCH


def test_time_is_calls_before_at_the_pace_after_the_next_slot() -> None:
    shares = {A: ShareLoad(start=0, weight=1, ready=99)}
    snapshot = Snapshot(taken_at=1000, shares=shares, rate=5, limit=5, wait_seconds=0.1)
    for at in (forward_at, lambda snapshot, *place: Forecast.of(snapshot).forward_at(*place)):
        assert at(snapshot, A, 0) == 1000  # it is being called
        assert at(snapshot, A, 1) == pytest.approx(1000.1)
        assert at(snapshot, A, 51) == pytest.approx(1010.1)


def test_what_was_saved_up_goes_at_once() -> None:
    shares = {A: ShareLoad(start=0, weight=1, ready=99)}
    snapshot = Snapshot(taken_at=1000, shares=shares, rate=5, limit=5, slot_seconds=-60, burst=3)
    found = [forward_at(snapshot, A, position) for position in range(1, 6)]
    assert found == pytest.approx([1000, 1000, 1000, 1000.2, 1000.4])
    spent = Snapshot(taken_at=1000, shares=shares, rate=5, limit=5, slot_seconds=0.5, burst=3)
    assert [forward_at(spent, A, position) for position in (1, 2)] == pytest.approx([1000.1, 1000.3])


def test_a_slowed_pace_is_expected_to_recover() -> None:
    shares = {A: ShareLoad(start=0, weight=1, ready=999)}
    slowed = forward_at(Snapshot(taken_at=0, shares=shares, rate=0.2, limit=5), A, 500)
    full = forward_at(Snapshot(taken_at=0, shares=shares, rate=5, limit=5), A, 500)
    assert slowed is not None
    assert full is not None
    assert full + 5 < slowed < full + 30


def test_a_ceiling_holds_the_pace_down_until_it_is_forgotten() -> None:
    snapshot = Snapshot(taken_at=0, shares={}, rate=2.5, limit=5, ceiling=2.5, ceiling_seconds=100)
    timetable = Timetable(snapshot)
    assert timetable.seconds_until(250) == pytest.approx(100)
    after = timetable.seconds_until(250 + 500) - 100
    assert 100 < after < 105


def test_a_pace_above_its_ceiling_falls_to_it_and_the_first_call_may_say_nothing() -> None:
    above = Timetable(Snapshot(taken_at=0, shares={}, rate=5, limit=5, ceiling=2.5, ceiling_seconds=1e6))
    assert above.seconds_until(11) == pytest.approx(0.2 + 10 / 2.5)
    rested = Timetable(Snapshot(taken_at=0, shares={}, rate=1, limit=5, slot_seconds=-60))
    assert [rested.seconds_until(calls) for calls in (1, 2)] == [1, 2]


@given(
    rate=st.floats(0.2, 10),
    ceiling=st.floats(0.2, 12),
    ceiling_seconds=st.floats(-10, 600),
    wait=st.floats(-5, 5),
    slot=st.floats(-5, 5),
    burst=st.integers(1, 5),
    seconds=st.floats(0, 100),
)
def test_calls_that_have_gone_are_those_whose_time_has_come(
    *, rate: float, ceiling: float, ceiling_seconds: float, wait: float, slot: float, burst: int, seconds: float
) -> None:
    timetable = Timetable(
        Snapshot(
            taken_at=0,
            shares={},
            rate=rate,
            limit=10,
            ceiling=ceiling,
            ceiling_seconds=ceiling_seconds,
            wait_seconds=wait,
            slot_seconds=slot,
            burst=burst,
        )
    )
    gone = timetable.calls_within(seconds)
    if gone:
        assert timetable.seconds_until(gone - 1) <= seconds + 1e-6
    assert timetable.seconds_until(gone) >= seconds - 1e-6


def test_nobody_can_say_for_a_share_aside_or_while_calls_are_held() -> None:
    shares = {A: ShareLoad(start=0, weight=1, ready=1)}
    aside = Snapshot(taken_at=0, shares={}, rate=5, limit=5, paused=frozenset({A}))
    held = Snapshot(taken_at=0, shares=shares, rate=5, limit=5, calling=False)
    for snapshot in (aside, held):
        assert forward_at(snapshot, A, 1) is None
        assert Forecast.of(snapshot).forward_at(A, 1, 0.5) is None
    assert shares_ahead(aside, A, 1) is None


def test_a_share_without_end_costs_no_more_than_its_first_turns() -> None:
    """Positions beyond what is gone through step by step are as good as multiplied."""
    snapshot = backlog(ShareLoad(start=0.0, weight=0.3, ready=10**9), ShareLoad(start=0.0, weight=1.0, ready=10**9))
    share = Share("q0", "s00")
    found = Forecast.of(snapshot).calls_before(share, 300_000_000)
    assert found is not None
    assert math.isclose(found, 1_300_000_000, rel_tol=1e-6)
    assert math.isclose(calls_before(snapshot, share, 300_000_000) or 0, 1_300_000_000, rel_tol=1e-6)
