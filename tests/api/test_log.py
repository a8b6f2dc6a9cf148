"""One line per request, however it ends, and nothing in it that should not be there."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Any

import pytest

from gateway.events import COMMON, EVENTS
from tests.conftest import eventually
from tests.contract.in_process import in_process_gateway
from tests.examples import submission, training_job

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from tests.contract.in_process import InProcessGateway

MARK = "hunter2-5ecret"
TOKEN = "t0ken-of-the-caller"


async def test_a_request_line_says_what_it_was_about(gateway: InProcessGateway) -> None:
    made = (await gateway.post(submission(clientToken="t"))).json
    await gateway.post(submission(clientToken="t"))
    await gateway.show(made["submissionId"])
    first, again, shown = gateway.lines_of("request")
    assert first == {
        **first,
        "level": "info",
        "method": "POST",
        "route": "/v1/submissions",
        "status": 202,
        "principal": "anonymous",
        "submission_id": made["submissionId"],
        "share": "training/vision",
        "replayed": False,
        "problem": None,
    }
    assert (again["status"], again["replayed"], again["submission_id"]) == (202, True, made["submissionId"])
    assert (shown["route"], shown["share"], shown["status"]) == ("/v1/submissions/{id}", "training/vision", 200)
    assert all(line["duration_ms"] > 0 for line in (first, again, shown))
    assert first.keys() == EVENTS["request"][1].keys() | COMMON.keys()


async def test_every_request_has_exactly_one_line_errors_too(gateway: InProcessGateway) -> None:
    async def one_more(method: str, path: str, status: int, problem: str, **how: Any) -> dict[str, Any]:
        before = len(gateway.lines)
        answer = await gateway.call(method, path, **how)
        (line,) = gateway.lines[before:]
        assert (answer.status, line["event"], line["status"], line["problem"]) == (status, "request", status, problem)
        return line

    body = submission(clientToken="t")
    await gateway.post(body)
    assert (await one_more("GET", "/nowhere", 404, "not-found"))["route"] is None
    await one_more("PUT", "/v1/submissions", 405, "method-not-allowed")
    await one_more("POST", "/v1/submissions", 415, "not-json", data=b"x")
    await one_more("POST", "/v1/submissions", 422, "invalid-submission", body={})
    line = await one_more("POST", "/v1/submissions", 422, "token-reused", body={**body, "jobName": "other"})
    assert line["submission_id"]
    assert line["share"] == "training/vision"
    await one_more("GET", "/v1/submissions/no-uuid", 404, "not-found")
    gateway.missing.append("Something.")
    assert (await one_more("GET", "/readyz", 503, "not-ready"))["route"] == "/readyz"


async def test_health_checks_log_nothing_when_fine(gateway: InProcessGateway) -> None:
    await gateway.get("/livez")
    await gateway.get("/readyz")
    assert gateway.lines == []


async def test_a_caller_that_hangs_up_is_no_bug_of_ours(gateway: InProcessGateway) -> None:
    head = "POST /v1/submissions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"

    async def told() -> bool:
        return bool(gateway.lines_of("request"))

    _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(head.encode())
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    await eventually(told)
    (line,) = gateway.lines
    assert (line["status"], line["problem"]) == (400, "malformed")


async def test_what_is_no_http_is_told_without_its_words(
    gateway: InProcessGateway, capfd: pytest.CaptureFixture[str]
) -> None:
    answer = await gateway.raw(f"GET /livez HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {MARK}\x01\r\n\r\n".encode())
    assert b"400 Bad Request" in answer
    (line,) = gateway.lines_of("library_warning")
    assert (line["logger"], line["level"]) == ("aiohttp.server", "warning")
    assert MARK not in gateway.log.getvalue()
    assert not any(capfd.readouterr())


SECRET_PAYLOAD = {
    **training_job(),
    "HyperParameters": {"password": MARK},
    "Environment": {"AWS_SECRET_ACCESS_KEY": MARK},
}
TELLING: dict[str, Any] = {
    "a good one": submission(serviceRequestPayload=SECRET_PAYLOAD),
    "another payload for the token": submission(
        serviceRequestPayload={**SECRET_PAYLOAD, "Environment": {"KEY": MARK * 2}}
    ),
    "a wrong place": submission(
        serviceRequestPayload={**SECRET_PAYLOAD, "RoleArn": MARK, "TrainingJobName": f"_{MARK}"}
    ),
    "a wrong type": submission(
        serviceRequestPayload={**SECRET_PAYLOAD, "Environment": [MARK], "HyperParameters": MARK}
    ),
    "too long": submission(serviceRequestPayload={**training_job(), "Environment": {"KEY": MARK * 1000}}),
    "an enumeration": submission(
        serviceRequestPayload={
            **training_job(),
            "ResourceConfig": {"InstanceType": f"{MARK} " * 9, "InstanceCount": 1, "VolumeSizeInGB": 50},
        }
    ),
    "in a string": submission(serviceRequestPayload=json.dumps(SECRET_PAYLOAD)[:-1]),
    "as every value": {name: {"x": MARK} if name == "tags" else MARK for name in submission(tags={})},
    "as nested values": submission(
        retryStrategy={"attempts": MARK, "evaluateOnExit": [{"action": MARK, "onStatusReason": f"{MARK}\n"}]},
        timeoutConfig={"attemptDurationSeconds": MARK},
        tags={"a": MARK * 100, "aws:b": MARK},
        shareIdentifier=f"{MARK}\n",
    ),
}


@pytest.mark.parametrize("policy", ["strict", "warn", "off"])
async def test_no_payload_token_or_secret_is_told(
    client: Redis, prefix: str, policy: Any, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    headers = {"Authorization": f"Bearer {MARK}", "Idempotency-Key": TOKEN, "Cookie": MARK}
    async with in_process_gateway(client, prefix, payload_policy=policy) as gateway:
        for name, body in TELLING.items():
            answer = await gateway.post(body, headers=headers)
            if answer.status >= 400 or name != "as every value":
                assert MARK not in answer.body.decode(), name
        for text in (f'{{"clientToken": "{MARK}', f'{{"a": "{MARK}", "a": "{MARK}"}}', f'"{MARK}"', f"{MARK}"):
            answer = await gateway.post_text(text, **headers)
            assert answer.kind == (400, "malformed")
            assert MARK not in answer.body.decode()
        answer = await gateway.post(submission(clientToken=MARK), headers=headers)
        assert (answer.status, MARK in answer.body.decode()) == (422, False)
        await gateway.get(f"/v1/submissions/no-uuid?key={MARK}", headers=headers)
        assert len(gateway.lines_of("request")) == len(TELLING) + 6
        captured = capfd.readouterr()
        for told in (gateway.log.getvalue(), captured.out, captured.err, caplog.text):
            assert MARK not in told
            assert TOKEN not in told
