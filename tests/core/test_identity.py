"""Ids, tokens and fingerprints: computed alike by every replica, every release and every caller."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any
from uuid import RFC_4122, UUID

import pytest
import rfc8785
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.core.identity import (
    MEMBER_DIGEST_BYTES,
    TAG_CHARACTERS,
    _canonical,
    batch_token,
    fingerprint,
    submission_id,
    upstream_tag,
)

# (namespace, client token, submissionId, clientToken at Batch), for this account and Region. Callers compute these:
# a change of any is a change of the contract.
ACCOUNT, REGION = "123456789012", "us-east-1"
VECTORS = [
    (
        "anonymous",
        "nightly-2026-11-21",
        "fb8b5596-d40f-8a2b-8937-a9c8da8f26ae",
        "5596d40fea2bc937a9c8da8f26ae15384cb174164a2a48981e6207ff397a0383",
    ),
    (
        "vision",
        "nightly-2026-11-21",
        "fb8bf807-38e9-8379-9ccf-80b70d514efc",
        "f80738e9b3799ccf80b70d514efc6cfce6108fb2d2ff9bc6c3f66d5754278978",
    ),
    (
        "vision",
        "größe-1",
        "fb8bd821-38a2-8b26-b566-e2567ea3092a",
        "d82138a2db263566e2567ea3092a0442432dbe1f9c2cc8c774a5c53b40439a29",
    ),
]
texts = st.text(st.characters(codec="utf-8"), max_size=20)
names = st.fixed_dictionaries({"namespace": texts, "account": texts, "region": texts, "token": texts})
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=10,
)
members = st.dictionaries(st.sampled_from(["jobName", "jobQueue", "tags", "schedulingPriority"]), json_values)


@pytest.mark.parametrize(("namespace", "token", "expected", "at_batch"), VECTORS)
def test_the_test_vectors_hold(namespace: str, token: str, expected: str, at_batch: str) -> None:
    who = {"namespace": namespace, "account": ACCOUNT, "region": REGION, "token": token}
    assert submission_id(**who) == expected
    assert batch_token(**who) == at_batch


def test_the_readme_shows_the_same_vectors() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    for vector in VECTORS:
        assert "| " + " | ".join(f"`{part}`" for part in vector) + " |" in readme


def test_a_caller_can_compute_an_id_by_the_description_alone() -> None:
    def digest(*parts: str) -> bytes:
        encoded = [part.encode() for part in parts]
        return hashlib.sha256(b"".join(len(one).to_bytes(4, "big") + one for one in encoded)).digest()

    namespace, token, expected, _ = VECTORS[2]
    bits = int.from_bytes(digest(ACCOUNT, REGION)[:2] + digest(namespace, ACCOUNT, REGION, token)[:14], "big")
    bits = bits & ~(0xF << 76) | 8 << 76
    bits = bits & ~(0x3 << 62) | 2 << 62
    assert str(UUID(int=bits)) == expected


@given(who=names)
def test_an_id_is_a_uuid_of_version_8_that_begins_with_its_upstream(who: dict[str, str]) -> None:
    made = submission_id(**who)
    parsed = UUID(made)
    assert (parsed.version, parsed.variant, str(parsed)) == (8, RFC_4122, made)
    assert made[:TAG_CHARACTERS] == upstream_tag(who["account"], who["region"])


@given(who=names, other=names)
def test_other_names_give_other_ids_and_tokens(who: dict[str, str], other: dict[str, str]) -> None:
    assume(who != other)
    assert submission_id(**who) != submission_id(**other)
    assert batch_token(**who) != batch_token(**other)


def test_no_part_runs_into_the_next() -> None:
    one = {"namespace": "ab", "account": "c", "region": "r", "token": "t"}
    two = {"namespace": "a", "account": "bc", "region": "r", "token": "t"}
    assert batch_token(**one) != batch_token(**two)
    assert upstream_tag("12", "3") != upstream_tag("1", "23")


@given(who=names)
def test_the_token_for_batch_fits_batch(who: dict[str, str]) -> None:
    token = batch_token(**who)
    assert len(token) == 64
    assert set(token) <= set("0123456789abcdef")


@given(asked=members)
def test_a_fingerprint_is_the_hash_of_canonical_json_without_what_counts_as_absent(asked: dict[str, Any]) -> None:
    present = {name: value for name, value in asked.items() if value is not None and value != {}}
    made = fingerprint(asked)
    assert made.total == hashlib.sha256(rfc8785.dumps(present)).digest()
    assert made.members.keys() == present.keys()
    assert all(len(one) == MEMBER_DIGEST_BYTES for one in made.members.values())


def test_null_and_an_empty_object_count_as_absent_and_an_empty_list_or_zero_does_not() -> None:
    bare = fingerprint({"jobName": "j"})
    assert fingerprint({"jobName": "j", "tags": None, "timeoutConfig": {}}) == bare
    for value in ([], 0, "", False):
        assert fingerprint({"jobName": "j", "schedulingPriority": value}).total != bare.total


def shuffled(value: Any) -> Any:
    """The same JSON with every object's members in reverse."""
    if isinstance(value, dict):
        return {name: shuffled(member) for name, member in reversed(value.items())}
    return [shuffled(item) for item in value] if isinstance(value, list) else value


