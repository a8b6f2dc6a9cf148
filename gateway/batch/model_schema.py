"""A botocore service model as JSON Schema: the shapes of a request, with what each means, for `jsonschema_rs`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import jsonschema_rs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Shapes = Mapping[str, Mapping[str, Any]]
    Schema = dict[str, Any]

# The automaton engine alone: linear in the text whatever the pattern, where a backtracking one could be made to hang.
LINEAR: Final = jsonschema_rs.RegexOptions()

# Java's `.` stops at these, Rust's only at \n: https://docs.oracle.com/javase/8/docs/api/java/util/regex/Pattern.html
JAVA_DOT: Final = r"[^\n\r\x{85}\x{2028}\x{2029}]"
# Java's POSIX classes, US-ASCII only (same page), as members of a bracketed class.
JAVA_POSIX: Final = {
    "Lower": "a-z",
    "Upper": "A-Z",
    "ASCII": r"\x00-\x7F",
    "Alpha": "a-zA-Z",
    "Digit": "0-9",
    "Alnum": "a-zA-Z0-9",
    "Punct": r"!-/:-@\[-`{-~",
    "Graph": "!-~",
    "Print": " -~",
    "Blank": r" \t",
    "Cntrl": r"\x00-\x1F\x7F",
    "XDigit": "0-9a-fA-F",
    "Space": r" \t\n\x0B\f\r",
}
JAVA_TOKEN: Final = re.compile(rf"\\p\{{(?P<posix>{'|'.join(JAVA_POSIX)})\}}|\\.|&&|[\[\].]", re.DOTALL)
# `X(?<!c)` at the very end: the automaton knows no look-behind, but for a full match this says "and not ending in c".
ENDING: Final = re.compile(r"(?P<head>[^|]*)\(\?<!(?P<last>[^\\()|\[\]^])\)", re.DOTALL)

BASE64: Final = "^[A-Za-z0-9+/]*={0,2}$"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """A shape of the model as JSON Schema (2020-12), and what its errors do not tell.

    `patterns` leads from a translated pattern to the model's own. `names` leads from where the schema forbids members,
    as a JSON pointer, to what is wrong with such a member. `unchecked` are patterns of the model that are left out.
    """

    schema: Schema
    patterns: dict[str, str]
    names: dict[str, str]
    unchecked: tuple[str, ...]


def request_rules(shapes: Shapes, root: str) -> Rules:
    """Translate the shape `root` of a botocore service model, each shape it can hold a definition of its own.

    The members of a shape are those that botocore/model.py reads; what they mean is in https://smithy.io/2.0/spec/.
    """
    used = {name: shapes[name] for name in reachable(shapes, root)}
    sources = {shape["pattern"]: full_match(shape["pattern"]) for shape in used.values() if "pattern" in shape}
    # A pattern less is a check less; a gateway that does not start is worse.
    unchecked = tuple(source for source, rules in sources.items() if not rules)
    names: dict[str, str] = {}
    definitions: dict[str, Schema] = {}
    for name, shape in used.items():
        definitions[name] = schema = TRANSLATIONS.get(shape["type"], anything)(shape)
        if rules := sources.get(shape.get("pattern", "")):
            schema["allOf"] = [{"pattern": rule} for rule in rules]
        if shape["type"] == "map":
            rules_and_sentences = name_rules(used[shape["key"]["shape"]], sources)
            schema["allOf"] = [
                {"patternProperties": {rule: {}}, "additionalProperties": False} for rule, _ in rules_and_sentences
            ]
            for index, (_, sentence) in enumerate(rules_and_sentences):
                names[f"/$defs/{name}/allOf/{index}/additionalProperties"] = sentence
        elif shape["type"] == "structure":
            names[f"/$defs/{name}/additionalProperties"] = f"is not a member of {name}"
    return Rules(
        schema={"$ref": f"#/$defs/{root}", "$defs": definitions},
        patterns={rule: source for source, rules in sources.items() for rule in rules},
        names=names,
        unchecked=unchecked,
    )


def name_rules(key: Mapping[str, Any], sources: Mapping[str, list[str]]) -> list[tuple[str, str]]:
    """What a map's names must match, and the sentence for those that do not.

    Not `propertyNames`: each of its errors holds a copy of the whole map, so that 10 KiB of bad names cost gigabytes.
    An enum of names is left out, as an unknown value of one is no error.
    """
    low, high = key.get("min", 0), key.get("max", "")
    rules = [(f"^[\\s\\S]{{{low},{high}}}$", f"must have a name of {low} to {high} characters")] if high else []
    pattern = key.get("pattern", "")
    return rules + [(rule, f"must have a name that matches the pattern {pattern}") for rule in sources.get(pattern, ())]


def reachable(shapes: Shapes, root: str) -> list[str]:
    """The names of all shapes that a value of the shape `root` can hold, itself first."""
    names = [root]
    seen = {root}
    for name in names:  # grows while it is read
        shape = shapes[name]
        members = [
            *shape.get("members", {}).values(),
            *(shape[part] for part in ("member", "key", "value") if part in shape),
        ]
        for member in members:
            if member["shape"] not in seen:
                seen.add(member["shape"])
                names.append(member["shape"])
    return names


def structure(shape: Mapping[str, Any]) -> Schema:
    """A structure, a union (which has exactly one of its members) or a document (which is any JSON)."""
    if shape.get("document"):
        return {}
    members: dict[str, Any] = {name: reference(member) for name, member in shape["members"].items()}
    schema: Schema = {
        "type": "object",
        # Without any property, jsonschema_rs does not tell which one was too much.
        "properties": members or {"": {}},
        "additionalProperties": False,
        "required": list(shape.get("required", ())),
    }
    if shape.get("union"):
        schema |= {"minProperties": 1, "maxProperties": 1}
    return schema


def anything(_: Mapping[str, Any]) -> Schema:
    return {}


def mapping(shape: Mapping[str, Any]) -> Schema:
    """A map but for the rules of its names, see `name_rules`."""
    values = reference(shape["value"])
    return {"type": "object", "additionalProperties": values, **bounds(shape, "minProperties", "maxProperties")}


def string(shape: Mapping[str, Any]) -> Schema:
    """A string but for its pattern; JSON Schema counts code points, as Smithy's length trait does."""
    enum = {"enum": list(shape["enum"])} if "enum" in shape else {}
    return {"type": "string", **enum, **bounds(shape, "minLength", "maxLength")}


