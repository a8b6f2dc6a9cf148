"""The forecast against the scheduler itself, served one by one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.forecast import ShareLoad, Snapshot, calls_before, forward_at
from gateway.core.share import Share

loads = st.builds(
    ShareLoad,
    start=st.floats(0, 20).map(lambda tag: round(tag, 3)),
    weight=st.sampled_from([0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 10.0]),
    ready=st.integers(1, 30),
)


def served(shares: dict[Share, ShareLoad]) -> list[tuple[Share, int]]:
    """(share, position) in the order in which lua/lease.lua takes them."""
    tags = {share: load.start for share, load in shares.items()}
    taken = dict.fromkeys(shares, 0)
    order = []
    while tags:
        share = min(tags, key=lambda one: (round(tags[one], 9), str(one)))
        taken[share] += 1
        order.append((share, taken[share]))
        if taken[share] == shares[share].ready:
            del tags[share]
        else:
            tags[share] = shares[share].start + taken[share] / shares[share].weight
    return order


@given(st.lists(loads, min_size=1, max_size=12))
def test_what_goes_before_is_what_the_scheduler_serves_before(given_loads: list[ShareLoad]) -> None:
    shares = {Share("q", f"s{number:02}"): load for number, load in enumerate(given_loads)}
    snapshot = Snapshot(taken_at=0, shares=shares, rate=5, limit=5)
    for before, (share, position) in enumerate(served(shares)):
        assert calls_before(snapshot, share, position) == before


def test_time_is_calls_before_at_the_pace_after_the_next_slot() -> None:
    share = Share("q", "a")
    snapshot = Snapshot(
        taken_at=1000, shares={share: ShareLoad(start=0, weight=1, ready=99)}, rate=5, limit=5, wait_seconds=0.1
    )
    assert forward_at(snapshot, share, 1) == pytest.approx(1000.1)
    assert forward_at(snapshot, share, 51) == pytest.approx(1010.1)


def test_a_slowed_pace_is_expected_to_recover() -> None:
    share = Share("q", "a")
    shares = {share: ShareLoad(start=0, weight=1, ready=999)}
    slowed = forward_at(Snapshot(taken_at=0, shares=shares, rate=0.2, limit=5), share, 500)
    full = forward_at(Snapshot(taken_at=0, shares=shares, rate=5, limit=5), share, 500)
    assert slowed is not None
    assert full is not None
    assert full + 5 < slowed < full + 30


def test_nobody_can_say_for_a_share_aside_or_while_calls_are_held() -> None:
    share = Share("q", "a")
    shares = {share: ShareLoad(start=0, weight=1, ready=1)}
    aside = Snapshot(taken_at=0, shares={}, rate=5, limit=5, paused=frozenset({share}))
    assert forward_at(aside, share, 1) is None
    assert forward_at(Snapshot(taken_at=0, shares=shares, rate=5, limit=5, calling=False), share, 1) is None
