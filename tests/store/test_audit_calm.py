"""What may be so is no drift, however much moves while the audit looks."""

from __future__ import annotations

import asyncio
import random
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis.stateful import invariant, run_state_machine_as_test

from gateway.core.attempt import Leased
from gateway.core.audit import whole_round
from gateway.core.ports import Errand, ErrandReport
from gateway.core.share import Share, ShareLimits
from gateway.core.submission import Failure
from gateway.store.audit import StoreAudit
from gateway.store.bounds import StoreBounds
from gateway.store.changes import SubmissionChanges
from gateway.store.connection import connect
from gateway.store.errands import ErrandQueue
from gateway.store.redis_store import RedisStore
from tests.store.furnished import SHARE, Beside, Furnished, audit_of, audited, furnish, told
from tests.store.test_lifecycle import Lifecycle, _emptied
from tests.store.world import (
    NO_PACE,
    World,
    examples,
    forwarded,
    new_submission,
    reconcile,
    refused,
    throttled,
    transient,
    unclear,
)

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from gateway.core.identity import SubmissionId
    from tests.servers import StoreServer


@pytest.fixture
async def store(any_client: Redis) -> Furnished:
    return await furnish(any_client)


async def test_what_has_expired_is_not_lost_before_it_is_swept(store: Furnished) -> None:
    await store.world.passes(seconds=store.world.bounds.retention_seconds)
    await store.client.delete(store.keys.record(store.forwarded))
    assert await told(store.world) == set()


async def test_what_was_kept_for_less_time_under_other_settings_is_not_lost(store: Furnished) -> None:
    """An index entry is all that is left of it, and the settings say now that its record must still be there."""
    await store.client.delete(store.keys.record(store.forwarded))
    await store.client.delete(store.keys.alias(store.owing), store.keys.job("job-2"))
    audit = audit_of(store.world)
    assert await audit.begin(60) == 0
    assert (await whole_round(audit)).drifts == ()
    await store.world.passes(seconds=1)
    (wanted,) = await store.world.queue(1)
    await store.client.delete(store.keys.record(wanted))
    assert wanted in {drift.about for drift in (await whole_round(audit)).drifts}


async def test_a_token_that_is_sent_again_after_its_record_has_expired_has_another_job(store: Furnished) -> None:
    world = store.world
    wanted = (await world.admit("again")).submission.submission_id
    while (leased := await world.lease()).submission.submission_id != wanted:
        await world.settle(leased, forwarded(f"job-{leased.number}"))
    await world.settle(leased, forwarded("job-old"))
    await store.client.delete(store.keys.record(wanted))
    await world.passes(seconds=1)
    await world.admit("again")
    assert await told(world) == set()
    await world.settle(await world.lease(), forwarded("job-new"))
    assert await told(world) == set()


async def test_a_redriven_one_may_wait_in_a_share_that_was_forgotten(store: Furnished) -> None:
    await store.world.passes(seconds=1)
    gone = Share("training", "gone")
    (wanted,) = await store.world.queue(1, share=gone.name, priority=9)
    while (leased := await store.world.lease()).submission.submission_id != wanted:
        await store.world.settle(leased, forwarded(f"job-{leased.number}"))
    await store.world.settle(leased, refused())
    await store.client.delete(store.keys.share(gone))
    await store.world.changes.redrive(wanted)
    assert await told(store.world) == set()


async def test_a_later_gateways_records_and_keys_are_passed_over(store: Furnished) -> None:
    await store.rewrite(store.ready, v=2, state="simmering")
    await store.client.set(store.keys.root + "later", "1")
    await store.client.zadd(store.keys.root + "laters:vision", {"one": 1})
    assert await told(store.world) == set()


async def test_a_record_whose_head_is_long_is_read_whole(store: Furnished) -> None:
    attempts = [{"at": 1, "outcome": "x" * 300, "error": "y" * 300} for _ in range(20)]
    await store.rewrite(store.ready, attempts=attempts)
    assert await told(store.world) == set()
    await store.client.zrem(store.keys.ready(SHARE), store.ready)
    assert ("nowhere", store.ready) in await told(store.world)


async def test_an_entry_that_seems_to_be_missing_is_looked_at_again_together_with_its_record(store: Furnished) -> None:
    audit = audit_of(store.world)
    await audit.open()
    zmscore = store.client.zmscore

    async def forgotten_and_swept_before(*args: Any) -> Any:
        await store.client.delete(store.keys.record(store.forwarded))
        await store.client.zrem(store.keys.index("n"), store.forwarded)
        return await zmscore(*args)

    audit._client = Beside(store.client, zmscore=forgotten_and_swept_before)
    assert (await whole_round(audit)).drifts == ()


