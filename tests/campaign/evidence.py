"""All that the checker judges by: plain data from outside, in a folder that can be looked at again later."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a campaign left.

    - `facts`: the seed, the shares' limits, the lease: `Plan.facts`.
    - `history`: what `history.History` wrote, by time.
    - `calls`, `jobs`: the emulator's ledger and jobs, as its admin face shows them.
    - `resources`: by submissionId, what GET answers at the end: `{"status": …, "body": …}`.
    - `lines`: the gateways' logs, by time; each has `gateway` and `at`, in seconds since the epoch.
    - `snapshots`: what `keyspace.read_keys` read, the last one at the end and with all records.
    """

    facts: dict[str, Any]
    history: list[dict[str, Any]] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    jobs: list[dict[str, Any]] = field(default_factory=list)
    resources: dict[str, dict[str, Any]] = field(default_factory=dict)
    lines: list[dict[str, Any]] = field(default_factory=list)
    snapshots: list[dict[str, Any]] = field(default_factory=list)


HISTORY = "history.jsonl"
SNAPSHOTS = "snapshots.jsonl"
_WHOLE = ("facts", "calls", "jobs", "resources")


def keep(folder: Path, **parts: Any) -> None:
    """Writes parts that are gathered at once: facts, calls, jobs, resources."""
    for name, part in parts.items():
        (folder / f"{name}.json").write_text(json.dumps(part), encoding="utf-8")


def keep_snapshot(folder: Path, snapshot: dict[str, Any]) -> None:
    with (folder / SNAPSHOTS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(snapshot) + "\n")


def load(folder: Path) -> Evidence:
    """Of a campaign that has ended."""
    logs = sorted(folder.glob("gateway-*/log.jsonl"))
    lines = [{**line, "at": _epoch(line["timestamp"])} for path in logs for line in _lines(path)]
    return Evidence(
        **{name: json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in _WHOLE},
        history=sorted(_lines(folder / HISTORY), key=lambda one: one["at"]),
        lines=sorted(lines, key=lambda one: one["at"]),
        snapshots=_lines(folder / SNAPSHOTS),
    )


def _lines(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def _epoch(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp()
