"""Every answer of Batch's own face as botocore's parser reads it: codes, messages, members, and when to come back."""

from __future__ import annotations

import asyncio
import gc
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import botocore.session
import pytest
from botocore.parsers import create_parser

from gateway.api import batch_face
from gateway.core import job_reads, reads
from gateway.core.errors import StoreUnavailableError
from gateway.core.share import ShareLimits, ShareRule
from gateway.emulator import Fault
from gateway.store.bounds import StoreBounds
from gateway.store.connection import connect
from gateway.store.durability import Confirmation
from tests.api.batch_behind import ARN, JOB_SECONDS, RUNNABLE_SECONDS, World, batch_behind, own_arn, request
from tests.api.callers import VISION
from tests.api.test_edits import REJECTED, UNKNOWN
from tests.conftest import eventually
from tests.contract.document import contract
from tests.contract.in_process import NobodyThere
from tests.servers import running, valkey_binary

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping
    from pathlib import Path

    from botocore.model import Shape
    from redis.asyncio import Redis

    from tests.contract.in_process import Answer

MODEL = botocore.session.get_session().get_service_model("batch")
PARSER = create_parser("rest-json")
STRANGER = "5c6a6f0a-0000-4000-8000-000000000000"
# Each operation with a request that leads to Batch, but for the first.
REQUESTS: dict[str, dict[str, Any]] = {
    "SubmitServiceJob": request(),
    "DescribeServiceJob": {"jobId": STRANGER},
    "ListServiceJobs": {"jobQueue": "training", "filters": [{"name": "JOB_NAME", "values": ["*"]}]},
    "TerminateServiceJob": {"jobId": STRANGER, "reason": "enough"},
    "UpdateServiceJob": {"jobId": STRANGER, "schedulingPriority": 5},
    "DescribeJobQueues": {"jobQueues": ["quota"]},
    "DescribeSchedulingPolicies": {"arns": [f"{ARN}scheduling-policy/quota-quota", f"{ARN}scheduling-policy/x"]},
    "GetJobQueueSnapshot": {"jobQueue": "quota"},
    "ListQuotaShares": {"jobQueue": "quota"},
    "DescribeQuotaShare": {"quotaShareArn": f"{ARN}job-queue/quota/quota-share/vision"},
}
ELSEWHERE = ARN.replace("us-east-1", "eu-west-1")
OF_A_JOB = ("DescribeServiceJob", "TerminateServiceJob", "UpdateServiceJob")
ASKING_BATCH = tuple(REQUESTS)[1:]


@pytest.fixture
async def world(client: Redis, prefix: str) -> AsyncIterator[World]:
    async with batch_behind(client, prefix) as world:
        yield world


def parsed(operation: str, answer: Answer, shape: Shape | None = None) -> dict[str, Any]:
    """What an SDK makes of it."""
    raw = {"status_code": answer.status, "headers": answer.headers, "body": answer.body}
    found: dict[str, Any] = PARSER.parse(raw, shape or MODEL.operation_model(operation).output_shape)
    return found


KINDS: dict[str, type | tuple[type, ...]] = {
    "structure": dict,
    "list": list,
    "map": dict,
    "string": str,
    "integer": int,
    "long": int,
    "double": (int, float),
    "float": (int, float),
    "boolean": bool,
}


def misfits(value: Any, shape: Shape, path: str = "") -> list[str]:
    """Where a value is not as the model has it."""
    if not isinstance(value, KINDS[shape.type_name]) or isinstance(value, bool) != (shape.type_name == "boolean"):
        return [f"{path}: {value!r} is no {shape.type_name}"]
    found: list[str] = []
    inside: list[tuple[str, Any, Shape]] = []
    if shape.type_name == "structure":
        found += [f"{path}.{name} is missing" for name in shape.required_members if name not in value]
        found += [f"{path}.{name} is not known" for name in value if name not in shape.members]
        inside = [(f".{name}", value[name], shape.members[name]) for name in value if name in shape.members]
    elif shape.type_name in ("list", "map"):
        several = isinstance(value, list)
        inside = [
            ("[]", one, shape.member if several else shape.value) for one in (value if several else value.values())
        ]
    elif getattr(shape, "enum", None) and value not in shape.enum:
        found = [f"{path}: {value}"]
    return found + [one for name, member, kind in inside for one in misfits(member, kind, path + name)]


