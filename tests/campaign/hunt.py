"""`make mutants`: each bug is put into a copy of the package, and campaigns are run until one finds it."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import click

from tests.campaign.checker import check
from tests.campaign.mutants import MUTANTS, Mutant
from tests.campaign.plan import draw
from tests.campaign.stage import run

SECONDS = 25.0
MOST_CAMPAIGNS = 8


def hunt(mutant: Mutant, most: int, *, control: bool) -> tuple[Counter[str], int] | None:
    """By which rules it was found, and the seed; None if no campaign found it. A `control` is run without the bug."""
    for seed in range(mutant.seed, mutant.seed + most):
        plan = draw(
            seed=seed,
            seconds=SECONDS,
            kinds=mutant.faults,
            store=mutant.store,
            repeats=mutant.repeats,
            every=0.8,
        )
        with tempfile.TemporaryDirectory(prefix="cam") as scratch:
            folder = Path(scratch) / "m"
            folder.mkdir()
            evidence = asyncio.run(run(plan, folder, hurry=True, edits=() if control else mutant.edits))
        found = Counter(violation.rule for violation in check(evidence))
        if found:
            return found, seed
    return None


@click.command()
@click.option("--only", multiple=True, type=click.Choice([one.name for one in MUTANTS]), help="May be repeated.")
@click.option("--most", default=MOST_CAMPAIGNS, show_default=True, help="Campaigns for each, at the most.")
@click.option("--control", is_flag=True, help="One campaign of each without its bug: nothing may be found.")
def main(only: tuple[str, ...], most: int, *, control: bool) -> None:
    """Exit code 1: a bug was not found, or one was found that is not there."""
    wrong = 0
    click.echo(f"{'mutant':32}{'found by rule':52}{'seed':>5}{'seconds':>9}")
    for mutant in MUTANTS:
        if only and mutant.name not in only:
            continue
        began = time.monotonic()
        found = hunt(mutant, 1 if control else most, control=control)
        seconds = time.monotonic() - began
        wrong += (found is None) != control
        rules, seed = found or (Counter[str](), None)
        by = ", ".join(f"{rule} ({count})" for rule, count in sorted(rules.items())) or "not found"
        click.echo(f"{mutant.name:32}{by:52}{seed or '':>5}{seconds:>9.0f}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
