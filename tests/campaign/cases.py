"""The evidence sorted by submission: what callers, Batch, the logs and the store say of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.campaign.evidence import Evidence

TAG = "gateway:submission-id"
ACCEPTED = (200, 202)


@dataclass(slots=True, kw_only=True)
class Case:
    """One submission. `sent` is when its token was first sent, `acknowledged` when that was first answered; seconds
    since the epoch.

    `asked` are callers' calls, `calls` SubmitServiceJob as Batch took them, `jobs` what came of these, `lines` of the
    gateways' logs, `resource` what GET says at the end (None for 404).
    """

    submission_id: str
    asked: list[dict[str, Any]] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    jobs: list[dict[str, Any]] = field(default_factory=list)
    lines: list[dict[str, Any]] = field(default_factory=list)
    resource: dict[str, Any] | None = None
    record: dict[str, Any] | None = None
    share: str | None = None
    priority: int = 0

    @property
    def submits(self) -> list[dict[str, Any]]:
        return [one for one in self.asked if one["act"] == "submit"]

    @property
    def sent(self) -> float | None:
        return min((one["at"] for one in self.submits), default=None)

    @property
    def acknowledged(self) -> float | None:
        return min((one["ended"] for one in self.submits if one["status"] in ACCEPTED), default=None)

    @property
    def changed(self) -> bool:
        """Whether anybody tried to cancel it or to give it another priority."""
        return any(one["act"] in ("cancel", "reprioritise") for one in self.asked)

    @property
    def state(self) -> str | None:
        return self.resource["state"] if self.resource else None

    @property
    def attempts(self) -> list[dict[str, Any]]:
        return self.resource["attempts"] if self.resource else []

    def said(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["event"] == event]


class Cases:
    """All submissions that anything is known of, by id; `strays` are jobs that no tag gives to one."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self.by_id: dict[str, Case] = {}
        self.strays = [job for job in evidence.jobs if not job["tags"].get(TAG)]
        self.id_of_token = self._tokens()
        self._add_callers()
        self._add_batch()
        for line in evidence.lines:
            if line.get("submission_id"):
                self._case(line["submission_id"]).lines.append(line)
        records = evidence.snapshots[-1]["records"] if evidence.snapshots else {}
        for one, record in records.items():
            self._case(one).record = record
        for one, resource in evidence.resources.items():
            self._case(one).resource = resource["body"] if resource["status"] == 200 else None

    def _case(self, submission_id: str) -> Case:
        return self.by_id.setdefault(submission_id, Case(submission_id=submission_id))

    def _tokens(self) -> dict[str, str]:
        """Callers' tokens that are known to be of a submission: by an answer, or by the store's record."""
        found: dict[str, str] = {}
        for snapshot in self.evidence.snapshots:
            found.update({record["token"]: one for one, record in snapshot["records"].items() if record})
        for event in self.evidence.history:
            answer = event.get("answer") or {}
            if event["kind"] == "call" and event["act"] == "submit" and "submissionId" in answer:
                found.setdefault(event["token"], answer["submissionId"])
        return found

    def _add_callers(self) -> None:
        for event in self.evidence.history:
            if event["kind"] != "call":
                continue
            one = event.get("submission") or self.id_of_token.get(event.get("token", ""))
            if one is None:
                continue
            case = self._case(one)
            case.asked.append(event)
            if event["act"] == "submit":
                case.share, case.priority = event["share"], event["priority"]

    def _add_batch(self) -> None:
        """A call belongs to the submission whose job has its token, else to the only one that has its name."""
        owners: dict[str, str] = {}
        for job in self.evidence.jobs:
            one = job["tags"].get(TAG)
            if one:
                self._case(one).jobs.append(job)
                owners[job["clientToken"]] = one
        named: dict[str, set[str]] = {}
        for one, case in self.by_id.items():
            for event in case.submits:
                named.setdefault(event["name"], set()).add(one)
        for call in self.evidence.calls:
            if call["operation"] != "SubmitServiceJob":
                continue
            by_name = named.get(call["jobName"], set())
            one = owners.get(call["clientToken"]) or (next(iter(by_name)) if len(by_name) == 1 else None)
            if one:
                self._case(one).calls.append(call)


def seconds(moment: str) -> float:
    """Of an ISO time in an answer, since the epoch."""
    return datetime.fromisoformat(moment).timestamp()
