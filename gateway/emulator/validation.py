"""Checks of requests against botocore's model of Batch, compiled once per operation."""

from collections.abc import Callable, Mapping
from typing import Any

import botocore.session
from botocore.model import ListShape, MapShape, ServiceModel, Shape, StructureShape

from gateway.emulator.errors import BatchError

Check = Callable[[Any, str], None]
"""Takes a decoded JSON value and its path, such as `retryStrategy.attempts`; raises BatchError naming that path."""

_TYPES: Mapping[str, tuple[tuple[type, ...], str]] = {
    "string": ((str,), "a string"),
    "integer": ((int,), "an integer"),
    "long": ((int,), "an integer"),
    "float": ((int, float), "a number"),
    "double": ((int, float), "a number"),
    "boolean": ((bool,), "a boolean"),
}

# AWS's own sample sends the action `Retry` for RETRY, and it is taken.
_ANY_CASE = "ServiceJobRetryAction"


def load_model() -> ServiceModel:
    """Batch's service model as the installed botocore has it. Takes some 50 ms."""
    return botocore.session.get_session().get_service_model("batch")


def compile_check(shape: Shape) -> Check:
    """A check of types, required members, enums, and where the model has them lengths.

    Members that the model does not know are let pass, as AWS's REST-JSON services do; a null is as good as absent.
    """
    if isinstance(shape, StructureShape):
        return _structure(shape)
    if isinstance(shape, MapShape):
        return _map(shape)
    if isinstance(shape, ListShape):
        return _list(shape)
    return _scalar(shape)


def _structure(shape: StructureShape) -> Check:
    required = tuple(shape.required_members)
    members = {name: compile_check(member) for name, member in shape.members.items()}

    def check(value: Any, path: str) -> None:
        if not isinstance(value, dict):
            raise _mistake(path, "must be an object")
        prefix = f"{path}." if path else ""
        for name in required:
            if value.get(name) is None:
                raise _mistake(prefix + name, "is required")
        for name, member in value.items():
            if member is not None and name in members:
                members[name](member, prefix + name)

    return check


def _map(shape: MapShape) -> Check:
    check_key, check_value = compile_check(shape.key), compile_check(shape.value)
    check_size = _size(shape, "entries")

    def check(value: Any, path: str) -> None:
        if not isinstance(value, dict):
            raise _mistake(path, "must be an object")
        check_size(value, path)
        for key, member in value.items():
            check_key(key, f"{path} key {key!r}")
            check_value(member, f"{path}.{key}")

    return check


def _list(shape: ListShape) -> Check:
    check_member = compile_check(shape.member)
    check_size = _size(shape, "elements")

    def check(value: Any, path: str) -> None:
        if not isinstance(value, list):
            raise _mistake(path, "must be a list")
        check_size(value, path)
        for index, member in enumerate(value):
            check_member(member, f"{path}[{index}]")

    return check


def _scalar(shape: Shape) -> Check:
    types, described = _TYPES[shape.type_name]
    boolean = bool in types
    check_size = _size(shape, "characters") if str in types else None
    choices = frozenset(getattr(shape, "enum", ()))
    any_case = shape.name == _ANY_CASE

    def check(value: Any, path: str) -> None:
        # In Python a bool is an int, in JSON it is not.
        if not isinstance(value, types) or (isinstance(value, bool) and not boolean):
            raise _mistake(path, f"must be {described}")
        if check_size is not None:
            check_size(value, path)
        if choices and (value.upper() if any_case and isinstance(value, str) else value) not in choices:
            raise _mistake(path, f"must be one of {', '.join(sorted(choices))}")

    return check


def _size(shape: Shape, of: str) -> Check:
    least, most = shape.metadata.get("min", 0), shape.metadata.get("max")

    def check(value: Any, path: str) -> None:
        if len(value) < least:
            raise _mistake(path, f"must have at least {least} {of}")
        if most is not None and len(value) > most:
            raise _mistake(path, f"must have at most {most} {of}")

    return check


def _mistake(path: str, problem: str) -> BatchError:
    return BatchError(f"{path}: {problem}" if path else f"the request {problem}")