def fits(operation: str, answer: Answer) -> Any:
    """The members of a good answer, once the model has them all and the parser has read them so."""
    assert answer.status == 200, answer.body
    assert misfits(answer.json, MODEL.operation_model(operation).output_shape) == []
    read = parsed(operation, answer)
    metadata = read.pop("ResponseMetadata")
    assert read == answer.json
    assert metadata["RequestId"] == answer.headers["X-Request-Id"]
    return answer.json


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """An error as SDKs have it, with what the log calls it; `waits` are (milliseconds, seconds)."""

    status: int
    code: str
    problem: str
    message: str
    waits: tuple[int, int] | None

    @property
    def kind(self) -> tuple[int, str, str]:
        return self.status, self.code, self.problem


def refusal(world: World, operation: str, answer: Answer) -> Refusal:
    """Once the model, the parser and the document have it so."""
    read = parsed(operation, answer)
    code, message = read["Error"]["Code"], read["Error"]["Message"]
    assert read["ResponseMetadata"]["HTTPStatusCode"] == answer.status
    assert read["ResponseMetadata"]["RequestId"] == answer.headers["X-Request-Id"]
    assert message == answer.json["message"] != ""
    modeled = MODEL.shape_for_error_code(code)
    assert (modeled is None) == (code == "TooManyRequestsException")
    if modeled is not None:
        assert parsed(operation, answer, modeled)["message"] == message
    problem = str(world.gateway.lines_of("request")[-1]["problem"])
    documented = contract().document["paths"].get(f"/v1/{operation.lower()}")
    assert documented is None or problem in documented["post"]["x-problems"]
    told = [answer.headers.get(name) for name in ("x-amz-retry-after", "Retry-After")]
    waits = (int(told[0]), int(told[1])) if told[0] and told[1] else None
    assert (waits is not None) == (answer.status in (429, 503))
    return Refusal(status=answer.status, code=code, problem=problem, message=message, waits=waits)


async def refused(world: World, operation: str, members: Mapping[str, Any], **how: Any) -> Refusal:
    return refusal(world, operation, await world.ask(operation, members, **how))


async def each_refused(
    world: World, operations: Iterable[str] = REQUESTS, *, data: bytes | None = None, **more: Any
) -> dict[str, Refusal]:
    """What becomes of a good request of each, or of `data`; jobs are such as only Batch knows."""
    found = {}
    for operation in operations:
        job = {"jobId": await world.made_by_another()} if operation in OF_A_JOB else {}
        members = {**REQUESTS[operation], **job, **more}
        found[operation] = await refused(world, operation, None if data else members, data=data)
    return found


def kinds(found: Mapping[str, Refusal]) -> dict[str, tuple[int, str, str]]:
    return {operation: one.kind for operation, one in found.items()}


def all_waits(found: Mapping[str, Refusal]) -> dict[str, tuple[int, int] | None]:
    return {operation: one.waits for operation, one in found.items()}


# ---- What is answered


async def test_a_submission_is_answered_with_what_the_model_has(world: World) -> None:
    submitted = fits("SubmitServiceJob", await world.ask("SubmitServiceJob", request(clientToken="t")))
    assert submitted.keys() == {"jobArn", "jobName", "jobId"}
    await world.forward()
    replayed = fits("SubmitServiceJob", await world.ask("SubmitServiceJob", request(clientToken="t")))
    assert replayed["jobId"] != submitted["jobId"]


async def test_a_job_is_described_with_what_the_model_has_however_it_stands(world: World) -> None:
    full = request(
        shareIdentifier=None,
        jobQueue="quota",
        quotaShareName="vision",
        schedulingPriority=3,
        retryStrategy={"attempts": 2, "evaluateOnExit": [{"action": "retry", "onStatusReason": "x*"}]},
        preemptionConfiguration={"preemptionRetriesBeforeTermination": 1},
        timeoutConfig={"attemptDurationSeconds": 60},
        tags={"team": "vision"},
    )
    found = {}
    for state in ("queued", "forwarded", "canceled", "rejected", "unknown"):
        one = (await world.ask("SubmitServiceJob", full)).headers["x-gateway-submission-id"]
        if state == "forwarded":
            await world.forward()
        elif state == "canceled":
            fits("TerminateServiceJob", await world.ask("TerminateServiceJob", {"jobId": one, "reason": "enough"}))
        elif state != "queued":
            await world.gateway.settle(REJECTED if state == "rejected" else UNKNOWN)
        found[state] = fits("DescribeServiceJob", await world.ask("DescribeServiceJob", {"jobId": one}))
        if state == "queued":
            await world.forward()
    echoed = ("retryStrategy", "preemptionConfiguration", "timeoutConfig", "quotaShareName", "schedulingPriority")
    assert [found["queued"][name] for name in echoed] == [found["forwarded"][name] for name in echoed]
    assert [one["status"] for one in found.values()] == ["SUBMITTED", "SUBMITTED", "FAILED", "FAILED", "FAILED"]


