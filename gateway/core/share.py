"""A share: the unit of rate limit and of fairness."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

if TYPE_CHECKING:
    from collections.abc import Sequence

NO_SHARE = "-"

OverLimit = Literal["reject", "delay"]


@dataclass(frozen=True, slots=True)
class Share:
    """(queue name, share identifier or quota share name, or `-` for neither); written `queue/name`."""

    queue: str
    name: str

    @classmethod
    def parse(cls, text: str) -> Self:
        queue, _, name = text.partition("/")  # a queue's name holds no slash, a share's may
        return cls(queue, name)

    def __str__(self) -> str:
        return f"{self.queue}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareLimits:
    """What a share may send and how it weighs.

    `rate` is in submissions a second (0 = no limit), `burst` and `max_queued` in submissions, `weight` is relative to
    the other shares of the upstream.
    """

    rate: float = 0.0
    burst: int = 100
    weight: float = 1.0
    max_queued: int = 10_000
    over_limit: OverLimit = "reject"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareRule:
    """Limits for one share, or with the share `*` for every share of the queue that has no rule of its own."""

    queue: str
    share: str
    limits: ShareLimits


class ShareRules:
    """The settings' `[[share]]` sections: which limits hold for a share."""

    def __init__(self, rules: Sequence[ShareRule] = ()) -> None:
        self._limits = {(rule.queue, rule.share): rule.limits for rule in rules}
        self._default = ShareLimits()

    def limits(self, share: Share) -> ShareLimits:
        own = self._limits.get((share.queue, share.name))
        return own or self._limits.get((share.queue, "*"), self._default)
