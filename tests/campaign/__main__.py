"""`make campaign`: hours of bad luck in minutes, and a judge. `python -m tests.campaign --help` says more."""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
import tempfile
import time
from pathlib import Path

import click

from tests.campaign.checker import check
from tests.campaign.evidence import load
from tests.campaign.plan import draw, kinds_of
from tests.campaign.report import summary, told
from tests.campaign.stage import run
from tests.campaign.stores import STORES


@click.command()
@click.option("--seed", type=int, default=None, help="Of the schedule and of the callers' habits; drawn if not given.")
@click.option("--minutes", type=float, default=2.0, show_default=True, help="How long things go wrong.")
@click.option("--faults", default="all", show_default=True, help="Kinds of faults, with commas between; see below.")
@click.option("--store", type=click.Choice(sorted(STORES)), default="standalone", show_default=True)
@click.option(
    "--repeats",
    type=click.Choice(["reject", "replay", "forgotten"]),
    default=None,
    help="What Batch does with a repeated token; drawn from the seed if not given, `forgotten` only by name.",
)
@click.option("--hurry", is_flag=True, help="With the product's waits for Batch shortened, for runs of a minute.")
@click.option("--every", type=float, default=1.5, show_default=True, help="Seconds between two faults, about.")
@click.option("--json", "as_json", is_flag=True, help="The summary as one JSON object on stdout; all else on stderr.")
@click.option("--keep", type=click.Path(path_type=Path), default=None, help="Folder that keeps the evidence; new.")
@click.option("--judge", type=click.Path(path_type=Path, exists=True), help="Only judge the evidence in this folder.")
def main(
    *,
    seed: int | None,
    minutes: float,
    faults: str,
    store: str,
    repeats: str | None,
    hurry: bool,
    every: float,
    as_json: bool,
    keep: Path | None,
    judge: Path | None,
) -> None:
    """Kills gateways and their store, loses answers and lets callers insist, then checks what was promised.

    Exit code 1: something promised was not kept; each violation is told with the whole history of its submission.
    """
    began = time.monotonic()
    known = kinds_of(store)
    kinds = known if faults == "all" else tuple(name.strip() for name in faults.split(",") if name.strip())
    unknown = sorted(set(kinds) - set(known))
    if unknown:
        raise click.UsageError(f"no such fault on this store: {', '.join(unknown)}. There are: {', '.join(known)}.")

    def tell(line: str) -> None:
        click.echo(line, err=as_json)

    if judge is not None:
        evidence = load(judge)
    else:
        seed = secrets.randbelow(10**6) if seed is None else seed
        plan = draw(seed=seed, seconds=minutes * 60, kinds=kinds, store=store, repeats=repeats, every=every)
        tell(
            f"seed {seed}, {minutes:g} minutes, {store}, Batch's repeats: {plan.repeats},"
            f" {len(plan.troubles)} faults of {len(kinds)} kinds"
        )
        with tempfile.TemporaryDirectory(prefix="cam") as scratch:
            folder = keep or Path(scratch) / "c"
            folder.mkdir(parents=True)
            evidence = asyncio.run(run(plan, folder, hurry=hurry, tell=tell))
    violations = check(evidence)
    found = summary(evidence, violations, seconds=time.monotonic() - began)
    for line in told(evidence, violations):
        tell(line)
    if as_json:
        click.echo(json.dumps(found))
    else:
        for name, value in found.items():
            tell(f"{name:14}{value}")
    sys.exit(1 if violations else 0)


main.epilog = "Faults: " + ", ".join(sorted({kind for store in STORES for kind in kinds_of(store)})) + "."

if __name__ == "__main__":
    main()
