"""One job a submission, whatever Batch makes of a repeated token and whoever else uses its name.

The real store, forwarder, errands and client against the emulator; hours pass by the store's clock.
"""

from __future__ import annotations

import json
import random
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from gateway.batch.batch_client import Endpoint, open_batch_client
from gateway.core.attempt import LISTED_WITHIN_SECONDS, Leased
from gateway.core.errands import Errands
from gateway.core.forwarder import Forwarder
from gateway.core.job_search import JobSearch
from gateway.core.journal import Journal
from gateway.core.ports import Errand
from gateway.core.submission import SUBMISSION_TAG, State, Submission
from gateway.emulator import Fault
from gateway.store.hints import Hints
from tests.core.fakes import ListLog
from tests.emulator.rig import SUBMISSION, Rig, emulating
from tests.store.world import World, new_submission

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis

    from gateway.batch.batch_client import BatchClient
    from gateway.emulator.config import Repeats

OURS = new_submission("ours")
PATIENCE_SECONDS = 900.0
FORGETS: tuple[Repeats, ...] = ("reject", "replay", "forgotten")


def frozen(*, tag: bool) -> bytes:
    tags = {"tags": {SUBMISSION_TAG: OURS.submission_id}} if tag else {}
    return json.dumps({**SUBMISSION, "clientToken": "ours", **tags}).encode()


@dataclass
class Scene:
    """One gateway and Batch; `others` submit past the gateway."""

    world: World
    rig: Rig
    forwarder: Forwarder
    errands: Errands
    log: ListLog = field(default_factory=ListLog)

    async def submit(self, *, tag: bool = True) -> None:
        await self.world.admit("ours", request=frozen(tag=tag))

    async def others(self, token: str, tags: dict[str, str] | None = None) -> None:
        """Makes a job of the same queue and name, by another hand."""
        await self.rig.submit(clientToken=token, tags=tags or {"team": "else"})

    async def passes(self, seconds: float) -> None:
        """For the store and for Batch."""
        await self.world.passes(seconds=seconds)
        self.rig.clock.advance(seconds)

    async def attempt(self) -> None:
        await self.forwarder.forward(await self.world.lease(), since=time.monotonic())

    async def until_final(self) -> Submission:
        """Forwards and looks, as things come due."""
        ends_us = self.world.now_us + PATIENCE_SECONDS * 1e6
        while (now := await self.show()).state is State.QUEUED:
            assert self.world.now_us < ends_us, now
            leased = await self.world.try_lease()
            if isinstance(leased, Leased):
                await self.forwarder.forward(leased, since=time.monotonic())
                continue
            errand = await self.world.errands.lease()
            if isinstance(errand, Errand):
                await self.errands.run_one(errand)
                continue
            waits = [wait.seconds for wait in (leased, errand) if wait.seconds is not None]
            await self.passes(max(0.001, min(waits)))
        return now

    async def show(self) -> Submission:
        found = await self.world.store.get(OURS.submission_id)
        assert found is not None
        return found

    def faults(self, *faults: Fault) -> None:
        self.rig.emulator.set_faults(*faults)

    @property
    def jobs_of_ours(self) -> list[str]:
        return [job.job_id for job in self.rig.emulator.jobs if job.request["clientToken"] == "ours"]


@asynccontextmanager
async def scene(client: Redis, repeats: Repeats) -> AsyncIterator[Scene]:
    async with emulating(repeats=repeats) as rig, _batch(rig.url) as batch:
        world = await World(client, now_us=rig.clock.epoch_ms() * 1000).open()
        log, chance = ListLog(), random.Random(7)
        journal = Journal("main", log)
        yield Scene(
            world=world,
            rig=rig,
            log=log,
            forwarder=Forwarder(
                store=world.store,
                batch=batch,
                search=JobSearch(batch=batch.errands, owners=world.errands),
                wakeup=Hints(client, world.keys),
                journal=journal,
                max_attempts=world.bounds.max_attempts,
                lease_seconds=world.bounds.lease_seconds,
                call_timeout_seconds=5,
                concurrency=1,
                chance=chance,
            ),
            errands=Errands(
                store=world.errands,
                batch=batch.errands,
                journal=journal,
                concurrency=1,
                lease_seconds=world.bounds.lease_seconds,
                chance=chance,
            ),
        )


@asynccontextmanager
async def _batch(url: str) -> AsyncIterator[BatchClient]:
    endpoint = Endpoint(region="us-east-1", url=url, access_key_id="a", secret_access_key="s")
    async with open_batch_client(endpoint, concurrency=1, call_timeout_seconds=5) as batch:
        yield batch


@pytest.mark.parametrize("fault", ["lost_answer", "late_500"])
@pytest.mark.parametrize("repeats", FORGETS)
async def test_a_job_whose_answer_was_lost_is_the_only_one(client: Redis, repeats: Repeats, fault: Any) -> None:
    async with scene(client, repeats) as s:
        await s.submit()
        s.faults(Fault(kind=fault, times=1))
        final = await s.until_final()
        assert (final.state, [final.job_id]) == (State.FORWARDED, s.jobs_of_ours)


