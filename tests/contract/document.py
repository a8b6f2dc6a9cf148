"""openapi.yaml as a judge: says of any answer whether the contract has it."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema_rs
import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PATH = Path(__file__).parents[2] / "openapi.yaml"
METHODS = frozenset({"get", "put", "post", "delete", "options", "head", "patch", "trace"})
# What a client of Batch's calls that the gateway has not.
OPERATION = re.compile(r"POST /v1/(?!submissions|shares|upstreams)[a-z]+/?|[A-Z]+ /v1/tags/.+")
# What HTTP itself puts there.
HTTP_HEADERS = frozenset({"content-type", "content-length", "date", "server", "connection"})


class UndocumentedError(AssertionError):
    """The gateway answered what the contract does not say."""


class Contract:
    """The document, and a judge of answers. Objects in answers may have no member that it does not name."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self._sealed = {"schemas": {name: _sealed(schema) for name, schema in self.schemas.items()}}

    @property
    def schemas(self) -> dict[str, Any]:
        schemas: dict[str, Any] = self.document["components"]["schemas"]
        return schemas

    def operations(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """(method in capitals, path's template, operation)"""
        for path, item in self.document["paths"].items():
            for method in item.keys() & METHODS:
                yield method.upper(), path, item[method]

    def resolved(self, node: dict[str, Any]) -> dict[str, Any]:
        while "$ref" in node:
            found: Any = self.document
            for step in node["$ref"].removeprefix("#/").split("/"):
                found = found[step.replace("~1", "/").replace("~0", "~")]
            node = found
        return node

    def validator(self, schema: dict[str, Any], *, sealed: bool = False) -> jsonschema_rs.Validator:
        components = self._sealed if sealed else self.document["components"]
        return jsonschema_rs.Draft202012Validator({**schema, "components": components}, validate_formats=True)

    def check(self, method: str, path: str, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Raises UndocumentedError where this answer to this request is not in the document."""
        where = f"{method} {path} → {status}"
        head = method == "HEAD"  # as GET, without the body
        method = "GET" if head else method
        response = self._response(method, path, status, where)
        self._check_headers(response.get("headers", {}), headers, where)
        media_type, _, charset = headers.get("Content-Type", "").partition(";")
        if media_type not in response["content"]:
            raise UndocumentedError(f"{where}: the content type {media_type!r} is not documented")
        if charset.strip() not in ("", "charset=utf-8"):
            raise UndocumentedError(f"{where}: {charset!r}")
        if head:
            return
        value = json.loads(body) if media_type.endswith("json") else yaml.safe_load(body)
        validator = self.validator(response["content"][media_type]["schema"], sealed=True)
        wrong = [f"{one.instance_path}: {one.message}" for one in validator.iter_errors(value)]
        if wrong:
            raise UndocumentedError(f"{where}: the body is not as documented: {wrong}")
        if media_type == "application/problem+json" and value["status"] != status:
            raise UndocumentedError(f"{where}: the problem says {value['status']}")

    def _response(self, method: str, path: str, status: int, where: str) -> dict[str, Any]:
        item = self._path_item(path.partition("?")[0])
        everywhere = self.document["components"]["responses"]
        if item is None:
            if status != 404:
                raise UndocumentedError(f"{where}: no such path is documented")
            as_batch = OPERATION.fullmatch(f"{method} {path}")
            return dict(everywhere["BatchUnknown" if as_batch else "NotFound"])
        operation = item.get(method.lower())
        if operation is None:
            if status != 405:
                raise UndocumentedError(f"{where}: no such method is documented")
            return dict(everywhere["MethodNotAllowed"])
        if str(status) not in operation["responses"]:
            raise UndocumentedError(f"{where}: no such status is documented")
        return self.resolved(operation["responses"][str(status)])

    def _path_item(self, path: str) -> dict[str, Any] | None:
        for template, item in self.document["paths"].items():
            if re.fullmatch(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(template)), path):
                return dict(item)
        return None

    def _check_headers(self, documented: dict[str, Any], headers: Mapping[str, str], where: str) -> None:
        rules = {name.lower(): self.resolved(rule) for name, rule in documented.items()}
        present = {name.lower(): value for name, value in headers.items()}
        unknown = present.keys() - rules.keys() - HTTP_HEADERS
        if unknown:
            raise UndocumentedError(f"{where}: headers that are not documented: {sorted(unknown)}")
        for name, rule in rules.items():
            if name not in present:
                if rule["required"]:
                    raise UndocumentedError(f"{where}: without the header {name}")
                continue
            value = int(present[name]) if rule["schema"].get("type") == "integer" else present[name]
            if not self.validator(rule["schema"]).is_valid(value):
                raise UndocumentedError(f"{where}: the header {name} is {value!r}")


@cache
def contract() -> Contract:
    return Contract(yaml.safe_load(PATH.read_text(encoding="utf-8")))


def _sealed(schema: Any) -> Any:
    """The schema without room for members that it does not name."""
    schema = deepcopy(schema)
    _seal(schema)
    return schema


def _seal(schema: dict[str, Any]) -> None:
    if "properties" in schema:
        schema.setdefault("additionalProperties", False)
        for member in schema["properties"].values():
            _seal(member)
    if isinstance(schema.get("items"), dict):
        _seal(schema["items"])