def whole(bits: int, shape: Mapping[str, Any]) -> Schema:
    """An integer of Smithy's widths; 620.0 is one, as JSON has but one kind of number."""
    low, high = -(1 << bits - 1), (1 << bits - 1) - 1
    return {
        "type": "integer",
        "minimum": max(low, shape.get("min", low)),
        "maximum": min(high, shape.get("max", high)),
    }


def number(shape: Mapping[str, Any]) -> Schema:
    return {"type": "number", **bounds(shape, "minimum", "maximum")}


# By the type of a shape. An unknown type admits anything.
TRANSLATIONS: Final[dict[str, Callable[[Mapping[str, Any]], Schema]]] = {
    "structure": structure,
    "list": lambda shape: {
        "type": "array",
        "items": reference(shape["member"]),
        **bounds(shape, "minItems", "maxItems"),
    },
    "map": mapping,
    "string": string,
    "integer": partial(whole, 32),
    "long": partial(whole, 64),
    "float": number,
    "double": number,
    "boolean": lambda _: {"type": "boolean"},
    # A format says nothing about numbers, which are seconds since 1970.
    "timestamp": lambda _: {"type": ["number", "string"], "format": "date-time"},
    "blob": lambda _: {"type": "string", "pattern": BASE64},
}


def reference(member: Mapping[str, Any]) -> Schema:
    return {"$ref": f"#/$defs/{member['shape']}"}


def bounds(shape: Mapping[str, Any], low: str, high: str) -> Schema:
    return {keyword: shape[key] for keyword, key in ((low, "min"), (high, "max")) if key in shape}


def full_match(java: str) -> list[str]:
    r"""A Java regex that must match the whole text, as regexes for `jsonschema_rs` that must all match.

    Empty where that cannot be said. jsonschema_rs reads `\d` and `\w` as ASCII like Java, and `$` as the very end. It
    differs in `\s`, which takes Unicode's spaces too, and in possessive quantifiers, which give back.
    """
    if ending := ENDING.fullmatch(java):
        head = full_match(ending["head"])
        return head and [*head, rf"(?:^|[^\x{{{ord(ending['last']):X}}}])$"]
    in_class = False
    readable = True

    def rewritten(token: re.Match[str]) -> str:
        nonlocal in_class, readable
        if posix := token["posix"]:
            return JAVA_POSIX[posix] if in_class else f"[{JAVA_POSIX[posix]}]"
        if in_class and token[0] in ("[", "&&"):
            readable = False  # Java's classes in classes: jsonschema_rs would take the bracket for a character
        if token[0] in ("[", "]"):
            in_class = token[0] == "["
        return JAVA_DOT if token[0] == "." and not in_class else token[0]

    rule = f"^(?:{JAVA_TOKEN.sub(rewritten, java)})$"
    return [rule] if readable and compiles(rule) else []


def compiled(schema: Schema) -> jsonschema_rs.Validator:
    return jsonschema_rs.Draft202012Validator(schema, pattern_options=LINEAR, validate_formats=True, offline=True)


def compiles(pattern: str) -> bool:
    try:
        compiled({"pattern": pattern})
    except ValueError:
        return False
    return True
