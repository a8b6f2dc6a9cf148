"""What waits in one queue, newest first, read a part at a time so that a walk can tell later what it has seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.core.identity import SubmissionId
from gateway.core.ports import Indexed
from gateway.core.read_ports import Waiting
from gateway.core.share import Share
from gateway.core.submission import State
from gateway.store.connection import store_errors
from gateway.store.reading import read

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from gateway.core.submission import Submission
    from gateway.store.keys import Keys

# A part is read in one go, of all shares: so many places in all, and of each share at least so many.
PLACES_AT_ONCE, PLACES_EACH = 1000, 5
# The rest of a millisecond is a few round trips; a store whose clock is set back keeps nobody waiting.
LOOKS_AT_THE_CLOCK = 100
# What a call or a look is under way for is some dozens: each forwarder has 16 calls in flight at the most. Those that
# wait for another try come back within seconds, or are the first of their share again.
LEASED_MOST, ERRANDS_MOST, DELAYED_MOST, FIRST_OF_A_SHARE = 500, 200, 200, 20

# As `Indexed`, which takes longer to make and to sort by the thousand.
Place = tuple[int, str]


class WaitingRoom:
    """QueueListing over one upstream's keys."""

    def __init__(self, client: Any, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    async def waiting(self, queue: str, *, share: str | None, before: Indexed | None, limit: int) -> Waiting:
        """All shares are read at the same moment.

        Where `more` wait there may be fewer than `limit`, and never none.
        """
        with store_errors():
            at_ms, parts = await self._at_one_moment(queue, share, before, limit)
            shown, more = _merged(parts, limit)
            # What leaves in the very millisecond of the reading is seen as it stands afterwards: so it is exactly the
            # records that leave in a later one of which only their own time tells that they were seen waiting.
            for _ in range(LOOKS_AT_THE_CLOCK):
                if _milliseconds(await self._client.time()) > at_ms:
                    break
            records = await read(self._client, self._keys, [one.submission_id for one in shown], requests=False)
        return Waiting(at_ms=at_ms, places=shown, records=records, more=more)

    async def under_way(self, shares: Collection[Share]) -> list[Submission]:
        keys = self._keys
        with store_errors():
            async with self._client.pipeline(transaction=True) as pipe:  # else one could change its place in between
                pipe.zrange(keys.leased, 0, LEASED_MOST - 1)
                pipe.zrevrange(keys.errands, 0, ERRANDS_MOST - 1)  # looks are due last: terminations go before them
                pipe.zrange(keys.delayed, 0, DELAYED_MOST - 1)
                for share in shares:
                    pipe.zrange(keys.ready(share), 0, FIRST_OF_A_SHARE - 1)
                found = await pipe.execute()
            wanted = [SubmissionId(one.decode()) for part in found for one in part]
            records = await read(self._client, keys, list(dict.fromkeys(wanted)), requests=False)
        return [
            one
            for one in records
            if one and one.state is State.QUEUED and one.share in shares and (one.maybe_sent or one.position == 0)
        ]

    async def _at_one_moment(
        self, queue: str, share: str | None, before: Indexed | None, limit: int
    ) -> tuple[int, list[tuple[list[Place], bool]]]:
        """(when in ms, and of each share the places past `before` with whether there may be more)."""
        keys = self._keys
        shares = {Share(queue, share)} if share is not None else set()
        while True:
            each = max(PLACES_EACH, min(limit + 1, PLACES_AT_ONCE // max(1, len(shares))))  # one more: is there any?
            named = sorted(shares, key=str)
            async with self._client.pipeline(transaction=True) as pipe:
                pipe.time()
                pipe.zrange(keys.backlog, 0, -1)
                for one in named:
                    key = keys.waiting(one)
                    if before is None:
                        pipe.zrevrange(key, 0, each - 1, withscores=True)
                        continue
                    # those of its own millisecond one by one: a range by time cannot begin among them
                    pipe.zrevrangebyscore(key, before.accepted_ms, before.accepted_ms, withscores=True)
                    pipe.zrevrangebyscore(key, f"({before.accepted_ms}", "-inf", start=0, num=each, withscores=True)
                now, backlog, *rows = await pipe.execute()
            missing = {one for one in map(_share, backlog) if one.queue == queue} - shares if share is None else set()
            if not missing:
                break
            shares |= missing  # the first reading only tells which there are; a later one finds a new share rarely
        if before is None:
            return _milliseconds(now), [(_places(one), len(one) == each) for one in rows]
        parts = []
        for beside, older in zip(rows[::2], rows[1::2], strict=True):
            places = [one for one in _places(beside) if one[1] < before.submission_id]
            parts.append((places + _places(older), len(older) == each))
        return _milliseconds(now), parts


def _merged(parts: Sequence[tuple[list[Place], bool]], limit: int) -> tuple[list[Indexed], bool]:
    """(the newest of all shares, whether there may be more): none beyond the end of a share that may go on."""
    ends = [places[-1] for places, more in parts if more]
    horizon = max(ends, default=None)
    found = sorted((one for places, _ in parts for one in places), reverse=True)
    shown = [
        Indexed(accepted_ms=ms, submission_id=SubmissionId(one))
        for ms, one in found[:limit]
        if horizon is None or (ms, one) >= horizon
    ]
    return shown, bool(ends) or len(shown) < len(found)


def _places(rows: Sequence[tuple[bytes, float]]) -> list[Place]:
    return [(int(ms), one.decode()) for one, ms in rows]


def _share(name: bytes) -> Share:
    return Share.parse(name.decode())


def _milliseconds(time: tuple[int, int]) -> int:
    return time[0] * 1000 + time[1] // 1000
