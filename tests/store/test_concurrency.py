"""Many processes at one store: each token once, each submission to one of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

from gateway.core.attempt import Leased
from gateway.core.errors import RateLimitedError
from gateway.core.pace import PaceRules
from gateway.core.ports import Admission
from gateway.core.share import ShareLimits
from gateway.store.bounds import StoreBounds
from gateway.store.connection import connect
from gateway.store.keys import Keys
from gateway.store.redis_store import RedisStore
from tests.store.world import TAG, World, forwarded, new_submission

if TYPE_CHECKING:
    from tests.servers import StoreServer


async def test_one_token_sent_a_hundred_times_at_once_is_one_submission(any_store: StoreServer, prefix: str) -> None:
    async with connect(any_store.url) as one, connect(any_store.url) as two:
        stores = [
            RedisStore(client, Keys(prefix, TAG), pace=PaceRules(), bounds=StoreBounds()) for client in (one, two)
        ]
        admissions = await asyncio.gather(
            *(store.admit(new_submission("token"), ShareLimits()) for _ in range(50) for store in stores)
        )
        assert Counter(admission.known for admission in admissions) == {False: 1, True: 99}
        assert len({admission.submission.submission_id for admission in admissions}) == 1
        assert (await stores[0].pace())["queued"] == 1


async def test_a_hundred_tokens_from_two_processes_are_a_hundred_submissions(world: World) -> None:
    stores = (world.store, world.another_store(world.client))
    await asyncio.gather(
        *(store.admit(new_submission(f"token-{n}"), ShareLimits()) for n in range(100) for store in stores)
    )
    assert (await world.store.pace())["queued"] == 100
    assert await world.client.zcard(world.keys.ready(new_submission().share)) == 100


async def test_a_burst_from_many_at_once_passes_no_more_than_the_limit_allows(world: World) -> None:
    limits = ShareLimits(rate=1, burst=10)
    outcomes = await asyncio.gather(*(world.admit(limits=limits) for _ in range(50)), return_exceptions=True)
    assert sum(not isinstance(outcome, BaseException) for outcome in outcomes) == 10


async def test_no_submission_is_handed_out_twice(any_store: StoreServer, prefix: str) -> None:
    pace = PaceRules(rate=1e6, burst=1000)
    async with connect(any_store.url) as one, connect(any_store.url) as two:
        stores = [RedisStore(client, Keys(prefix, TAG), pace=pace, bounds=StoreBounds()) for client in (one, two)]
        await asyncio.gather(*(stores[0].admit(new_submission(f"{n}"), ShareLimits()) for n in range(100)))
        leases = await asyncio.gather(*(store.lease() for _ in range(75) for store in stores))
    leased = [one for one in leases if isinstance(one, Leased)]
    assert len({one.submission.submission_id for one in leased}) == len(leased) == 100
    assert len({one.number for one in leased}) == 100


async def test_leases_asked_for_at_once_keep_to_the_pace(world: World) -> None:
    await world.queue(10)
    stores = [world.another_store(world.client) for _ in range(5)]
    leases = await asyncio.gather(*(store.lease() for _ in range(4) for store in stores))
    assert sum(isinstance(one, Leased) for one in leases) == 1


async def test_settling_twice_at_once_counts_once(world: World) -> None:
    await world.queue(2)
    leased = await world.lease()
    settlements = await asyncio.gather(*(world.store.settle(leased, forwarded()) for _ in range(20)))
    assert Counter(settlement.verdict for settlement in settlements) == {"settled": 1, "stale": 19}
    pace = await world.store.pace()
    assert (pace["queued"], pace["forwarded"]) == (1, 1)


async def test_what_arrives_together_is_one_script_and_each_has_its_own_verdict(world: World) -> None:
    limits = ShareLimits(rate=1, burst=3)
    answers = await asyncio.gather(
        *(world.admit(token, limits) for token in ("a", "b", "a", "c", "d", "b")), return_exceptions=True
    )
    told = [answer.known if isinstance(answer, Admission) else type(answer) for answer in answers]
    assert told == [False, False, True, False, RateLimitedError, True]
    queued = [answer.submission for answer in answers if isinstance(answer, Admission)]
    assert {one.client_token: one.position for one in queued} == {"a": 1, "b": 2, "c": 3}
