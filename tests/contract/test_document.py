"""openapi.yaml: sound in itself, and of one mind with the routes and the table of problems."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, cast

import jsonschema_rs
import pytest

from gateway.api import batches, docs, edits, explanations, health, lists, problems, shares, submissions, upstreams
from tests.contract.document import UndocumentedError, contract

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aiohttp import web

DOCUMENT = contract().document


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
    modules = (submissions, batches, lists, edits, explanations, shares, upstreams, health, docs)
    definitions = [cast("web.RouteDef", one) for module in modules for one in module.routes()]
    assert {(one.method, re.sub(r":[^}]+}", "}", one.path)) for one in definitions} == {
        (method, path) for method, path, _ in contract().operations()
    }


def test_the_slugs_and_their_statuses_are_those_of_the_table() -> None:
    table = dict(problems.TABLE.values())
    enum = contract().schemas["Problem"]["properties"]["type"]["enum"]
    assert {one.removeprefix("/problems/") for one in enum} == table.keys()
    documented = {"method-not-allowed"}  # no operation has it
    for where, status, response in responses():
        if status >= 400:
            slugs = slugs_in(response["content"]["application/problem+json"]["schema"])
            documented |= slugs
            assert {table[slug] for slug in slugs} == {status}, where
    assert documented == table.keys()


def test_the_table_for_readers_has_every_slug() -> None:
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \|", DOCUMENT["info"]["description"], re.MULTILINE)
    told = {(slug, int(status)) for status, cell in rows for slug in re.findall(r"`([a-z-]+)`", cell)}
    assert told == set(problems.TABLE.values())


def test_every_answer_is_described_and_has_a_request_id() -> None:
    for where, status, response in responses():
        assert response["description"].strip(), where
        assert "X-Request-Id" in response["headers"], where
        assert ("application/problem+json" in response["content"]) == (status >= 400), where


def test_request_bodies_are_closed() -> None:
    for name in ("SubmitServiceJob", "RetryStrategy", "EvaluateOnExit", "PreemptionConfiguration", "TimeoutConfig"):
        assert contract().schemas[name]["additionalProperties"] is False
    for name in ("ShareChange", "UpstreamChange"):
        assert contract().schemas[name]["additionalProperties"] is False


JSON = {"Content-Type": "application/json; charset=utf-8", "X-Request-Id": "r"}


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
