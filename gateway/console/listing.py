"""Submissions in rows that can be printed while more are fetched: widths come from the first page and the terminal."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlencode

from gateway.console.tables import age
from gateway.console.wording import cancel_pending, place_of, seconds_since, share_of

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

    def header(self) -> list[str]:
        """With a rule below, as our tables have it."""
        lines = self._lines(_Cells("submission", "state", "age", "", "share", "job name", "where"))
        one_line = self.terminal is None or self.terminal >= ONE_LINE_FROM
        width = (LEAD + self.share + self.name + 2 * len(GAP) if one_line else ID + len(GAP)) + PLACE
        return [*lines, "─" * min(width, self.terminal or width)]

    def rows(self, items: Sequence[dict[str, Any]], now: datetime) -> list[str]:
        return [line for item in items for line in self._lines(_Cells.of(item, now))]

    def _lines(self, cells: _Cells) -> list[str]:
        lead = [cells.key.ljust(ID), cells.state.ljust(STATE), cells.age.ljust(AGE)]
        whole = ", ".join(part for part in (cells.remark, cells.place) if part)
        if self.terminal is None:
            return [_joined(*lead, cells.share.ljust(self.share), cells.name.ljust(self.name), whole)]
        share = _cut(cells.share, self.share).ljust(self.share)
        if self.terminal < ONE_LINE_FROM:
            below = f"{GAP}{share}{GAP}{_cut(cells.name, self.name)}".ljust(ID)
            return [_joined(*lead, cells.remark), _joined(below, _cut(cells.place, self.terminal - ID - len(GAP)))]
        row = _joined(*lead, share, _cut(cells.name, self.name).ljust(self.name), whole)
        if len(row) <= self.terminal or not cells.remark:
            return [_cut(row, self.terminal)]
        column = row.index(whole)  # a remark beside a job's id is too long: the id goes below
        return [row[: column + len(cells.remark)] + ",", " " * column + cells.place]


class _Cells(NamedTuple):
    """The texts of a row."""

    key: str
    state: str
    age: str
    remark: str
    share: str
    name: str
    place: str

    @classmethod
    def of(cls, item: dict[str, Any], now: datetime) -> _Cells:
        return cls(
            key=item["submissionId"],
            state=item["state"],
            age=age(seconds_since(item["acceptedAt"], now)),
            remark="cancel requested" if cancel_pending(item) else "",
            share=share_of(item),
            name=item["jobName"],
            place=place_of(item, now),
        )


def _joined(*cells: str) -> str:
    return GAP.join(cells).rstrip()


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"