async def test_a_list_has_what_the_model_has(world: World) -> None:
    await world.submit(jobName="first")
    await world.forward()
    await world.submit(jobName="second")
    listed = fits("ListServiceJobs", await world.ask("ListServiceJobs", REQUESTS["ListServiceJobs"]))
    assert {job["jobName"] for job in listed["jobSummaryList"]} == {"first", "second"}
    page = fits("ListServiceJobs", await world.ask("ListServiceJobs", REQUESTS["ListServiceJobs"] | {"maxResults": 1}))
    assert page["nextToken"]


@pytest.mark.parametrize("whose", ["queued", "forwarded", "of another"])
async def test_changes_are_answered_with_what_the_model_has(world: World, whose: str) -> None:
    one = await world.made_by_another() if whose == "of another" else await world.submitted()
    if whose == "forwarded":
        await world.forward()
    updated = fits("UpdateServiceJob", await world.ask("UpdateServiceJob", {"jobId": one, "schedulingPriority": 5}))
    assert updated["jobId"] == one
    ended = await world.ask("TerminateServiceJob", {"jobId": one, "reason": "enough"})
    assert fits("TerminateServiceJob", ended) == {}


@pytest.mark.parametrize("seconds", [0.0, RUNNABLE_SECONDS, JOB_SECONDS / 2, JOB_SECONDS])
async def test_what_only_batch_knows_is_passed_on_as_it_is(world: World, seconds: float) -> None:
    for _ in range(2):
        await world.made_by_another(jobQueue="quota", shareIdentifier=None, quotaShareName="vision")
    job_id = await world.made_by_another(jobQueue="fair")
    world.clock.advance(seconds)
    snapshot = {"GetJobQueueSnapshot": {"jobQueue": "fair"}, "DescribeServiceJob": {"jobId": job_id}}
    for operation, members in [*((one, REQUESTS[one]) for one in ASKING_BATCH[4:]), *snapshot.items()]:
        answer = await world.ask(operation, members)
        assert fits(operation, answer) == await world.batch.operations.call(operation, members)
        assert answer.json
        assert answer.headers["Age"] == "0"


async def test_of_what_no_upstream_has_there_is_nothing(world: World) -> None:
    asked = {
        "DescribeJobQueues": {"jobQueues": ["no queue", f"{ELSEWHERE}job-queue/quota"]},
        "DescribeSchedulingPolicies": {"arns": ["quota", f"{ELSEWHERE}scheduling-policy/quota-quota"]},
    }
    for operation, members in asked.items():
        (answer,) = fits(operation, await world.ask(operation, members)).values()
        assert answer == []
        assert world.asked == []
    for operation, members in asked.items():
        both = {name: [*values, *REQUESTS[operation][name]] for name, values in members.items()}
        (answer,) = fits(operation, await world.ask(operation, both)).values()
        assert [one.get("jobQueueName", one.get("name")) for one in answer] in (["quota"], ["quota-quota"])


async def test_all_queues_are_described_to_who_names_none(world: World) -> None:
    for sent in ({"members": {}}, {"data": b""}, {"members": {"maxResults": 1}}):
        queues = fits("DescribeJobQueues", await world.ask("DescribeJobQueues", **sent))["jobQueues"]
        assert queues[0]["jobQueueName"] in ("fair", "quota")


# ---- What the caller must mend: ClientException, and no SDK repeats it

