"""`gateway check` over a store that still has submissions: no queue may move away from where they are."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from gateway.__main__ import main
from gateway.core.pace import PaceRules
from gateway.core.share import ShareLimits
from gateway.core.upstream import Upstream
from gateway.store.bounds import StoreBounds
from gateway.store.holdings import UpstreamNote
from gateway.store.keys import Keys, noted_upstreams
from gateway.store.redis_store import RedisStore
from tests.conftest import eventually
from tests.examples import settings
from tests.processes import gateway_process
from tests.store.world import forwarded, new_submission, transient

if TYPE_CHECKING:
    from pathlib import Path

    from redis.asyncio import Redis

    from gateway.core.attempt import Leased
    from tests.servers import StoreServer

ACCOUNT = "123456789012"
EAST = Upstream(name="east", account=ACCOUNT, region="us-east-1")
WEST = Upstream(name="west", account=ACCOUNT, region="us-west-2")
ARN = f"arn:aws:batch:us-east-1:{ACCOUNT}:job-queue/training"


def section(upstream: Upstream, *queues: str) -> str:
    return (
        f'[[upstream]]\nname = "{upstream.name}"\nregion = "{upstream.region}"\naccount = "{upstream.account}"\n'
        f"queues = {json.dumps(queues or ['*'])}\n"
    )


@dataclass
class Deployment:
    """A store that `east` was served from, and settings to come."""

    client: Redis
    url: str
    prefix: str
    folder: Path

    def store(self, upstream: Upstream = EAST) -> RedisStore:
        rules = PaceRules(rate=1000.0, burst=100)
        return RedisStore(self.client, Keys(self.prefix, upstream.tag), pace=rules, bounds=StoreBounds())

    async def queue(self, token: str, *, job_queue: str = "training", share: str = "vision") -> None:
        queue = job_queue.rpartition("/")[2]
        new = replace(new_submission(token, queue=queue, share=share), job_queue=job_queue)
        await self.store().admit(new, ShareLimits())

    async def check(self, *sections: str) -> tuple[int, list[str]]:
        """(exit code, problems) of `gateway check --json` with these upstreams."""
        config = self.folder / "new.toml"
        config.write_text(
            f'[store]\nurl = "{self.url}"\nprefix = "{self.prefix}"\ndurability = "memory"\n{"".join(sections)}'
        )
        arguments = ["check", "--json", "--config", str(config)]
        result = await asyncio.to_thread(CliRunner().invoke, main, arguments)
        answer = json.loads(result.stdout)
        assert answer["ok"] == (result.exit_code == 0) == (not answer["problems"])
        return result.exit_code, answer["problems"]


@pytest.fixture
async def deployment(client: Redis, valkey: StoreServer, prefix: str, tmp_path: Path) -> Deployment:
    await UpstreamNote(client, prefix, [EAST]).write()
    return Deployment(client=client, url=valkey.url, prefix=prefix, folder=tmp_path)


async def test_an_upstream_that_has_drained_may_go(deployment: Deployment) -> None:
    assert await deployment.check(section(WEST)) == (0, [])
    await deployment.queue("a")
    store = deployment.store()
    leased: Leased = await store.lease()  # type: ignore[assignment]
    assert (await deployment.check(section(WEST)))[0] == 1
    await store.settle(leased, forwarded())
    assert await deployment.check(section(WEST)) == (0, [])


async def test_settings_that_keep_the_queue_where_it_is_are_sound(deployment: Deployment) -> None:
    await deployment.queue("a")
    assert await deployment.check(section(EAST)) == (0, [])
    assert await deployment.check(section(EAST, "train*"), section(WEST)) == (0, [])


async def test_an_upstream_with_submissions_may_not_go(deployment: Deployment) -> None:
    for token in ("a", "b", "c"):
        await deployment.queue(token, share=token)
    await deployment.queue("d", job_queue="other")
    code, problems = await deployment.check(section(WEST, "t*"))
    assert code == 1
    other, training = sorted(problems)
    assert training == (
        "upstream: the queue training still has 3 queued at east (123456789012, us-east-1), which these settings do "
        "not have; it would go to west (123456789012, us-west-2). Let it drain there first: a repeat of what is queued "
        "would be a second job"
    )
    assert "the queue other still has 1 queued" in other
    assert "no upstream would have it" in other


async def test_globs_may_not_leave_a_queue_with_submissions(deployment: Deployment) -> None:
    await deployment.queue("a", job_queue=ARN)
    code, (problem,) = await deployment.check(section(EAST, "other"), section(WEST))
    assert code == 1
    assert "whose globs do not fit it" in problem
    assert "go to west" in problem


async def test_another_upstream_may_come_first_unless_submissions_went_by_name(deployment: Deployment) -> None:
    sections = section(WEST, "t*"), section(EAST)
    await deployment.queue("a", job_queue=ARN)
    assert await deployment.check(*sections) == (0, [])
    await deployment.queue("b", job_queue="other")
    assert await deployment.check(*sections) == (0, [])
    await deployment.queue("c", share="another")
    code, (problem,) = await deployment.check(*sections)
    assert code == 1
    assert "still has 2 queued at east" in problem
    assert "another upstream comes first" in problem


async def test_what_other_queues_have_there_is_no_matter(deployment: Deployment) -> None:
    await deployment.queue("a", job_queue="other")
    store = deployment.store()
    leased: Leased = await store.lease()  # type: ignore[assignment]
    await store.settle(leased, transient(60))
    await deployment.queue("b", job_queue=ARN)
    assert await deployment.check(section(WEST, "t*"), section(EAST)) == (0, [])


async def test_one_that_went_by_name_is_found_wherever_it_waits(deployment: Deployment) -> None:
    sections = section(WEST, "t*"), section(EAST)
    await deployment.queue("a")
    store = deployment.store()
    leased: Leased = await store.lease()  # type: ignore[assignment]
    assert (await deployment.check(*sections))[0] == 1
    await store.settle(leased, transient(60))
    assert (await deployment.check(*sections))[0] == 1


async def test_an_upstream_of_the_settings_is_looked_at_before_it_was_ever_noted(deployment: Deployment) -> None:
    await deployment.client.delete(noted_upstreams(deployment.prefix))
    await deployment.queue("a")
    code, (problem,) = await deployment.check(section(EAST, "other"))
    assert (code, "still has 1 queued at east" in problem) == (1, True)


async def test_people_are_told_on_stderr(deployment: Deployment) -> None:
    await deployment.queue("a")
    await deployment.check(section(WEST))
    arguments = ["check", "--config", str(deployment.folder / "new.toml")]
    result = await asyncio.to_thread(CliRunner().invoke, main, arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("upstream: the queue training still has 1 queued at east")


@pytest.mark.parametrize("role", ["api", "forwarder"])
async def test_serving_notes_the_upstream_under_its_name(
    client: Redis, valkey: StoreServer, prefix: str, tmp_path: Path, role: str
) -> None:
    config = settings(store_url=valkey.url, endpoint_url="http://127.0.0.1:9", prefix=prefix)
    with gateway_process(tmp_path, config, "--role", role):

        async def noted() -> bool:
            return bool(await client.exists(noted_upstreams(prefix)))

        await eventually(noted)
    assert await client.hgetall(noted_upstreams(prefix)) == {EAST.tag.encode(): b"main 123456789012 us-east-1"}


async def test_a_gateway_that_starts_with_a_move_says_so_loudly(
    deployment: Deployment, tmp_path: Path, valkey: StoreServer, prefix: str
) -> None:
    await deployment.queue("t")
    config = settings(store_url=valkey.url, endpoint_url="http://127.0.0.1:9", prefix=prefix)
    config = config.replace('region = "us-east-1"', 'region = "us-west-2"')

    def told() -> dict[str, object]:
        with gateway_process(tmp_path / "moved", config, "--role", "api") as gateway:
            return gateway.event("queue_moved")

    line = await asyncio.to_thread(told)
    assert line["level"] == "error"
    assert "the queue training still has 1 queued at east" in str(line["problem"])


# ---- gateway check --store


async def audit(deployment: Deployment, *arguments: str) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of `gateway check --store` over a store that `east` is served from."""
    config = deployment.folder / "same.toml"
    config.write_text(
        f'[store]\nurl = "{deployment.url}"\nprefix = "{deployment.prefix}"\ndurability = "memory"\n{section(EAST)}'
    )
    result = await asyncio.to_thread(
        CliRunner().invoke, main, ["check", "--store", *arguments, "--config", str(config)]
    )
    return result.exit_code, result.stdout, result.stderr


