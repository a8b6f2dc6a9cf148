"""When a submission will be forwarded, if nothing more arrives: from a snapshot of the shares.

Start-time fair queueing serves start tags in order, equal ones by the share's name. The submission at position p of a
share has the tag S + (p - 1) / weight, so what goes before it is, for every share, however many of its tags are
smaller. Weights such as 10 and 1 make equal tags common, and rounding then decides between them: tags are added up
here as lua/lease.lua adds them.

`shares_ahead` says it of one submission in closed form. `Forecast` answers for thousands a second: it goes through the
next calls one by one, once, and looks up the rest.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, replace
from functools import reduce
from heapq import heapify, heappop, heapreplace
from itertools import accumulate, repeat
from operator import add
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from gateway.core.share import Share

# How a pace that was slowed grows with each call: by so much of its gap to the limit, and of the limit (lua/pace.lua).
RECOVERY_OF_GAP, RECOVERY_OF_LIMIT = 0.1, 0.01
# Up to here tags are added up step by step; who is wrong about a tie after a hundred turns is wrong by a hundredth.
EXACT_STEPS = 100
# The calls that `Forecast` goes through one by one: so many, or so many rounds of all shares. Behind them every share
# is taken to be in the middle of a turn: wrong by half a call a share at the most, and so by a tenth of five rounds.
EXACT_CALLS, EXACT_ROUNDS = 1000, 5
# A position was read a moment before it is asked about, and calls go a moment after their slots open.
LATENESS_SECONDS = 0.01
# So many shares or calls `Forecast.prepared` takes at a stretch: half a millisecond, in which nobody else is served.
AT_A_STRETCH = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareLoad:
    """A share: its next start tag, its weight, and how many submissions are ready."""

    start: float
    weight: float
    ready: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What forecasts rest on. `shares` have something ready, or none but a tag that is still known.

    `virtual` is where the fair order stands: a share of which nothing is known would enter it there. `paused` shares
    wait aside. `rate` is in calls a second now, `limit` what it grows back to, but not beyond `ceiling` in the first
    `ceiling_seconds`. No call may go before `wait_seconds`, nor before its slot, of which `burst` calls may be ahead;
    the next slot begins after `slot_seconds`. All are after `taken_at` (seconds of the store's clock), or before it if
    negative. `calling` is False while an outage or a hold has stopped the calls.
    """

    taken_at: float
    shares: Mapping[Share, ShareLoad]
    rate: float
    limit: float
    ceiling: float = math.inf
    ceiling_seconds: float = 0.0
    wait_seconds: float = 0.0
    slot_seconds: float = 0.0
    burst: int = 1
    calling: bool = True
    virtual: float = 0.0
    paused: frozenset[Share] = frozenset()

    def remembering(self, earlier: Snapshot) -> Snapshot:
        """With the tags of shares that had something ready then and have not now.

        Who submits one at a time, each when the last is gone, waits for a whole round: the store knows, and a snapshot
        of what is ready does not.
        """
        idle = {
            share: ShareLoad(start=finish, weight=load.weight, ready=0)
            for share, load in earlier.shares.items()
            if share not in self.shares and share not in self.paused
            if (finish := load.start + load.ready / load.weight) > self.virtual
        }
        return replace(self, shares={**self.shares, **idle}) if idle else self


def shares_ahead(snapshot: Snapshot, share: Share, position: int) -> dict[Share, int] | None:
    """How many submissions of each share go before that one, its own among them; None while it waits aside.

    Positions count from 1.
    """
    if share in snapshot.paused:
        return None
    own = snapshot.shares.get(share) or ShareLoad(start=snapshot.virtual, weight=1.0, ready=0)  # arrived since
    tag = _tag(own.start, 1 / own.weight, position - 1)
    ahead = {share: position - 1}
    for other, load in snapshot.shares.items():
        if other != share:
            steps = (tag - load.start) * load.weight
            near = round(steps)
            if near >= 0 and math.isclose(steps, near, rel_tol=1e-9, abs_tol=1e-6):
                smaller = (_tag(load.start, 1 / load.weight, near), str(other)) < (tag, str(share))
                count = near + smaller
            else:
                count = math.floor(steps) + 1
            ahead[other] = min(load.ready, max(0, count))
    return ahead