class AuditedLifecycle(Lifecycle):
    """All that test_lifecycle.py lets happen, and an audit after each step."""

    @invariant()
    def an_audit_finds_nothing(self) -> None:
        assert self.run(audited(self.world)).drifts == ()


@pytest.mark.timeout(600)  # only a counterexample takes so long: to be made small
def test_no_audit_of_any_life_finds_anything_wrong(any_store: StoreServer) -> None:
    asyncio.run(_emptied(any_store.url))
    machine = type("Machine", (AuditedLifecycle,), {"url": any_store.url})
    run_state_machine_as_test(machine, settings=examples(6, steps=50))


class Busy:
    """Callers, forwarders, errands and operators at one store at once, by a seed; the clock is the server's own."""

    def __init__(self, client: Redis, prefix: str, seed: int) -> None:
        self.chance = random.Random(seed)
        self.bounds = StoreBounds(lease_seconds=0.05, max_attempts=3)
        self.world = World(client, prefix=prefix, pace=NO_PACE, bounds=self.bounds)
        self.store = RedisStore(client, self.world.keys, pace=NO_PACE, bounds=self.bounds)
        self.changes = SubmissionChanges(client, self.world.keys, bounds=self.bounds)
        self.errands = ErrandQueue(client, self.world.keys, bounds=self.bounds)
        self.known: list[SubmissionId] = []

    async def admit(self) -> None:
        chance = self.chance
        group = [
            new_submission(
                f"token-{chance.randrange(2000)}",
                share=f"share-{chance.randrange(8)}",
                queue=chance.choice(("training", "other")),
                priority=chance.randrange(3),
                namespace=chance.choice("nm"),
                request=b"x" * chance.randrange(4000),
                deadline=chance.choice((None, None, datetime.now(UTC) + timedelta(milliseconds=50))),
            )
            for _ in range(chance.randrange(1, 30))
        ]
        limits = chance.choice((ShareLimits(), ShareLimits(rate=500, burst=3, over_limit="delay")))
        answers = await self.store.admit_many([(one, limits, None) for one in group])
        self.known += [one.submission.submission_id for one in answers if not isinstance(one, Exception)]

    async def forward(self) -> None:
        leased = await self.store.lease()
        if not isinstance(leased, Leased):
            await self.store.reclaim()
        elif self.chance.random() < 0.9:
            wanted = leased.submission.submission_id
            reports = (forwarded(f"job-{wanted}"), transient(0.01), unclear(0.01), refused(), reconcile(), throttled())
            await self.store.settle(leased, self.chance.choice(reports))

    async def run_errand(self) -> None:
        errand = await self.errands.lease()
        if isinstance(errand, Errand):
            job_id = f"job-{errand.submission.submission_id}"
            found = ErrandReport(verdict="found", job_id=job_id, job_arn="arn")
            unknown = ErrandReport(verdict="unknown", failure=Failure(code="NotFound", message=""))
            done = ErrandReport(verdict="done")
            await self.errands.settle(
                errand, self.chance.choice((found, unknown) if errand.kind == "look" else (done,))
            )

    async def change(self) -> None:
        wanted = self.chance.choice(self.known)
        share = Share(self.chance.choice(("training", "other")), f"share-{self.chance.randrange(8)}")
        do = self.chance.randrange(5)
        if do == 0:
            await self.changes.cancel(wanted, "why")
        elif do == 1:
            await self.changes.reprioritize(wanted, self.chance.randrange(10))
        elif do == 2:
            await self.changes.redrive(wanted)
        elif do == 3:
            await self.store.set_share(share, {"paused": self.chance.choice((None, None, "1"))})
        else:
            await self.store.set_share(share, {"rate": self.chance.choice((None, "300")), "weight": "2"})

    async def work(self, done: asyncio.Event) -> None:
        while not done.is_set():
            await self.chance.choice((self.admit, *[self.forward] * 6, self.run_errand, self.change))()


@pytest.mark.parametrize("seed", range(2))
async def test_no_false_alarm_while_everything_moves(any_store: StoreServer, prefix: str, seed: int) -> None:
    async with connect(any_store.url) as client, connect(any_store.url) as beside:
        busy, done = Busy(client, prefix, seed), asyncio.Event()
        await busy.admit()
        audit = StoreAudit(beside, busy.world.keys, bounds=busy.bounds)
        assert await audit.begin(60) == 0
        looked_at, rounds, drifts = 0, 0, []
        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(busy.work(done))
            deadline = time.monotonic() + 20
            while (rounds < 5 or looked_at < 5000) and time.monotonic() < deadline:
                seen = await whole_round(audit)
                rounds, looked_at, drifts = rounds + 1, looked_at + seen.looked_at, [*drifts, *seen.drifts]
            done.set()
        assert drifts == []
        assert looked_at >= 5000
        quiet = await whole_round(audit)
        assert (quiet.drifts, quiet.bytes_compared) == ((), True)
