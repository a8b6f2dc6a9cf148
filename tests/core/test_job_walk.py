"""Tokens of ListServiceJobs: what they carry, how long they get, and what is none; and what a query may be."""

from __future__ import annotations

import base64
import json
import random
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import job_walk
from gateway.core.errors import MalformedError
from gateway.core.identity import SubmissionId
from gateway.core.job_query import query_of
from gateway.core.job_walk import MAX_PARTS, Stage, Walk, resumed
from gateway.core.ports import Indexed
from gateway.core.submission import Submission, queued
from gateway.core.upstream import Routes, Upstream
from tests.store.world import ACCOUNT, REGION, TAG, examples, new_submission

NOW_MS = 1_800_000_000_000
DIGEST = "0123456789abcdef"
ROUTES = Routes([Upstream(name="main", region=REGION, account=ACCOUNT, queues=("training*",))])


def an_id(rng: random.Random) -> SubmissionId:
    return SubmissionId(str(UUID(bytes=bytes.fromhex(TAG) + rng.randbytes(14))))


def long_walk(waiting: int, page: int, rng: random.Random) -> Walk:
    """Accepted over half an hour, as bursts are; a page every 200 to 500 ms."""
    places = sorted(
        (Indexed(accepted_ms=NOW_MS - rng.randrange(1_800_000), submission_id=an_id(rng)) for _ in range(waiting)),
        reverse=True,
    )
    walk, at_ms = Walk(digest=DIGEST), NOW_MS
    for number in range(0, waiting, page):
        at_ms += rng.randrange(200, 500)
        part = places[number : number + page]
        walk.has_seen(part[0], part[-1], at_ms)
        walk.place = part[-1]
    return walk


def of(place: Indexed, settled_ms: int | None = None) -> Submission:
    accepted_at = datetime.fromtimestamp(place.accepted_ms / 1000, UTC)
    submission = queued(new_submission(), accepted_at=accepted_at, position=1)
    return replace(
        submission,
        submission_id=place.submission_id,
        settled_at=None if settled_ms is None else datetime.fromtimestamp(settled_ms / 1000, UTC),
    )


# ---- What was seen


def test_one_was_seen_waiting_where_its_part_was_read_before_it_left() -> None:
    rng = random.Random(1)
    at_once = [Indexed(accepted_ms=NOW_MS, submission_id=an_id(rng)) for _ in range(6)]
    newer, first, second, third, fourth, older = sorted(at_once, reverse=True)
    walk = Walk(digest=DIGEST)
    walk.has_seen(first, second, NOW_MS + 1000)
    walk.has_seen(third, fourth, NOW_MS + 2000)
    walk = resumed(walk.token(), DIGEST)
    for place, read_ms in ((first, 1000), (second, 1000), (third, 2000), (fourth, 2000)):
        assert walk.saw_waiting(of(place))
        assert walk.saw_waiting(of(place, NOW_MS + read_ms + 1))
        assert not walk.saw_waiting(of(place, NOW_MS + read_ms))
    for place in (newer, older):
        assert not walk.saw_waiting(of(place))
        assert not walk.saw_waiting(of(place, NOW_MS + 5000))


def test_who_was_shown_and_left_in_the_same_millisecond_was_seen() -> None:
    place = Indexed(accepted_ms=NOW_MS, submission_id=an_id(random.Random(1)))
    walk = Walk(digest=DIGEST)
    walk.has_seen(place, place, NOW_MS)
    walk.left_at_once.add(place.submission_id)
    assert resumed(walk.token(), DIGEST).saw_waiting(of(place, NOW_MS))


def test_a_walk_that_saw_nobody_knows_nobody() -> None:
    assert not Walk(digest=DIGEST).saw_waiting(of(Indexed(accepted_ms=NOW_MS, submission_id=an_id(random.Random(1)))))


# ---- Tokens


@pytest.mark.parametrize(("waiting", "most"), [(3000, 2048), (100_000, 65_536)])
def test_tokens_stay_short(waiting: int, most: int) -> None:
    walk = long_walk(waiting, 100, random.Random(1))
    walk.goes_on()
    walk.batch_token = "b" * 300
    assert len(walk.token()) < most