@pytest.mark.parametrize("repeats", FORGETS)
async def test_a_call_that_made_nothing_is_made_again(client: Redis, repeats: Repeats) -> None:
    async with scene(client, repeats) as s:
        await s.submit()
        s.faults(Fault(kind="drop", times=1), Fault(kind="error_500", times=1))
        final = await s.until_final()
        assert (final.state, [final.job_id]) == (State.FORWARDED, s.jobs_of_ours)


@pytest.mark.parametrize("late_seconds", [4, 20, 100])
@pytest.mark.parametrize("repeats", FORGETS)
async def test_a_job_that_is_listed_late_is_found_all_the_same(
    client: Redis, repeats: Repeats, late_seconds: float
) -> None:
    """While Batch knows the token a repeat makes nothing, and the looks after it wait for the list."""
    if repeats == "forgotten" and late_seconds > LISTED_WITHIN_SECONDS:
        return  # who forgets a token within seconds and hides its job for longer gives nobody a way to tell
    async with scene(client, repeats) as s:
        await s.submit()
        s.faults(Fault(kind="lost_answer", times=1), Fault(kind="late_listing", seconds=late_seconds))
        final = await s.until_final()
        assert (final.state, [final.job_id]) == (State.FORWARDED, s.jobs_of_ours)


@pytest.mark.parametrize("repeats", FORGETS)
async def test_jobs_of_the_same_name_are_left_to_those_who_made_them(client: Redis, repeats: Repeats) -> None:
    """Somebody past the gateway, and another gateway with its own store."""
    async with scene(client, repeats) as s:
        await s.submit()
        await s.others("before")
        s.faults(Fault(kind="lost_answer", times=1))
        await s.attempt()
        await s.others("after")
        await s.others("gateway", {SUBMISSION_TAG: new_submission("theirs").submission_id})
        final = await s.until_final()
        assert (final.state, [final.job_id]) == (State.FORWARDED, s.jobs_of_ours)


@pytest.mark.parametrize("repeats", FORGETS)
async def test_jobs_of_the_same_name_do_not_stop_one_that_has_none_yet(client: Redis, repeats: Repeats) -> None:
    async with scene(client, repeats) as s:
        await s.submit()
        await s.others("before")
        s.faults(Fault(kind="drop", times=1))
        final = await s.until_final()
        assert (final.state, [final.job_id]) == (State.FORWARDED, s.jobs_of_ours)


@pytest.mark.parametrize("repeats", FORGETS)
async def test_without_the_tag_a_person_is_given_the_candidates(client: Redis, repeats: Repeats) -> None:
    async with scene(client, repeats) as s:
        await s.submit(tag=False)
        s.faults(Fault(kind="lost_answer", times=1))
        final = await s.until_final()
        assert final.state is State.UNKNOWN
        assert final.error is not None
        (job,) = s.jobs_of_ours
        assert job in final.error.message


@pytest.mark.parametrize("repeats", FORGETS)
async def test_without_the_tag_one_that_has_no_job_is_submitted(client: Redis, repeats: Repeats) -> None:
    async with scene(client, repeats) as s:
        await s.submit(tag=False)
        s.faults(Fault(kind="drop", times=1))
        final = await s.until_final()
        assert (final.state, [final.job_id]) == (State.FORWARDED, s.jobs_of_ours)


async def test_a_store_that_forgot_a_call_makes_no_rejection_of_its_job(client: Redis) -> None:
    """Restored from a copy, or failed over to a replica that lagged: all that it knows is a submission in its line."""
    async with scene(client, "reject") as s:
        await s.submit()
        request = (await s.show()).request
        assert (await s.forwarder._batch.submit(request)).job_id
        await s.passes(3600)
        final = await s.until_final()
        assert (final.state, [final.job_id]) == (State.FORWARDED, s.jobs_of_ours)


async def test_what_batch_refuses_and_never_had_is_rejected(client: Redis) -> None:
    async with scene(client, "reject") as s:
        await s.submit()
        s.faults(Fault(kind="client_error", times=1))
        final = await s.until_final()
        assert (final.state, s.jobs_of_ours) == (State.REJECTED, [])


@pytest.mark.parametrize("repeats", FORGETS)
async def test_a_process_that_died_in_mid_call_leaves_one_job(client: Redis, repeats: Repeats) -> None:
    """Its lease ends, and whoever has it next cannot know what was called."""
    async with scene(client, repeats) as s:
        await s.submit()
        leased = await s.world.lease()
        await s.forwarder._batch.submit(leased.submission.request)
        final = await s.until_final()
        assert (final.state, [final.job_id]) == (State.FORWARDED, s.jobs_of_ours)
        assert [one.outcome for one in final.attempts] == ["lease_ended", "found"]
