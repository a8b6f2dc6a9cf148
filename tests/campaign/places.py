"""What holds in the store whenever one looks: each queued id in exactly one place, counters equal to lengths."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.campaign.keyspace import PLACES

if TYPE_CHECKING:
    from collections.abc import Iterator

Wrong = tuple[str | None, str]
"""A submissionId, None where it is a counter, and a sentence."""


def misplaced(snapshot: dict[str, Any]) -> Iterator[Wrong]:
    """What is wrong with the places and counters of a snapshot that `keyspace.read_keys` took."""
    standing: dict[str, list[str]] = {}
    for name, ids in snapshot["zsets"].items():
        if name in PLACES or name.startswith("ready:"):
            for one in ids:
                standing.setdefault(one, []).append(name)
    share_of = {one: share for share, ids in _shares(snapshot, "waiting").items() for one in ids}
    yield from _places_of_queued(standing, share_of)
    for one, where in standing.items():
        if snapshot["records"].get(one) is None:
            yield one, f"stands in {' and '.join(where)}, and has no record"
    for one, record in snapshot["records"].items():
        if record is not None:
            yield from ((one, what) for what in _disagrees(record, standing.get(one, []), share_of.get(one)))
    yield from _lines(snapshot)
    yield from _wrong_counters(snapshot)


def _shares(snapshot: dict[str, Any], kind: str) -> dict[str, dict[str, float]]:
    start = f"{kind}:"
    return {name.removeprefix(start): ids for name, ids in snapshot["zsets"].items() if name.startswith(start)}


def _places_of_queued(standing: dict[str, list[str]], share_of: dict[str, str]) -> Iterator[Wrong]:
    for one, share in share_of.items():
        where = standing.get(one, [])
        if len(where) != 1:
            yield one, f"is queued, and stands in {' and '.join(where) or 'no place'}"
        elif where[0].startswith("ready:") and where[0] != f"ready:{share}":
            yield one, f"waits in {share}, and stands in {where[0]}"
    for one, where in standing.items():
        if one not in share_of and where != ["errands"]:  # what Batch is owed for is final
            yield one, f"stands in {' and '.join(where)}, and does not wait in its share"


def _disagrees(record: dict[str, Any], where: list[str], share: str | None) -> Iterator[str]:
    """What a record says of itself against where it stands, and in which share it waits."""
    queued, leased = record["state"] == "queued", "lease" in record
    if queued != (share is not None):
        yield f"is {record['state']}, and {'does not wait in a share' if queued else 'waits in a share'}"
    if share not in (None, record["share"]):
        yield f"is of {record['share']}, and waits in {share}"
    if queued and leased != ("leased" in where):
        yield f"has {'a' if leased else 'no'} lease, and stands in {' and '.join(where) or 'no place'}"


def _lines(snapshot: dict[str, Any]) -> Iterator[Wrong]:
    for share, ids in _shares(snapshot, "ready").items():
        for one, place in ids.items():
            record = snapshot["records"].get(one)
            if record is not None and record["place"] != place:
                yield one, f"has place {record['place']}, and {place:.0f} in the line of {share}"
    delayed = snapshot["zsets"].get("delayed", {})
    for share, ids in _shares(snapshot, "held").items():
        for one in ids.keys() - delayed.keys():
            yield one, f"is held for the rate of {share}, and not delayed"


def _wrong_counters(snapshot: dict[str, Any]) -> Iterator[Wrong]:
    found: list[Wrong] = []

    def hold(what: str, counted: Any, there: Any) -> None:
        if counted != there:
            found.append((None, f"{what}: counted {counted}, there are {there}"))

    zsets, hashes = snapshot["zsets"], snapshot["hashes"]
    waiting = {share: ids for share, ids in _shares(snapshot, "waiting").items() if ids}
    upstream = hashes.get("upstream", {})
    hold("queued", int(upstream.get("queued", 0)), sum(len(ids) for ids in waiting.values()))
    sizes = (snapshot["records"].get(one) for ids in waiting.values() for one in ids)
    hold("bytes", int(upstream.get("bytes", 0)), sum(record["size"] for record in sizes if record))
    backlog = {share: int(count) for share, count in zsets.get("backlog", {}).items()}
    hold("backlog of shares", backlog, {share: len(ids) for share, ids in waiting.items()})
    per_queue: dict[str, int] = {}
    for share in waiting:
        queue = share.rpartition("/")[0]
        per_queue[queue] = per_queue.get(queue, 0) + 1
    hold("shares of queues", {queue: int(n) for queue, n in hashes.get("queues", {}).items()}, per_queue)
    paused = {name.removeprefix("share:") for name, share in hashes.items() if share.get("paused") == "1"}
    ready = {share for share, ids in _shares(snapshot, "ready").items() if ids}
    hold("active shares", set(zsets.get("active", {})), ready - paused)
    yield from found