async def test_a_store_as_its_commands_leave_it_passes_the_audit(deployment: Deployment) -> None:
    for token in ("a", "b", "c"):
        await deployment.queue(token, share=token)
    code, out, err = await audit(deployment)
    assert (code, err) == (0, "")
    assert re.search(r"^Audit of east: \d+ looked at in \d\.\d s, 0 wrong\.$", out, re.MULTILINE)
    code, out, _ = await audit(deployment, "--json")
    answer = json.loads(out)
    assert (code, answer["ok"], answer["problems"]) == (0, True, [])
    (one,) = answer["audits"]
    assert (one["upstream"], one["drifts"], one["bytesCompared"]) == ("east", [], True)
    assert one["lookedAt"] > 10


async def test_an_audit_names_what_is_wrong_and_what_to_do(deployment: Deployment) -> None:
    await deployment.queue("a")
    wanted = new_submission("a").submission_id
    keys = Keys(deployment.prefix, EAST.tag)
    await deployment.client.delete(keys.record(wanted))
    code, out, err = await audit(deployment)
    assert code == 1
    assert "Audit of east: " in out
    assert "sound" not in out
    assert re.match(
        f"store: east: lost: {wanted}: it stands in (ready|waiting):training/vision, but has no record", err
    )
    assert "Find the job in Batch" in err
    code, out, _ = await audit(deployment, "--json")
    answer = json.loads(out)
    assert (code, answer["ok"], len(answer["problems"])) == (1, False, 1)
    assert {(drift["kind"], drift["about"]) for drift in answer["audits"][0]["drifts"]} == {("lost", wanted)}
    assert answer["audits"][0]["remedies"].keys() == {"lost"}
    assert not await deployment.client.exists(keys.record(wanted)), "an audit mends nothing"


async def test_without_store_nothing_is_audited(deployment: Deployment) -> None:
    await deployment.client.zadd(Keys(deployment.prefix, EAST.tag).active, {"training/nobody": 0})
    assert await deployment.check(section(EAST)) == (0, [])


async def test_a_store_that_is_not_reachable_is_not_audited(deployment: Deployment) -> None:
    away = replace(deployment, url=f"unix://{deployment.folder}/nobody.sock")
    assert (await audit(away))[0] == 3
    code, out, _ = await audit(away, "--json")
    assert (code, json.loads(out)["ok"]) == (3, False)
