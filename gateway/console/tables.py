"""Tables for people: plain on a pipe, aligned in a terminal."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from rich.console import RenderableType


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Iterable[str] = ()) -> Table:
    """A table of texts; the columns in `numbers` stand to the right."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    right = set(numbers)
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*row)
    return made


def show(columns: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Iterable[str] = (), empty: str) -> None:
    """Print the table, or a sentence where it would have no rows."""
    console = Console(highlight=False, markup=False)
    console.print(table(columns, rows, numbers=numbers) if rows else empty)


def watching(draw: Callable[[], RenderableType]) -> None:
    """Draws again every second, until Ctrl-C."""
    with Live(console=Console(highlight=False, markup=False), auto_refresh=False) as live:
        try:
            while True:
                live.update(draw(), refresh=True)
                time.sleep(1)
        except KeyboardInterrupt:
            return


MINUTE, HOUR, DAY = 60, 3600, 86400


def duration(seconds: float | None) -> str:
    """`-`, `12 s`, `3 min 20 s` or `2 h 5 min`."""
    if seconds is None:
        return "-"
    whole = round(seconds)
    if whole < MINUTE:
        return f"{whole} s"
    if whole < HOUR:
        return f"{whole // MINUTE} min {whole % MINUTE} s"
    return f"{whole // HOUR} h {whole % HOUR // MINUTE} min"


def age(seconds: float) -> str:
    """Whole units rounded down, in at most six characters: `12 s`, `3 min`, `2 h`, `5 d`."""
    whole = max(0, int(seconds))
    for unit, name in ((DAY, "d"), (HOUR, "h"), (MINUTE, "min")):
        if whole >= unit:
            return f"{whole // unit} {name}"
    return f"{whole} s"
