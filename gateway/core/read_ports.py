"""What Batch's own face needs of the outside to answer for jobs and queues, as small protocols; see `ports.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from gateway.core.ports import LookupStore

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from gateway.core.identity import SubmissionId
    from gateway.core.ports import Indexed
    from gateway.core.share import Share
    from gateway.core.submission import Submission


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """Some of what waited in a queue at one moment of the store's, in ms since 1970: newest first, with their places.

    The records are as they stand in a later millisecond, None where one is gone; `more` may wait past the last place.
    """

    at_ms: int
    places: Sequence[Indexed]
    records: Sequence[Submission | None]
    more: bool


class QueueListing(Protocol):
    """Raises StoreUnavailableError."""

    async def waiting(self, queue: str, *, share: str | None, before: Indexed | None, limit: int) -> Waiting:
        """The newest past `before`, of one share or of all; where `more` wait there may be fewer than `limit`."""

    async def under_way(self, shares: Collection[Share]) -> list[Submission]:
        """Those of the shares that are queued, and of which Batch may have a job all the same."""


class JobOwnerStore(LookupStore, Protocol):
    """Raises StoreUnavailableError."""

    async def owners(self, job_ids: Sequence[str]) -> Mapping[str, SubmissionId]:
        """Whose jobs these are, as far as that is known."""

    async def ended_before(self, queue: str, before: Indexed | None, limit: int) -> list[Indexed]:
        """What ended in a queue without a job of Batch's, and few others: newest first, past `before`."""


class OperationCalls(Protocol):
    """Any operation of Batch's by its name, parameters and answer as its JSON has them; one call a call.

    Raises CallFailedError for whatever the network or Batch does.
    """

    async def call(self, operation: str, params: Mapping[str, Any]) -> dict[str, Any]: ...


class ReadBudget(Protocol):
    """How often Batch may be asked beside submitting and errands: one budget for the fleet."""

    async def take(self) -> float:
        """0 where a call may go now, which is counted; else the seconds until one may.

        Raises StoreUnavailableError.
        """