MALFORMED = (400, "ClientException", "malformed")
BROKEN = {
    "no JSON": b'{"jobId": "x"',
    "no object": b'["jobId"]',
    "a member twice": b'{"jobId": "a", "jobId": "b"}',
    "no UTF-8": b'{"jobId": "\xff"}',
    "half a character": b'{"jobId": "\\ud800"}',
}


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN)
async def test_a_body_that_makes_no_sense(world: World, body: bytes) -> None:
    assert kinds(await each_refused(world, data=body)) == dict.fromkeys(REQUESTS, MALFORMED)


async def test_a_body_that_is_too_long(world: World) -> None:
    found = await each_refused(world, more="x" * 300_000)
    assert kinds(found) == dict.fromkeys(REQUESTS, (400, "ClientException", "too-large"))


async def test_a_member_that_the_model_has_not_is_named(world: World) -> None:
    found = await each_refused(world, [one for one in REQUESTS if one != "ListServiceJobs"], moreOfIt=1)
    assert {(one.status, one.code, "moreOfIt" in one.message) for one in found.values()} == {
        (400, "ClientException", True)
    }


async def test_a_member_that_lists_have_not_is_named(world: World) -> None:
    answer = await world.ask("ListServiceJobs", {**REQUESTS["ListServiceJobs"], "moreOfIt": 1})
    assert answer.status == 400
    assert "moreOfIt" in refusal(world, "ListServiceJobs", answer).message


@pytest.mark.parametrize("operation", REQUESTS)
async def test_a_member_that_is_missing_or_of_another_type_is_named(world: World, operation: str) -> None:
    whole = REQUESTS[operation]
    required = {*MODEL.operation_model(operation).input_shape.required_members, *(whole.keys() & {"jobQueue"})}
    for member in required:
        for members in ({name: whole[name] for name in whole if name != member}, {**whole, member: True}):
            found = await refused(world, operation, members)
            assert (found.status, found.code, member in found.message) == (400, "ClientException", True), found
    assert world.asked == []


async def test_all_that_is_wrong_with_a_submission_is_said_at_once(world: World) -> None:
    asked = request(jobName="a b", schedulingPriority=-1, serviceRequestPayload='{"RoleArn": "x"}')
    found = await refused(world, "SubmitServiceJob", asked)
    assert found.kind == (400, "ClientException", "invalid-submission")
    for name in ("jobName", "schedulingPriority", "serviceRequestPayload.TrainingJobName"):
        assert name in found.message


async def test_all_that_is_wrong_with_a_change_is_said_at_once(world: World) -> None:
    found = await refused(world, "UpdateServiceJob", {"jobId": "", "schedulingPriority": 10_000})
    assert found.kind == (400, "ClientException", "invalid-change")
    assert "jobId: " in found.message
    assert "; schedulingPriority: " in found.message


@pytest.mark.parametrize(
    ("operation", "members"),
    [
        ("ListServiceJobs", {"jobQueue": "no queue"}),
        ("ListServiceJobs", {"jobQueue": "training", "nextToken": "none of ours"}),
        ("GetJobQueueSnapshot", {"jobQueue": "no queue"}),
        ("ListQuotaShares", {"jobQueue": "no queue"}),
        ("DescribeQuotaShare", {"quotaShareArn": "vision"}),
    ],
)
async def test_what_no_upstream_has_is_not_asked_of_batch(
    world: World, operation: str, members: dict[str, Any]
) -> None:
    assert (await refused(world, operation, members)).kind == MALFORMED
    assert world.asked == []


async def test_a_submission_that_is_too_long_for_batch(world: World) -> None:
    tags = {f"{number:0>100}": "\u00e9" * 100 for number in range(49)}  # six characters each, as they are sent
    found = await refused(world, "SubmitServiceJob", request(tags=tags))
    assert found.kind == (400, "ClientException", "too-large")


async def test_a_token_of_another_request_says_what_differs(world: World) -> None:
    await world.submit(clientToken="t")
    found = await refused(world, "SubmitServiceJob", request(clientToken="t", jobName="other", schedulingPriority=7))
    assert found.kind == (400, "ClientException", "token-reused")
    assert "jobName, schedulingPriority" in found.message


async def test_a_repeat_where_repeats_are_errors(client: Redis, prefix: str) -> None:
    async with batch_behind(client, prefix, duplicates="reject") as world:
        one = await world.submitted(clientToken="t")
        answer = await world.submit(clientToken="t")
        assert refusal(world, "SubmitServiceJob", answer).kind == (400, "ClientException", "duplicate-request")
        assert answer.headers["Location"] == f"/v1/submissions/{one}"


