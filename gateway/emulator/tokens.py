"""What a clientToken that has been seen before gets."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.emulator.config import Repeats
from gateway.emulator.errors import BatchError
from gateway.emulator.jobs import Job


@dataclass(frozen=True, slots=True, kw_only=True)
class _Use:
    at: float
    request: Mapping[str, Any]
    job: Job


class Tokens:
    """The clientTokens of the last `ttl_seconds`, each with its first request and job."""

    def __init__(self, *, repeats: Repeats, ttl_seconds: float) -> None:
        self._repeats = repeats
        self._ttl_seconds = ttl_seconds
        self._uses: OrderedDict[str, _Use] = OrderedDict()  # in order of time, so that the oldest are forgotten first

    def repeated(self, token: str, request: Mapping[str, Any], *, now: float) -> Job | None:
        """The job to answer with again, or None for a request that makes a job.

        Raises BatchError where the token is known and its repeat is refused: by the setting, or because the request is
        not the same. Batch documents neither message; these tell no job id.
        """
        self._forget(now)
        use = self._uses.get(token)
        if use is None:
            return None
        if use.request != request:
            message = "clientToken: the token was already used for a request with other parameters"
            raise BatchError(message, outcome="repeat_rejected")
        if self._repeats == "reject":
            message = "clientToken: a request with identical parameters and this token was already received"
            raise BatchError(message, outcome="repeat_rejected")
        return use.job

    def remember(self, token: str, request: Mapping[str, Any], job: Job, *, now: float) -> None:
        if self._repeats != "forgotten":
            self._uses[token] = _Use(at=now, request=request, job=job)

    def clear(self) -> None:
        self._uses.clear()

    def _forget(self, now: float) -> None:
        while self._uses:
            token, use = next(iter(self._uses.items()))
            if now - use.at < self._ttl_seconds:
                return
            del self._uses[token]
