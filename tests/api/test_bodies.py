"""What a body may be: strict JSON, Batch's rules all at once, SageMaker's, and the sizes as they will be sent."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from gateway.core.identity import SubmissionId
from gateway.core.submission import MAX_PAYLOAD_BYTES, MAX_REQUEST_BYTES
from tests.contract.in_process import InProcessGateway, in_process_gateway
from tests.examples import submission, training_job

if TYPE_CHECKING:
    from redis.asyncio import Redis

PLACEHOLDER = '"serviceRequestPayload": 0'


def body_with_payload(text: str) -> str:
    """A body that holds this as its payload, letter by letter."""
    body = json.dumps(submission(serviceRequestPayload=0))
    assert PLACEHOLDER in body
    return body.replace(PLACEHOLDER, f'"serviceRequestPayload": {text}')


def body_with(member: str) -> str:
    return f"{json.dumps(submission())[:-1]}, {member}}}"


def padded_payload(size: int) -> str:
    """A valid payload of exactly so many bytes; white space counts, as a string is sent as it is."""
    text = json.dumps(training_job())
    return text + " " * (size - len(text.encode()))


NOT_JSON: dict[str, str | bytes] = {
    "empty": "",
    "cut off": json.dumps(submission())[:-1],
    "two values": "{} {}",
    "single quotes": "{'jobName': 'resnet'}",
    "trailing comma": '{"jobName": "resnet",}',
    "not UTF-8": b'{"jobName": "\xff"}',
    "UTF-16": json.dumps(submission()).encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf" + json.dumps(submission()).encode(),
    "NaN": body_with_payload('{"a": NaN}'),
    "Infinity": body_with_payload('{"a": -Infinity}'),
    "half a surrogate pair": body_with_payload(r'{"a": "\ud83d"}'),
    "half a surrogate pair in a name": body_with(r'"\ude00": 1'),
    "a number of 5000 digits": body_with_payload('{"a": ' + "9" * 5000 + "}"),
    "nested 100000 deep": body_with_payload("[" * 100_000 + "]" * 100_000),
    "the same member twice": body_with('"jobName": "resnet"'),
    "the same member twice, deep inside": body_with_payload('{"ResourceConfig": {"a": 1, "a": 1}}'),
    "the same member twice, spelled otherwise": body_with(r'"job\u004eame": "resnet"'),
}


@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON.keys())
async def test_what_is_not_strict_json_is_malformed(gateway: InProcessGateway, body: str | bytes) -> None:
    assert (await gateway.post_text(body)).kind == (400, "malformed")


@pytest.mark.parametrize("body", ["[]", "1", '"text"', "null", "true"])
async def test_what_is_no_object_is_malformed(gateway: InProcessGateway, body: str) -> None:
    assert (await gateway.post_text(body)).kind == (400, "malformed")


async def test_a_member_that_is_named_twice_is_named_in_the_answer(gateway: InProcessGateway) -> None:
    answer = await gateway.post_text(body_with('"clientToken": "a", "clientToken": "hunter2"'))
    assert "clientToken" in answer.json["detail"]
    assert "hunter2" not in answer.body.decode()


async def test_a_whole_surrogate_pair_is_a_character(gateway: InProcessGateway) -> None:
    payload = {**training_job(), "Environment": {"MOOD": "🙂"}}
    answer = await gateway.post_text(json.dumps(submission(serviceRequestPayload=payload), ensure_ascii=True))
    assert answer.status == 202


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON; charset=utf-8", "application/x+json"])
async def test_json_goes_by_several_names(gateway: InProcessGateway, content_type: str) -> None:
    assert (await gateway.post_text(json.dumps(submission()), content_type)).status == 202


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "application/octet-stream"]
)
async def test_another_content_type_is_refused(gateway: InProcessGateway, content_type: str) -> None:
    assert (await gateway.post_text(json.dumps(submission()), content_type)).kind == (415, "not-json")


async def test_a_body_that_is_not_compressed_as_it_says_is_malformed(gateway: InProcessGateway) -> None:
    answer = await gateway.post_text(b"no gzip", **{"Content-Encoding": "gzip"})
    assert answer.kind == (400, "malformed")


WRONG: dict[str, tuple[dict[str, Any], list[str]]] = {
    "everything": (
        {
            "jobName": "a b",
            "jobQueue": "?",
            "serviceJobType": "OTHER",
            "serviceRequestPayload": 5,
            "shareIdentifier": 5,
            "quotaShareName": "ä",
            "schedulingPriority": 10000,
            "retryStrategy": {
                "attempts": 11,
                "evaluateOnExit": [{"action": "STOP", "onStatusReason": "a\nb"}, {"onExitCode": "1"}],
            },
            "preemptionConfiguration": {"preemptionRetriesBeforeTermination": -1},
            "timeoutConfig": {"attemptDurationSeconds": 0},
            "tags": {"AWS:a": "b", "k" * 129: "v", "c": "x" * 257, "d": None, "": ""},
            "clientToken": "x" * 65,
            "more": 1,
        },
        [
            "/clientToken",
            "/jobName",
            "/jobQueue",
            "/more",
            "/preemptionConfiguration/preemptionRetriesBeforeTermination",
            "/quotaShareName",
            "/quotaShareName",
            "/retryStrategy/attempts",
            "/retryStrategy/evaluateOnExit/0/action",
            "/retryStrategy/evaluateOnExit/0/onStatusReason",
            "/retryStrategy/evaluateOnExit/1/onExitCode",
            "/schedulingPriority",
            "/serviceJobType",
            "/serviceRequestPayload",
            "/shareIdentifier",
            "/tags/",
            "/tags/AWS:a",
            "/tags/c",
            "/tags/d",
            "/tags/" + "k" * 129,
            "/timeoutConfig/attemptDurationSeconds",
        ],
    ),
    "nothing": (
        dict.fromkeys(("jobName", "jobQueue", "serviceJobType", "serviceRequestPayload")),
        ["/jobName", "/jobQueue", "/serviceJobType", "/serviceRequestPayload"],
    ),
    "inside the payload too": (
        {"jobName": "", "serviceRequestPayload": {"TrainingJobName": "a_b", "ResourceConfig": {"Volume": 1}}},
        [
            "/jobName",
            "/serviceRequestPayload/OutputDataConfig",
            "/serviceRequestPayload/ResourceConfig/Volume",
            "/serviceRequestPayload/RoleArn",
            "/serviceRequestPayload/TrainingJobName",
        ],
    ),
    "both shares": ({"quotaShareName": "a"}, ["/quotaShareName"]),
    "attempts missing": ({"retryStrategy": {"evaluateOnExit": []}}, ["/retryStrategy/attempts"]),
    "six conditions": (
        {"retryStrategy": {"attempts": 1, "evaluateOnExit": [{"action": "EXIT"}] * 6}},
        ["/retryStrategy/evaluateOnExit"],
    ),
    "slashes in names": ({"a/b~c": 1, "tags": {"x/y~z": 5}}, ["/a~1b~0c", "/tags/x~1y~0z"]),
    "true is no number": ({"schedulingPriority": True}, ["/schedulingPriority"]),
    "620.5 is no integer": ({"schedulingPriority": 620.5}, ["/schedulingPriority"]),
    "a number in a string": ({"schedulingPriority": "620"}, ["/schedulingPriority"]),
}


@pytest.mark.parametrize(("change", "pointers"), WRONG.values(), ids=WRONG.keys())
async def test_all_that_is_wrong_is_said_at_once(
    gateway: InProcessGateway, change: dict[str, Any], pointers: list[str]
) -> None:
    answer = await gateway.post(submission(**change))
    assert (answer.kind, sorted(answer.pointers)) == ((422, "invalid-submission"), sorted(pointers))
    assert (await gateway.store.pace())["queued"] == 0


async def test_an_unknown_member_is_never_ignored(gateway: InProcessGateway) -> None:
    for value in (1, None, {}, []):
        answer = await gateway.post({**submission(), "jobname": value})
        assert (answer.kind, answer.pointers) == ((422, "invalid-submission"), ["/jobname"])


@pytest.mark.parametrize(
    "queue",
    [
        "arn:aws:batch:us-east-1:999999999999:job-queue/training",
        "arn:aws:batch:eu-west-1:123456789012:job-queue/training",
    ],
)
async def test_a_queue_of_a_foreign_account_or_region_is_refused(gateway: InProcessGateway, queue: str) -> None:
    answer = await gateway.post(submission(jobQueue=queue))
    assert (answer.kind, answer.pointers) == ((422, "invalid-submission"), ["/jobQueue"])


@pytest.mark.parametrize(
    "queue",
    [
        "",
        "-training",
        "training\n",
        "x" * 129,
        "a/b",
        "arn:aws:batch:us-east-1:123456789012:job-definition/training",
        "arn:aws:batch:us-east-1:123456789012:job-queue/",
    ],
)
async def test_what_names_no_queue_is_refused(gateway: InProcessGateway, queue: str) -> None:
    answer = await gateway.post(submission(jobQueue=queue))
    assert (answer.kind, answer.pointers) == ((422, "invalid-submission"), ["/jobQueue"])


@pytest.mark.parametrize(
    "text",
    ["", "no JSON", "[]", "null", '"text"', '{"a": NaN}', r'{"a": "\ud83d"}', '{"a": 1, "a": 1}', "[" * 100_000],
    ids=range(9),
)
async def test_a_payload_string_that_holds_no_json_object_is_invalid(gateway: InProcessGateway, text: str) -> None:
    answer = await gateway.post(submission(serviceRequestPayload=text))
    assert (answer.kind, answer.pointers) == ((422, "invalid-submission"), ["/serviceRequestPayload"])


@pytest.mark.parametrize("number", ["9007199254740992", "-9007199254740993", "1e400", "9" * 400])
async def test_a_number_that_json_does_not_carry_exactly_is_invalid(client: Redis, prefix: str, number: str) -> None:
    async with in_process_gateway(client, prefix, payload_policy="off") as gateway:
        answer = await gateway.post_text(body_with_payload(f'{{"a": {number}}}'))
        assert (answer.kind, answer.pointers) == ((422, "invalid-submission"), ["/serviceRequestPayload"])


@pytest.mark.parametrize("policy", ["strict", "off"])
async def test_no_depth_of_nesting_is_a_bug_of_ours(client: Redis, prefix: str, policy: Any) -> None:
    async with in_process_gateway(client, prefix, payload_policy=policy) as gateway:
        for depth in [100, 250, 260, 500, *range(950, 1000, 2)]:
            nested = '{"a": ' * depth + "1" + "}" * depth
            for payload in (nested, json.dumps(nested)):
                assert (await gateway.post_text(body_with_payload(payload))).status < 500
        assert not gateway.lines_of("unexpected_error")


async def test_the_payload_may_be_10_kib_as_it_is_sent(gateway: InProcessGateway) -> None:
    body = submission(serviceRequestPayload=padded_payload(MAX_PAYLOAD_BYTES))
    assert (await gateway.post(body)).status == 202
    body = submission(serviceRequestPayload=padded_payload(MAX_PAYLOAD_BYTES + 1))
    answer = await gateway.post(body)
    assert (answer.kind, answer.pointers) == ((422, "invalid-submission"), ["/serviceRequestPayload"])


async def test_white_space_around_an_object_does_not_count(gateway: InProcessGateway) -> None:
    text = json.dumps(submission(), indent=8).replace("\n", "\n" + " " * 500)
    assert len(text) > MAX_PAYLOAD_BYTES
    assert (await gateway.post_text(text)).status == 202


async def test_a_payload_counts_in_bytes_of_utf_8(client: Redis, prefix: str) -> None:
    async with in_process_gateway(client, prefix, payload_policy="off") as gateway:
        room = (MAX_PAYLOAD_BYTES - len('{"a":""}')) // len("é".encode())
        assert (await gateway.post(submission(serviceRequestPayload={"a": "é" * (room // 3)}))).status == 202
        answer = await gateway.post(submission(serviceRequestPayload={"a": "é" * (room + 1)}))
        assert (answer.kind, answer.pointers) == ((422, "invalid-submission"), ["/serviceRequestPayload"])


async def test_the_whole_request_may_be_30_kib_as_it_is_sent_with_our_tag(gateway: InProcessGateway) -> None:
    def body(token: str, filling: int) -> dict[str, Any]:
        tags = {f"{number:03}" + "k" * 125: "v" * 256 for number in range(48)}
        tags["000" + "k" * 125] = "é" * 235  # six bytes each, as botocore writes them
        tags["filling"] = "v" * filling
        return submission(clientToken=token, tags=tags, serviceRequestPayload=padded_payload(MAX_PAYLOAD_BYTES - 100))

    made = (await gateway.post(body("first", 0))).json
    found = await gateway.store.get(SubmissionId(made["submissionId"]))
    assert found is not None
    assert made["submissionId"] in found.request.decode()
    room = MAX_REQUEST_BYTES - len(found.request)
    assert 0 < room < 256
    assert (await gateway.post(body("fits", room))).status == 202
    assert (await gateway.post(body("does not", room + 1))).kind == (413, "too-large")


async def test_a_body_that_could_never_become_a_request_is_not_read_to_its_end(gateway: InProcessGateway) -> None:
    assert (await gateway.post_text(" " * 300_000)).kind == (413, "too-large")


async def test_callers_have_49_of_batchs_50_tags(gateway: InProcessGateway) -> None:
    tags = {f"t{number}": "v" for number in range(49)}
    assert (await gateway.post(submission(tags=tags))).status == 202
    answer = await gateway.post(submission(tags={**tags, "one": "more"}))
    assert (answer.kind, answer.pointers) == ((422, "invalid-submission"), ["/tags"])
    assert "49" in answer.json["errors"][0]["detail"]


async def test_the_gateways_own_tag_is_reserved(gateway: InProcessGateway) -> None:
    answer = await gateway.post(submission(tags={"gateway:submission-id": "mine"}))
    assert (answer.kind, answer.pointers) == ((422, "invalid-submission"), ["/tags/gateway:submission-id"])


NEW_INSTANCE = {
    **training_job(),
    "ResourceConfig": {"InstanceType": "ml.g99.huge", "InstanceCount": 1, "VolumeSizeInGB": 50},
}
HERE = "/serviceRequestPayload/ResourceConfig/InstanceType"


async def test_an_unknown_value_of_an_enumeration_is_taken_with_a_warning(gateway: InProcessGateway) -> None:
    answer = await gateway.post(submission(clientToken="t", serviceRequestPayload=NEW_INSTANCE))
    assert (answer.status, [one["pointer"] for one in answer.json["warnings"]]) == (202, [HERE])
    assert (await gateway.show(answer.json["submissionId"])).json["warnings"] == answer.json["warnings"]


async def test_a_warning_stands_beside_no_error(gateway: InProcessGateway) -> None:
    answer = await gateway.post(submission(jobName="", serviceRequestPayload=NEW_INSTANCE))
    assert (answer.status, answer.pointers) == (422, ["/jobName"])


async def test_the_payload_check_can_warn_only(client: Redis, prefix: str) -> None:
    async with in_process_gateway(client, prefix, payload_policy="warn") as gateway:
        answer = await gateway.post(
            submission(serviceRequestPayload={**NEW_INSTANCE, "TrainingJobName": "a_b", "x": 1})
        )
        assert (answer.status, {one["pointer"] for one in answer.json["warnings"]}) == (
            202,
            {HERE, "/serviceRequestPayload/TrainingJobName", "/serviceRequestPayload/x"},
        )
        answer = await gateway.post(submission(serviceRequestPayload="no JSON"))
        assert answer.kind == (422, "invalid-submission")


async def test_the_payload_check_can_be_off(client: Redis, prefix: str) -> None:
    async with in_process_gateway(client, prefix, payload_policy="off") as gateway:
        answer = await gateway.post(submission(serviceRequestPayload={"TrainingJobName": "a_b", "x": 1}))
        assert (answer.status, answer.json["warnings"]) == (202, [])
        answer = await gateway.post(submission(serviceRequestPayload=padded_payload(MAX_PAYLOAD_BYTES + 1)))
        assert answer.kind == (422, "invalid-submission")
