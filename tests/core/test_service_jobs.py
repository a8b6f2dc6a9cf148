"""Jobs that only Batch knows, with several upstreams behind one address: a bare id does not tell whose it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from gateway.core.attempt import Answer, AnswerKind
from gateway.core.caller import Caller
from gateway.core.errors import UpstreamRefusedError, UpstreamUnavailableError
from gateway.core.job_reads import JobReads
from gateway.core.lookup import Located
from gateway.core.reads import PacedCalls
from gateway.core.reconcile import CallFailedError
from gateway.core.service_jobs import ServiceJobs
from gateway.core.upstream import Routes
from tests.core.fakes import ListLog, ScriptedBudget, ScriptedOperations
from tests.core.test_queue_reads import HERE, THERE

if TYPE_CHECKING:
    from gateway.core.upstream import Upstream

OPERATOR = Caller()
UNKNOWN = Answer(kind=AnswerKind.REFUSED, code="ClientException", message="no such job")
AWAY = Answer(kind=AnswerKind.NOT_SENT, code="EndpointConnectionError")


class Account(ScriptedOperations):
    """Batch with these jobs; `trouble` is what it answers for others."""

    def __init__(self, *jobs: str, trouble: Answer = UNKNOWN) -> None:
        super().__init__(self._answer)
        self._jobs = jobs
        self._trouble = trouble

    def _answer(self, operation: str, params: dict[str, Any]) -> dict[str, Any]:
        if params["jobId"] not in self._jobs:
            raise CallFailedError(self._trouble)
        return {"jobId": params["jobId"], "jobArn": "arn", "status": "RUNNING"} if "Describe" in operation else {}


class Strangers:
    """A look-up that has no record of any job."""

    def __init__(self, upstream: Upstream | None = None) -> None:
        self._upstream = upstream

    async def locate(self, wanted: str, caller: Caller) -> Located:
        assert caller.operator
        return Located(job_id=wanted, upstream=self._upstream)


def service_jobs(here: Account, there: Account, upstream: Upstream | None = None) -> ServiceJobs:
    calls = {one.tag: PacedCalls(account, ScriptedBudget()) for one, account in ((HERE, here), (THERE, there))}
    nobody: Any = None
    return ServiceJobs(
        routes=Routes([HERE, THERE]),
        lookup=Strangers(upstream),  # type: ignore[arg-type]
        changes=nobody,
        reads={tag: JobReads(paced, upstream=tag, log=ListLog()) for tag, paced in calls.items()},
        calls=calls,
        outlooks={},
    )


async def test_a_bare_id_is_asked_of_each_upstream_until_one_has_it() -> None:
    here, there = Account("a"), Account("b")
    jobs = service_jobs(here, there)
    assert (await jobs.describe("b", OPERATOR)).members["jobId"] == "b"
    assert await jobs.terminate("b", OPERATOR, "enough") == (None, False)
    assert there.of("TerminateServiceJob") == [{"jobId": "b", "reason": "enough"}]
    members, _ = await jobs.update("a", OPERATOR, 7)
    assert members == {}
    assert here.of("UpdateServiceJob") == [{"jobId": "a", "schedulingPriority": 7}]
    assert not there.of("UpdateServiceJob")


async def test_what_no_upstream_has_is_refused_in_the_words_of_the_last() -> None:
    jobs = service_jobs(Account(), Account())
    for asked in (jobs.describe("x", OPERATOR), jobs.terminate("x", OPERATOR, ""), jobs.update("x", OPERATOR, 1)):
        with pytest.raises(UpstreamRefusedError, match="no such job"):
            await asked


async def test_an_upstream_that_does_not_answer_is_not_taken_for_one_that_has_it_not() -> None:
    jobs = service_jobs(Account(trouble=AWAY), Account("b"))
    with pytest.raises(UpstreamUnavailableError):
        await jobs.describe("b", OPERATOR)


async def test_an_arn_is_asked_of_its_own_account_alone() -> None:
    here, there = Account("a"), Account("a")
    await service_jobs(here, there, THERE).describe("a", OPERATOR)
    assert not here.calls
    assert there.of("DescribeServiceJob") == [{"jobId": "a"}]
