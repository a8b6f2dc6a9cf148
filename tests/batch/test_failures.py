"""What each failure of a call proves, with aiobotocore against real sockets that misbehave."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest
from botocore.exceptions import (
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
)
from botocore.parsers import ResponseParserError

from gateway.batch.batch_client import Endpoint, open_batch_client
from gateway.batch.failures import CREDENTIAL_CODES, DENIED_CODES, THROTTLING_CODES, answer_of
from gateway.core.attempt import Answer, AnswerKind
from tests.batch.wire import (
    answering,
    close_after_reading,
    error_body,
    never_answer,
    peer,
    reset_after_reading,
    unused_url,
)

if TYPE_CHECKING:
    from tests.batch.wire import Behaviour

REQUEST = json.dumps(
    {
        "jobName": "j",
        "jobQueue": "q",
        "serviceJobType": "SAGEMAKER_TRAINING",
        "serviceRequestPayload": "{}",
        "clientToken": "t",
    }
).encode()


async def call(url: str, *, seconds: float = 5.0) -> Answer:
    endpoint = Endpoint(region="us-east-1", url=url, access_key_id="a", secret_access_key="s")
    async with open_batch_client(endpoint, concurrency=2, call_timeout_seconds=seconds) as batch:
        return await batch.submit(REQUEST)


async def call_peer(behaviour: Behaviour, *, seconds: float = 5.0) -> Answer:
    async with peer(behaviour) as url:
        return await call(url, seconds=seconds)


async def test_a_200_with_a_job_is_submitted() -> None:
    answer = await call_peer(answering(200, b'{"jobId": "J", "jobArn": "A", "jobName": "j"}'))
    assert answer == Answer(kind=AnswerKind.SUBMITTED, job_id="J", job_arn="A")


@pytest.mark.parametrize("body", [b"not json", b"{}", b""])
async def test_a_200_that_makes_no_sense_is_unclear(body: bytes) -> None:
    assert (await call_peer(answering(200, body))).kind is AnswerKind.UNCLEAR


async def test_a_refused_connection_sent_nothing() -> None:
    assert (await call(unused_url())).kind is AnswerKind.NOT_SENT


async def test_an_unknown_host_was_sent_nothing() -> None:
    assert (await call("http://batch.invalid")).kind is AnswerKind.NOT_SENT


async def test_a_failed_tls_handshake_sent_nothing() -> None:
    async with peer(_plain_text) as url:
        assert (await call(url.replace("http:", "https:"))).kind is AnswerKind.NOT_SENT


async def _plain_text(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(b"HTTP/1.1 400 this port speaks no TLS\r\n\r\n")
    await writer.drain()


@pytest.mark.parametrize("behaviour", [reset_after_reading, close_after_reading])
async def test_a_connection_lost_after_sending_is_unclear(behaviour: Behaviour) -> None:
    assert (await call_peer(behaviour)).kind is AnswerKind.UNCLEAR


async def test_silence_is_unclear_and_ends_in_time() -> None:
    async with asyncio.timeout(5):
        assert (await call_peer(never_answer, seconds=0.3)).kind is AnswerKind.UNCLEAR


@pytest.mark.parametrize("status", [301, 303, 307])
async def test_a_redirect_is_not_followed_and_unclear(status: int) -> None:
    calls = []

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        calls.append(1)
        await answering(status, b"", "Location: /elsewhere")(reader, writer)

    assert (await call_peer(count)).kind is AnswerKind.UNCLEAR
    assert len(calls) == 1


@pytest.mark.parametrize("job_id", [["a"], {"a": 1}, True, 7, "\ud800", "", "x" * 5000])
async def test_a_job_id_that_is_none_is_unclear(job_id: object) -> None:
    body = json.dumps({"jobId": job_id, "jobArn": "A", "jobName": "j"}).encode()
    assert (await call_peer(answering(200, body))).kind is AnswerKind.UNCLEAR


@pytest.mark.parametrize(
    ("status", "code", "message", "kind"),
    [
        (429, "TooManyRequestsException", "slow down", AnswerKind.THROTTLED),
        (400, "ThrottlingException", "Rate exceeded", AnswerKind.THROTTLED),
        (503, "SlowDown", "", AnswerKind.THROTTLED),
        (400, "ClientException", "no such queue", AnswerKind.REFUSED),
        (404, "ClientException", "no such thing", AnswerKind.REFUSED),
        (400, "ClientException", "Failed to create shareIdentifier vision", AnswerKind.TRANSIENT),
        (500, "ServerException", "Failed to create shareIdentifier vision", AnswerKind.TRANSIENT),
        (500, "ServerException", "", AnswerKind.UNCLEAR),
        (503, "ServiceUnavailable", "", AnswerKind.UNCLEAR),
        (408, "RequestTimeout", "", AnswerKind.UNCLEAR),
        (301, "PermanentRedirect", "", AnswerKind.UNCLEAR),
        (403, "AccessDeniedException", "not authorized to perform iam:PassRole", AnswerKind.DENIED),
        (403, "ExpiredTokenException", "", AnswerKind.CREDENTIALS),
        (403, "UnrecognizedClientException", "", AnswerKind.CREDENTIALS),
        (403, "InvalidSignatureException", "", AnswerKind.CREDENTIALS),
    ],
)
async def test_each_error_of_batch_proves_what_it_proves(
    status: int, code: str, message: str, kind: AnswerKind
) -> None:
    answer = await call_peer(answering(status, error_body(message), f"x-amzn-errortype: {code}"))
    assert (answer.kind, answer.code, answer.message) == (kind, code, message)


@pytest.mark.parametrize("status", [400, 404, 405, 413])
async def test_a_page_of_somebody_between_is_no_refusal_of_batchs(status: int) -> None:
    assert (await call_peer(answering(status, b"<html>no</html>"))).kind is AnswerKind.UNCLEAR


@pytest.mark.parametrize("body", [b"", b"<html>Too Many Requests</html>", b"{}"])
async def test_a_bare_429_is_a_throttle(body: bytes) -> None:
    assert (await call_peer(answering(429, body))).kind is AnswerKind.THROTTLED


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("x-amz-retry-after: 1500", 1.5),
        ("Retry-After: 3", 3.0),
        ("Retry-After: 86400", 60.0),
        ("Retry-After: Wed, 21 Oct 2026 07:28:00 GMT", 0.0),
        ("Retry-After: -5", 0.0),
        ("Retry-After: nan", 0.0),
    ],
)
async def test_the_wait_that_batch_tells_is_read_and_bounded(header: str, seconds: float) -> None:
    assert (await call_peer(answering(429, b"{}", header))).wait_seconds == seconds


@pytest.mark.parametrize(
    "error",
    [
        NoCredentialsError(),
        PartialCredentialsError(provider="env", cred_var="AWS_SECRET_ACCESS_KEY"),
        CredentialRetrievalError(provider="container", error_msg="gone"),
        ClientError({"Error": {"Code": "AccessDenied", "Message": "sts"}}, "AssumeRole"),
    ],
)
def test_credentials_that_cannot_be_had_are_no_denial(error: Exception) -> None:
    assert answer_of(error).kind is AnswerKind.CREDENTIALS


@pytest.mark.parametrize("error", [ResponseParserError("x"), RuntimeError("a bug"), OSError(104, "reset")])
def test_what_is_not_understood_is_unclear(error: Exception) -> None:
    assert answer_of(error).kind is AnswerKind.UNCLEAR


def test_no_code_has_two_meanings() -> None:
    assert not THROTTLING_CODES & CREDENTIAL_CODES
    assert not (THROTTLING_CODES | CREDENTIAL_CODES) & DENIED_CODES
