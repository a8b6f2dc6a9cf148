"""openapi.yaml: sound in itself, and of one mind with the routes and the table of problems."""

from __future__ import annotations

import re
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import botocore.session
import jsonschema_rs
import pytest

from gateway.api import batch_errors, problems
from gateway.api.app import make_app
from tests.contract.document import UndocumentedError, contract

if TYPE_CHECKING:
    from collections.abc import Iterator

    from botocore.model import Shape

DOCUMENT = contract().document
BATCH_FACE = "Batch's own face"
# What only Batch's own face can meet: there the log names it, and no problem is answered.
UNANSWERED = {"upstream-refused", "upstream-denied", "too-many-reads", "upstream-unavailable"}


def nodes(node: Any = DOCUMENT, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    if isinstance(node, dict):
        yield path, node
        for name, member in node.items():
            yield from nodes(member, (*path, str(name)))
    elif isinstance(node, list):
        for position, item in enumerate(node):
            yield from nodes(item, (*path, str(position)))


def responses() -> Iterator[tuple[str, int, dict[str, Any]]]:
    for method, path, operation in contract().operations():
        for status, response in operation["responses"].items():
            yield f"{method} {path}", int(status), contract().resolved(response)


def batch_operations() -> list[dict[str, Any]]:
    return [operation for *_, operation in contract().operations() if operation["tags"] == [BATCH_FACE]]


def batch_table() -> dict[str, tuple[int, str]]:
    """Status and code of each slug, as the table of Batch's own face has them."""
    (text,) = [tag["description"] for tag in DOCUMENT["tags"] if tag["name"] == BATCH_FACE]
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \| ([^|]+) \|", text, re.MULTILINE)
    return {slug: (int(status), code) for status, code, cell in rows for slug in re.findall(r"`([a-z-]+)`", cell)}


def slugs_in(schema: dict[str, Any]) -> set[str]:
    """The kinds of problem that a response's schema allows."""
    schema = contract().resolved(schema)
    (narrowed,) = [one["properties"]["type"] for one in schema["allOf"] if "properties" in one]
    return {one.removeprefix("/problems/") for one in narrowed.get("enum", [narrowed.get("const")])}


def test_every_reference_leads_somewhere_and_every_component_is_used() -> None:
    used = {node["$ref"] for _, node in nodes() if isinstance(node.get("$ref"), str)}
    for reference in used:
        contract().resolved({"$ref": reference})
    defined = {f"#/components/{kind}/{name}" for kind, group in DOCUMENT["components"].items() for name in group}
    answered_anywhere = {"#/components/responses/MethodNotAllowed"}
    assert defined - used == answered_anywhere


def test_every_schema_is_sound() -> None:
    for path, node in nodes():
        if path and path[-1] == "schema":
            jsonschema_rs.meta.validate(node)
            contract().validator(node)
    for schema in contract().schemas.values():
        jsonschema_rs.meta.validate(schema)
        contract().validator(schema)


def test_every_example_fits_its_schema() -> None:
    seen = 0
    for path, node in nodes():
        if "schema" in node and ("example" in node or "examples" in node):
            values = [contract().resolved(one)["value"] for one in node.get("examples", {}).values()]
            for value in [*values, *([node["example"]] if "example" in node else [])]:
                contract().validator(node["schema"], sealed=True).validate(value)
                seen += 1
        elif isinstance(node.get("examples"), list) and path[-1] != "examples":
            for value in node["examples"]:
                contract().validator({name: part for name, part in node.items() if name != "examples"}).validate(value)
                seen += 1
    assert seen > 30


def test_the_document_says_what_version_and_operations_it_has() -> None:
    assert DOCUMENT["openapi"].startswith("3.1")
    operations = [operation for *_, operation in contract().operations()]
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    declared = {tag["name"] for tag in DOCUMENT["tags"]}
    assert {tag for operation in operations for tag in operation["tags"]} == declared
    assert all(operation["summary"] for operation in operations)


def test_each_path_names_its_parameters() -> None:
    for method, path, operation in contract().operations():
        parameters = [contract().resolved(one) for one in operation.get("parameters", [])]
        assert {one["name"] for one in parameters if one["in"] == "path"} == set(re.findall(r"\{(\w+)\}", path)), method
        assert all(one["required"] for one in parameters if one["in"] == "path")


def test_the_routes_and_the_paths_are_the_same() -> None:
    app = make_app(**dict.fromkeys(signature(make_app).parameters))
    routes = {(route.method, route.resource.canonical) for route in app.router.routes() if route.resource}
    documented = {(method, path) for method, path, _ in contract().operations()}
    assert routes == documented | {("HEAD", path) for method, path in documented if method == "GET"}


def test_the_slugs_and_their_statuses_are_those_of_the_table() -> None:
    table = dict(problems.TABLE.values())
    enum = contract().schemas["Problem"]["properties"]["type"]["enum"]
    assert {one.removeprefix("/problems/") for one in enum} == table.keys() - UNANSWERED
    documented = {"method-not-allowed"}  # no operation has it
    for where, status, response in responses():
        if "application/problem+json" in response["content"]:
            slugs = slugs_in(response["content"]["application/problem+json"]["schema"])
            documented |= slugs
            assert {table[slug] for slug in slugs} == {status}, where
    assert documented == table.keys() - UNANSWERED


def test_each_operation_of_batchs_answers_what_its_problems_become() -> None:
    table = batch_table()
    assert len(batch_operations()) == 10
    for operation in batch_operations():
        told = operation["x-problems"]
        assert {table[slug][0] for slug in told} | {200} == {int(status) for status in operation["responses"]}
        for slug in told:
            status, code = table[slug]
            headers = contract().resolved(operation["responses"][str(status)])["headers"]
            assert contract().resolved(headers["x-amzn-errortype"])["schema"]["const"] == code
            assert ("x-amz-retry-after" in headers) == ("Retry-After" in headers) == (status in (429, 503))
    assert {slug for operation in batch_operations() for slug in operation["x-problems"]} == table.keys()


def test_batchs_face_is_where_errors_are_spoken_in_its_manner() -> None:
    for method, path, operation in contract().operations():
        assert (operation["tags"] == [BATCH_FACE]) == batch_errors.is_spoken_at(method, path), path
        if operation["tags"] == [BATCH_FACE]:
            assert path == f"/v1/{operation['operationId'].lower()}"


def test_the_table_for_readers_has_every_slug() -> None:
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \|", DOCUMENT["info"]["description"], re.MULTILINE)
    told = {(slug, int(status)) for status, cell in rows for slug in re.findall(r"`([a-z-]+)`", cell)}
    assert told == set(problems.TABLE.values())


def test_the_readme_has_every_slug() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    table = readme.partition("| status | `type`, behind `/problems/` | what to do |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| ([\d, ]+) \| ([^|]+) \|", table, re.MULTILINE)
    told = {slug: statuses.split(", ") for statuses, cell in rows for slug in re.findall(r"`([a-z-]+)`", cell)}
    assert told.keys() == {slug for slug, _ in problems.TABLE.values()}
    assert all(str(status) in told[slug] for slug, status in problems.TABLE.values())


def test_every_answer_is_described_and_has_a_request_id() -> None:
    for where, status, response in responses():
        as_batch = batch_errors.is_spoken_at(*where.split())
        assert response["description"].strip(), where
        assert "X-Request-Id" in response["headers"], where
        assert ("x-amzn-RequestId" in response["headers"]) == as_batch, where
        assert ("application/problem+json" in response["content"]) == (status >= 400 and not as_batch), where


def members(schema: dict[str, Any]) -> tuple[set[str], set[str]]:
    """What an object may have, and what it must."""
    parts = [contract().resolved(one) for one in [schema, *schema.get("allOf", [])]]
    return (
        {name for part in parts for name in part.get("properties", {})},
        {name for part in parts for name in part.get("required", [])},
    )


TYPES = {"string": "string", "integer": "integer", "long": "integer", "boolean": "boolean"}
TYPES |= {"double": "number", "float": "number"}


def differences(schema: dict[str, Any], shape: Shape, path: str = "") -> list[str]:
    """Where an answer's schema is not what botocore's model has."""
    schema = contract().resolved(schema)
    if shape.type_name == "structure":
        may, must = members(schema)
        known = may & shape.members.keys()
        return [
            *(f"{path}.{name}: only one has it" for name in may ^ shape.members.keys()),
            *(f"{path}.{name}: only one requires it" for name in must ^ set(shape.required_members)),
            *(one for name in known for one in differences(schema["properties"][name], shape.members[name], name)),
        ]
    if shape.type_name in ("list", "map"):
        inside, inner = ("items", "member") if shape.type_name == "list" else ("additionalProperties", "value")
        same = schema["type"] == {"list": "array", "map": "object"}[shape.type_name]
        return differences(schema[inside], getattr(shape, inner), f"{path}[]") if same else [f"{path}: another type"]
    if values := getattr(shape, "enum", None):
        told = schema.get("enum", [schema.get("const")])
        return [] if set(told) == set(values) else [f"{path}: {told}, not {values}"]
    return [] if schema.get("type") == TYPES[shape.type_name] else [f"{path}: another type"]


@pytest.mark.parametrize("operation", batch_operations(), ids=lambda one: one["operationId"])
def test_members_of_batchs_operations_are_those_of_its_model(operation: dict[str, Any]) -> None:
    model = botocore.session.get_session().get_service_model("batch").operation_model(operation["operationId"])
    answer = operation["responses"]["200"]["content"]["application/json"]["schema"]
    assert differences(answer, model.output_shape) == []
    asked = contract().resolved(operation["requestBody"]["content"]["application/json"]["schema"])
    may, must = members(asked)
    beyond = {"jobQueue"} if operation["operationId"] == "ListServiceJobs" else set()  # Batch's own rule
    assert (may, must) == (set(model.input_shape.members), set(model.input_shape.required_members) | beyond)
    assert operation["requestBody"]["required"] == bool(must)


def test_request_bodies_are_closed() -> None:
    for name in ("SubmitServiceJob", "RetryStrategy", "EvaluateOnExit", "PreemptionConfiguration", "TimeoutConfig"):
        assert contract().schemas[name]["additionalProperties"] is False
    for name in ("ShareChange", "UpstreamChange"):
        assert contract().schemas[name]["additionalProperties"] is False
    for name in ("JobReference", "TerminateServiceJobRequest", "UpdateServiceJobRequest"):
        assert contract().schemas[name]["additionalProperties"] is False


JSON = {"Content-Type": "application/json; charset=utf-8", "X-Request-Id": "r"}
AMZN = {**JSON, "x-amzn-RequestId": "r"}
AS_BATCH = {**AMZN, "x-amzn-errortype": "ClientException"}
PROBLEM = {"Content-Type": "application/problem+json", "X-Request-Id": "r"}
NOT_FOUND = b'{"type": "/problems/not-found", "title": "t", "status": 404}'


@pytest.mark.parametrize(
    ("method", "path", "status", "headers", "body"),
    [
        pytest.param("GET", "/v1/nothing", 200, JSON, b"{}", id="path"),
        pytest.param("DELETE", "/livez", 200, JSON, b"{}", id="method"),
        pytest.param("GET", "/livez", 418, JSON, b"{}", id="status"),
        pytest.param("GET", "/livez", 200, {**JSON, "Content-Type": "text/plain"}, b"live", id="content-type"),
        pytest.param("GET", "/livez", 200, {**JSON, "X-Other": "1"}, b'{"status": "live"}', id="header"),
        pytest.param(
            "GET", "/livez", 200, {"Content-Type": "application/json"}, b'{"status": "live"}', id="missing-header"
        ),
        pytest.param("GET", "/livez", 200, JSON, b'{"status": "dead"}', id="value"),
        pytest.param("GET", "/livez", 200, JSON, b'{"status": "live", "more": 1}', id="member"),
        pytest.param("POST", "/v1/listjobs", 404, PROBLEM, NOT_FOUND, id="not-as-batch"),
        pytest.param("DELETE", "/v1/tags/arn", 404, PROBLEM, NOT_FOUND, id="tags-not-as-batch"),
        pytest.param("POST", "/v1/shares/", 404, AS_BATCH, b'{"message": "m"}', id="own-as-batch"),
        pytest.param("POST", "/v1/nothing/here", 404, AS_BATCH, b'{"message": "m"}', id="as-batch"),
        pytest.param("POST", "/v1/listjobs", 404, AS_BATCH, b'{"message": "m", "code": "c"}', id="batch-member"),
        pytest.param("POST", "/v1/terminateservicejob", 200, AMZN, b'{"jobId": "j"}', id="empty-shape"),
        pytest.param(
            "GET",
            "/readyz",
            503,
            {"Content-Type": "application/problem+json", "X-Request-Id": "r", "Retry-After": "2"},
            b'{"type": "/problems/internal", "title": "t", "status": 503}',
            id="slug",
        ),
        pytest.param(
            "GET",
            "/readyz",
            503,
            {"Content-Type": "application/problem+json", "X-Request-Id": "r", "Retry-After": "2"},
            b'{"type": "/problems/not-ready", "title": "t", "status": 503, "more": 1}',
            id="problem-member",
        ),
    ],
)
def test_an_undocumented_answer_is_noticed(
    method: str, path: str, status: int, headers: dict[str, str], body: bytes
) -> None:
    with pytest.raises(UndocumentedError):
        contract().check(method, path, status, headers, body)


def test_a_documented_answer_is_let_through() -> None:
    contract().check("GET", "/livez", 200, JSON, b'{"status": "live"}')
    contract().check("GET", "/v1/nothing", 404, PROBLEM, NOT_FOUND)
    contract().check("POST", "/v1/listjobs", 404, AS_BATCH, b'{"message": "m"}')
    contract().check("POST", "/v1/terminateservicejob", 200, AMZN, b"{}")
