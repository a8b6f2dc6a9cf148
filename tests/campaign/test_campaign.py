"""Short campaigns with fixed seeds, and what makes each of them worth running: that everything did go wrong."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.campaign.checker import check
from tests.campaign.package import Edit, EditError, copy_package
from tests.campaign.plan import GATEWAY_KINDS, draw, kinds_of
from tests.campaign.report import summary, told
from tests.campaign.stage import run
from tests.campaign.stores import STORE_KINDS

if TYPE_CHECKING:
    from tests.campaign.evidence import Evidence
    from tests.campaign.plan import Plan

# What a call of a gateway's may meet at Batch; looks and terminations come too seldom to be sure of.
MET = {
    "lost_answer",
    "lost_answer_hang",
    "late_500",
    "error_200_garbage",
    "drop",
    "error_500",
    "slow",
    "throttle",
    "throttle_bare",
    "client_error",
    "late_listing",
    "down",
}


async def judged(plan: Plan) -> tuple[Evidence, dict[str, Any]]:
    """What a campaign left and its figures; fails with the whole history of whatever it found."""
    with tempfile.TemporaryDirectory(prefix="cam") as scratch:  # short, for a unix socket's path
        folder = Path(scratch) / "c"
        folder.mkdir()
        evidence = await run(plan, folder, hurry=True)
    violations = check(evidence)
    assert not violations, "\n".join(told(evidence, violations))
    return evidence, summary(evidence, violations, seconds=plan.seconds)


async def test_nothing_is_lost_or_doubled_whatever_goes_wrong() -> None:
    kinds = kinds_of("standalone")
    plan = draw(seed=20, seconds=22.0, kinds=kinds, repeats="reject", every=1.0)
    assert {trouble.kind for trouble in plan.troubles} == set(kinds), "each kind has its turn"
    evidence, figures = await judged(plan)
    assert set(figures["faults"]) >= set(kinds)
    assert set(figures["metByBatch"]) >= MET
    assert sum(event["kind"] == "ended" and event["planned"] for event in evidence.history) >= 2
    assert figures["acknowledged"] > 150
    assert figures["unanswered"] > 10
    assert set(figures["states"]) >= {"forwarded", "canceled"}
    assert {"rejected", "unknown"} & set(figures["states"])  # by whether a call may have made a job before the refusal
    assert figures["snapshots"] > 3


async def test_nothing_is_lost_or_doubled_by_processes_that_come_and_go() -> None:
    kinds = (*GATEWAY_KINDS, *STORE_KINDS["standalone"])
    _, figures = await judged(draw(seed=21, seconds=7.0, kinds=kinds, repeats="replay", every=1.0))
    assert set(figures["faults"]) >= set(kinds)
    assert figures["acknowledged"] > 50


def test_a_plan_is_its_seeds() -> None:
    drawn = [draw(seed=seed, seconds=60.0, kinds=kinds_of("standalone")) for seed in (3, 3, 4)]
    assert drawn[0] == drawn[1]
    assert drawn[0].troubles != drawn[2].troubles


def test_a_token_that_is_forgotten_and_a_job_that_is_not_listed_are_not_asked_for_together() -> None:
    plan = draw(seed=3, seconds=60.0, kinds=kinds_of("standalone"), repeats="forgotten")
    assert "late_listing" not in plan.kinds


@pytest.mark.parametrize("old", ["no such text", "BASE_SECONDS"], ids=["absent", "there more than once"])
def test_an_edit_that_does_not_fit_once_is_an_error(tmp_path: Path, old: str) -> None:
    with pytest.raises(EditError, match="not once"):
        copy_package(tmp_path / "package", [Edit("core/backoff.py", old, "x")])
