"""The audit finds each thing that is wrong, and tells nothing else."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gateway.core.audit import REMEDIES
from gateway.core.share import Share
from gateway.store.invariants import Counters, counter_drifts
from tests.store.furnished import SHARE, SLOW, Furnished, audited, furnish, told

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from redis.asyncio import Redis


DAY_MS = 24 * 3600 * 1000


@pytest.fixture
async def store(any_client: Redis) -> Furnished:
    return await furnish(any_client)


async def test_nothing_is_wrong_with_something_of_everything(store: Furnished) -> None:
    places = [await store.world.places(wanted) for wanted in (store.ready, store.delayed, store.leased, store.sought)]
    assert places == [["ready"], ["delayed"], ["leased"], ["errands"]]
    seen = await audited(store.world)
    assert (seen.drifts, seen.bytes_compared) == ((), True)
    assert seen.looked_at > 40


# ---- Each kind of drift, planted by hand: what is told, by kind, of the submission, share or key


async def _lost(store: Furnished) -> set[tuple[str, str]]:
    await store.client.delete(store.keys.record(store.ready))
    return {("lost", store.ready)}


async def _lost_while_leased(store: Furnished) -> set[tuple[str, str]]:
    await store.client.delete(store.keys.record(store.leased))
    return {("lost", store.leased)}


async def _lost_while_owing(store: Furnished) -> set[tuple[str, str]]:
    await store.client.delete(store.keys.record(store.owing))
    return {("lost", store.owing)}


async def _lost_after_its_end(store: Furnished) -> set[tuple[str, str]]:
    await store.client.delete(store.keys.record(store.forwarded))
    return {("lost", store.forwarded)}


async def _no_map(store: Furnished) -> set[tuple[str, str]]:
    await store.client.set(store.keys.record(store.forwarded), b"\xc1 no msgpack", keepttl=True)
    return {("unreadable", store.forwarded)}


async def _empty(store: Furnished) -> set[tuple[str, str]]:
    await store.client.set(store.keys.record(store.forwarded), b"", keepttl=True)
    return {("unreadable", store.forwarded)}


async def _no_state(store: Furnished) -> set[tuple[str, str]]:
    await store.rewrite(store.forwarded, state="lost")
    return {("unreadable", store.forwarded)}


async def _no_size(store: Furnished) -> set[tuple[str, str]]:
    await store.rewrite(store.rejected, size=None)
    return {("unreadable", store.rejected)}


async def _cut_off(store: Furnished) -> set[tuple[str, str]]:
    value = await store.client.get(store.keys.record(store.ready))
    await store.client.set(store.keys.record(store.ready), value[:-1])
    return {("unreadable", store.ready)}


async def _cut_off_dead_letter(store: Furnished) -> set[tuple[str, str]]:
    value = await store.client.get(store.keys.record(store.unknown))
    await store.client.set(store.keys.record(store.unknown), value[:-1])
    return {("unreadable", store.unknown)}


async def _nowhere(store: Furnished) -> set[tuple[str, str]]:
    await store.client.zrem(store.keys.delayed, store.delayed)
    return {("nowhere", store.delayed)}


async def _nowhere_and_not_listed(store: Furnished) -> set[tuple[str, str]]:
    """As a command would leave it that stopped after it had written the record."""
    await store.client.zrem(store.keys.delayed, store.delayed)
    await store.client.zrem(store.keys.index("n"), store.delayed)
    return {("nowhere", store.delayed), ("unlisted", store.delayed)}


async def _twice(store: Furnished) -> set[tuple[str, str]]:
    await store.client.zadd(store.keys.delayed, {store.ready: store.world.now_us // 1000 + 5000})
    return {("twice", store.ready)}


async def _leased_without_number(store: Furnished) -> set[tuple[str, str]]:
    await store.rewrite(store.leased, lease=None)
    return {("misplaced", store.leased)}


async def _look_without_mark(store: Furnished) -> set[tuple[str, str]]:
    await store.rewrite(store.sought, look=None)
    return {("misplaced", store.sought)}


async def _to_end_and_ready(store: Furnished) -> set[tuple[str, str]]:
    await store.rewrite(store.ready, cancel={"by": "caller", "reason": "", "at": 1})
    return {("misplaced", store.ready)}


async def _another_place(store: Furnished) -> set[tuple[str, str]]:
    await store.client.zincrby(store.keys.ready(SHARE), 1, store.ready)
    return {("misplaced", store.ready)}


async def _another_share(store: Furnished) -> set[tuple[str, str]]:
    place = await store.client.zscore(store.keys.ready(SHARE), store.ready)
    await store.client.zadd(store.keys.ready(Share("training", "other")), {store.ready: place})
    return {("misplaced", store.ready), ("counts", "training/other")}


async def _held_and_not_delayed(store: Furnished) -> set[tuple[str, str]]:
    await store.client.zincrby(store.keys.held(SLOW), 1000, store.held)
    return {("misplaced", store.held)}


async def _final_and_ready(store: Furnished) -> set[tuple[str, str]]:
    await store.client.zadd(store.keys.ready(SHARE), {store.forwarded: 1})
    return {("misplaced", store.forwarded)}


async def _final_and_waiting(store: Furnished) -> set[tuple[str, str]]:
    await store.client.zadd(store.keys.waiting(SHARE), {store.canceled: 1})
    return {("misplaced", store.canceled), ("counts", str(SHARE))}


async def _final_with_deadline(store: Furnished) -> set[tuple[str, str]]:
    await store.client.zadd(store.keys.deadlines, {store.rejected: 2e12})
    return {("misplaced", store.rejected)}


async def _owed_and_forgotten(store: Furnished) -> set[tuple[str, str]]:
    await store.client.zrem(store.keys.errands, store.owing)
    return {("misplaced", store.owing)}


async def _errand_without_mark(store: Furnished) -> set[tuple[str, str]]:
    await store.client.zadd(store.keys.errands, {store.forwarded: 1})
    return {("misplaced", store.forwarded)}


async def _lease_without_end(store: Furnished) -> set[tuple[str, str]]:
    await store.client.zincrby(store.keys.leased, 2 * DAY_MS, store.leased)
    return {("untimely", store.leased)}


async def _delay_without_end(store: Furnished) -> set[tuple[str, str]]:
    await store.client.zincrby(store.keys.delayed, 2 * DAY_MS, store.delayed)
    return {("untimely", store.delayed)}


async def _errand_without_end(store: Furnished) -> set[tuple[str, str]]:
    await store.client.zincrby(store.keys.errands, 2 * DAY_MS, store.owing)
    return {("untimely", store.owing)}


async def _deadline_forgotten(store: Furnished) -> set[tuple[str, str]]:
    await store.client.zrem(store.keys.deadlines, store.due)
    return {("untimely", store.due)}


async def _deadline_moved(store: Furnished) -> set[tuple[str, str]]:
    await store.client.zincrby(store.keys.deadlines, 1, store.due)
    return {("untimely", store.due)}


async def _queued_expires(store: Furnished) -> set[tuple[str, str]]:
    await store.client.expire(store.keys.record(store.delayed), 3600)
    return {("expiring", store.delayed)}


async def _dead_letter_expires(store: Furnished) -> set[tuple[str, str]]:
    await store.client.expire(store.keys.record(store.unknown), 3600)
    return {("expiring", store.unknown)}


async def _owing_expires(store: Furnished) -> set[tuple[str, str]]:
    await store.client.expire(store.keys.record(store.owing), 3600)
    return {("expiring", store.owing)}


async def _final_stays(store: Furnished) -> set[tuple[str, str]]:
    await store.client.persist(store.keys.record(store.forwarded))
    return {("lasting", store.forwarded)}


async def _not_listed(store: Furnished) -> set[tuple[str, str]]:
    await store.client.zrem(store.keys.index("n"), store.rejected)
    return {("unlisted", store.rejected)}


async def _listed_at_another_time(store: Furnished) -> set[tuple[str, str]]:
    await store.client.zincrby(store.keys.index("n"), -1, store.rejected)
    return {("unlisted", store.rejected)}


async def _namespace_not_listed(store: Furnished) -> set[tuple[str, str]]:
    await store.client.srem(store.keys.namespaces, "m")
    return {("unlisted", "index:m")}


async def _namespace_without_index(store: Furnished) -> set[tuple[str, str]]:
    await store.client.sadd(store.keys.namespaces, "nobody's")
    return {("unlisted", "index:nobody's")}


async def _ended_and_not_listed(store: Furnished) -> set[tuple[str, str]]:
    await store.client.zrem(store.keys.ended("training"), store.canceled)
    return {("unlisted", store.canceled)}


async def _ended_and_listed_at_another_time(store: Furnished) -> set[tuple[str, str]]:
    await store.client.zincrby(store.keys.ended("training"), 1, store.unknown)
    return {("unlisted", store.unknown)}


async def _queued_and_listed_as_ended(store: Furnished) -> set[tuple[str, str]]:
    accepted_ms = (await store.world.record(store.ready))["at"]
    await store.client.zadd(store.keys.ended("training"), {store.ready: accepted_ms})
    return {("unlisted", store.ready)}


async def _forwarded_and_listed_as_ended(store: Furnished) -> set[tuple[str, str]]:
    accepted_ms = (await store.world.record(store.forwarded))["at"]
    await store.client.zadd(store.keys.ended("training"), {store.forwarded: accepted_ms})
    return {("unlisted", store.forwarded)}


async def _ended_in_another_queue(store: Furnished) -> set[tuple[str, str]]:
    accepted_ms = (await store.world.record(store.rejected))["at"]
    await store.client.zadd(store.keys.ended("other"), {store.rejected: accepted_ms})
    await store.client.sadd(store.keys.endings, "other")
    return {("unlisted", store.rejected)}


async def _queue_not_named(store: Furnished) -> set[tuple[str, str]]:
    await store.client.srem(store.keys.endings, "training")
    return {("unlisted", "ended:training")}


async def _queue_of_which_nothing_ended(store: Furnished) -> set[tuple[str, str]]:
    await store.client.sadd(store.keys.endings, "nothing's")
    return {("unlisted", "ended:nothing's")}


async def _not_waiting(store: Furnished) -> set[tuple[str, str]]:
    await store.client.zrem(store.keys.waiting(SHARE), store.leased)
    return {("uncounted", store.leased), ("counts", str(SHARE))}


async def _waiting_since_another_time(store: Furnished) -> set[tuple[str, str]]:
    await store.client.zincrby(store.keys.waiting(SHARE), 1, store.leased)
    return {("uncounted", store.leased)}


async def _both_pointers_gone(store: Furnished) -> set[tuple[str, str]]:
    await store.client.delete(store.keys.alias(store.forwarded), store.keys.job("job-1"))
    return {("job", store.forwarded)}


async def _alias_gone(store: Furnished) -> set[tuple[str, str]]:
    await store.client.delete(store.keys.alias(store.forwarded))
    return {("job", "job:job-1")}


async def _job_gone(store: Furnished) -> set[tuple[str, str]]:
    await store.client.delete(store.keys.job("job-1"))
    return {("job", f"alias:{store.forwarded}")}


async def _job_of_another(store: Furnished) -> set[tuple[str, str]]:
    await store.client.set(store.keys.job("job-1"), store.owing, keepttl=True)
    return {("job", store.forwarded), ("job", f"alias:{store.forwarded}")}


async def _another_job(store: Furnished) -> set[tuple[str, str]]:
    await store.client.set(store.keys.alias(store.forwarded), "job-9", keepttl=True)
    return {("job", store.forwarded), ("job", f"alias:{store.forwarded}")}


async def _forwarded_without_job(store: Furnished) -> set[tuple[str, str]]:
    await store.rewrite(store.forwarded, job_id=None)
    return {("job", store.forwarded)}


async def _asleep(store: Furnished) -> set[tuple[str, str]]:
    await store.client.zrem(store.keys.active, str(SHARE))
    return {("share", str(SHARE))}


async def _awake_with_nothing(store: Furnished) -> set[tuple[str, str]]:
    await store.client.zadd(store.keys.active, {"training/nobody": 0})
    return {("share", "training/nobody")}


async def _awake_while_paused(store: Furnished) -> set[tuple[str, str]]:
    await store.client.zadd(store.keys.active, {"training/paused": 0})
    return {("share", "training/paused")}


async def _paused_unmarked(store: Furnished) -> set[tuple[str, str]]:
    await store.client.srem(store.keys.marked, "training/paused")
    return {("share", "training/paused")}


async def _marked_for_nothing(store: Furnished) -> set[tuple[str, str]]:
    await store.client.sadd(store.keys.marked, str(SHARE))
    return {("share", str(SHARE))}


async def _overridden_unsaid(store: Furnished) -> set[tuple[str, str]]:
    await store.client.hset(store.keys.share(SHARE), "o_rate", "3")
    return {("share", str(SHARE))}


async def _share_expires(store: Furnished) -> set[tuple[str, str]]:
    await store.client.expire(store.keys.share(SHARE), 3600)
    return {("share", str(SHARE))}


async def _idle_share_stays(store: Furnished) -> set[tuple[str, str]]:
    await store.client.hset(store.keys.share(Share("training", "idle")), "finish", "1")
    return {("share", "training/idle")}


async def _backlog(store: Furnished) -> set[tuple[str, str]]:
    await store.client.zincrby(store.keys.backlog, 1, str(SHARE))
    return {("counts", str(SHARE)), ("counts", "upstream")}


async def _empty_backlog(store: Furnished) -> set[tuple[str, str]]:
    await store.client.zadd(store.keys.backlog, {"training/none": 0})
    return {("counts", "training/none"), ("counts", "upstream")}


async def _queued_count(store: Furnished) -> set[tuple[str, str]]:
    await store.client.hincrby(store.keys.upstream, "queued", -1)
    return {("counts", "upstream")}


async def _bytes_count(store: Furnished) -> set[tuple[str, str]]:
    await store.client.hincrby(store.keys.upstream, "bytes", 1)
    return {("counts", "upstream")}


async def _queues_count(store: Furnished) -> set[tuple[str, str]]:
    await store.client.hincrby(store.keys.queues, "training", 1)
    return {("counts", "upstream")}


async def _queue_of_nothing(store: Furnished) -> set[tuple[str, str]]:
    await store.client.hset(store.keys.queues, "nobody's", 1)
    return {("counts", "upstream")}


async def _in_anothers_list(store: Furnished) -> set[tuple[str, str]]:
    at_ms = await store.client.zscore(store.keys.index("n"), store.rejected)
    await store.client.zadd(store.keys.index("m"), {store.rejected: at_ms})
    return {("unlisted", store.rejected)}


PLANTS = [
    value for name, value in list(globals().items()) if name.startswith("_") and asyncio.iscoroutinefunction(value)
]


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__[1:])
async def test_what_is_wrong_is_told_and_nothing_else(
    store: Furnished, plant: Callable[[Furnished], Awaitable[set[tuple[str, str]]]]
) -> None:
    about = await plant(store)
    seen = (await audited(store.world)).drifts
    assert {(drift.kind, drift.about) for drift in seen} == about
    assert {drift.kind for drift in seen} <= REMEDIES.keys()


def test_each_kind_of_drift_is_planted_here() -> None:
    """As the plants' own text says: `("kind", …`."""
    text = Path(__file__).read_text(encoding="utf-8")
    assert {kind for kind in REMEDIES if f'return {{("{kind}", ' in text} == set(REMEDIES)


async def test_canceling_one_that_stands_nowhere_puts_the_store_in_order(store: Furnished) -> None:
    await _nowhere(store)
    await store.world.changes.cancel(store.delayed, "as the remedy says")
    assert await told(store.world) == set()


@pytest.mark.parametrize("plant", [_asleep, _marked_for_nothing, _overridden_unsaid, _share_expires])
async def test_pausing_and_resuming_a_share_puts_it_in_order(
    store: Furnished, plant: Callable[[Furnished], Awaitable[set[tuple[str, str]]]]
) -> None:
    await plant(store)
    for paused in ("1", None):
        await store.world.store.set_share(SHARE, {"paused": paused})
    assert await told(store.world) == set()


def test_bytes_of_nothing_are_told_without_any_comparison() -> None:
    assert [*counter_drifts(Counters(queued=0, size=0), {}, {})] == []
    ((kind, problem),) = counter_drifts(Counters(queued=0, size=5), {}, {})
    assert (kind, problem) == ("counts", "the upstream counts 5 bytes with 0 queued")