def test_a_walk_comes_back_from_its_token_as_it_was() -> None:
    walk = long_walk(500, 7, random.Random(1))
    walk.left_at_once = {an_id(random.Random(2))}
    assert resumed(walk.token(), DIGEST) == walk
    walk.goes_on()
    walk.batch_token = "from Batch"
    again = resumed(walk.token(), DIGEST)
    assert again == walk
    assert (again.stage, again.place) == (Stage.BATCH, None)


def test_a_walk_without_end_has_tokens_that_are_taken() -> None:
    walk = long_walk(MAX_PARTS + 500, 1, random.Random(1))
    walk.batch_token = "b" * job_walk.MAX_BATCH_TOKEN_CHARACTERS
    walk.left_at_once = {an_id(random.Random(number)) for number in range(500)}
    token = walk.token()
    assert len(token) < 160_000  # a body may have 256 KiB
    again = resumed(token, DIGEST)
    assert len(again.parts) == MAX_PARTS
    assert (again.top, again.parts[-1]) == (walk.top, walk.parts[-1])


def test_a_walk_without_end_forgets_what_makes_the_least_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_walk, "MAX_PARTS", 3)
    rng, walk = random.Random(1), Walk(digest=DIGEST)
    for seconds in (0, 60, 61, 120):
        place = Indexed(accepted_ms=NOW_MS - seconds, submission_id=an_id(rng))
        walk.has_seen(place, place, NOW_MS + 1000 * seconds)
    assert [one.at_ms - NOW_MS for one in walk.parts] == [0, 61_000, 120_000]


def test_a_clock_that_is_set_back_spoils_no_token() -> None:
    rng = random.Random(1)
    walk = Walk(digest=DIGEST)
    for at_ms in (NOW_MS, NOW_MS - 5000):
        place = Indexed(accepted_ms=NOW_MS - len(walk.parts) - 1, submission_id=an_id(rng))
        walk.has_seen(place, place, at_ms)
    assert resumed(walk.token(), DIGEST) == walk


def test_a_token_belongs_to_its_query() -> None:
    with pytest.raises(MalformedError, match="nextToken: belongs to a request with other parameters"):
        resumed(Walk(digest=DIGEST).token(), "f" * 16)


def packed(fields: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(fields).encode()).decode()


GOOD: list[Any] = json.loads(base64.urlsafe_b64decode(long_walk(3, 1, random.Random(1)).token() + "=="))


def changed(index: int, value: Any) -> str:
    return packed([*GOOD[:index], value, *GOOD[index + 1 :]])


@pytest.mark.parametrize(
    "token",
    [
        "", "nonsense", "é", 5, None, ["x"], packed({}), packed("x"),
        packed(GOOD[:-1]), packed([*GOOD, 1]), changed(0, 2), changed(0, True), changed(0, 1.0),
        changed(1, None), changed(1, "X" * 16), changed(2, "none"), changed(2, []),
        changed(3, [1]), changed(3, [1, "x"]), changed(3, [-1, GOOD[3][1]]), changed(3, [1.5, GOOD[3][1]]),
        changed(3, "ab"), changed(4, 5), changed(4, "b" * 40_000),
        changed(5, -1), changed(5, 10**40), changed(5, "1"), changed(5, 0),
        changed(6, [1]), changed(6, [1, 1, -1]), changed(6, [1, 1, "1"]), changed(6, [1, 1, True]), changed(6, None),
        changed(6, {}), changed(7, [1, 1, None]), changed(7, [-1, 1, 1]), changed(7, [10**16, 1, 1]),
        changed(8, ["x"]), changed(8, None), changed(8, [GOOD[3][1]] * 101),
        packed([*GOOD[:6], [0] * 3000, [0] * 3000, []]), "[" * 50_000, packed("[" * 5000),
        base64.urlsafe_b64encode(b"[" * 50_000).decode(), base64.urlsafe_b64encode(b"1" * 5000).decode(),
    ],
)  # fmt: skip
def test_what_is_no_token_is_refused_by_name(token: Any) -> None:
    with pytest.raises(MalformedError, match=r"^nextToken: is none that this gateway gave"):
        resumed(token, DIGEST)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40) | st.sampled_from(GOOD),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=8,
)


