"""Batch at the edge of the core: answers that a test chose, in order."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gateway.core.attempt import Answer, AnswerKind
from gateway.core.reconcile import CallFailedError, Candidate, NamedJobs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

MADE = Answer(kind=AnswerKind.SUBMITTED, job_id="job-1", job_arn="arn:1")


class ScriptedBatch:
    """Gives the answers in turn, the last one for ever; keeps the requests. `gate` holds calls back while cleared."""

    def __init__(self, *answers: Answer) -> None:
        self._answers = list(answers) or [MADE]
        self.requests: list[bytes] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def submit(self, request: bytes) -> Answer:
        self.requests.append(request)
        await self.gate.wait()
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


@dataclass
class ScriptedErrands:
    """Batch beside submitting: jobs with what their tags say, and failures in turn before any answer."""

    jobs: dict[str, str | None] = field(default_factory=dict)
    failures: list[Answer] = field(default_factory=list)
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    since: datetime | None = None
    complete: bool = True

    def _fail(self, *call: Any) -> None:
        self.calls.append(call)
        if self.failures:
            raise CallFailedError(self.failures.pop(0))

    async def jobs_named(self, request: bytes, since: datetime) -> NamedJobs:
        self._fail("list", request)
        self.since = since
        return NamedJobs(ids=list(self.jobs), complete=self.complete)

    async def candidate(self, job_id: str) -> Candidate:
        self._fail("describe", job_id)
        return Candidate(job_id=job_id, job_arn=f"arn:{job_id}", submission=self.jobs[job_id])

    async def terminate(self, job_id: str, reason: str) -> None:
        self._fail("terminate", job_id, reason)

    async def update(self, job_id: str, priority: int) -> None:
        self._fail("update", job_id, priority)


class ListLog:
    """A log whose lines a test can look at."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append((event, fields))

    warning = error = info

    def of(self, event: str) -> list[dict[str, Any]]:
        return [fields for name, fields in self.lines if name == event]


class ScriptedOperations:
    """Batch's other operations: `answer` makes each answer, or raises; the calls are kept. `gate` holds them back."""

    def __init__(self, answer: Callable[[str, dict[str, Any]], dict[str, Any]]) -> None:
        self.answer = answer
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def call(self, operation: str, params: Mapping[str, Any]) -> dict[str, Any]:
        self.calls.append((operation, dict(params)))
        await self.gate.wait()
        return self.answer(operation, dict(params))

    def of(self, operation: str) -> list[dict[str, Any]]:
        return [params for name, params in self.calls if name == operation]


class ScriptedBudget:
    """So many calls, then none; `taken` counts those that went."""

    def __init__(self, calls: float = math.inf, wait_seconds: float = 0.001) -> None:
        self.left = calls
        self.taken = 0
        self.wait_seconds = wait_seconds

    async def take(self) -> float:
        if self.left < 1:
            return self.wait_seconds
        self.left -= 1
        self.taken += 1
        return 0.0
