"""Upstreams that are called as a role: real aiobotocore between a fake STS and the emulator."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, get_args

import pytest
from botocore.loaders import JSONFileLoader

from gateway.batch.batch_client import BatchClient, Endpoint, open_batch_client
from gateway.core.attempt import Answer, AnswerKind
from gateway.core.reconcile import CallFailedError
from tests.batch.sts import HOUR, Asked, FakeSts, Fault
from tests.batch.wire import Asked as BatchAsked
from tests.batch.wire import peer, recording
from tests.emulator.rig import SUBMISSION, Rig, emulating

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

VISION = "arn:aws:iam::123456789012:role/vision"
SPEECH = "arn:aws:iam::123456789012:role/teams/speech"
# botocore wants new keys in the last 15 minutes, and must have them in the last 10.
WANTS_NEW, MUST_HAVE_NEW = 12 * 60.0, 9 * 60.0

# Of the call's time STS has a quarter: short where it is silent, long where a busy machine must not look like that.
SILENCE_SECONDS = 4.0

each_fault = pytest.mark.parametrize("fault", get_args(Fault))


def frozen(name: str) -> bytes:
    return json.dumps(SUBMISSION | {"jobName": name, "clientToken": name}).encode()


@pytest.fixture
async def sts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[FakeSts]:
    """With a usual chain that has the keys AKIDSOURCE in the environment, and nothing else."""
    for variable in ("AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_ROLE_ARN"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDSOURCE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    async with FakeSts().serving() as serving:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", serving.url)
        yield serving


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with emulating() as opened:
        yield opened


@asynccontextmanager
async def client_as(role_arn: str | None, url: str, *, seconds: float = 20.0) -> AsyncIterator[BatchClient]:
    endpoint = Endpoint(region="us-east-1", url=url, role_arn=role_arn)
    async with open_batch_client(endpoint, concurrency=16, call_timeout_seconds=seconds) as batch:
        yield batch


@pytest.fixture
async def vision(sts: FakeSts, rig: Rig, request: pytest.FixtureRequest) -> AsyncIterator[BatchClient]:
    silent = "hang" in request.node.name or "silent" in request.node.name
    async with client_as(VISION, rig.url, seconds=SILENCE_SECONDS if silent else 20.0) as opened:
        assert sts.asked == []  # opening calls nobody
        yield opened


def signers(rig: Rig) -> list[str | None]:
    """Whose keys signed each call that Batch got."""
    return [entry.access_key_id for entry in rig.emulator.ledger()]


async def submitted_in_the_end(batch: BatchClient, name: str) -> None:
    """With the first call, but for a machine so busy that even a healthy STS is too late."""
    async with asyncio.timeout(20):
        while (await batch.submit(frozen(name))).kind is not AnswerKind.SUBMITTED:
            pass


# ---- the role's keys


async def test_submissions_and_errands_are_signed_with_the_roles_keys(
    sts: FakeSts, rig: Rig, vision: BatchClient
) -> None:
    answer = await vision.submit(frozen("first"))
    assert answer.job_id
    assert (await vision.errands.jobs_named(frozen("first"), datetime(2000, 1, 1, tzinfo=UTC))).ids == [answer.job_id]
    await vision.errands.candidate(answer.job_id)
    await vision.errands.update(answer.job_id, 1)
    await vision.errands.terminate(answer.job_id, "canceled")
    assert signers(rig) == ["ASIAvision1"] * 5
    assert sts.asked == [
        Asked(role_arn=VISION, session="batch-gateway", access_key_id="AKIDSOURCE", region="us-east-1")
    ]


async def test_the_session_token_goes_along(sts: FakeSts) -> None:
    seen: list[BatchAsked] = []
    async with (
        peer(recording(seen, lambda _: {"jobId": "J", "jobArn": "A"})) as url,
        client_as(VISION, url) as batch,
    ):
        assert (await batch.submit(frozen("first"))).kind is AnswerKind.SUBMITTED
    assert seen[0].headers["x-amz-security-token"] == "token-vision1"
    assert len(sts.asked) == 1


async def test_calls_at_once_assume_the_role_once(sts: FakeSts, rig: Rig, vision: BatchClient) -> None:
    await asyncio.gather(*(vision.submit(frozen(f"job-{number}")) for number in range(8)))
    assert signers(rig) == ["ASIAvision1"] * 8
    assert len(sts.asked) == 1


async def test_keys_are_replaced_before_they_expire_and_kept_until_then(
    sts: FakeSts, rig: Rig, vision: BatchClient
) -> None:
    sts.lifetimes = [WANTS_NEW, MUST_HAVE_NEW, HOUR]
    for name in ("first", "second", "third", "fourth"):
        assert (await vision.submit(frozen(name))).kind is AnswerKind.SUBMITTED
    assert signers(rig) == ["ASIAvision1", "ASIAvision2", "ASIAvision3", "ASIAvision3"]


async def test_two_upstreams_with_different_roles_do_not_mix(sts: FakeSts, rig: Rig) -> None:
    sts.lifetimes = [MUST_HAVE_NEW] * 4
    async with (
        emulating() as other,
        client_as(VISION, rig.url) as vision,
        client_as(SPEECH, other.url) as speech,
        open_batch_client(
            Endpoint(region="us-east-1", url=other.url), concurrency=1, call_timeout_seconds=5
        ) as roleless,
    ):
        for name in ("first", "second"):
            await asyncio.gather(vision.submit(frozen(name)), speech.submit(frozen(name)))
        await roleless.submit(frozen("third"))
    assert signers(rig) == ["ASIAvision1", "ASIAvision2"]
    assert signers(other) == ["ASIAspeech1", "ASIAspeech2", "AKIDSOURCE"]


async def test_fixed_keys_assume_the_role_in_the_chains_place(sts: FakeSts, rig: Rig) -> None:
    endpoint = Endpoint(
        region="eu-west-1", url=rig.url, access_key_id="AKIDFIXED", secret_access_key="s", role_arn=VISION
    )
    async with open_batch_client(endpoint, concurrency=1, call_timeout_seconds=5) as batch:
        await batch.submit(frozen("first"))
    assert signers(rig) == ["ASIAvision1"]
    assert [(one.access_key_id, one.region) for one in sts.asked] == [("AKIDFIXED", "eu-west-1")]


async def test_no_call_reads_a_model_from_disk(
    sts: FakeSts, vision: BatchClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    load_file = JSONFileLoader.load_file

    def load_and_tell(self: JSONFileLoader, path: str) -> object:
        content: object = load_file(self, path)
        if content is not None:  # the loader looks for each model in folders that do not have it
            read.append(path)
        return content

    monkeypatch.setattr(JSONFileLoader, "load_file", load_and_tell)
    assert (await vision.submit(frozen("first"))).kind is AnswerKind.SUBMITTED
    assert (len(sts.asked), read) == (1, [])


# ---- STS fails


@each_fault
async def test_without_keys_nothing_is_sent_until_sts_works_again(
    sts: FakeSts, rig: Rig, vision: BatchClient, fault: Fault
) -> None:
    await sts.break_with(fault)
    answer = await vision.submit(frozen("first"))
    assert (answer.kind, answer.maybe_made, signers(rig)) == (AnswerKind.CREDENTIALS, False, [])
    with pytest.raises(CallFailedError) as raised:
        await vision.errands.candidate("J")
    assert (raised.value.answer.kind, signers(rig)) == (AnswerKind.CREDENTIALS, [])
    await sts.heal()
    await submitted_in_the_end(vision, "first")
    assert len(rig.emulator.jobs) == 1


@each_fault
async def test_a_failing_sts_costs_nothing_while_the_keys_last(
    sts: FakeSts, rig: Rig, vision: BatchClient, fault: Fault
) -> None:
    sts.lifetimes = [WANTS_NEW]
    await vision.submit(frozen("first"))
    await sts.break_with(fault)
    assert (await vision.submit(frozen("second"))).kind is AnswerKind.SUBMITTED
    assert signers(rig) == ["ASIAvision1"] * 2
    await sts.heal()
    async with asyncio.timeout(20):
        while signers(rig)[-1] == "ASIAvision1":
            await vision.submit(frozen("third"))


@each_fault
async def test_keys_about_to_expire_are_not_used(sts: FakeSts, rig: Rig, vision: BatchClient, fault: Fault) -> None:
    sts.lifetimes = [MUST_HAVE_NEW]
    await vision.submit(frozen("first"))
    await sts.break_with(fault)
    assert (await vision.submit(frozen("second"))).kind is AnswerKind.CREDENTIALS
    assert signers(rig) == ["ASIAvision1"]


async def test_a_silent_sts_leaves_no_call_unclear_however_many_wait(
    sts: FakeSts, rig: Rig, vision: BatchClient
) -> None:
    await sts.break_with("hang")
    answers: list[Answer] = await asyncio.gather(*(vision.submit(frozen(f"job-{number}")) for number in range(12)))
    assert {answer.kind for answer in answers} == {AnswerKind.CREDENTIALS}
    assert signers(rig) == []
    await sts.heal()
    await submitted_in_the_end(vision, "first")


async def test_keys_that_have_expired_already_are_not_used(sts: FakeSts, rig: Rig, vision: BatchClient) -> None:
    sts.lifetimes = [-5, HOUR]
    assert (await vision.submit(frozen("first"))).kind is AnswerKind.CREDENTIALS
    assert (await vision.submit(frozen("first"))).kind is AnswerKind.SUBMITTED
    assert signers(rig) == ["ASIAvision2"]


async def test_a_denied_role_is_told_in_one_line_with_the_code_and_without_secrets(
    sts: FakeSts, vision: BatchClient
) -> None:
    await sts.break_with("denied")
    answer = await vision.submit(frozen("first"))
    assert "AccessDenied" in answer.message
    assert "sts:AssumeRole" in answer.message
    assert "secret-token" not in answer.message


async def test_a_chain_that_has_nothing_yet_is_asked_again(
    sts: FakeSts, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    async with client_as(VISION, rig.url) as batch:
        assert (await batch.submit(frozen("first"))).kind is AnswerKind.CREDENTIALS
        assert sts.asked == []
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDLATE")
        assert (await batch.submit(frozen("first"))).kind is AnswerKind.SUBMITTED
    assert [one.access_key_id for one in sts.asked] == ["AKIDLATE"]


# ---- the chain's own keys


async def test_without_a_role_too_a_chain_that_has_nothing_yet_is_asked_again(
    sts: FakeSts, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    async with client_as(None, rig.url) as batch:
        answer = await batch.submit(frozen("first"))
        assert (answer.kind, answer.maybe_made) == (AnswerKind.CREDENTIALS, False)
        assert signers(rig) == []
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDLATE")
        assert (await batch.submit(frozen("first"))).kind is AnswerKind.SUBMITTED
    assert signers(rig) == ["AKIDLATE"]
    assert sts.asked == []


async def test_a_chain_that_breaks_neither_ends_the_process_nor_leaves_a_call_unclear(
    sts: FakeSts, rig: Rig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    (tmp_path / "config").write_text("[default]\ncredential_process = /bin/false\n")
    async with client_as(None, rig.url) as batch:
        assert (await batch.submit(frozen("first"))).kind is AnswerKind.CREDENTIALS
    assert signers(rig) == []
    assert sts.asked == []