def calls_before(snapshot: Snapshot, share: Share, position: int) -> int | None:
    """How many submissions go before the one at this position of its share; None while it waits aside."""
    ahead = shares_ahead(snapshot, share, position)
    return None if ahead is None else sum(ahead.values())


def forward_at(snapshot: Snapshot, share: Share, position: int) -> float | None:
    """When the one at this position goes to Batch, in seconds of the store's clock; None if nobody can say.

    Positions count from 1; 0 is being handed over now.
    """
    if position == 0:
        return snapshot.taken_at  # it is being called
    before = calls_before(snapshot, share, position)
    if before is None or not snapshot.calling:
        return None
    return snapshot.taken_at + Timetable(snapshot).seconds_until(before)


class Timetable:
    """When the next calls go, in seconds after the snapshot, as lua/lease.lua and lua/pace.lua let them.

    One by one while the pace changes or what was saved up is spent, then in stretches of one rate.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self._calls: list[int] = []
        self._seconds: list[float] = []
        self._rates: list[float] = []
        calls, rate, ahead = 0, snapshot.rate, snapshot.burst - 1
        slot, earliest = snapshot.slot_seconds, max(0.0, snapshot.wait_seconds)
        lower = min(snapshot.limit, snapshot.ceiling)
        for limit, until in ((lower, snapshot.ceiling_seconds), (snapshot.limit, math.inf)):
            while (at := max(earliest, slot - ahead / rate)) < until:
                self._calls.append(calls)
                self._seconds.append(at)
                self._rates.append(rate)
                if rate == limit and at > earliest:  # from here on a call each slot
                    if until == math.inf:
                        return
                    more = math.ceil((until - at) * rate)
                    calls, slot, earliest = calls + more, slot + more / rate, at + (more - 1) / rate
                    break
                paced = at - slot < 1 / rate  # it is the pace that held this call back
                calls, slot, earliest = calls + 1, max(slot, at) + 1 / rate, at
                rate = _grown(rate, limit) if paced or rate > limit else rate

    def seconds_until(self, calls: float) -> float:
        """Until the call goes before which there are so many."""
        last = bisect_right(self._calls, calls) - 1
        return self._seconds[last] + (calls - self._calls[last]) / self._rates[last]

    def calls_within(self, seconds: float) -> int:
        """How many calls have gone so many seconds after the snapshot."""
        last = bisect_right(self._seconds, seconds) - 1
        if last < 0:
            return 0
        made = self._calls[last] + math.floor((seconds - self._seconds[last]) * self._rates[last]) + 1
        return min([made, *self._calls[last + 1 : last + 2]])


class _Line:
    """A share as the calls are gone through: `turns` are those that it has had, `start` is the tag of its next."""

    __slots__ = ("cost", "left", "start", "turns")

    def __init__(self, start: float, weight: float, left: int = 0) -> None:
        self.start = start
        self.cost = 1 / weight
        self.left = left
        self.turns = array("q")


class Forecast:
    """Forecasts from one snapshot, each at the price of a look-up, however many shares there are."""

    def __init__(self, snapshot: Snapshot, weight_of: Callable[[Share], float] = lambda _: 1.0) -> None:
        """`weight_of` is asked about shares that the snapshot does not know. Use it once `prepared` is through."""
        self.snapshot = snapshot
        self._weight_of = weight_of
        self._timetable = Timetable(snapshot)
        self._ready = 0
        self._lines: dict[Share, _Line] = {}
        # Start tag, share's name and number of its line: nothing that a garbage collector walks through.
        self._calls: list[tuple[Any, ...]] = []
        self._later = _Later([])

    @classmethod
    def of(cls, snapshot: Snapshot) -> Forecast:
        """Prepared at one go."""
        forecast = cls(snapshot)
        for _ in forecast.prepared():
            pass
        return forecast

    def prepared(self) -> Iterator[None]:
        """Goes through the next calls; yields after each stretch, so that others may go on."""
        lines: list[_Line] = []
        heap = []
        for number, (share, load) in enumerate(self.snapshot.shares.items()):
            line = self._lines[share] = _Line(load.start, load.weight, load.ready)
            lines.append(line)
            self._ready += load.ready
            if load.ready:
                heap.append((load.start, str(share), number))
            if number % AT_A_STRETCH == AT_A_STRETCH - 1:
                yield
        heapify(heap)
        calls, exact = self._calls, max(EXACT_CALLS, EXACT_ROUNDS * len(heap))
        while heap and len(calls) < exact:
            for call in range(len(calls), min(exact, len(calls) + AT_A_STRETCH)):
                first = heap[0]
                tag, name, number = first
                calls.append(first)
                line = lines[number]
                line.turns.append(call)
                line.left -= 1
                line.start = tag + line.cost
                if line.left:
                    heapreplace(heap, (line.start, name, number))
                else:
                    heappop(heap)
                    if not heap:
                        break
            yield
        self._later = _Later([lines[number] for _, _, number in heap])

    def calls_before(self, share: Share, position: int, calls_made: int = 0) -> float | None:
        """As the function of this name, for a position that holds after so many calls since the snapshot."""
        if share in self.snapshot.paused:
            return None
        line = self._lines.get(share) or _Line(self.snapshot.virtual, self._weight_of(share))
        index = bisect_left(line.turns, calls_made) + position - 1
        if index < len(line.turns):
            return line.turns[index]
        arrived = index - len(line.turns)  # behind those of its share that were gone through
        start = line.start
        if not line.left and calls_made and self._calls:  # its share was through: it enters the order where that stands
            start = max(start, self._calls[min(calls_made, len(self._calls)) - 1][0])
        tag = _tag(start, line.cost, arrived)
        before: float = bisect_left(self._calls, (tag, str(share))) + arrived
        if before - arrived == len(self._calls):
            before += self._later.calls_until(tag) - self._later.calls_of(line, tag)
        return max(before, calls_made)

    def forward_at(self, share: Share, position: int, seconds_since: float = 0.0) -> float | None:
        """As the function of this name, for a position that holds so long after the snapshot."""
        if position == 0:
            return self.snapshot.taken_at
        if not self.snapshot.calling:
            return None
        timetable = self._timetable
        gone = min(timetable.calls_within(seconds_since - LATENESS_SECONDS), self._ready)
        before = self.calls_before(share, position, gone)
        if before is None:
            return None
        seconds = timetable.seconds_until(before)
        if gone == self._ready:  # nothing was left to call: what has come since is called from now on
            seconds = max(seconds, seconds_since + seconds - timetable.seconds_until(gone))
        return self.snapshot.taken_at + seconds


class _Later:
    """The calls behind those that were gone through: each share as a flow of its weight, from its next tag on."""

    def __init__(self, lines: list[_Line]) -> None:
        weights = [(line.start - line.cost / 2, 1 / line.cost) for line in lines]
        weights += [(line.start + (line.left - 0.5) * line.cost, -1 / line.cost) for line in lines]
        weights.sort()
        self._tags = [tag for tag, _ in weights]
        self._flows = list(accumulate(weight for _, weight in weights))
        self._less = list(accumulate(tag * weight for tag, weight in weights))

    def calls_until(self, tag: float) -> float:
        """How many have a smaller tag."""
        last = bisect_right(self._tags, tag) - 1
        return max(0.0, self._flows[last] * tag - self._less[last]) if last >= 0 else 0.0

    def calls_of(self, line: _Line, tag: float) -> float:
        """How many of those are this share's."""
        return min(max(0.0, (tag - line.start) / line.cost + 0.5), line.left)


def _tag(start: float, cost: float, steps: int) -> float:
    """The start tag so many turns later, rounded as the store rounds it."""
    exact = min(steps, EXACT_STEPS)
    return reduce(add, repeat(cost, exact), start) + (steps - exact) * cost


def _grown(rate: float, limit: float) -> float:
    """The pace after a call that it held back."""
    return min(limit, rate + RECOVERY_OF_GAP * (limit - rate) + RECOVERY_OF_LIMIT * limit)
