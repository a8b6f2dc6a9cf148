"""What answers that nothing was done has done nothing: every key is as it was, on both servers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from gateway.core.errors import (
    BacklogFullError,
    GatewayError,
    NotAcceptingError,
    RateLimitedError,
    StoreUnavailableError,
    TooManySharesError,
)
from gateway.core.share import Share, ShareLimits
from gateway.store.bounds import StoreBounds
from gateway.store.confirming import Confirmer
from gateway.store.redis_store import RedisStore
from tests.store.world import CREDENTIALS, DENIED, NOT_SENT, World, forwarded, new_submission, throttled, transient

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.store.durability import Confirmation

ONE = ShareLimits(max_queued=1)


async def refuses(
    world: World, kind: type[GatewayError], limits: ShareLimits | None = None, **members: Any
) -> list[str]:
    """Names of the limits that refuse; fails where a key changed."""
    before = await world.dump()
    for _ in range(3):
        with pytest.raises(kind) as caught:
            await world.admit("refused", limits, **members)
    assert type(caught.value) is kind
    assert await world.dump() == before
    assert await world.store.get(new_submission("refused").submission_id) is None
    return [limit.name for limit in getattr(caught.value, "limits", [])]


async def test_a_refusal_by_the_rate_changes_nothing(any_world: World) -> None:
    limits = ShareLimits(rate=1, burst=1)
    await any_world.admit(limits=limits)
    assert await refuses(any_world, RateLimitedError, limits) == ["share-rate"]


async def test_a_full_share_changes_nothing(any_world: World) -> None:
    await any_world.admit(limits=ONE)
    assert await refuses(any_world, BacklogFullError, ONE) == ["share-backlog"]
    await any_world.admit(limits=ONE, share="other")


async def test_a_share_is_full_of_leased_and_delayed_ones_too(any_world: World) -> None:
    limits = ShareLimits(max_queued=3)
    for _ in range(3):
        await any_world.admit(limits=limits)
    await any_world.attempt(transient(delay_seconds=30))
    await any_world.next_lease()
    assert await refuses(any_world, BacklogFullError, limits) == ["share-backlog"]
    await any_world.attempt(forwarded())
    await any_world.admit(limits=limits)
    assert await refuses(any_world, BacklogFullError, limits) == ["share-backlog"]


async def test_a_cap_that_operators_set_wins_over_the_settings(any_world: World) -> None:
    await any_world.store.set_share(Share("training", "vision"), {"maxQueued": "2"})
    await any_world.admit(limits=ONE)
    await any_world.admit(limits=ONE)
    assert await refuses(any_world, BacklogFullError, ONE) == ["share-backlog"]


async def test_a_full_upstream_changes_nothing(any_world: World) -> None:
    world = await any_world.variant(bounds=StoreBounds(max_queued=2)).open()
    await world.admit(share="a")
    await world.admit(share="b")
    assert await refuses(world, BacklogFullError, share="c") == ["backlog"]
    await world.attempt(forwarded())
    await world.admit(share="c")


async def test_bytes_are_capped_to_the_byte(any_world: World) -> None:
    await any_world.admit("first")
    (size,) = {(await any_world.store.pace())["queued_bytes"]}
    exact = await any_world.variant(bounds=StoreBounds(max_queued_bytes=2 * int(size))).open()
    same_length = "fir2t"
    assert await refuses(exact, BacklogFullError, request=b'{"jobName": "resnet" }') == ["backlog-bytes"]
    await exact.admit(same_length)
    assert await refuses(exact, BacklogFullError) == ["backlog-bytes"]


async def test_shares_of_a_queue_are_capped_while_they_have_a_backlog(any_world: World) -> None:
    world = await any_world.variant(bounds=StoreBounds(max_shares_per_queue=2)).open()
    await world.admit(share="a")
    await world.admit(share="b")
    assert await refuses(world, TooManySharesError, share="c") == ["queue-shares"]
    await world.admit(share="a")  # has one already
    await world.admit(share="c", queue="other")
    while (await world.attempt(forwarded())).submission.share.name != "b":
        pass
    await world.admit(share="c")


async def test_every_limit_that_refuses_is_named(any_world: World) -> None:
    world = await any_world.variant(
        bounds=StoreBounds(max_queued=1, max_queued_bytes=10_000, max_shares_per_queue=0)
    ).open()
    await any_world.admit("one", ShareLimits(rate=1, burst=1), request=b"x" * 9900)
    limits = ShareLimits(rate=1, burst=1, max_queued=1)
    named = await refuses(world, RateLimitedError, limits)
    assert named == ["share-rate", "share-backlog", "backlog", "backlog-bytes"]
    named = await refuses(world, TooManySharesError, limits, share="other")
    assert named == ["queue-shares", "backlog", "backlog-bytes"]


async def test_a_refusal_tells_quota_and_a_time_to_come_back(any_world: World) -> None:
    await any_world.admit(limits=ONE)
    with pytest.raises(BacklogFullError) as caught:
        await any_world.admit(limits=ONE)
    (limit,) = caught.value.limits
    assert (limit.quota, limit.retry_after_seconds) == (1, 0.2)  # when Batch has taken one more


async def test_an_upstream_that_accepts_nothing_changes_nothing(any_world: World) -> None:
    await any_world.client.hset(any_world.keys.upstream, "accepting", "0")
    await refuses(any_world, NotAcceptingError)


async def test_a_replay_comes_before_every_limit(any_world: World) -> None:
    world = any_world
    await world.admit("token", ONE)
    await world.client.hset(world.keys.upstream, "accepting", "0")
    full = await world.variant(bounds=StoreBounds(max_queued=0, max_queued_bytes=0, max_shares_per_queue=0)).open()
    before = await world.dump()
    admission = await full.admit("token", ShareLimits(rate=0.001, burst=1, max_queued=0))
    assert admission.known
    assert await world.dump() == before


async def test_nothing_is_promised_that_the_store_cannot_keep(any_world: World) -> None:
    store = RedisStore(
        any_world.client,
        any_world.keys,
        pace=any_world.pace,
        bounds=any_world.bounds,
        confirmer=Confirmer(any_world.client, any_world.keys, how=_cannot),
    )
    with pytest.raises(StoreUnavailableError, match="The disk is full"):
        await store.admit(new_submission(), ShareLimits())
    assert await any_world.dump() == {}


def _cannot() -> Confirmation | None:
    raise StoreUnavailableError("The disk is full.")


async def _idle(world: World) -> str:
    await world.queue(1)
    await world.attempt(forwarded())
    return "idle"


async def _pace(world: World) -> str:
    await world.queue(2)
    await world.lease()
    return "pace"


async def _throttled(world: World) -> str:
    await world.queue(1)
    await world.attempt(throttled(wait_seconds=10))
    await world.passes(seconds=5)
    return "throttled"


async def _held(world: World) -> str:
    await world.queue(1)
    await world.attempt(CREDENTIALS)
    await world.passes(seconds=1)
    return "held"


async def _outage(world: World) -> str:
    await world.queue(1)
    await world.attempt(NOT_SENT)
    await world.passes(seconds=0.5)
    return "outage"


async def _stopped(world: World) -> str:
    await world.queue(1)
    await world.client.hset(world.keys.upstream, "forwarding", "0")
    return "stopped"


async def _denied(world: World) -> str:
    await world.queue(3)
    await world.attempt(DENIED)
    await world.passes(seconds=1)
    await world.store.lease()  # puts them aside
    return "idle"


async def _delayed(world: World) -> str:
    await world.queue(1)
    await world.attempt(transient(delay_seconds=10))
    return "idle"


@pytest.mark.parametrize("make", [_idle, _pace, _throttled, _held, _outage, _stopped, _denied, _delayed])
async def test_a_wait_changes_nothing(any_world: World, make: Callable[[World], Awaitable[str]]) -> None:
    reason = await make(any_world)
    before = await any_world.dump()
    for _ in range(3):
        assert (await any_world.wait()).reason == reason
    assert await any_world.dump() == before


async def test_a_wait_tells_when_to_ask_again(any_world: World) -> None:
    assert (await any_world.wait()).seconds is None  # until something arrives
    await any_world.queue(1)
    await any_world.attempt(transient(delay_seconds=10))
    assert (await any_world.wait()).seconds == 10
    await any_world.passes(milliseconds=9_999)
    assert (await any_world.wait()).seconds == 0.001
    await any_world.passes(milliseconds=1)
    await any_world.lease()


async def test_looking_changes_nothing(any_world: World) -> None:
    (wanted,) = await any_world.queue(1)
    before = await any_world.dump()
    await any_world.store.get(wanted)
    await any_world.store.get(new_submission("unheard of").submission_id)
    await any_world.store.shares()
    await any_world.store.pace()
    assert await any_world.dump() == before


async def test_ids_of_another_upstream_are_not_looked_up(any_world: World) -> None:
    (wanted,) = await any_world.queue(1)
    assert await any_world.store.get("0000" + wanted[4:]) is None  # type: ignore[arg-type]
