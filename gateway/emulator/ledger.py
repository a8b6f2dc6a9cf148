"""The record of every call, so that an outside checker can prove what happened."""

import dataclasses
from collections import deque
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry:
    """One call.

    `number` grows by one in the order in which calls were decided, `at` is that moment in epoch milliseconds. `outcome`
    is what the call came to: `ok` or `created`, `throttled`, `repeat_rejected`, `replayed`, `rejected`, or the kind of
    the fault that decided the answer. `created` says whether this very call made a job, `faults` all kinds that it met.
    `answered` is false where the connection was gone before an answer could be written.
    """

    number: int
    at: int
    operation: str
    outcome: str
    status: int | None
    created: bool
    answered: bool
    faults: tuple[str, ...]
    client_token: str | None
    job_name: str | None
    queue: str | None
    share: str | None
    job_id: str | None
    body_sha256: str
    access_key_id: str | None

    def as_json(self) -> dict[str, Any]:
        """The entry with camelCase member names."""
        return {wire: getattr(self, name) for name, wire in _WIRE_NAMES}


def _camel_case(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


_WIRE_NAMES = tuple((member.name, _camel_case(member.name)) for member in dataclasses.fields(LedgerEntry))


class Ledger:
    """The newest `size` calls, oldest first."""

    def __init__(self, *, size: int) -> None:
        self._entries: deque[LedgerEntry] = deque(maxlen=size)
        self._last = 0

    @property
    def last(self) -> int:
        """The number of the newest entry, 0 if there is none. Never goes back, not even by `clear`."""
        return self._last

    def next_number(self) -> int:
        self._last += 1
        return self._last

    def add(self, entry: LedgerEntry) -> None:
        self._entries.append(entry)

    def entries(self, *, since: int = 0) -> list[LedgerEntry]:
        """The entries with a number above `since`."""
        if not self._entries or since >= self._last:
            return []
        if since <= 0:
            return list(self._entries)
        wanted = self._last - since
        newest = [entry for entry, _ in zip(reversed(self._entries), range(wanted), strict=False)]
        return newest[::-1]

    def clear(self) -> None:
        self._entries.clear()
