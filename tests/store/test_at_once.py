"""Whether a submission will be the very next call: only then its caller may wait for Batch's answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.core.attempt import PaceSignal
from gateway.core.ports import Wait
from gateway.core.share import Share, ShareLimits
from tests.store.world import forwarded, throttled, uncharged, unclear

if TYPE_CHECKING:
    from tests.store.world import World


async def test_the_first_one_goes_at_once_and_the_one_behind_it_does_not(world: World) -> None:
    assert (await world.admit()).at_once
    assert not (await world.admit()).at_once


async def test_another_share_ahead_is_something_ahead(world: World) -> None:
    await world.queue(1, share="text")
    assert not (await world.admit(share="vision")).at_once


async def test_what_the_pace_has_no_slot_for_does_not_go_at_once(world: World) -> None:
    await world.queue(1)
    await world.attempt(forwarded())
    assert not (await world.admit("too soon")).at_once
    await world.attempt(forwarded("job-2"))
    await world.passes(milliseconds=200)
    assert (await world.admit("in time")).at_once


async def test_while_a_call_is_unanswered_nobody_waits_for_the_next_one(world: World) -> None:
    """Where Batch takes seconds a serial loop would else wait for each."""
    await world.queue(1)
    leased = await world.lease()
    await world.passes(milliseconds=200)
    assert not (await world.admit()).at_once
    await world.settle(leased, forwarded())
    await world.attempt(forwarded("job-2"))
    await world.passes(milliseconds=200)
    assert (await world.admit()).at_once


async def test_after_a_call_that_failed_nobody_waits_until_one_is_answered(world: World) -> None:
    await world.queue(1)
    await world.attempt(unclear(600))
    await world.passes(seconds=1)
    assert not (await world.admit("after a failure")).at_once
    await world.attempt(forwarded())
    await world.passes(seconds=1)
    assert (await world.admit("after an answer")).at_once


async def test_it_goes_at_once_exactly_when_the_store_would_hand_it_out(world: World) -> None:
    """The admission's word against the lease's, over the ways to be held."""

    async def said_and_done(token: str) -> tuple[bool, bool]:
        said = (await world.admit(token)).at_once
        done = not isinstance(await world.try_lease(), Wait)
        return said, done

    assert await said_and_done("free") == (True, True)
    await world.passes(seconds=1)
    await world.store.set_upstream({"forwarding": "0"})
    assert await said_and_done("stopped") == (False, False)


async def test_where_batch_told_to_wait_nothing_goes_at_once(world: World) -> None:
    await world.queue(1)
    leased = await world.lease()
    await world.settle(leased, throttled(5))
    await world.changes.cancel(leased.submission.submission_id, "")
    await world.passes(seconds=2)
    assert not (await world.admit()).at_once


@pytest.mark.parametrize(
    ("outcome", "signal"),
    [("credentials", PaceSignal.CREDENTIALS), ("denied", PaceSignal.DENIED), ("not_sent", PaceSignal.UNREACHABLE)],
)
async def test_what_is_held_does_not_go_at_once(world: World, outcome: str, signal: PaceSignal) -> None:
    await world.queue(1)
    leased = await world.lease()
    await world.settle(leased, uncharged(outcome, signal))
    await world.changes.cancel(leased.submission.submission_id, "")
    await world.passes(milliseconds=300)
    assert not (await world.admit()).at_once


async def test_a_paused_or_delayed_share_goes_not_at_once(world: World) -> None:
    (one,) = await world.queue(1)
    share = (await world.index.get(one)).share
    await world.changes.cancel(one, "")
    await world.store.set_share(share, {"paused": "1"})
    assert not (await world.admit("paused")).at_once
    await world.store.set_share(share, {"paused": None})
    await world.attempt(forwarded())
    await world.passes(seconds=1)
    slow = ShareLimits(rate=0.01, burst=1, over_limit="delay")
    assert (await world.admit("first", slow)).at_once
    await world.attempt(forwarded("job-2"))
    await world.passes(seconds=1)
    assert not (await world.admit("delayed", slow)).at_once


async def test_a_paused_share_waits_aside_whatever_else_is_ready(world: World) -> None:
    await world.store.set_share(Share("training", "vision"), {"paused": "1"})
    await world.queue(1, share="text")
    assert not (await world.admit(share="vision")).at_once


async def test_of_a_group_only_the_first_goes_at_once(world: World) -> None:
    from tests.store.world import new_submission

    asked = [(new_submission(f"token-{number}"), ShareLimits(), None) for number in range(3)]
    found = await world.store.admit_many(asked)
    assert [one.at_once for one in found] == [True, False, False]
