"""A store that is full takes nothing more, and drains."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.core.errors import StoreUnavailableError
from gateway.core.ports import Admission
from gateway.core.share import Share, ShareLimits
from gateway.core.submission import State
from gateway.store.connection import connect
from tests.conftest import STORES
from tests.store.world import World, forwarded, new_submission, throttled, transient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from gateway.core.attempt import Report
    from tests.servers import StoreServer


@pytest.fixture(params=STORES)
async def full(request: pytest.FixtureRequest, start_store: Callable[..., StoreServer]) -> AsyncIterator[World]:
    """Twenty submissions, and no memory for another."""
    server = start_store("--maxmemory-policy", "noeviction", kind=request.param)
    async with connect(server.url) as client:
        world = await World(client).open()
        await world.queue(20, request=b"x" * 1000)
        await world.attempt(throttled())
        await world.passes(seconds=60)  # a full store would not take the tests' clock either
        await client.config_set("maxmemory", 1)
        yield world


async def test_a_full_store_refuses_and_says_that_it_cannot_be_used(full: World) -> None:
    before = await full.dump()
    with pytest.raises(StoreUnavailableError) as refused:
        await full.admit("one more")
    assert "maxmemory" in refused.value.cause
    assert "is full" in refused.value.detail
    assert await full.dump() == before


async def test_a_full_store_still_answers_repeats(full: World) -> None:
    """The ones of a call with something new among them too."""
    asked = [(new_submission(token, request=b"x" * 1000), ShareLimits(), None) for token in ("token-7", "one more")]
    known, refused = await full.store.admit_many(asked)
    assert isinstance(known, Admission)
    assert known.known
    assert known.submission.position is not None
    assert isinstance(refused, StoreUnavailableError)


@pytest.mark.parametrize("report", [forwarded(), throttled(), transient(delay_seconds=5)], ids=lambda r: r.outcome)
async def test_a_full_store_still_hands_out_and_settles(full: World, report: Report) -> None:
    leased = await full.lease()
    settlement = await full.settle(leased, report)
    assert settlement.verdict == "settled"
    assert (await full.store.get(leased.submission.submission_id)).attempt_count >= 1


async def test_a_full_store_brings_back_leases_that_ended(full: World) -> None:
    await full.client.config_set("maxmemory", 0)
    leased = await full.lease()
    await full.passes(seconds=full.bounds.lease_seconds)
    await full.client.config_set("maxmemory", 1)
    again = await full.lease()
    assert again.submission.submission_id == leased.submission.submission_id
    assert again.maybe_sent


async def test_operators_can_pause_a_share_of_a_full_store(full: World) -> None:
    assert (await full.store.set_share(Share("training", "vision"), {"paused": "1"})).paused
    assert (await full.wait()).reason == "idle"


async def test_a_store_that_has_drained_takes_submissions_again(full: World) -> None:
    leased = await full.lease()
    await full.settle(leased, forwarded())
    await full.client.config_set("maxmemory", 0)
    assert (await full.admit("one more")).submission.state is State.QUEUED
