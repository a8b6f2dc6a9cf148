"""Queues that new settings would take away from an upstream which still has submissions of theirs.

A client token's submissionId depends on its upstream: where a queue moves, a repeat of what is queued is a submission
of its own, and Batch gets two jobs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.core.upstream import Routes, Upstream


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """`target` is None where nobody would have the queue; `by_arn_it_stays`: only its bare name leads elsewhere."""

    queue: str
    source: Upstream
    target: Upstream | None
    because: str
    by_arn_it_stays: bool = False

    def sentence(self, queued: int) -> str:
        """For operators; `queued` is how many submissions wait at the source."""
        there = f"it would go to {_named(self.target)}" if self.target else "no upstream would have it"
        return (
            f"upstream: the queue {self.queue} still has {queued} queued at {_named(self.source)}, {self.because}; "
            f"{there}. Let it drain there first: a repeat of what is queued would be a second job"
        )


def move_of(source: Upstream, queue: str, routes: Routes) -> Move | None:
    """What becomes of a queue of `source`, which is as it was; None where it stays there by name and by ARN."""
    now = next((one for one in routes if one.tag == source.tag), None)
    target = next((one for one in routes if one.has(queue)), None)
    if now is None:
        return Move(queue=queue, source=source, target=target, because="which these settings do not have")
    if not now.has(queue):
        return Move(queue=queue, source=source, target=target, because="whose globs do not fit it in these settings")
    if target is not now:
        because = "but another upstream comes first for its name in these settings"
        return Move(queue=queue, source=source, target=target, because=because, by_arn_it_stays=True)
    return None


def _named(upstream: Upstream) -> str:
    return f"{upstream.name} ({upstream.account}, {upstream.region})"
