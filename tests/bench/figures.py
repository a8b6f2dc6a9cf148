"""What every measurement prints: one line a figure, with the bar that it must reach."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime


class Figures:
    """Measured values beside their bars; remembers whether one was missed."""

    def __init__(self) -> None:
        self.missed = False
        machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
        print(f"{datetime.now(UTC):%Y-%m-%d}, {machine}", flush=True)

    def show(self, what: str, value: float, bar: str = "", *, holds: bool = True) -> None:
        self.missed = self.missed or not holds
        verdict = ("ok" if holds else "MISSED") if bar else ""
        print(f"{what:<64}{value:>12.3f}   {bar:<14}{verdict}", flush=True)