@given(asked=members)
def test_the_order_of_members_makes_no_difference(asked: dict[str, Any]) -> None:
    assert fingerprint(shuffled(asked)) == fingerprint(asked)


@given(asked=members)
def test_how_the_json_was_written_makes_no_difference(asked: dict[str, Any]) -> None:
    assert fingerprint(json.loads(json.dumps(asked, indent=3, ensure_ascii=True))) == fingerprint(asked)


@pytest.mark.parametrize(("one", "same"), [(620, 620.0), (0, -0.0), (10**15, 1e15), (100, 1e2)])
def test_a_number_is_a_number_however_it_is_written(one: float, same: float) -> None:
    assert fingerprint({"a": one}) == fingerprint({"a": same})


@pytest.mark.parametrize(("one", "other"), [(1, "1"), (1, True), (0, False), (1, 1.5), ("a", ["a"]), ("é", "e\u0301")])
def test_what_differs_in_json_differs(one: Any, other: Any) -> None:
    assert fingerprint({"a": one}).total != fingerprint({"a": other}).total


@pytest.mark.parametrize("value", [2**53, -(2**53), float("nan"), float("inf")])
def test_a_number_that_json_does_not_carry_exactly_has_no_fingerprint(value: float) -> None:
    with pytest.raises(rfc8785.CanonicalizationError):
        fingerprint({"a": {"b": [value]}})


def test_names_are_ordered_as_rfc_8785_wants_by_utf_16() -> None:
    """Section 3.2.3's example: an emoji, two units in UTF-16, comes before a Hebrew letter of one."""
    asked = {"tags": {"\ufb33": "1", "\U0001f602": "2", "\u20ac": "3", "\r": "4"}}
    text = '{"tags":{"\\r":"4","\u20ac":"3","\U0001f602":"2","\ufb33":"1"}}'
    assert fingerprint(asked).total == hashlib.sha256(text.encode()).digest()


@given(before=members, after=members)
def test_exactly_the_members_that_differ_are_named(before: dict[str, Any], after: dict[str, Any]) -> None:
    one, other = fingerprint(before), fingerprint(after)
    differing = one.differing(other)
    assert differing == other.differing(one) == sorted(differing)
    assert bool(differing) == (one.total != other.total)
    assert set(differing) == {
        name for name in before.keys() | after.keys() if canonical(before.get(name)) != canonical(after.get(name))
    }


def canonical(value: Any) -> bytes:
    return b"" if value is None or value == {} else rfc8785.dumps(value)


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**53) + 1, 2**53 - 1)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(st.characters(exclude_categories=["Cs"])),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
        max_leaves=12,
    )
)
def test_the_quick_way_to_canonical_json_writes_what_the_rfc_does(value: Any) -> None:
    assert _canonical(value) == rfc8785.dumps(value)