async def test_a_token_that_is_missing_where_one_is_required(client: Redis, prefix: str) -> None:
    async with batch_behind(client, prefix, require_token=True) as world:
        found = await refused(world, "SubmitServiceJob", request())
        assert (found.kind, found.message) == (MALFORMED, "clientToken: is required")


async def test_one_that_batch_rejected(world: World) -> None:
    await world.submitted(clientToken="t")
    await world.gateway.settle(REJECTED)
    found = await refused(world, "SubmitServiceJob", request(clientToken="t"))
    assert found.kind == (400, "ClientException", "upstream-refused")
    assert "ClientException: no such queue" in found.message


async def test_one_that_may_be_in_batch_unseen_is_not_changed(world: World) -> None:
    one = await world.submitted()
    await world.gateway.settle(UNKNOWN)
    found = await each_refused(world, OF_A_JOB[1:], jobId=one)
    assert kinds(found) == dict.fromkeys(OF_A_JOB[1:], (400, "ClientException", "already-final"))


async def test_one_that_is_to_end_has_no_priority_to_change(world: World) -> None:
    one = await world.submitted()
    await world.gateway.lease()
    await world.ask("TerminateServiceJob", {"jobId": one, "reason": "enough"})
    found = await refused(world, "UpdateServiceJob", {"jobId": one, "schedulingPriority": 5})
    assert found.kind == (400, "ClientException", "wrong-state")


@pytest.mark.parametrize("wanted", [STRANGER, own_arn(STRANGER), "no id at all", "x" * 2048])
async def test_what_nobody_knows_is_not_found(world: World, wanted: str) -> None:
    for operation in OF_A_JOB:
        found = await refused(world, operation, {**REQUESTS[operation], "jobId": wanted}, headers=VISION)
        assert found.kind == (404, "ClientException", "not-found")
        assert len(found.message) < 400
    assert world.asked == []


TAGS = f"/v1/tags/{quote(own_arn(STRANGER), safe='')}"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/listjobs"),
        ("POST", "/v1/submitjob"),
        ("POST", "/v1/describeservicejob/"),
        ("GET", TAGS),
        ("POST", TAGS),
        ("DELETE", f"{TAGS}?tagKeys=a"),
    ],
)
async def test_an_operation_that_the_gateway_has_not(world: World, method: str, path: str) -> None:
    for how in ({"body": {}}, {"data": b"no JSON"}):
        answer = await world.gateway.call(method, path, **how)
        assert refusal(world, "ListJobs", answer).kind == (404, "ClientException", "not-found")


@pytest.mark.parametrize("path", ["/v1/submissions/", "/v1/shares/", "/v1/upstreams/"])
async def test_the_gateways_own_paths_are_not_batchs(world: World, path: str) -> None:
    assert (await world.gateway.call("POST", path, {})).kind == (404, "not-found")


async def test_other_methods_are_the_gateways_own(world: World) -> None:
    answer = await world.gateway.call("GET", "/v1/describeservicejob")
    assert (answer.kind, answer.headers["Allow"]) == ((405, "method-not-allowed"), "POST")
    assert (await world.gateway.call("GET", "/v1/listjobs")).kind == (404, "not-found")


# ---- What passes by itself: SDKs wait as they are told, and repeat it

THROTTLED = (429, "TooManyRequestsException")
FAILED = (503, "ServerException")


async def test_a_process_with_too_much_in_hand(client: Redis, prefix: str) -> None:
    async with batch_behind(client, prefix, max_requests=0) as world:
        found = await each_refused(world)
        assert kinds(found) == dict.fromkeys(REQUESTS, (*THROTTLED, "too-many-requests"))
        assert all_waits(found) == dict.fromkeys(REQUESTS, (1000, 1))


async def test_a_share_over_its_rate_is_told_the_milliseconds(client: Redis, prefix: str) -> None:
    rule = ShareRule(queue="training", share="vision", limits=ShareLimits(rate=0.5, burst=1))
    async with batch_behind(client, prefix, rules=(rule,)) as world:
        await world.submit()
        answer = await world.submit()
        found = refusal(world, "SubmitServiceJob", answer)
        assert (found.kind, "share-rate" in found.message) == ((*THROTTLED, "rate-limited"), True)
        assert found.waits is not None
        assert 1000 < found.waits[0] <= 2000
        assert found.waits[1] == 2
        assert answer.headers["RateLimit-Policy"] == '"share-rate";q=1;w=2'


