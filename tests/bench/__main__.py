"""`make bench`: what is promised in figures, measured, with the bars. `make bench BENCH="listing"` for some."""

from __future__ import annotations

import asyncio
import sys

from tests.bench import batch_face, batches, durability, forecast, listing, main_job, retention
from tests.bench.figures import Figures

PARTS = {
    "main_job": main_job,
    "batches": batches,
    "batch_face": batch_face,
    "durability": durability,
    "forecast": forecast,
    "listing": listing,
    "retention": retention,
}


async def main(names: list[str]) -> int:
    unknown = sorted(set(names) - PARTS.keys())
    if unknown:
        print(f"There is no {unknown[0]}; there are: {', '.join(PARTS)}.", file=sys.stderr)
        return 2
    figures = Figures()
    for name in names or PARTS:
        await PARTS[name].measure(figures)
    return 1 if figures.missed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
