"""Which queues new settings would take away from the upstream that has their submissions."""

from __future__ import annotations

import pytest

from gateway.core.moves import move_of
from gateway.core.upstream import Routes, Upstream

EAST = Upstream(name="east", account="123456789012", region="us-east-1")
WEST = Upstream(name="west", account="123456789012", region="us-west-2")


def configured(upstream: Upstream, *queues: str, name: str | None = None) -> Upstream:
    return Upstream(name=name or upstream.name, account=upstream.account, region=upstream.region, queues=queues)


@pytest.mark.parametrize(
    "routes",
    [
        pytest.param([configured(EAST, "*")], id="alone"),
        pytest.param([configured(EAST, "train*"), configured(WEST, "*")], id="first"),
        pytest.param([configured(WEST, "other"), configured(EAST, "training")], id="behind one that does not fit"),
        pytest.param([configured(EAST, "*", name="renamed")], id="renamed"),
    ],
)
def test_a_queue_that_is_still_found_there_stays(routes: list[Upstream]) -> None:
    assert move_of(EAST, "training", Routes(routes)) is None


@pytest.mark.parametrize(
    ("routes", "target", "words"),
    [
        pytest.param([configured(WEST, "*")], "west", "do not have", id="gone"),
        pytest.param([configured(WEST, "other")], None, "do not have", id="gone, and nobody has it"),
        pytest.param([configured(EAST, "other"), configured(WEST, "*")], "west", "do not fit", id="other globs"),
        pytest.param([configured(EAST, "Training")], None, "do not fit", id="other letters"),
    ],
)
def test_a_queue_that_is_not_found_there_any_more_moves(routes: list[Upstream], target: str | None, words: str) -> None:
    move = move_of(EAST, "training", Routes(routes))
    assert move is not None
    assert (move.target.name if move.target else None, move.by_arn_it_stays) == (target, False)
    assert words in move.because


def test_where_another_comes_first_only_the_bare_name_moves() -> None:
    move = move_of(EAST, "training", Routes([configured(WEST, "t*"), configured(EAST, "*")]))
    assert move is not None
    assert move.by_arn_it_stays
    assert move.target is not None
    assert move.target.name == "west"


def test_the_sentence_names_queue_number_and_both_upstreams() -> None:
    move = move_of(EAST, "training", Routes([configured(WEST, "*")]))
    assert move is not None
    assert move.sentence(12) == (
        "upstream: the queue training still has 12 queued at east (123456789012, us-east-1), which these settings do "
        "not have; it would go to west (123456789012, us-west-2). Let it drain there first: a repeat of what is queued "
        "would be a second job"
    )
    nowhere = move_of(EAST, "training", Routes([configured(WEST, "other")]))
    assert nowhere is not None
    assert "; no upstream would have it. " in nowhere.sentence(1)
