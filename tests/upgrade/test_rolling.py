"""A rolling upgrade, with real processes: two releases on one store and one Batch, under load, forth and back."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgpack
import pytest

from gateway.emulator import Emulator, EmulatorConfig, Fault
from gateway.store.keys import Keys
from tests.conftest import eventually
from tests.examples import settings
from tests.processes import gateway_process
from tests.upgrade.balancer import balancing
from tests.upgrade.releases import READS_2, WRITES_2, changed, released

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from redis.asyncio import Redis

    from tests.processes import GatewayProcess
    from tests.servers import StoreServer

# Who is killed leaves leases behind: short, so that nobody waits long for them.
SHORT_LEASES = "[forward]\ncall_timeout_seconds = 1\nlease_seconds = 2"


@dataclass(frozen=True, kw_only=True)
class Upgrade:
    """What an old and a new release did on one store; `back` is the new one's second process."""

    old: GatewayProcess
    new: GatewayProcess
    back: GatewayProcess
    finals: list[dict[str, Any]]
    jobs: list[str]  # the submission of each job in Batch

    @property
    def processes(self) -> tuple[GatewayProcess, ...]:
        return self.old, self.new, self.back

    @property
    def ids(self) -> list[str]:
        return [final["submissionId"] for final in self.finals]


@pytest.fixture
def config(valkey: StoreServer, prefix: str) -> str:
    return settings(
        store_url=valkey.url, endpoint_url="{batch}", prefix=prefix, upstream="rate = 50.0", extra=SHORT_LEASES
    )


async def upgrade(emulator: Emulator, config: str, folder: Path, old_package: Path, new_package: Path) -> Upgrade:
    """The new one comes, is taken back, comes again; then the old one is killed in the middle of its work."""
    async with AsyncExitStack() as opened:
        config = config.replace("{batch}", await opened.enter_async_context(emulator.serving()))
        started = opened.enter_context(ExitStack())

        async def start(name: str, package: Path) -> GatewayProcess:
            process = gateway_process(folder / name, config, package=package)
            return await asyncio.to_thread(started.enter_context, process)  # Batch answers meanwhile

        old, new = await asyncio.gather(start("old", old_package), start("new", new_package))
        balancer = await opened.enter_async_context(balancing(old, new))
        ids = await balancer.submit_all(range(40))
        more = asyncio.create_task(balancer.submit_all(range(40, 80)))
        assert await asyncio.to_thread(new.terminate) == 0
        back = await start("back", new_package)
        ids += await more
        balancer.gateways = [old, back]
        more = asyncio.create_task(balancer.submit_all(range(80, 120)))
        await eventually(lambda: asyncio.sleep(0, len(forwarded_by(back)) > 3))
        old.kill()
        ids += await more
        finals = await asyncio.gather(*(balancer.final(one) for one in ids))
        canceled = {final["submissionId"] for final in finals if final["cancelRequested"]}
        await eventually(lambda: asyncio.sleep(0, not running(emulator, canceled)))
    jobs = [str(job.tags["gateway:submission-id"]) for job in emulator.jobs]
    return Upgrade(old=old, new=new, back=back, finals=finals, jobs=jobs)


def forwarded_by(gateway: GatewayProcess) -> set[str]:
    return {line["submission_id"] for line in gateway.events if line["event"] == "forward" and line["job_id"]}


def accepted_by(gateway: GatewayProcess) -> set[str]:
    posts = (line for line in gateway.events if line["event"] == "request" and line["route"] == "/v1/submissions")
    return {line["submission_id"] for line in posts if line["submission_id"] and not line["replayed"]}


def running(emulator: Emulator, ids: set[str]) -> list[str]:
    return [
        job.job_id for job in emulator.jobs if job.tags["gateway:submission-id"] in ids and job.terminated_after is None
    ]


async def records(client: Redis, prefix: str, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What changes of each record, as it stands in the store."""
    found = {}
    for one in ids:
        unpacker = msgpack.Unpacker(raw=False)
        unpacker.feed(await client.get(Keys(prefix, one[:4]).record(one)))
        found[one] = unpacker.unpack()
    return found


def each_forwarded_once(told: Upgrade) -> None:
    assert {final["state"] for final in told.finals} <= {"forwarded", "canceled"}
    assert sorted(told.jobs) == sorted(one["submissionId"] for one in told.finals if one["state"] == "forwarded")
    for one in told.processes:
        assert [line for line in one.events if line["level"] == "error"] == []
        assert forwarded_by(one), "it had a part in the forwarding"
        assert accepted_by(one), "it had a part in the accepting"


async def test_the_last_release_and_this_one_forward_each_submission_once_whichever_goes(
    config: str, tmp_path: Path
) -> None:
    emulator = Emulator(EmulatorConfig(submit_tps=0))
    emulator.set_faults(Fault(kind="lost_answer", times=4, probability=0.2))
    told = await upgrade(emulator, config, tmp_path, released(tmp_path / "a"), changed(tmp_path / "b"))
    assert len(told.finals) == 120
    each_forwarded_once(told)


async def test_a_release_that_reads_a_version_works_beside_the_one_that_writes_it_and_keeps_what_it_does_not_know(
    config: str, tmp_path: Path, client: Redis, prefix: str
) -> None:
    emulator = Emulator(EmulatorConfig(submit_tps=0, repeats="replay"))
    reader, writer = changed(tmp_path / "a", *READS_2), changed(tmp_path / "b", *WRITES_2)
    told = await upgrade(emulator, config, tmp_path, reader, writer)
    each_forwarded_once(told)
    kept = await records(client, prefix, told.ids)
    writers = accepted_by(told.new) | accepted_by(told.back)
    assert {one for one, record in kept.items() if record["v"] == 2} == writers
    assert writers & forwarded_by(told.old), "the reader changed what the writer had written"
    assert all(kept[one]["writes"] >= 1 for one in writers)
