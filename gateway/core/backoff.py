"""How long a submission waits before its next charged try."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

BASE_SECONDS = 1.0
CAP_SECONDS = 60.0  # ten tries under this cap fit into the ten minutes that a submission has


def full_jitter_seconds(tries: int, chance: random.Random) -> float:
    """Uniform between nothing and the doubled, capped step: retries of many callers spread out instead of meeting.

    `tries` counts the charged tries so far, this one included.
    """
    return chance.uniform(0, min(CAP_SECONDS, BASE_SECONDS * 2 ** max(0, min(tries, 10) - 1)))
