"""Batch at the edge of the core: answers that a test chose, in order."""

from __future__ import annotations

import asyncio
from typing import Any

from gateway.core.attempt import Answer, AnswerKind

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


class ListLog:
    """A log whose lines a test can look at."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append((event, fields))

    warning = error = info

    def of(self, event: str) -> list[dict[str, Any]]:
        return [fields for name, fields in self.lines if name == event]