@examples(300)
@given(st.integers(0, len(GOOD) - 1), json_values)
def test_whatever_is_in_a_token_it_is_taken_or_refused(index: int, value: Any) -> None:
    try:
        walk = resumed(changed(index, value), GOOD[1])
    except MalformedError:
        return
    walk.saw_waiting(of(Indexed(accepted_ms=NOW_MS, submission_id=an_id(random.Random(1)))))
    assert resumed(walk.token(), GOOD[1]) == walk


# ---- Queries


@pytest.mark.parametrize(
    ("params", "problem"),
    [
        ({}, "jobQueue: is required"),
        ({"jobQueue": None}, "jobQueue: is required"),
        ({"jobQueue": 5}, "jobQueue: must be a string"),
        ({"jobQueue": "other"}, "jobQueue: is no queue that this gateway forwards to"),
        ({"jobQueue": "a b"}, "jobQueue: must be a job queue's name"),
        ({"jobStatus": "ASLEEP"}, "jobStatus: must be one of SUBMITTED, "),
        ({"jobStatus": ["RUNNING"]}, "jobStatus: must be one of"),
        ({"maxResults": 0}, "maxResults: must be a whole number from 1 to 100"),
        ({"maxResults": 101}, "maxResults: "),
        ({"maxResults": "5"}, "maxResults: "),
        ({"maxResults": True}, "maxResults: "),
        ({"maxResults": 1.5}, "maxResults: "),
        ({"filters": {}}, "filters: must be a list"),
        ({"filters": ["x"]}, "filters[0]: must be an object"),
        ({"filters": [{"name": "JOB_NAME", "values": ["a"]}] * 2}, "filters: only one filter"),
        ({"filters": [{"name": "COLOUR", "values": ["a"]}]}, "filters[0].name: must be one of JOB_NAME, "),
        ({"filters": [{"values": ["a"]}]}, "filters[0].name: "),
        ({"filters": [{"name": "JOB_NAME"}]}, "filters[0].values: must have one value"),
        ({"filters": [{"name": "JOB_NAME", "values": ["a", "b"]}]}, "filters[0].values: must have one value"),
        ({"filters": [{"name": "JOB_NAME", "values": [5]}]}, "filters[0].values: must be a string"),
        ({"filters": [{"name": "JOB_NAME", "values": ["a" * 2000]}]}, "filters[0].values: must be a string"),
        ({"filters": [{"name": "AFTER_CREATED_AT", "values": ["yesterday"]}]}, "filters[0].values: must be millisec"),
        ({"filters": [{"name": "BEFORE_CREATED_AT", "values": ["-1"]}]}, "filters[0].values: must be milliseconds"),
    ],
)
def test_a_bad_query_is_refused_by_name(params: dict[str, Any], problem: str) -> None:
    with pytest.raises(MalformedError) as refusal:
        query_of({"jobQueue": "training"} | params if params else {}, ROUTES)
    assert refusal.value.detail.startswith(problem)


def test_a_null_is_as_good_as_absent_and_a_whole_number_may_have_a_point() -> None:
    nothing = {"jobStatus": None, "maxResults": None, "filters": None, "nextToken": None}
    assert query_of({"jobQueue": "training"} | nothing, ROUTES) == query_of({"jobQueue": "training"}, ROUTES)
    assert query_of({"jobQueue": "training", "maxResults": 5.0}, ROUTES).size == 5


def test_queries_are_told_apart_by_all_but_the_size_of_a_page() -> None:
    asked: list[dict[str, Any]] = [
        {},
        {"jobQueue": "training2"},
        {"jobStatus": "SUBMITTED"},
        *(
            {"filters": [{"name": name, "values": [value]}]}
            for name in ("JOB_NAME", "SHARE_IDENTIFIER", "QUOTA_SHARE_NAME")
            for value in ("a", "b")
        ),
    ]
    digests = {query_of({"jobQueue": "training"} | one, ROUTES).digest for one in asked}
    assert len(digests) == len(asked)
    assert query_of({"jobQueue": "training", "maxResults": 5}, ROUTES).digest in digests
