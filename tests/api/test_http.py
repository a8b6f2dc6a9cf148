"""HTTP around the calls: what the framework refuses, request ids, traces, health, and who may see what."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.core.caller import Caller
from gateway.core.identity import SubmissionId
from tests.contract.document import PATH
from tests.contract.in_process import in_process_gateway
from tests.examples import submission

if TYPE_CHECKING:
    from aiohttp import web
    from redis.asyncio import Redis

    from tests.contract.in_process import InProcessGateway

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE_ID}-b7ad6b7169203331-01"


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/submissions/", "/v1/submissions/a/b", "/docs"])
async def test_an_unknown_path_is_a_problem(gateway: InProcessGateway, path: str) -> None:
    assert (await gateway.get(path)).kind == (404, "not-found")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/v1/submissions", "GET, HEAD, POST"),
        ("GET", "/v1/submissions/batch", "POST"),
        ("GET", "/v1/submissions/fb8b5596-d40f-8a2b-8937-a9c8da8f26ae/cancel", "POST"),
        ("DELETE", "/v1/submissions/fb8b5596-d40f-8a2b-8937-a9c8da8f26ae", "GET, HEAD, PATCH"),
        ("OPTIONS", "/v1/shares", "GET, HEAD"),
        ("POST", "/v1/shares/training/vision", "GET, HEAD, PATCH"),
        ("POST", "/livez", "GET, HEAD"),
        ("TRACE", "/openapi.yaml", "GET, HEAD"),
    ],
)
async def test_another_method_is_a_problem_that_names_the_right_ones(
    gateway: InProcessGateway, method: str, path: str, allow: str
) -> None:
    answer = await gateway.call(method, path)
    assert (answer.kind, answer.headers["Allow"]) == ((405, "method-not-allowed"), allow)


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/openapi.yaml", "/v1/shares"])
async def test_head_is_get_without_a_body(gateway: InProcessGateway, path: str) -> None:
    answer = await gateway.call("HEAD", path)
    assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize("sent", ["r-1", "x" * 128, "!#$%&'*+-.^_`|~"])
async def test_the_callers_request_id_is_answered_and_logged(gateway: InProcessGateway, sent: str) -> None:
    for answer in (
        await gateway.post(headers={"X-Request-Id": sent}),
        await gateway.get("/nowhere", headers={"X-Request-Id": sent}),
        await gateway.get("/livez", headers={"X-Request-Id": sent}),
    ):
        assert answer.headers["X-Request-Id"] == sent
    assert [line["request_id"] for line in gateway.lines_of("request")] == [sent, sent]


@pytest.mark.parametrize("sent", [None, "", "two words", "x" * 129, "ä", "a\tb"])
async def test_without_a_proper_request_id_one_is_made(gateway: InProcessGateway, sent: str | None) -> None:
    headers = {} if sent is None else {"X-Request-Id": sent}
    made = {(await gateway.post(headers=headers)).headers["X-Request-Id"] for _ in range(2)}
    assert len(made) == 2
    assert sent not in made
    assert {line["request_id"] for line in gateway.lines_of("request")} == made


async def test_a_trace_is_stored_and_logged(gateway: InProcessGateway) -> None:
    answer = await gateway.post(headers={"traceparent": TRACEPARENT})
    found = await gateway.store.get(SubmissionId(answer.json["submissionId"]))
    assert found is not None
    assert (found.traceparent, found.trace_id) == (TRACEPARENT, TRACE_ID)
    assert gateway.lines_of("request")[0]["trace_id"] == TRACE_ID


@pytest.mark.parametrize(
    "sent",
    [
        "nonsense",
        f"ff-{TRACE_ID}-b7ad6b7169203331-01",
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        TRACEPARENT.upper(),
        TRACEPARENT[:-1],
    ],
)
async def test_a_trace_of_another_form_is_ignored(gateway: InProcessGateway, sent: str) -> None:
    answer = await gateway.post(headers={"traceparent": sent})
    found = await gateway.store.get(SubmissionId(answer.json["submissionId"]))
    assert found is not None
    assert found.traceparent is None
    assert gateway.lines_of("request")[0]["trace_id"] is None


async def test_ready_is_not_live(gateway: InProcessGateway) -> None:
    assert (await gateway.get("/readyz")).json == {"status": "ready"}
    gateway.missing.append("The store evicts keys when full.")
    answer = await gateway.get("/readyz")
    assert (answer.kind, answer.json["detail"]) == ((503, "not-ready"), "The store evicts keys when full.")
    assert (await gateway.get("/livez")).json == {"status": "live"}


async def test_the_contract_is_served_as_it_is(gateway: InProcessGateway) -> None:
    answer = await gateway.get("/openapi.yaml")
    assert answer.body == PATH.read_bytes()
    assert answer.headers["Content-Type"] == "application/yaml; charset=utf-8"


class ByHeader:
    """Callers as a test names them: no operators."""

    async def caller(self, request: web.Request) -> Caller:
        name = request.headers.get("X-Test-Caller", "nobody")
        return Caller(name=name, namespace=f"{name}-space", operator=name == "operator")


async def test_nothing_of_one_namespace_is_visible_to_another(client: Redis, prefix: str) -> None:
    async with in_process_gateway(client, prefix, authenticator=ByHeader()) as gateway:
        ours, theirs, operators = ({"X-Test-Caller": name} for name in ("us", "them", "operator"))
        made = (await gateway.post(submission(clientToken="t"), headers=ours)).json["submissionId"]
        assert (await gateway.show(made, headers=ours)).status == 200
        assert (await gateway.show(made, headers=operators)).status == 200
        hidden = await gateway.show(made, headers=theirs)
        other = made[:-1] + ("1" if made[-1] == "0" else "0")
        unknown = await gateway.show(other, headers=theirs)
        assert hidden.kind == unknown.kind == (404, "not-found")
        assert hidden.json["detail"].replace(made, "") == unknown.json["detail"].replace(other, "")


async def test_the_same_token_of_two_namespaces_names_two_submissions(client: Redis, prefix: str) -> None:
    async with in_process_gateway(client, prefix, authenticator=ByHeader()) as gateway:
        body = submission(clientToken="t")
        ours, theirs = [(await gateway.post(body, headers={"X-Test-Caller": name})) for name in ("us", "them")]
        assert ours.status == theirs.status == 202
        assert ours.json["submissionId"] != theirs.json["submissionId"]
        assert [line["principal"] for line in gateway.lines_of("request")] == ["us", "them"]


async def test_a_body_is_not_read_before_its_caller_is_known(client: Redis, prefix: str) -> None:
    seen: list[bool] = []

    class Looks(ByHeader):
        async def caller(self, request: web.Request) -> Caller:
            seen.append(request._read_bytes is not None)
            return await super().caller(request)

    async with in_process_gateway(client, prefix, authenticator=Looks()) as gateway:
        assert (await gateway.post_text("{")).status == 400
    assert seen == [False]
