"""What came of the demo: as a table with a verdict, or as one JSON object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from gateway.dev.load import TEAMS
from gateway.dev.watch import COLOURS

if TYPE_CHECKING:
    from rich.console import Console

    from gateway.dev.load import Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareReport:
    """One share's part. Counts are of submissions; the wait is from acceptance to Batch."""

    share: str
    weight: float
    accepted: int
    replayed: int
    refused: tuple[Answer, ...]
    forwarded: int
    worst_wait_seconds: float

    def as_json(self) -> dict[str, Any]:
        return {
            "share": self.share,
            "weight": self.weight,
            "accepted": self.accepted,
            "replayed": self.replayed,
            "refused": [
                {
                    "token": one.token,
                    "status": one.status,
                    "problem": one.problem,
                    "pointers": [pointer for pointer, _ in one.errors],
                    "retryAfterSeconds": one.retry_after_seconds,
                }
                for one in self.refused
            ],
            "forwarded": self.forwarded,
            "worstWaitSeconds": self.worst_wait_seconds,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The whole. `calls` are those of SubmitServiceJob; `goodput` is jobs a second between the first and the last."""

    shares: tuple[ShareReport, ...]
    jobs: int
    calls: int
    goodput: float
    violations: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.violations

    @property
    def calls_per_job(self) -> float:
        return self.calls / self.jobs if self.jobs else 0.0

    def as_json(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "violations": list(self.violations),
            "accepted": sum(one.accepted for one in self.shares),
            "replayed": sum(one.replayed for one in self.shares),
            "refused": sum(len(one.refused) for one in self.shares),
            "forwarded": sum(one.forwarded for one in self.shares),
            "jobs": self.jobs,
            "calls": self.calls,
            "callsPerJob": round(self.calls_per_job, 3),
            "goodput": round(self.goodput, 3),
            "shares": [one.as_json() for one in self.shares],
        }


def show(report: Report, console: Console) -> None:
    """Table, what was refused and why, totals, verdict."""
    console.print(_table(report))
    console.print(_refusals(report), soft_wrap=True)
    jobs, calls = report.jobs, report.calls
    console.print(
        f"  {jobs} jobs from {calls} calls: {report.calls_per_job:.2f} calls a job, {report.goodput:.2f} jobs a second"
    )
    if report.ok:
        accepted = sum(one.accepted for one in report.shares)
        verdict = f"  ✔ All {accepted} accepted are in Batch exactly once: none lost, none twice."
        console.print(Text(verdict, style="bold green"), soft_wrap=True)
        return
    console.print(Text("  ✘ It did not hold:", style="bold red"))
    for one in report.violations:
        console.print(Text(f"    {one}"), soft_wrap=True)


def _table(report: Report) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 2), header_style="dim")
    table.add_column("share")
    for column in ("weight", "accepted", "replayed", "refused", "forwarded", "worst wait"):
        table.add_column(column, justify="right", no_wrap=True)
    for one in report.shares:
        table.add_row(
            Text(one.share, style=f"bold {COLOURS[one.share]}"),
            f"{one.weight:g}",
            str(one.accepted),
            str(one.replayed),
            str(len(one.refused)),
            str(one.forwarded),
            f"{one.worst_wait_seconds:.1f} s",
        )
    return table


def _refusals(report: Report) -> Text:
    lines = Text()
    for share in report.shares:
        for one in share.refused:
            lines.append(f"\n  {one.token:<10}", style=COLOURS[one.share])
            lines.append(f"{one.status} {one.problem}")
            if one.retry_after_seconds:
                lines.append(f", Retry-After: {one.retry_after_seconds} s")
            for pointer, detail in one.errors:
                lines.append(f"\n  {'':<10}{pointer}", style="dim")
                lines.append(f" {detail}", style="dim")
    lines.append("\n")
    return lines


def share_reports(answers: list[Answer], waits: dict[str, list[float]]) -> tuple[ShareReport, ...]:
    """`waits` are those of the forwarded submissions in seconds, by share."""
    reports = []
    for team in TEAMS:
        its = [one for one in answers if one.share == team.share]
        waited = waits.get(team.share, [])
        reports.append(
            ShareReport(
                share=team.share,
                weight=team.weight,
                accepted=len({one.submission_id for one in its if one.accepted}),
                replayed=sum(one.replayed for one in its),
                refused=tuple(one for one in its if not one.accepted),
                forwarded=len(waited),
                worst_wait_seconds=round(max(waited, default=0.0), 3),
            )
        )
    return tuple(reports)
