"""The store's raw keys, by the campaign's own reading: what the layout documents, and nothing of the gateway's code.

The layout is documented in gateway/store/keys.py (keys), gateway/store/records.py and lua/prelude.lua (a record: a
msgpack map of what changes, then the identity, another msgpack map, then the request).
"""

from __future__ import annotations

import time
from typing import Any

import msgpack

# One script, so that nothing moves meanwhile: names and contents of all keys but the records, and the records of those
# that stand somewhere, or of all.
_READ = """
local root, all = ARGV[1], ARGV[2] == '1'
local found, ids = {}, {}
for _, key in ipairs(redis.call('KEYS', root .. '*')) do
  local name = string.sub(key, #root + 1)
  local kind = string.match(name, '^%a+')
  if kind == 'sub' then
    if all then ids[string.sub(name, 5)] = true end
  elseif kind == 'upstream' or kind == 'share' or kind == 'queues' then
    found[#found + 1] = { name, redis.call('HGETALL', key) }
  elseif kind == 'ready' or kind == 'waiting' or kind == 'held' or kind == 'delayed' or kind == 'leased'
    or kind == 'errands' or kind == 'deadlines' or kind == 'active' or kind == 'backlog' then
    local members = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
    found[#found + 1] = { name, members }
    if kind ~= 'active' and kind ~= 'backlog' then
      for position = 1, #members, 2 do ids[members[position]] = true end
    end
  end
end
local records = {}
for id in pairs(ids) do
  records[#records + 1] = { id, redis.call('GET', root .. 'sub:' .. id) or '' }
end
return { found, records }
"""

PLACES = ("delayed", "leased", "errands")


async def read_keys(client: Any, root: str, *, everything: bool = False) -> dict[str, Any]:
    """All places and counters at one moment: zsets and hashes by name without `root`, records by id.

    With `everything` the records of all submissions, else of those that stand somewhere. Raises what redis-py raises.
    """
    found, values = await client.eval(_READ, 1, f"{root}upstream", root, "1" if everything else "0")
    snapshot: dict[str, Any] = {"at": time.time(), "everything": everything, "zsets": {}, "hashes": {}, "records": {}}
    for raw_name, flat in found:
        name = raw_name.decode()
        pairs = {one.decode(): value.decode() for one, value in zip(flat[::2], flat[1::2], strict=True)}
        if name.partition(":")[0] in ("upstream", "share", "queues"):
            snapshot["hashes"][name] = pairs
        else:
            snapshot["zsets"][name] = {one: float(score) for one, score in pairs.items()}
    for raw_id, value in values:
        snapshot["records"][raw_id.decode()] = read_record(value) if value else None
    return snapshot


def read_record(value: bytes) -> dict[str, Any]:
    """What changes of a submission, and of its identity the token; `size` as the counters count it is in it."""
    unpacker = msgpack.Unpacker(raw=False, strict_map_key=False)
    unpacker.feed(value)
    record: dict[str, Any] = unpacker.unpack()
    start = unpacker.tell()
    identity = msgpack.unpackb(value[start : start + record["identity"]])
    return {**record, "token": identity["token"]}


async def roots(client: Any, prefix: str) -> list[str]:
    """What the keys of each upstream begin with."""
    return [key.decode().removesuffix("upstream") async for key in client.scan_iter(match=f"{prefix}:{{*}}:upstream")]


def is_drained(snapshot: dict[str, Any]) -> bool:
    """Whether nothing is queued, and nothing owed to Batch."""
    return not any(
        members
        for name, members in snapshot["zsets"].items()
        if name in PLACES or name.startswith(("ready:", "waiting:"))
    )
