"""What the demo sends: three shares' jobs in one burst, some twice, one that is wrong, one over its share's limit."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gateway.dev.example import QUEUE, example

if TYPE_CHECKING:
    import aiohttp

JOBS_PER_SHARE = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Team:
    """A share of the demo: its weight, how many of its jobs are sent twice, and a rate in submissions a second."""

    share: str
    weight: float
    repeats: int
    rate: float = 0.0


# At 3:2:1 of five calls a second vision is through after 8 seconds, text after 10, audio after 12: apart enough to see.
# Audio's rate is so slow that the demo is over before it gives room for one more than its burst.
TEAMS = (
    Team(share="vision", weight=3, repeats=3),
    Team(share="text", weight=2, repeats=2),
    Team(share="audio", weight=1, repeats=1, rate=0.05),
)
SHARES = [
    {"queue": QUEUE, "share": one.share, "weight": one.weight, "rate": one.rate, "burst": JOBS_PER_SHARE}
    for one in TEAMS
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one request came to. `errors` are the pointers and details of an invalid one."""

    share: str
    token: str
    status: int
    replayed: bool
    submission_id: str | None
    problem: str | None = None
    errors: tuple[tuple[str, str], ...] = ()
    retry_after_seconds: int | None = None

    @property
    def accepted(self) -> bool:
        return self.submission_id is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """All answers; `seconds` is how long the burst took from the first request to the last answer."""

    answers: list[Answer] = field(default_factory=list)
    seconds: float = 0.0

    def accepted(self) -> dict[str, str]:
        """Share by submissionId."""
        return {one.submission_id: one.share for one in self.answers if one.submission_id is not None}


async def send(http: aiohttp.ClientSession) -> Sent:
    """The burst, all at once; then the one over its limit, so that it is always this one that is refused."""
    bodies = [_job(team.share, number) for team in TEAMS for number in range(1, JOBS_PER_SHARE + 1)]
    bodies += [_job(team.share, number) for team in TEAMS for number in range(1, team.repeats + 1)]
    bodies.append(_invalid())
    began = time.monotonic()
    answers = await asyncio.gather(*(_post(http, body) for body in bodies))
    seconds = time.monotonic() - began
    return Sent(answers=[*answers, await _post(http, _job("audio", JOBS_PER_SHARE + 1))], seconds=seconds)


def unexpected(sent: Sent) -> list[str]:
    """Which answers are not what the demo was made to get, in sentences."""
    counts = {
        "accepted": (len(sent.accepted()), len(TEAMS) * JOBS_PER_SHARE),
        "replayed": (sum(one.replayed for one in sent.answers), sum(team.repeats for team in TEAMS)),
        "invalid": (sum(one.problem == "invalid-submission" for one in sent.answers), 1),
        "rate-limited": (sum(one.problem == "rate-limited" for one in sent.answers), 1),
    }
    found = [f"{got} {what} instead of {wanted}" for what, (got, wanted) in counts.items() if got != wanted]
    known = {None, "invalid-submission", "rate-limited"}
    others = [one for one in sent.answers if one.problem not in known or (not one.accepted and not one.problem)]
    return found + [f"{one.token}: {one.status} {one.problem or ''}".rstrip() for one in others]


def _job(share: str, number: int) -> dict[str, Any]:
    name = f"{share}-{number:02}"
    return example(name, share=share, token=name)


def _invalid() -> dict[str, Any]:
    """Three mistakes, of Batch's rules and of SageMaker's: all three must be told at once."""
    body = _job("text", JOBS_PER_SHARE + 1)
    payload = body["serviceRequestPayload"]
    payload["StoppingCondition"] = {"MaxRuntimeInSeconds": "1 hour"}
    del payload["RoleArn"]
    return {**body, "jobName": "text 21!"}


async def _post(http: aiohttp.ClientSession, body: dict[str, Any]) -> Answer:
    async with http.post("/v1/submissions", json=body) as response:
        told = await response.json(content_type=None)
        wait = response.headers.get("Retry-After")
        return Answer(
            share=body["shareIdentifier"],
            token=body["clientToken"],
            status=response.status,
            replayed=response.headers.get("Idempotent-Replayed") == "true",
            submission_id=told.get("submissionId") if response.ok else None,
            problem=None if response.ok else str(told.get("type", "")).rpartition("/")[2],
            errors=tuple((one["pointer"], one["detail"]) for one in told.get("errors", [])),
            retry_after_seconds=int(wait) if wait else None,
        )
