"""What operators switch off, on, and set for an upstream: at once, for every process, until it is set again."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from gateway.core import forwarder
from gateway.core.errors import NotAcceptingError
from gateway.core.job_search import JobSearch
from gateway.core.journal import Journal
from gateway.core.ports import UpstreamStatus, Wait
from gateway.core.submission import State
from gateway.store.hints import Hints
from tests.conftest import eventually
from tests.core.fakes import ListLog, ScriptedBatch, ScriptedErrands
from tests.store.world import CREDENTIALS, DENIED, NOT_SENT, World, forwarded, throttled, transient


async def switched(world: World, **changes: str | None) -> UpstreamStatus:
    return await world.store.set_upstream(changes)


async def gap_ms(world: World) -> float:
    """From the next call to the one after it."""
    await world.queue(2)
    await world.attempt(forwarded())
    before = world.now_us
    await world.attempt(forwarded())
    return (world.now_us - before) / 1000


async def test_a_fresh_upstream_takes_and_forwards_at_the_rate_of_the_settings(world: World) -> None:
    assert await world.store.upstream() == UpstreamStatus(
        rate=5.0,
        pace=5.0,
        accepting=True,
        forwarding=True,
        condition="calling",
        held_until=None,
        queued=0,
        queued_bytes=0,
        leased=0,
        delayed=0,
        errands=0,
        forwarded=0,
        throttled=0,
        credentials_held=False,
        denied_pairs=0,
        overrides={},
    )


async def test_with_acceptance_off_new_ones_are_refused_and_known_ones_replayed(world: World) -> None:
    first = await world.admit("known")
    assert not (await switched(world, accepting="0")).accepting
    with pytest.raises(NotAcceptingError):
        await world.admit("new")
    again = await world.admit("known")
    assert (again.known, again.submission.submission_id) == (True, first.submission.submission_id)
    await world.lease()
    assert (await switched(world, accepting=None)).accepting
    await world.admit("new")


async def test_with_forwarding_off_nothing_is_leased_and_submissions_are_taken(world: World) -> None:
    await world.queue(2)
    stopped = await switched(world, forwarding="0")
    assert (stopped.forwarding, stopped.condition) == (False, "stopped")
    assert await world.wait() == Wait(seconds=None, reason="stopped")
    await world.queue(1)
    assert (await switched(world, forwarding=None)).condition == "calling"
    await world.lease()


async def test_calls_in_flight_are_settled_though_forwarding_is_off(world: World) -> None:
    await world.queue(1)
    leased = await world.lease()
    await switched(world, forwarding="0")
    assert (await world.settle(leased, forwarded())).verdict == "settled"


async def test_a_forwarder_that_rests_hears_that_forwarding_is_on(world: World) -> None:
    hints = Hints(world.client, world.keys)
    stop = asyncio.Event()
    listening = asyncio.create_task(hints.run(stop))
    try:

        async def subscribed() -> bool:
            (_, number), *_ = await world.client.pubsub_numsub(world.keys.wake)
            return bool(number)

        await eventually(subscribed)
        await hints.wait(30)  # who has just begun to listen looks once
        await switched(world, forwarding="0")
        await switched(world, accepting="0")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(hints.wait(30), 0.1)
        await switched(world, forwarding=None)
        await asyncio.wait_for(hints.wait(30), 20)
    finally:
        stop.set()
        listening.cancel()
        with suppress(asyncio.CancelledError):
            await listening


async def test_a_forwarder_calls_at_once_when_forwarding_is_on_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarder, "POLL_SECONDS", 60.0)
    (queued,) = await world.queue(1)
    await switched(world, forwarding="0")
    hints, batch, stop = Hints(world.client, world.keys), ScriptedBatch(), asyncio.Event()
    leases: list[str] = []

    class Asked:
        """The store, remembering why nothing was handed out."""

        settle, reclaim, confirm = world.store.settle, world.store.reclaim, world.store.confirm

        async def lease(self) -> Any:
            got = await world.store.lease()
            leases.append(got.reason if isinstance(got, Wait) else "leased")
            return got

    part = forwarder.Forwarder(
        store=Asked(),
        batch=batch,
        search=JobSearch(batch=ScriptedErrands(), owners=world.errands),
        wakeup=hints,
        journal=Journal("main", ListLog()),
        max_attempts=3,
        lease_seconds=60,
        call_timeout_seconds=20,
        concurrency=1,
    )
    running = [asyncio.create_task(one.run(stop)) for one in (hints, part)]
    try:

        async def rests() -> bool:
            return leases[-2:] == ["stopped", "stopped"]  # once at its start, once when the hints had begun to listen

        async def called() -> bool:
            submission = await world.store.get(queued)
            return submission is not None and submission.state is State.FORWARDED

        await eventually(rests)
        assert not batch.requests
        await switched(world, forwarding=None)
        await eventually(called, 20)
    finally:
        stop.set()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def test_a_lower_rate_holds_from_the_next_call_on(world: World) -> None:
    assert await gap_ms(world) == 200
    status = await switched(world, rate="0.5")
    assert (status.rate, status.pace, status.overrides) == (0.5, 0.5, {"rate": 0.5})
    assert await gap_ms(world) == 2000


async def test_a_higher_rate_does_not_wait_for_the_slot_of_the_lower(world: World) -> None:
    await switched(world, rate="0.001")
    await world.queue(2)
    await world.attempt(forwarded())
    assert (await world.wait()).seconds == 1000
    assert (await switched(world, rate="10")).pace == 10
    assert await world.wait() == Wait(seconds=0.1, reason="pace")
    assert await gap_ms(world) == 100


async def test_the_settings_rate_comes_back_at_once(world: World) -> None:
    await switched(world, rate="0.01")
    await gap_ms(world)
    status = await switched(world, rate=None)
    assert (status.rate, status.pace, status.overrides) == (5.0, 5.0, {})
    assert await gap_ms(world) == 200


async def test_a_higher_rate_forgets_what_throttles_taught_of_a_lower(world: World) -> None:
    await gap_ms(world)
    await world.queue(1)
    await world.attempt(throttled())
    assert (await world.store.upstream()).pace == 3.5
    assert (await switched(world, rate="20")).pace == 20
    await world.passes(seconds=1)
    assert await gap_ms(world) == 50
    assert (await world.store.upstream()).pace == 20  # also once calls have passed


async def test_what_makes_no_rate_higher_leaves_the_pace_as_throttles_made_it(world: World) -> None:
    await world.queue(1)
    await world.attempt(throttled())
    for changes in ({"rate": "5"}, {"accepting": "0"}, {"accepting": None, "forwarding": "0"}, {"rate": "4"}, {}):
        assert (await world.store.set_upstream(changes)).pace == 3.5


async def test_a_rate_is_no_way_around_a_wait_that_batch_told(world: World) -> None:
    await world.queue(1)
    await world.attempt(throttled(30))
    assert (await switched(world, rate="100")).condition == "throttled"
    await world.passes(seconds=1)
    assert (await world.wait()).reason == "throttled"


async def test_what_is_not_named_stays(world: World) -> None:
    await switched(world, accepting="0", forwarding="0", rate="2")
    status = await world.store.set_upstream({})
    assert (status.accepting, status.forwarding, status.rate) == (False, False, 2)
    status = await switched(world, forwarding=None)
    assert (status.accepting, status.forwarding, status.rate) == (False, True, 2)


async def test_a_new_process_finds_what_was_set(world: World) -> None:
    await world.queue(1)
    await switched(world, accepting="0", forwarding="0", rate="2")
    other = world.another_store(world.client)
    assert await other.upstream() == await world.store.upstream()
    assert (await other.upstream()).overrides == {"rate": 2}
    assert await other.lease() == Wait(seconds=None, reason="stopped")
    await other.set_upstream({"forwarding": None})
    await world.lease()


async def test_all_back_leaves_no_trace(world: World) -> None:
    await world.queue(1)
    before = await world.client.hgetall(world.keys.upstream)
    await switched(world, accepting="0", forwarding="0", rate="2")
    await switched(world, accepting=None, forwarding=None, rate=None)
    assert await world.client.hgetall(world.keys.upstream) == before


async def test_the_status_counts_what_is_queued_leased_delayed_forwarded_and_throttled(world: World) -> None:
    await world.queue(4)
    await world.attempt(forwarded())
    await world.attempt(throttled())
    await world.attempt(transient(60))
    await world.next_lease()
    status = await world.store.upstream()
    assert (status.queued, status.leased, status.delayed, status.forwarded, status.throttled) == (3, 1, 1, 1, 1)
    assert status.queued_bytes > 0


async def real_now_us(world: World) -> int:
    seconds, microseconds = await world.client.time()
    return int(seconds) * 1_000_000 + int(microseconds)


async def test_the_status_says_what_holds_calls(world: World) -> None:
    """By the server's own clock, as the reading is."""
    await world.set_clock(await real_now_us(world))
    await world.queue(3)
    await world.settle(await world.lease(), DENIED)
    assert (await world.store.upstream()).denied_pairs == 1
    await world.client.hset(world.keys.denied, "past", 1)
    assert (await world.store.upstream()).denied_pairs == 1
    await world.client.delete(world.keys.denied)
    await world.settle(await world.next_lease(), CREDENTIALS)
    held = await world.store.upstream()
    assert (held.condition, held.credentials_held) == ("held", True)
    assert held.held_until is not None
    assert abs(held.held_until.timestamp() * 1e6 - world.now_us - 5e6) < 2000
    await world.passes(seconds=6)
    await world.settle(await world.next_lease(), NOT_SENT)
    assert (await world.store.upstream()).condition == "outage"
    assert (await switched(world, forwarding="0")).condition == "stopped"