async def test_a_queue_with_too_many_shares(client: Redis, prefix: str) -> None:
    async with batch_behind(client, prefix, bounds=StoreBounds(max_shares_per_queue=1)) as world:
        await world.submit()
        found = await refused(world, "SubmitServiceJob", request(shareIdentifier="other"))
        assert found.kind == (*THROTTLED, "too-many-shares")


async def test_a_full_backlog(client: Redis, prefix: str) -> None:
    async with batch_behind(client, prefix, bounds=StoreBounds(max_queued=1)) as world:
        await world.submit()
        assert (await refused(world, "SubmitServiceJob", request())).kind == (*FAILED, "backlog-full")


async def test_an_upstream_that_takes_nothing(world: World) -> None:
    await world.gateway.call("PATCH", "/v1/upstreams/main", {"accepting": False})
    found = await refused(world, "SubmitServiceJob", request())
    assert (found.kind, found.waits) == ((*FAILED, "not-accepting"), (30_000, 30))


async def test_what_is_done_and_may_be_forgotten(world: World) -> None:
    one = await world.submitted()
    await world.forward()
    world.gateway.confirmer.how = lambda: Confirmation(waits=(("WAIT", 1, 50),), wanted=(1,))
    changing = ("SubmitServiceJob", "UpdateServiceJob", "TerminateServiceJob")
    found = {
        operation: await refused(
            world, operation, REQUESTS[operation] | ({"jobId": one} if operation in OF_A_JOB else {})
        )
        for operation in changing
    }
    assert kinds(found) == dict.fromkeys(changing, (*FAILED, "durability-unconfirmed"))
    assert all_waits(found) == dict.fromkeys(changing, (2000, 2))


async def test_without_the_store(tmp_path: Path) -> None:
    with running(valkey_binary(), tmp_path) as server:
        async with connect(server.url) as client, batch_behind(client, "p") as world:
            server.kill()
            found = await each_refused(world)
            assert kinds(found) == dict.fromkeys(REQUESTS, (*FAILED, "store-unavailable"))
            assert all_waits(found) == dict.fromkeys(REQUESTS, (2000, 2))


