"""How far a walk through ListServiceJobs' pages has come, and what it has shown: all of it is in `nextToken`.

A token is base64url of JSON. It is the caller's to send back, so each part of it is checked like any other input.
"""

from __future__ import annotations

import base64
import json
import re
from bisect import bisect_left
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from gateway.core.identity import TAG_CHARACTERS, SubmissionId
from gateway.core.job_query import refuse
from gateway.core.job_view import milliseconds
from gateway.core.ports import Indexed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.core.submission import Submission

VERSION = 1
# Walks of so many pages are exact. In longer ones, which nobody makes who asks for a hundred at a time, one that leaves
# the queue during the walk may be shown twice.
MAX_PARTS = 2500
# What leaves in the millisecond in which it is shown is told by its id: more than a few are a store's bad clock.
MAX_LEFT_AT_ONCE = 100
MAX_BATCH_TOKEN_CHARACTERS = 32_768

_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_DIGEST = re.compile(r"[0-9a-f]{16}")
# A place as one number: its time, then 48 bits of the id, which tell those of a millisecond apart.
_ID_BITS = 48
_MAX_MS = 10**15
_MAX_NUMBER = _MAX_MS << _ID_BITS


class Stage(StrEnum):
    """What is shown now, in this order."""

    WAITING = "waiting"  # what waits in the gateway
    BATCH = "batch"  # what Batch lists
    ENDED = "ended"  # what ended in the gateway
    OVER = "over"


_STAGES = list(Stage)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of the waiting ones, down to the place `end`, which was read at `at_ms` of the store's time."""

    end: int
    at_ms: int


@dataclass(slots=True, kw_only=True)
class Walk:
    """One walk; `digest` is its query's, `place` the last one looked at in this stage.

    `top` is the first place that was seen waiting, `parts` what has been seen down from there, in that order;
    `left_at_once` are those that were shown and left in the very millisecond of the reading.
    """

    digest: str
    stage: Stage = Stage.WAITING
    place: Indexed | None = None
    batch_token: str | None = None
    top: int = 0
    parts: list[Part] = field(default_factory=list)
    left_at_once: set[SubmissionId] = field(default_factory=set)

    def goes_on(self) -> None:
        """To the next stage."""
        self.stage = _STAGES[_STAGES.index(self.stage) + 1]
        self.place = None

    def has_seen(self, first: Indexed, last: Indexed, at_ms: int) -> None:
        """From here to there what waited at that time was read."""
        self.top = self.top or _number(first)
        self.parts.append(Part(end=_number(last), at_ms=at_ms))
        if len(self.parts) > MAX_PARTS:
            gaps = [later.at_ms - sooner.at_ms for sooner, later in pairwise(self.parts)]
            del self.parts[gaps.index(min(gaps))]  # the part behind takes its place in, with its own time

    def saw_waiting(self, submission: Submission) -> bool:
        """Whether it was queued when its place was read: it has not left since, or it left after that."""
        number = _number(place_of(submission))
        if number > self.top or not self.parts or number < self.parts[-1].end:
            return False
        if submission.settled_at is None or submission.submission_id in self.left_at_once:
            return True
        part = self.parts[bisect_left(self.parts, -number, key=lambda one: -one.end)]
        return milliseconds(submission.settled_at) > part.at_ms

    def token(self) -> str:
        """Numbers as differences: each part takes some 40 characters."""
        ends = [self.top, *(one.end for one in self.parts)]
        times = [0, *(one.at_ms for one in self.parts)]
        fields = [
            VERSION,
            self.digest,
            self.stage.value,
            [self.place.accepted_ms, self.place.submission_id] if self.place else None,
            self.batch_token,
            self.top,
            [before - end for before, end in pairwise(ends)],
            [at - before for before, at in pairwise(times)],
            sorted(self.left_at_once)[:MAX_LEFT_AT_ONCE],
        ]
        return base64.urlsafe_b64encode(json.dumps(fields, separators=(",", ":")).encode()).decode().rstrip("=")


def place_of(submission: Submission) -> Indexed:
    return Indexed(accepted_ms=milliseconds(submission.accepted_at), submission_id=submission.submission_id)


def resumed(token: Any, digest: str) -> Walk:
    """The walk that a token goes on with. Raises MalformedError for another query's token, and for what is none."""
    if not isinstance(token, str):
        refuse("nextToken", "is none that this gateway gave")
    try:
        fields = json.loads(base64.b64decode(token + "=" * (-len(token) % 4), b"-_", validate=True))
        walk = _walk(fields)
    except (ValueError, TypeError, RecursionError):
        refuse("nextToken", "is none that this gateway gave")
    if walk.digest != digest:
        refuse("nextToken", "belongs to a request with other parameters")
    return walk


def _walk(fields: Any) -> Walk:
    """Raises ValueError and TypeError for what `token` does not write."""
    version, digest, stage, place, batch_token, top, ends, times, left = fields
    _must(type(version) is int and version == VERSION)
    _must(isinstance(digest, str) and _DIGEST.fullmatch(digest) is not None)
    _must(batch_token is None or (isinstance(batch_token, str) and len(batch_token) <= MAX_BATCH_TOKEN_CHARACTERS))
    _must(isinstance(ends, list) and isinstance(times, list) and len(ends) == len(times) <= MAX_PARTS)
    _must(isinstance(left, list) and len(left) <= MAX_LEFT_AT_ONCE)
    return Walk(
        digest=digest,
        stage=Stage(stage),
        place=_place(*place) if place is not None else None,
        batch_token=batch_token,
        top=_whole(top, 0, _MAX_NUMBER),
        parts=_parts(top, ends, times),
        left_at_once={_id(one) for one in left},
    )


def _parts(top: int, ends: Sequence[Any], times: Sequence[Any]) -> list[Part]:
    parts, end, at_ms = [], top, 0
    for down, later in zip(ends, times, strict=True):
        end = _whole(end - _whole(down, 0, _MAX_NUMBER), 0, _MAX_NUMBER)
        at_ms = _whole(at_ms + _whole(later, -_MAX_MS, _MAX_MS), 0, _MAX_MS)  # a store's clock may be set back
        parts.append(Part(end=end, at_ms=at_ms))
    return parts


def _place(ms: Any, wanted: Any) -> Indexed:
    return Indexed(accepted_ms=_whole(ms, 0, _MAX_MS), submission_id=_id(wanted))


def _id(value: Any) -> SubmissionId:
    _must(isinstance(value, str) and _ID.fullmatch(value) is not None)
    return SubmissionId(value)


def _whole(value: Any, least: int, most: int) -> int:
    _must(type(value) is int and least <= value <= most)
    number: int = value
    return number


def _must(holds: bool) -> None:  # noqa: FBT001 - an assertion that stays in
    if not holds:
        raise ValueError


def _number(place: Indexed) -> int:
    bits = place.submission_id.replace("-", "")[TAG_CHARACTERS : TAG_CHARACTERS + _ID_BITS // 4]
    return (place.accepted_ms << _ID_BITS) + int(bits, 16)
