"""How many calls a second the service takes: a token bucket or a strict sliding window."""

from collections import deque
from typing import Protocol

from gateway.emulator.config import Limiter


class Rate(Protocol):
    """Decides call by call; `now` is monotonic seconds."""

    def take(self, now: float) -> bool:
        """Whether the call is let through. Only calls that are let through count."""
        ...


class Unlimited:
    """Every call is let through."""

    def take(self, now: float) -> bool:  # noqa: ARG002 - the same signature as the limited ones
        return True


class TokenBucket:
    """`tps` tokens a second flow into a bucket of `size`, which is full at the start."""

    def __init__(self, *, tps: float, size: float, now: float) -> None:
        self._tps = tps
        self._size = size
        self._tokens = size
        self._filled_at = now

    def take(self, now: float) -> bool:
        self._tokens = min(self._size, self._tokens + (now - self._filled_at) * self._tps)
        self._filled_at = now
        # The sum of many small refills may end a hair under 1: a call that comes exactly in time must pass.
        if self._tokens < 1 - 1e-9:
            return False
        self._tokens -= 1
        return True


class SlidingWindow:
    """At most `tps` calls in any one second; under 1 a second, one call in any `1 / tps` seconds."""

    def __init__(self, *, tps: float) -> None:
        self._limit = max(1, int(tps))
        self._seconds = 1.0 if tps >= 1 else 1 / tps
        self._taken: deque[float] = deque()

    def take(self, now: float) -> bool:
        while self._taken and now - self._taken[0] >= self._seconds:
            self._taken.popleft()
        if len(self._taken) >= self._limit:
            return False
        self._taken.append(now)
        return True


def new_rate(*, tps: float, limiter: Limiter, bucket_size: float | None, now: float) -> Rate:
    """A rate of `tps` calls a second, 0 for no limit; without `bucket_size` a bucket holds one second's worth."""
    if tps <= 0:
        return Unlimited()
    if limiter == "window":
        return SlidingWindow(tps=tps)
    # Under 1 token a bucket would never let anything through.
    return TokenBucket(tps=tps, size=max(1.0, tps if bucket_size is None else bucket_size), now=now)
