"""Submissions in rows that can be printed while more are fetched: widths come from the first page and the terminal."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from gateway.console.tables import age
from gateway.console.wording import cancel_pending, place_of, seconds_since, share_of, this_moment

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from gateway.console.client import GatewayClient

MOST_PER_PAGE = 200  # what the gateway gives at once
# Characters: a UUID, `forwarded`, `59 min`, and `job ` with a UUID.
ID, STATE, AGE, PLACE = 36, 9, 6, 40
GAP = "  "
LEAD = ID + STATE + AGE + 3 * len(GAP)
# From here on a row has one line, and 31 characters for share and job name.
ONE_LINE_FROM = 132
# On a pipe nothing is cut: longer texts than these push the rest of their line aside.
PIPED_SHARE, PIPED_NAME = 32, 40


def pages(client: GatewayClient, filters: Mapping[str, str], most: int | None) -> Iterator[dict[str, Any]]:
    """`{"items", "nextCursor"}` until there are so many items, or no more; pages may be short or empty on the way."""
    left, cursor = most, None
    while True:
        asked: dict[str, Any] = {**filters, "limit": MOST_PER_PAGE if left is None else min(left, MOST_PER_PAGE)}
        if cursor:
            asked["cursor"] = cursor
        page = client.call("GET", "v1", "submissions", query=urlencode(asked))
        yield page
        cursor = page["nextCursor"]
        if left is not None:
            left -= len(page["items"])
        if cursor is None or left == 0:
            return


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How wide things are. Two lines a submission where `terminal` is narrower than `ONE_LINE_FROM`; None: a pipe."""

    terminal: int | None
    share: int
    name: int

    @classmethod
    def of(cls, items: Sequence[dict[str, Any]]) -> Layout:
        """For these and all that come after them, on the standard output that there is."""
        terminal = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        longest_share = max([len("share"), *(len(share_of(one)) for one in items)])
        longest_name = max([len("job name"), *(len(one["jobName"]) for one in items)])
        if terminal is None:
            return cls(terminal=None, share=min(longest_share, PIPED_SHARE), name=min(longest_name, PIPED_NAME))
        room = ID - 2 * len(GAP) if terminal < ONE_LINE_FROM else terminal - LEAD - PLACE - 2 * len(GAP)
        share = min(longest_share, max(room // 2, room - longest_name))
        return cls(terminal=terminal, share=share, name=min(longest_name, room - share))

    @property
    def two_lines(self) -> bool:
        return self.terminal is not None and self.terminal < ONE_LINE_FROM

    def header(self) -> list[str]:
        """With a rule below, as our tables have it."""
        lines = self._lines("submission", "state", "age", "", "share", "job name", "where")
        return [*lines, "─" * ((self.terminal or max(map(len, lines))) if self.two_lines else max(map(len, lines)))]

    def rows(self, items: Sequence[dict[str, Any]], now: datetime | None = None) -> list[str]:
        now = now or this_moment()
        return [line for item in items for line in self._row(item, now)]

    def _row(self, item: dict[str, Any], now: datetime) -> list[str]:
        return self._lines(
            item["submissionId"],
            item["state"],
            age(seconds_since(item["acceptedAt"], now)),
            "cancel requested" if cancel_pending(item) else "",
            share_of(item),
            item["jobName"],
            place_of(item, now),
        )

    def _lines(self, key: str, state: str, since: str, remark: str, share: str, name: str, place: str) -> list[str]:
        lead = [key.ljust(ID), state.ljust(STATE), since.ljust(AGE)]
        if self.terminal is None:
            return [_joined(*lead, share.ljust(self.share), name.ljust(self.name), _with(remark, place))]
        if self.two_lines:
            room = self.terminal - ID - len(GAP)
            what = GAP + _cut(share, self.share).ljust(self.share) + GAP + _cut(name, self.name)
            return [_joined(*lead, remark), _joined(what.ljust(ID), _cut(place, room))]
        place = _with(remark, place)
        over = max(0, len(place) - PLACE)  # a remark takes its room from the job's name
        width = max(1, self.name - over)
        return [
            _joined(*lead, _cut(share, self.share).ljust(self.share), _cut(name, width).ljust(width), place)[
                : self.terminal
            ]
        ]


def _joined(*cells: str) -> str:
    return GAP.join(cells).rstrip()


def _with(remark: str, place: str) -> str:
    return ", ".join(part for part in (remark, place) if part)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"
