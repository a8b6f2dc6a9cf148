"""The demo while it drains: what the gateway says of its shares, as live bars or as plain lines."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.text import Text

from gateway.core.forecast import ShareLoad, Snapshot, forward_at
from gateway.core.share import Share
from gateway.dev.example import QUEUE
from gateway.dev.load import JOBS_PER_SHARE, TEAMS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import aiohttp
    from rich.console import Console
    from rich.progress_bar import ProgressBar

LOOK_EVERY_SECONDS = 0.2
LINE_EVERY_SECONDS = 3.0
WINDOW_SECONDS = 3.0  # rates are of this time: whole jobs at under five a second need some to be steady
GIVE_UP_SECONDS = 45.0  # 60 jobs take 12

COLOURS = {"vision": "cyan", "text": "magenta", "audio": "yellow"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareView:
    """One share at a moment. `rate` is in jobs a second; `seconds` is how long it will take, and in the end how long it
    took.
    """

    done: int
    total: int = JOBS_PER_SHARE
    rate: float
    seconds: float

    @property
    def through(self) -> bool:
        return self.done == self.total

    @property
    def when(self) -> str:
        return f"done after {self.seconds:.1f} s" if self.through else f"{math.ceil(self.seconds)} s left"

    @property
    def pace(self) -> str:
        return "" if self.through else f"{self.rate:.1f}/s"


View = dict[str, ShareView]


class Display(Protocol):
    """Shows one view after the other; `seconds` is since the burst."""

    def show(self, view: View, seconds: float) -> None: ...


async def watch(http: aiohttp.ClientSession, display: Display, *, pace: float) -> bool:
    """Until nothing is queued; False where something still is after a time that is more than enough."""
    began = time.monotonic()
    views = Views(pace=pace)
    while (seconds := time.monotonic() - began) < GIVE_UP_SECONDS:
        async with http.get("/v1/shares") as response:
            shares = (await response.json())["items"]  # those with a backlog
        queued = {one["share"]: (int(one["queued"]), float(one["weight"])) for one in shares}
        display.show(views.at(seconds, queued), seconds)
        if not queued:
            return True
        await asyncio.sleep(LOOK_EVERY_SECONDS)
    return False


class Views:
    """From backlogs, one after the other, to what the display shows. `pace` is in calls a second."""

    def __init__(self, *, pace: float) -> None:
        self._pace = pace
        self._seen: deque[tuple[float, dict[str, int]]] = deque([(0.0, {team.share: 0 for team in TEAMS})])
        self._through: dict[str, float] = {}  # after how many seconds, by share

    def at(self, seconds: float, queued: Mapping[str, tuple[int, float]]) -> View:
        """`queued` has count and weight of each share with a backlog."""
        done = {team.share: JOBS_PER_SHARE - queued.get(team.share, (0, 0.0))[0] for team in TEAMS}
        self._seen.append((seconds, done))
        while seconds - self._seen[1][0] >= WINDOW_SECONDS:
            self._seen.popleft()
        since, before = self._seen[0]
        ends = seconds_left(queued, pace=self._pace)
        for share, count in done.items():
            if count == JOBS_PER_SHARE:
                self._through.setdefault(share, seconds)
        return {
            share: ShareView(
                done=count,
                rate=(count - before[share]) / (seconds - since) if seconds > since else 0.0,
                seconds=self._through.get(share, ends.get(share, 0.0)),
            )
            for share, count in done.items()
        }


def seconds_left(queued: Mapping[str, tuple[int, float]], *, pace: float) -> dict[str, float]:
    """When the last of each share goes, by the gateway's own forecast; `queued` has count and weight by share.

    HTTP tells no start tags. Those of shares with a backlog are less than one job apart, so they count as equal.
    """
    loads = {Share(QUEUE, name): ShareLoad(start=0.0, weight=weight, ready=n) for name, (n, weight) in queued.items()}
    snapshot = Snapshot(taken_at=0.0, shares=loads, rate=pace, limit=pace)
    return {share.name: forward_at(snapshot, share, load.ready) or 0.0 for share, load in loads.items()}


class Silence:
    """For `--json`."""

    def show(self, view: View, seconds: float) -> None:
        """Shows nothing."""


class Lines:
    """Where the output is no terminal: a line every few seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._next = 0.0

    def show(self, view: View, seconds: float) -> None:
        if seconds < self._next and not all(one.through for one in view.values()):
            return
        self._next = seconds + LINE_EVERY_SECONDS
        parts = [
            " ".join(filter(None, (share, f"{one.done}/{one.total}", one.pace, one.when)))
            for share, one in view.items()
        ]
        self._console.print(f"{seconds:6.1f} s   " + "  |  ".join(parts), soft_wrap=True)


class Bars:
    """A bar a share, and one for all together."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks = {team.share: self._add(team.share, f"weight {team.weight:g}", JOBS_PER_SHARE) for team in TEAMS}
        self._all = self._add("together", "", JOBS_PER_SHARE * len(TEAMS))

    def show(self, view: View, seconds: float) -> None:  # noqa: ARG002 - the bars show no clock
        for share, one in view.items():
            self._update(self._tasks[share], one)
        all_through = all(one.through for one in view.values())
        total = ShareView(
            done=sum(one.done for one in view.values()),
            total=sum(one.total for one in view.values()),
            rate=sum(one.rate for one in view.values()),
            seconds=max(one.seconds for one in view.values() if one.through == all_through),
        )
        self._update(self._all, total)

    def _add(self, name: str, weight: str, total: int) -> TaskID:
        return self._progress.add_task(name, total=total, weight=weight, pace="", when="")

    def _update(self, task: TaskID, one: ShareView) -> None:
        self._progress.update(task, completed=one.done, pace=one.pace, when=one.when)


class _ColouredBar(BarColumn):
    def render(self, task: Task) -> ProgressBar:
        colour = COLOURS.get(task.description, "white")
        bar = super().render(task)
        bar.complete_style = bar.finished_style = colour
        return bar


class _Name(ProgressColumn):
    def render(self, task: Task) -> Text:
        colour = COLOURS.get(task.description)
        return Text(task.description, style=f"bold {colour}" if colour else "dim")


@contextmanager
def display_on(console: Console) -> Iterator[Display]:
    """Bars on a terminal, lines elsewhere."""
    if not console.is_terminal:
        yield Lines(console)
        return
    columns = (
        TextColumn(" "),
        _Name(),
        TextColumn("[dim]{task.fields[weight]}"),
        _ColouredBar(bar_width=28),
        TextColumn("{task.completed:>2.0f}/{task.total:.0f}", justify="right"),
        TextColumn("{task.fields[pace]}", justify="right"),
        TextColumn("[dim]{task.fields[when]}"),
    )
    with Progress(*columns, console=console) as progress:
        yield Bars(progress)
