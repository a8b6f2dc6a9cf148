"""What must be so in the store at any moment, whatever has just happened to it: no script is half-run.

All keys of the upstream are read in one script, so that a store under load can be looked at too. How the keys are
named is taken from gateway/store/keys.py; what they must say of each other is said here alone.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgpack

if TYPE_CHECKING:
    from gateway.store.keys import Keys
    from tests.servers import StoreServer

_READ_ALL = """
local read = { string = { 'GET' }, hash = { 'HGETALL' }, set = { 'SMEMBERS' } }
read.zset = { 'ZRANGE', 0, -1, 'WITHSCORES' }
local found = {}
for _, name in ipairs(redis.call('KEYS', ARGV[1])) do
  local command = read[redis.call('TYPE', name).ok]
  found[#found + 1] = { name, redis.call(command[1], name, unpack(command, 2)) }
end
return found
"""


@dataclass(frozen=True)
class Contents:
    """All keys of one upstream, by what follows their common beginning; zsets and hashes as maps."""

    values: dict[str, Any]

    def zset(self, name: str) -> dict[str, float]:
        rows = [one.decode() for one in self.values.get(name, [])]
        return dict(zip(rows[::2], map(float, rows[1::2]), strict=True))

    def hash(self, name: str) -> dict[str, str]:
        rows = [one.decode() for one in self.values.get(name, [])]
        return dict(zip(rows[::2], rows[1::2], strict=True))

    def named(self, beginning: str) -> list[str]:
        """What follows that in the names that begin so."""
        return [name.removeprefix(beginning) for name in self.values if name.startswith(beginning)]

    def records(self) -> dict[str, dict[str, Any]]:
        """What changes of each submission, by id."""
        return {one: _first_map(self.values[f"sub:{one}"]) for one in self.named("sub:")}


def read_all(server: StoreServer, keys: Keys) -> Contents:
    rows = server.ask("EVAL", _READ_ALL, 1, keys.upstream, f"{keys.root}*", seconds=10)
    return Contents({name.decode().removeprefix(keys.root): value for name, value in rows})


def unsound(contents: Contents) -> list[str]:
    """What contradicts itself, in sentences; empty where every submission stands in one place and is counted there."""
    records = contents.records()
    queued = {one: record for one, record in records.items() if record["state"] == "queued"}
    ready = {share: contents.zset(f"ready:{share}") for share in contents.named("ready:")}
    return [
        *_misplaced(contents, records, queued, ready),
        *_miscounted(contents, queued, ready),
        *(f"{one} is in no index" for one in records.keys() - _indexed(contents)),
    ]


def _misplaced(
    contents: Contents, records: dict[str, Any], queued: dict[str, Any], ready: dict[str, dict[str, float]]
) -> list[str]:
    delayed, leased, errands = contents.zset("delayed"), contents.zset("leased"), contents.zset("errands")
    sought = [one for one in errands if one in queued]
    places = Counter([*delayed, *leased, *sought, *(one for line in ready.values() for one in line)])
    owed = {one for one, record in records.items() if {"look", "terminate", "update"} & record.keys()}
    standing = {(one, share): place for share, line in ready.items() for one, place in line.items()}
    return [
        *(f"{one} is queued and stands in {places[one]} places" for one in queued if places[one] != 1),
        *(f"{one} stands in a line and is not queued" for one in places.keys() - queued.keys()),
        *(f"{one} is leased by its record or by the zset, not by both" for one in _leases(queued) ^ leased.keys()),
        *(f"{one} has an errand by its record or by the zset, not by both" for one in owed ^ errands.keys()),
        *(
            f"{one} stands at {place} in {share}, its record says otherwise"
            for (one, share), place in standing.items()
            if one in queued and (queued[one]["share"], queued[one]["place"]) != (share, place)
        ),
    ]


def _miscounted(contents: Contents, queued: dict[str, Any], ready: dict[str, dict[str, float]]) -> list[str]:
    upstream = contents.hash("upstream")
    by_share = Counter(record["share"] for record in queued.values())
    by_queue = Counter(share.partition("/")[0] for share in by_share)
    waiting = {share: set(contents.zset(f"waiting:{share}")) for share in contents.named("waiting:")}
    members = {
        share: {one for one, record in queued.items() if record["share"] == share} for share in {*by_share, *waiting}
    }
    told_and_true = {
        "queued": (int(upstream.get("queued", 0)), len(queued)),
        "bytes": (int(upstream.get("bytes", 0)), sum(record["size"] for record in queued.values())),
        "backlog": (contents.zset("backlog"), dict(by_share)),
        "queues": ({name: int(number) for name, number in contents.hash("queues").items()}, dict(by_queue)),
        "active": (set(contents.zset("active")), {share for share, line in ready.items() if line}),
        "waiting": ({share: ids for share, ids in waiting.items() if ids}, {k: v for k, v in members.items() if v}),
    }
    return [
        f"{name} is {told}, and {true} by the records" for name, (told, true) in told_and_true.items() if told != true
    ]


def _leases(queued: dict[str, Any]) -> set[str]:
    return {one for one, record in queued.items() if "lease" in record}


def _indexed(contents: Contents) -> set[str]:
    return {one for namespace in contents.named("index:") for one in contents.zset(f"index:{namespace}")}


def _first_map(value: bytes) -> dict[str, Any]:
    unpacker = msgpack.Unpacker(raw=False, strict_map_key=False)
    unpacker.feed(value)
    found: dict[str, Any] = unpacker.unpack()
    return found