async def test_a_store_that_goes_away_while_a_submission_waits_takes_nothing_back(
    client: Redis, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> None:
        raise StoreUnavailableError("The store does not answer.")

    async with batch_behind(client, prefix, wait_seconds=5) as world:
        monkeypatch.setattr("gateway.core.lookup.Lookup.find_settled", away)
        answer = await world.submit()
        assert fits("SubmitServiceJob", answer)["jobId"] == answer.headers["x-gateway-submission-id"]


async def test_a_bug_of_ours(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("a secret bug")

    monkeypatch.setattr(batch_face, "_body", broken)
    found = await each_refused(world)
    assert kinds(found) == dict.fromkeys(REQUESTS, (500, "ServerException", "internal"))
    assert not any("secret" in one.message for one in found.values())
    assert all("a secret bug" in line["exception"] for line in world.gateway.lines_of("unexpected_error"))
    assert len(world.gateway.lines_of("unexpected_error")) == len(REQUESTS)


# ---- What Batch itself answers to who asks it through the gateway


def set_fault(world: World, kind: str, **members: Any) -> None:
    """Met by all that is only asked: a submission goes to Batch later, and meets nothing here."""
    world.emulator.set_faults(*(Fault(kind=kind, operation=operation, **members) for operation in ASKING_BATCH))


async def test_batch_that_refuses(world: World) -> None:
    set_fault(world, "client_error", message="it is not as Batch wants it")
    found = await each_refused(world, ASKING_BATCH)
    assert kinds(found) == dict.fromkeys(ASKING_BATCH, (400, "ClientException", "upstream-refused"))
    assert {one.message for one in found.values()} == {"it is not as Batch wants it"}


async def test_batch_that_denies(world: World) -> None:
    set_fault(world, "access_denied")
    found = await each_refused(world, ASKING_BATCH)
    assert kinds(found) == dict.fromkeys(ASKING_BATCH, (403, "ClientException", "upstream-denied"))
    assert all("the gateway's own role" in one.message for one in found.values())


@pytest.mark.parametrize("kind", ["throttle", "throttle_bare"])
async def test_batch_that_throttles(world: World, kind: str) -> None:
    set_fault(world, kind)
    found = await each_refused(world, ASKING_BATCH)
    assert kinds(found) == dict.fromkeys(ASKING_BATCH, (*THROTTLED, "too-many-reads"))
    assert all_waits(found) == dict.fromkeys(ASKING_BATCH, (1000, 1))


async def test_batch_that_throttles_and_says_how_long(world: World) -> None:
    set_fault(world, "throttle", retry_after_ms=2500)
    assert all_waits(await each_refused(world, ASKING_BATCH)) == dict.fromkeys(ASKING_BATCH, (2500, 3))


TROUBLE: dict[str, dict[str, Any]] = {
    "down": {"kind": "down"},
    "failing": {"kind": "error_500"},
    "failing, and saying how long": {"kind": "error_500", "status": 503, "retry_after_ms": 2500},
    "talking nonsense": {"kind": "error_200_garbage"},
    "not liking the credentials": {"kind": "credentials"},
}


@pytest.mark.parametrize("trouble", TROUBLE.values(), ids=TROUBLE)
async def test_batch_in_trouble(world: World, trouble: dict[str, Any]) -> None:
    set_fault(world, **trouble)
    found = await each_refused(world, ASKING_BATCH)
    assert kinds(found) == dict.fromkeys(ASKING_BATCH, (*FAILED, "upstream-unavailable"))
    assert all_waits(found) == dict.fromkeys(ASKING_BATCH, (2500, 3) if "retry_after_ms" in trouble else (1000, 1))


async def test_batch_that_cannot_be_reached(client: Redis, prefix: str) -> None:
    async with batch_behind(client, prefix, batch=NobodyThere()) as world:
        found = await each_refused(world, ASKING_BATCH)
        assert kinds(found) == dict.fromkeys(ASKING_BATCH, (*FAILED, "upstream-unavailable"))
        assert all("EndpointConnectionError" in one.message for one in found.values())
        assert (await world.submit()).status == 200


async def test_too_many_who_ask(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reads, "LONG_PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr(job_reads, "LONG_PATIENCE_SECONDS", 0.05)
    set_fault(world, "slow", seconds=60)
    asking = [one for one in ASKING_BATCH if one not in OF_A_JOB[1:]]  # those two change something, and wait for that
    found = await each_refused(world, asking)
    assert kinds(found) == dict.fromkeys(asking, (*THROTTLED, "too-many-reads"))
    assert all_waits(found) == dict.fromkeys(asking, (1000, 1))


async def test_an_older_answer_is_better_than_none_and_no_better_than_a_refusal(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = {operation: await world.ask(operation, REQUESTS[operation]) for operation in ASKING_BATCH[4:]}
    monkeypatch.setattr(reads, "FRESH_SECONDS", 0.0)
    for kind in ("down", "throttle", "access_denied"):
        set_fault(world, kind)
        for operation, before in first.items():
            assert fits(operation, await world.ask(operation, REQUESTS[operation])) == before.json
    set_fault(world, "client_error", message="it is gone")
    found = await each_refused(world, first)
    assert {one.message for one in found.values()} == {"it is gone"}


async def test_a_call_that_fails_when_nobody_waits_any_more_is_nothing_to_tell(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """asyncio itself would tell of a failure that nobody has heard of."""

    async def over() -> bool:
        return not any(task.get_name().startswith("read ") for task in asyncio.all_tasks())

    monkeypatch.setattr(reads, "LONG_PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr(job_reads, "LONG_PATIENCE_SECONDS", 0.05)
    asking = [one for one in ASKING_BATCH if one not in OF_A_JOB[1:]]
    world.emulator.set_faults(
        *(Fault(kind=kind, operation=one, seconds=60) for one in asking for kind in ("slow", "error_500"))
    )
    assert {one.status for one in (await each_refused(world, asking)).values()} == {429}
    world.clock.advance(60)
    await eventually(over)
    gc.collect()
    assert {line["event"] for line in world.gateway.lines} == {"request", "reads_failing"}
