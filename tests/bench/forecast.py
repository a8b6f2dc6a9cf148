"""`python -m tests.bench.forecast`: how far forecasts are from what then happens, and what an answer's one costs.

The backlogs are those of tests/store/test_forecast_holds.py, other ones with another seed as argument. The shares of
the costs are the worst kind: all of them wait, with weights and tags of their own.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.core.forecast import Forecast, calls_before
from gateway.core.outlook import Outlook
from gateway.core.pace import PaceRules
from gateway.core.share import Share
from gateway.core.submission import State
from gateway.store.connection import connect
from gateway.store.snapshot import take_snapshot
from tests.bench.figures import Figures
from tests.servers import running, valkey_binary
from tests.store.test_forecast_holds import WEIGHTS, Backlog, fitting, slot_seconds, told
from tests.store.world import World

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from gateway.core.submission import Submission

BACKLOGS = 100
ANSWERS = 10_000
SHARES = (10, 500, 5000)
READY = 20


def percentile(values: list[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, round(part * len(values)))]


async def errors(client: Redis, seed: int) -> int:
    """How many forecasts miss what they promise."""
    chance = random.Random(seed)
    found: list[float] = []
    slots: list[float] = []
    shares = missed = 0
    for _ in range(BACKLOGS):
        number = chance.randint(3, 50)
        most = fitting(chance.choice((1, 2, 4, 8, 20)), number)
        backlog = await Backlog.made(
            client, chance.getrandbits(32), shares=number, most=most, queues=chance.randint(1, 3)
        )
        snapshot, forecasts = await told(backlog)
        shares += number
        found += [one.error for one in forecasts if one.actual > one.at]
        slots += [abs(one.expected - one.actual) * snapshot.rate for one in forecasts]
        missed += sum(not one.holds(slot_seconds(snapshot)) for one in forecasts)
        await client.flushall()
    print(
        f"{BACKLOGS} backlogs, {shares} shares of 3 to 50 each, {len(slots)} forecasts, {missed} missed (seed {seed})"
    )
    for what, values, form in (("error, of the time it takes", found, "8.3%"), ("error, in calls", slots, "8.3f")):
        figures = [statistics.median(values), percentile(values, 0.99), max(values)]
        print(f"  {what:<30}" + "".join(f"{name} {value:{form}}  " for name, value in zip(NAMES, figures, strict=True)))
    return missed


NAMES = ("median", "p99", "max")


async def fill(client: Redis, world: World, shares: int) -> list[Share]:
    """So many shares with something ready, as the snapshot sees them; no records, for it looks at none."""
    chance = random.Random(shares)
    names = [Share(f"queue-{number % 10}", f"share-{number}") for number in range(shares)]
    async with client.pipeline(transaction=False) as some:
        for share in names:
            some.hset(world.keys.share(share), "weight", str(chance.choice(WEIGHTS)))
            some.zadd(world.keys.ready(share), {f"{share}-{number}": number for number in range(READY)})
            some.zadd(world.keys.active, {str(share): chance.uniform(0, 3)})
        await some.execute()
    return names


async def cost(client: Redis, shares: int) -> float:
    """Of one snapshot, and of the answers from it; seconds of an answer."""
    world = await World(client).open()
    names = await fill(client, world, shares)
    began, worked = time.perf_counter(), time.process_time()
    snapshot = await take_snapshot(client, world.keys, PaceRules())
    taken, cpu = time.perf_counter() - began, time.process_time() - worked
    began = time.perf_counter()
    forecast = Forecast.of(snapshot)
    prepared = time.perf_counter() - began

    chance = random.Random(1)
    asked = [(chance.choice(names), chance.randint(1, READY + 5)) for _ in range(ANSWERS)]
    began = time.perf_counter()
    for share, position in asked:
        forecast.forward_at(share, position, 0.3)
    look_up = (time.perf_counter() - began) / ANSWERS
    began = time.perf_counter()
    for share, position in asked[:20]:
        calls_before(snapshot, share, position)
    closed = (time.perf_counter() - began) / 20
    answer = await answers(world, asked)
    print(
        f"{shares:>6}{look_up * 1e6:>18.2f}{answer * 1e6:>18.2f}{closed * 1e6:>18.1f}"
        f"{taken * 1e3:>18.1f}{cpu * 1e3:>18.1f}{prepared * 1e3:>18.1f}"
    )
    return answer


async def answers(world: World, asked: list[tuple[Share, int]]) -> float:
    """Seconds of an answer as intake asks for it, while the snapshot is renewed beside."""
    outlook = Outlook(world.store)
    (one,) = await world.queue(1, share="share-0", queue="queue-0")
    found = await world.store.get(one)
    assert found is not None
    queued: list[Submission] = [replace(found, share=share, position=position) for share, position in asked]
    assert all(one.state is State.QUEUED for one in queued)
    await outlook.with_forecast(found)
    spent = []
    for submission in queued:
        began = time.perf_counter()
        await outlook.with_forecast(submission)
        spent.append(time.perf_counter() - began)
        await asyncio.sleep(0)  # as between requests
    await outlook.aclose()
    return statistics.median(spent)


async def measure(figures: Figures, seed: int = 1) -> None:
    with tempfile.TemporaryDirectory(prefix="gw") as folder, running(valkey_binary(), Path(folder)) as store:
        async with connect(store.url) as client:
            missed = await errors(client, seed)
            figures.show("forecasts that miss a tenth and a call", missed, "0", holds=not missed)
            print(f"{ANSWERS} forecasts each; while callers come the snapshot is taken and gone through twice a second")
            heads = ("look-up, us", "answer, us", "closed form, us", "snapshot, ms", "its CPU, ms", "gone through, ms")
            print("shares" + "".join(f"{head:>18}" for head in heads))
            costs = [await cost(client, shares) for shares in SHARES]
    grown = costs[-1] / costs[0]
    figures.show(f"an answer's forecast at {SHARES[-1]} shares against {SHARES[0]}", grown, "<= 3", holds=grown <= 3)


def main(seed: int) -> int:
    figures = Figures()
    asyncio.run(measure(figures, seed))
    return 1 if figures.missed else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1))
