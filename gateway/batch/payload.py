"""Check a `serviceRequestPayload` against SageMaker's own model of CreateTrainingJob.

Batch passes the payload on unchecked, and a bad one fails hours later, at dispatch. The model is the one that botocore
ships (`sagemaker/2017-07-24/service-2`), so an upgrade of botocore is an upgrade of the rules. botocore's own
ParamValidator knows no patterns, no maxima and no enums, and costs ten times as much; so the model becomes a JSON
Schema once, and `jsonschema_rs` compiles it.
"""

from __future__ import annotations

import re
from heapq import nsmallest
from typing import TYPE_CHECKING, Any, Final

import jsonschema_rs
from botocore import __version__ as botocore_version
from botocore.loaders import Loader

from gateway.batch.model_schema import compiled, request_rules
from gateway.core.errors import Finding, json_pointer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ROOT: Final = "CreateTrainingJobRequest"

# Enough for a person to repair in one go; more would only make the answer to a hostile payload long.
MOST_FINDINGS: Final = 50
# jsonschema_rs makes all errors before it hands out the first, about 15 µs each, and 10 KiB can hold 7,000: lists are
# cut before. More than any maximum of a list in the model, so that what is too long stays too long; a test holds that.
LONGEST_LIST: Final = 128
# How deep the model goes, with room; a test holds that too.
MODEL_LEVELS: Final = 16

SHOWABLE: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")

TYPE_DETAILS: Final = {
    "object": "must be an object",
    "array": "must be a list",
    "string": "must be a string",
    "integer": "must be an integer",
    "number": "must be a number",
    "boolean": "must be true or false",
}

# From a keyword of JSON Schema to what is wrong, given the keyword's value.
DETAILS: Final[dict[str, Callable[[Any], str]]] = {
    "type": lambda types: " or ".join(TYPE_DETAILS[name] for name in types),
    "format": lambda _: "must be a time as ISO 8601 writes it",
    "minLength": lambda least: f"must be at least {counted(least, 'character')}",
    "maxLength": lambda most: f"must be at most {counted(most, 'character')}",
    "minItems": lambda least: f"must have at least {counted(least, 'item')}",
    "maxItems": lambda most: f"must have at most {counted(most, 'item')}",
    "minProperties": lambda least: f"must have at least {counted(least, 'member')}",
    "maxProperties": lambda most: f"must have at most {counted(most, 'member')}",
    "minimum": lambda least: f"must be at least {least}",
    "maximum": lambda most: f"must be at most {most}",
}


class TrainingJobCheck:
    """Says what is wrong with a CreateTrainingJob request, all at once; a `PayloadCheck` of `core.ports`.

    Making one takes about 200 ms, loads botocore's model and blocks: make one per process, before it is ready.
    `unchecked` holds those patterns of the model which the regex engine cannot take: they are not enforced.
    """

    def __init__(self) -> None:
        shapes = Loader().load_service_model("sagemaker", "service-2")["shapes"]
        self._rules = request_rules(shapes, ROOT)
        self._validator = compiled(self._rules.schema)
        self.unchecked = self._rules.unchecked

    def __call__(self, payload: object) -> tuple[list[Finding], list[Finding]]:
        """`(errors, warnings)` of the parsed payload, sorted by pointer, at most 50 each.

        An error is what SageMaker would refuse. A warning is an enum value that the installed model does not know: it
        may be newer than the model. Pointers are relative to the payload and name the missing or unknown member;
        details never hold a value, as payloads carry secrets, except a short plain one where an enum is expected.
        """
        if not isinstance(payload, dict):
            return [Finding(pointer="", detail="must be a JSON object")], []
        try:
            if self._validator.is_valid(payload):
                return [], []
            return self._findings(payload)
        except UnicodeEncodeError:
            return [Finding(pointer="", detail="must not hold half of a surrogate pair")], []
        except ValueError:
            # jsonschema_rs copies the values it complains about, and gives up at 255 levels; the model has seven.
            return [Finding(pointer="", detail="must not be nested this deep")], []

    def _findings(self, payload: dict[str, Any]) -> tuple[list[Finding], list[Finding]]:
        errors: set[Finding] = set()
        warnings: set[Finding] = set()
        short = clipped(payload)
        # Only in a list without a maximum can all that is wrong come after the cut.
        for error in self._validator.iter_errors(payload if self._validator.is_valid(short) else short):
            path = error.instance_path
            match error.kind:
                case jsonschema_rs.ValidationErrorKind.Enum():
                    if isinstance(error.instance, str):  # any other type has an error of its own already
                        warnings.add(Finding(pointer=json_pointer(path), detail=unknown_value(error.instance)))
                case jsonschema_rs.ValidationErrorKind.Required(property=name):
                    errors.add(Finding(pointer=json_pointer([*path, name]), detail="is required"))
                case jsonschema_rs.ValidationErrorKind.AdditionalProperties(unexpected=names):
                    detail = self._rules.names.get(json_pointer(error.schema_path), "is not allowed here")
                    errors.update(Finding(pointer=json_pointer([*path, name]), detail=detail) for name in few(names))
                case _:
                    errors.add(Finding(pointer=json_pointer(path), detail=self._detail(error)))
        return in_order(errors), in_order(warnings)

    def _detail(self, error: jsonschema_rs.ValidationError) -> str:
        keyword, bound = error.kind.name, error.kind.value
        if keyword == "pattern":
            return f"must match the pattern {self._rules.patterns.get(bound, bound)}"
        if keyword == "type" and error.instance is None:
            return "must not be null"
        return DETAILS[keyword](bound) if keyword in DETAILS else "is not allowed here"


def unknown_value(value: str) -> str:
    subject = f"{value} is" if SHOWABLE.fullmatch(value) else "is"
    return f"{subject} not among the values that botocore {botocore_version} knows"


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def clipped(value: Any, levels: int = MODEL_LEVELS) -> Any:
    """The value with every list cut to LONGEST_LIST; what lies deeper than the model stays as it is."""
    if levels and isinstance(value, list):
        return [clipped(item, levels - 1) for item in value[:LONGEST_LIST]]
    if levels and isinstance(value, dict):
        return {name: clipped(member, levels - 1) for name, member in value.items()}
    return value


def few(names: Iterable[str]) -> list[str]:
    return nsmallest(MOST_FINDINGS, names)


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    return nsmallest(MOST_FINDINGS, findings, key=lambda finding: (finding.pointer, finding.detail))
