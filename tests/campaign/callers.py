"""Callers as they are: impatient, stubborn, several at once with one token, and given to second thoughts."""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import aiohttp

from tests.campaign.plan import QUEUE, SHARES, Plan
from tests.examples import training_job

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.campaign.fleet import Gateway
    from tests.campaign.history import History

MOST_TRIES = 8
REMEMBERED = 40  # of its own submissions, a caller comes back to the newest
_POPULAR = (4, 3, 2, 1)  # of the shares: what one has put off must have gone soon after the end
BATCH_FACE = "/v1/submitservicejob"
ACCEPTED = (200, 202)
TOO_MANY = 429

# What a caller does next, by weight.
HABITS = {"submit": 50, "everywhere": 12, "again": 8, "cancel": 10, "reprioritise": 8, "look": 12}


class Caller:
    """One of them: does one thing after the other, until told to stop.

    Whatever got no answer, or a 503, is sent again to another gateway; whether it happened nobody but the checker can
    tell.
    """

    def __init__(self, number: int, plan: Plan, gateways: list[Gateway], history: History) -> None:
        self._number = number
        self._plan = plan
        self._gateways = gateways
        self._history = history
        self._chance = plan.chance("caller", number)
        self._faces = plan.chance("face", number)
        self._sent = 0
        self._known: deque[tuple[str, dict[str, Any]]] = deque(maxlen=REMEMBERED)  # (submissionId, body)

    async def run(self, stop: asyncio.Event) -> None:
        mean = self._plan.callers / self._plan.arrivals
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as self._http:
            while not stop.is_set():
                await asyncio.sleep(self._chance.expovariate(1 / mean))
                (habit,) = self._chance.choices(list(HABITS), list(HABITS.values()))
                await self._do(habit)

    async def _do(self, habit: str) -> None:
        if habit in ("submit", "everywhere") or not self._known:
            await self._submit(self._body(), everywhere=habit == "everywhere")
            return
        submission_id, body = self._chance.choice(self._known)
        match habit:
            case "again":
                await self._submit(body, everywhere=False)
            case "cancel":
                await self._insist("cancel", "POST", f"/{submission_id}/cancel", {"reason": "changed our minds"})
            case "reprioritise":
                change = {"schedulingPriority": self._chance.randint(0, 9)}
                await self._insist("reprioritise", "PATCH", f"/{submission_id}", change)
            case "look":
                await self._insist("look", "GET", f"/{submission_id}")

    def _body(self) -> dict[str, Any]:
        """A new submission. Now and then its job has the name of the one before: names tell nobody whose a job is."""
        if self._chance.random() > 0.1 or not self._sent:
            self._sent += 1
        name = f"c{self._number}-{self._sent}"
        return {
            "clientToken": f"t-{self._number}-{self._chance.getrandbits(64):016x}",
            "jobName": name,
            "jobQueue": QUEUE,
            "shareIdentifier": self._chance.choices(SHARES, _POPULAR)[0].name,
            "schedulingPriority": self._chance.randint(0, 3),
            "serviceJobType": "SAGEMAKER_TRAINING",
            "serviceRequestPayload": training_job(name),
        }

    async def _submit(self, body: dict[str, Any], *, everywhere: bool) -> None:
        headers = {}
        if self._chance.random() < 0.04:
            by = datetime.now(UTC) + timedelta(seconds=self._chance.uniform(0.5, 5.0))
            headers["Deadline"] = by.isoformat()
        # Some come as Batch's own clients do; repeats may come by the other face.
        path = BATCH_FACE if self._faces.random() < 0.25 and not headers else ""
        if everywhere:
            await asyncio.gather(
                *(self._insist("submit", "POST", path, body, headers, first=one) for one in self._gateways)
            )
        else:
            await self._insist("submit", "POST", path, body, headers)

    async def _insist(
        self,
        act: str,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        *,
        first: Gateway | None = None,
    ) -> None:
        """Until there is an answer, at another gateway each time; callers have no patience without end."""
        gateway = first or self._chance.choice(self._gateways)
        for _ in range(MOST_TRIES):
            status, answer = await self._call(gateway, act, method, path, body, headers)
            if status in ACCEPTED and act == "submit":
                assert body is not None
                self._known.append((str(answer["submissionId"]), body))
            if status is not None and status < 500 and (status != TOO_MANY or self._chance.random() < 0.6):
                return
            await asyncio.sleep(self._chance.uniform(0.05, 0.5))
            gateway = self._chance.choice([one for one in self._gateways if one is not gateway])

    async def _call(  # noqa: PLR0917 - as an HTTP request has them
        self,
        gateway: Gateway,
        act: str,
        method: str,
        path: str,
        body: dict[str, Any] | None,
        headers: dict[str, str] | None,
    ) -> tuple[int | None, dict[str, Any]]:
        patience = self._chance.uniform(0.3, 2.5)
        status: int | None = None
        answer: dict[str, Any] = {}
        failure = None
        sent = time.time()
        try:
            if gateway.url is None:
                raise aiohttp.ClientConnectionError("it is down")
            by_batch = path == BATCH_FACE
            async with self._http.request(
                method,
                f"{gateway.url}{path if by_batch else f'/v1/submissions{path}'}",
                json=_as_batch_has_it(body) if by_batch and body else body,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=patience),
            ) as response:
                answer = await response.json(content_type=None)
                status = response.status
                if by_batch:
                    answer = _as_here(answer, response.headers)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            failure = type(error).__name__
        self._history.note(
            "call",
            at=sent,
            ended=time.time(),
            caller=self._number,
            gateway=gateway.number,
            act=act,
            status=status,
            failure=failure,
            face="batch" if path == BATCH_FACE else "own",
            **_told(act, path, body, headers),
            answer={name: answer[name] for name in _KEPT if name in answer},
        )
        return status, answer


def _as_batch_has_it(body: dict[str, Any]) -> dict[str, Any]:
    """The payload as text."""
    return {**body, "serviceRequestPayload": json.dumps(body["serviceRequestPayload"])}


def _as_here(answer: dict[str, Any], headers: Mapping[str, str]) -> dict[str, Any]:
    """An answer of Batch's own face, in the members of the other: the job's id only where it is Batch's."""
    submission_id = headers.get("x-gateway-submission-id")
    if submission_id is None:
        return {"title": answer.get("message")}
    told = {"jobId": answer["jobId"]} if answer.get("jobId") != submission_id else {}
    return {"submissionId": submission_id, **told}


_KEPT = ("submissionId", "state", "jobId", "cancelRequested", "acceptedAt", "schedulingPriority", "type", "title")


def _told(act: str, path: str, body: dict[str, Any] | None, headers: dict[str, str] | None) -> dict[str, Any]:
    """What was asked, as the history keeps it."""
    if act != "submit":
        change = {"priority": body["schedulingPriority"]} if body and "schedulingPriority" in body else {}
        return {"submission": path.split("/")[1], **change}
    assert body is not None
    return {
        "token": body["clientToken"],
        "name": body["jobName"],
        "share": f"{body['jobQueue']}/{body['shareIdentifier']}",
        "priority": body["schedulingPriority"],
        **({"deadline": headers["Deadline"]} if headers else {}),
    }
