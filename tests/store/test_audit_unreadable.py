"""An audit meets whatever stands in the store, tells what cannot be read, and finds the rest of what is wrong."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

import msgpack
import pytest
from redis.exceptions import ResponseError

from gateway.core.audit import REMEDIES, whole_round
from gateway.store.audit_round import Round
from tests.store.furnished import SHARE, SLOW, Beside, Furnished, audit_of, audited, furnish, told

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from redis.asyncio import Redis

    Plant = Callable[[Furnished], Awaitable[set[tuple[str, str]]]]

# A msgpack map whose key is a list; one in which a string is no UTF-8; one that ends in the middle; lists in lists.
UNDECODABLE = {
    "key": b"\x81\x91\x01\x01",
    "text": b"\x81\xa1v\xa1\xff",
    "end": b"\x85\xa1v\x01",
    "length": b"\xdd\x06\x00\x00\x00",
    "depth": b"\x91" * 20_000,
    "reserved": b"\xc1",
}


@pytest.fixture
async def store(any_client: Redis) -> Furnished:
    return await furnish(any_client)


async def replace(store: Furnished, name: str, kind: str) -> None:
    """Something of another type under a key's name, which is given without the upstream's prefix."""
    key = store.keys.root + name
    await store.client.delete(key)
    if kind == "list":
        await store.client.rpush(key, "x")
    elif kind == "hash":
        await store.client.hset(key, "x", "y")
    elif kind == "zset":
        await store.client.zadd(key, {"x": 1})
    else:
        await store.client.set(key, "x")


# ---- Each thing that cannot be read, planted by hand: what is told of it, and of whom nothing is known without it


async def _stray_alias(store: Furnished) -> set[tuple[str, str]]:
    await replace(store, "alias:x", "hash")
    return {("unreadable", "alias:x")}


async def _stray_job(store: Furnished) -> set[tuple[str, str]]:
    await replace(store, "job:x", "zset")
    return {("unreadable", "job:x")}


async def _stray_index(store: Furnished) -> set[tuple[str, str]]:
    await replace(store, "index:x", "string")
    return {("unreadable", "index:x"), ("unlisted", "index:x")}


async def _stray_record(store: Furnished) -> set[tuple[str, str]]:
    await replace(store, "sub:zz", "list")
    return {("unreadable", "zz")}


async def _stray_share(store: Furnished) -> set[tuple[str, str]]:
    await replace(store, "share:training/x", "string")
    return {("unreadable", "training/x")}


async def _stray_lines(store: Furnished) -> set[tuple[str, str]]:
    for line in ("ready", "held", "waiting"):
        await replace(store, f"{line}:training/x", "hash")
    return {("unreadable", f"{line}:training/x") for line in ("ready", "held", "waiting")}


async def _stray_denials(store: Furnished) -> set[tuple[str, str]]:
    await replace(store, "denied", "list")
    return {("unreadable", "denied")}


async def _no_index(store: Furnished) -> set[tuple[str, str]]:
    await replace(store, "index:m", "string")
    return {("unreadable", "index:m"), ("unlisted", store.ready)}


async def _no_namespaces(store: Furnished) -> set[tuple[str, str]]:
    await replace(store, "namespaces", "list")
    return {("unreadable", "namespaces"), ("unlisted", "index:n"), ("unlisted", "index:m")}


async def _no_endings(store: Furnished) -> set[tuple[str, str]]:
    await replace(store, "endings", "zset")
    return {("unreadable", "endings"), ("unlisted", "ended:training")}


async def _no_list_of_what_ended(store: Furnished) -> set[tuple[str, str]]:
    await replace(store, "ended:training", "string")
    there = {store.rejected, store.unknown, store.canceled}
    return {("unreadable", "ended:training"), *(("unlisted", one) for one in there)}


async def _no_delayed(store: Furnished) -> set[tuple[str, str]]:
    await replace(store, "delayed", "string")
    nowhere = {("nowhere", store.delayed), ("nowhere", store.held), ("misplaced", store.held)}
    return {("unreadable", "delayed"), *nowhere}


async def _no_leased(store: Furnished) -> set[tuple[str, str]]:
    await replace(store, "leased", "list")
    return {("unreadable", "leased"), ("nowhere", store.leased), ("misplaced", store.leased)}


async def _no_line(store: Furnished) -> set[tuple[str, str]]:
    await replace(store, f"ready:{SHARE}", "list")
    return {("unreadable", f"ready:{SHARE}"), ("nowhere", store.ready), ("share", str(SHARE))}


async def _no_waiting(store: Furnished) -> set[tuple[str, str]]:
    await replace(store, f"waiting:{SHARE}", "string")
    there = {store.ready, store.delayed, store.leased, store.sought}
    return {("unreadable", f"waiting:{SHARE}"), ("counts", str(SHARE)), *(("uncounted", one) for one in there)}


async def _no_active(store: Furnished) -> set[tuple[str, str]]:
    await replace(store, "active", "string")
    return {("unreadable", "active"), *(("share", str(one)) for one in (SHARE, SLOW, "training/other"))}


async def _no_backlog(store: Furnished) -> set[tuple[str, str]]:
    await replace(store, "backlog", "string")
    kept = {("share", str(one)) for one in (SHARE, SLOW, "training/other")}  # their hashes, as if they were idle
    counts = {("counts", str(one)) for one in (SHARE, SLOW, "training/other", "training/paused", "upstream")}
    return {("unreadable", "backlog"), *kept, *counts}


async def _no_marked(store: Furnished) -> set[tuple[str, str]]:
    await replace(store, "marked", "zset")
    return {("unreadable", "marked"), ("share", "training/paused"), ("share", "other/heavy")}


async def _no_share(store: Furnished) -> set[tuple[str, str]]:
    await replace(store, f"share:{SHARE}", "string")
    return {("unreadable", str(SHARE))}


async def _no_upstream(store: Furnished) -> set[tuple[str, str]]:
    await replace(store, "upstream", "list")
    return {("unreadable", "upstream"), ("counts", "upstream")}


async def _no_queues(store: Furnished) -> set[tuple[str, str]]:
    await replace(store, "queues", "zset")
    return {("unreadable", "queues"), ("counts", "upstream")}


async def _no_pointers(store: Furnished) -> set[tuple[str, str]]:
    await replace(store, f"alias:{store.forwarded}", "list")
    await replace(store, "job:job-2", "hash")
    owed = {("unreadable", "job:job-2"), ("job", f"alias:{store.owing}")}
    return {("unreadable", f"alias:{store.forwarded}"), ("job", "job:job-1"), *owed}


async def _queued_no_number(store: Furnished) -> set[tuple[str, str]]:
    await store.client.hset(store.keys.upstream, "queued", "many")
    return {("unreadable", "upstream")}


async def _bytes_no_number(store: Furnished) -> set[tuple[str, str]]:
    await store.client.hset(store.keys.upstream, "bytes", "1.5e3")
    return {("unreadable", "upstream")}


async def _shares_of_queue_no_number(store: Furnished) -> set[tuple[str, str]]:
    await store.client.hset(store.keys.queues, "training", b"\xff")
    return {("unreadable", "upstream")}


async def _backlog_without_end(store: Furnished) -> set[tuple[str, str]]:
    await store.client.zadd(store.keys.backlog, {str(SHARE): "inf"})
    return {("counts", str(SHARE)), ("counts", "upstream")}


async def _backlog_and_a_half(store: Furnished) -> set[tuple[str, str]]:
    await store.client.zincrby(store.keys.backlog, 0.5, str(SHARE))
    return {("counts", str(SHARE)), ("counts", "upstream")}


async def _map_without_members(store: Furnished) -> set[tuple[str, str]]:
    await store.client.set(store.keys.record("zz"), msgpack.packb({}))
    return {("unreadable", "zz")}


async def _map_with_its_size_alone(store: Furnished) -> set[tuple[str, str]]:
    await store.client.set(store.keys.record("zz"), msgpack.packb({"v": 1, "size": 1, "identity": 0}))
    return {("unreadable", "zz")}


async def _members_of_other_types(store: Furnished) -> set[tuple[str, str]]:
    """What nobody reads of it, but an audit compares."""
    await store.rewrite(store.due, deadline="")
    await store.client.zrem(store.keys.deadlines, store.due)
    await store.rewrite(store.owing, settled=[])
    await store.client.delete(store.keys.alias(store.owing), store.keys.job("job-2"))
    return {("unreadable", store.due), ("unreadable", store.owing)}


async def _truncated(store: Furnished) -> set[tuple[str, str]]:
    value = await store.client.get(store.keys.record(store.ready))
    await store.client.set(store.keys.record(store.ready), value[:40])
    return {("unreadable", store.ready)}


async def _id_no_text(store: Furnished) -> set[tuple[str, str]]:
    await store.client.set(store.keys.root.encode() + b"sub:\xff", "x")
    return {("unreadable", r"sub:\xff")}


async def _member_no_text(store: Furnished) -> set[tuple[str, str]]:
    await store.client.zadd(store.keys.errands, {b"\xff": 1})
    await store.client.sadd(store.keys.namespaces, b"\xfe")
    return {("unreadable", "errands"), ("unreadable", "namespaces")}


async def _pointer_no_text(store: Furnished) -> set[tuple[str, str]]:
    await store.client.set(store.keys.alias(store.forwarded), b"\xff", keepttl=True)
    await store.client.set(store.keys.job("job-2"), b"\xff", keepttl=True)
    others = {("job", f"alias:{one}") for one in (store.forwarded, store.owing)}
    return {("job", store.forwarded), ("job", store.owing), ("job", "job:job-2"), *others}


PLANTS = [
    value for name, value in list(globals().items()) if name.startswith("_") and asyncio.iscoroutinefunction(value)
]


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__[1:])
async def test_what_cannot_be_read_is_told_beside_all_else_that_is_wrong(store: Furnished, plant: Plant) -> None:
    about = await plant(store)
    await store.client.persist(store.keys.record(store.canceled))
    seen = (await audited(store.world)).drifts
    assert {(drift.kind, drift.about) for drift in seen} == {*about, ("lasting", store.canceled)}
    assert {drift.kind for drift in seen} <= REMEDIES.keys()


@pytest.mark.parametrize("value", UNDECODABLE.values(), ids=UNDECODABLE)
async def test_a_record_of_any_bytes_is_unreadable(store: Furnished, value: bytes) -> None:
    await store.client.set(store.keys.record(store.rejected), value)
    await store.client.set(store.keys.record("zz"), value)
    assert await told(store.world) == {("unreadable", store.rejected), ("unreadable", "zz")}


async def test_a_step_that_fails_all_the_same_is_told_and_passed_over(store: Furnished) -> None:
    """As of a store that does not know one command."""
    await store.client.zrem(store.keys.active, str(SHARE))
    await store.client.persist(store.keys.record(store.canceled))

    async def not_known(*_: Any, **__: Any) -> Any:
        raise ResponseError("unknown command")

    def none_known(**_: Any) -> Any:
        raise ResponseError("unknown command")

    async def whole(**instead: Any) -> set[tuple[str, str]]:
        audit = audit_of(store.world)
        audit._client = Beside(store.client, **instead)
        await audit.open()
        async with asyncio.timeout(20):
            return {(drift.kind, drift.about) for drift in (await whole_round(audit)).drifts}

    failed = ("unreadable", "upstream")
    assert await whole(sscan=not_known) == {failed, ("share", str(SHARE)), ("lasting", store.canceled)}
    assert await whole(zscan=not_known) == {failed, ("share", str(SHARE)), ("lasting", store.canceled)}
    assert await whole(scan=not_known) == {failed}
    assert await whole(hmget=not_known) == {failed}
    assert await whole(evalsha=not_known) == {failed}
    assert await whole(pipeline=none_known) == {failed, ("share", str(SHARE)), ("lasting", store.canceled)}


async def test_what_cannot_be_judged_says_where_and_quotes_nothing(store: Furnished) -> None:
    await store.rewrite(store.owing, settled=[])
    await store.client.delete(store.keys.alias(store.owing), store.keys.job("job-2"))
    (drift,) = (await audited(store.world)).drifts
    assert re.fullmatch(
        r"it cannot be judged: TypeError in drifts > .* > submission_drifts > .* > has_job", drift.problem
    )


@pytest.mark.parametrize("kept", [b"\xc1", b"", b"\x05", b"\x80", msgpack.packb({"began_ms": 1})])
async def test_a_turn_after_anything_else_than_a_round_begins_anew(store: Furnished, kept: bytes) -> None:
    for name in ("round", "memory"):
        await store.client.hset(store.keys.audit, name, kept)
    audit = audit_of(store.world)
    assert await audit.begin(60) == 0
    assert (await whole_round(audit)).bytes_compared


@pytest.mark.parametrize("wrong", [{"submissions": 5}, {"cursor": "x"}, {"began_ms": None}, {"walks": {}}])
async def test_a_round_of_other_types_is_no_round(wrong: dict[str, Any]) -> None:
    now = Round(began_ms=1, counters=[1, None, 2], cursor=None)
    assert Round.unpack(now.pack()) == now
    assert Round.unpack(msgpack.packb({**msgpack.unpackb(now.pack()), **wrong})) is None


async def test_a_turn_is_taken_where_the_audit_can_keep_nothing(store: Furnished) -> None:
    await replace(store, "audit", "list")
    audit = audit_of(store.world)
    assert await audit.begin(60) == 0
    assert {(drift.kind, drift.about) for drift in (await whole_round(audit)).drifts} == {("unreadable", "audit")}
    await audit.leave()


async def test_a_turn_that_somebody_else_wrote_without_an_end_gets_one(store: Furnished) -> None:
    await replace(store, "auditor", "list")
    assert 55 < await audit_of(store.world).begin(60) <= 60
