"""How far a round of the audit has come: what is still to be looked at, small enough to be handed on to any process."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

import msgpack

from gateway.store.keys import LISTS

if TYPE_CHECKING:
    from collections.abc import Iterable

# Keys by the word behind the upstream's prefix. Those of shares have the share behind it, lists whose they are.
_ID_SETS = ("delayed", "leased", "errands", "deadlines")
_ID_SETS_OF = ("ready", "held", "waiting", *LISTS)
_SHARE_SETS = ("active", "backlog", "marked")
_SHARE_KEYS = ("share", "ready", "held", "waiting")
_POINTERS = ("alias", "job")
_LISTS_NAMED_BY = {names: kind for kind, names in LISTS.items()}
# What is a set of Redis's; all others that are walked through are sorted.
SETS = ("marked", *_LISTS_NAMED_BY)
# Nobody walks through these; each is looked at for its type alone.
HASHES = frozenset({"upstream", "queues", "denied", "audit"})


@dataclass(slots=True, kw_only=True)
class Round:
    """One walk over every key of an upstream. What it is not told of, a later gateway's keys, it passes over.

    `cursor` is SCAN's, None when all keys were met; `walks` are sets that are being walked through, with their own
    cursors. Then what was met and not yet looked at: submissions with the set in which they were met, shares, pointers
    between submissions and jobs, lists. `counters` are sequence, queued and bytes as the round began, None for
    what is no number; `queued_met` and `bytes_met` what it has counted since. Times are the store's, in ms.
    """

    began_ms: int
    counters: list[int | None]
    cursor: int | None = 0
    walks: list[tuple[str, int]] = field(default_factory=list)
    submissions: list[tuple[str, str]] = field(default_factory=list)
    shares: list[str] = field(default_factory=list)
    pointers: list[str] = field(default_factory=list)
    lists: list[str] = field(default_factory=list)
    queued_met: int = 0
    bytes_met: int = 0

    @classmethod
    def unpack(cls, packed: bytes) -> Round | None:
        """What `pack` made; None where another version of the gateway keeps other things, or none wrote it."""
        try:
            kept = msgpack.unpackb(packed)
        except Exception:  # noqa: BLE001 - whatever is wrong with it
            return None
        if not isinstance(kept, dict) or kept.keys() != {one.name for one in fields(cls)}:
            return None
        new = asdict(cls(began_ms=0, counters=[]))
        fit = all(isinstance(kept[name], type(new[name])) or (name, kept[name]) == ("cursor", None) for name in new)
        return cls(**kept) if fit else None

    def pack(self) -> bytes:
        packed: bytes = msgpack.packb(asdict(self))
        return packed

    def meet_keys(self, names: Iterable[str]) -> None:
        """`names` are keys without the upstream's prefix."""
        shares: dict[str, None] = {}  # one has several keys, often on one page
        for name in names:
            kind, _, rest = name.partition(":")
            if kind == "sub":
                self.submissions.append((rest, ""))
            elif kind in _POINTERS:
                self.pointers.append(name)
            if name in _ID_SETS or name in _SHARE_SETS or name in _LISTS_NAMED_BY or (rest and kind in _ID_SETS_OF):
                self.walks.append((name, 0))
            if rest and kind in _SHARE_KEYS:
                shares[rest] = None
            elif rest and kind in LISTS:
                self.lists.append(name)
        self.shares += shares

    def meet_members(self, name: str, members: Iterable[str]) -> None:
        """Members of one of the sets that are walked through."""
        if name in _SHARE_SETS:
            self.shares += members
        elif name in _LISTS_NAMED_BY:
            self.lists += [f"{_LISTS_NAMED_BY[name]}:{member}" for member in members]
        else:
            self.submissions += [(member, name) for member in members]


def take(queue: list[Any], most: int) -> list[Any]:
    """The last so many, out of the queue."""
    taken = queue[-most:]
    del queue[-most:]
    return taken
