"""Queues of several upstreams behind one address: each is asked for its own, and a list goes over all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from gateway.core.attempt import Answer, AnswerKind
from gateway.core.caller import Caller
from gateway.core.errors import (
    MalformedError,
    TooManyReadsError,
    UpstreamDeniedError,
    UpstreamRefusedError,
    UpstreamUnavailableError,
)
from gateway.core.queue_reads import QueueReads
from gateway.core.reads import PacedCalls, Reads, upstream_errors
from gateway.core.reconcile import CallFailedError
from gateway.core.upstream import Routes, Upstream
from tests.core.fakes import ScriptedBudget, ScriptedOperations

if TYPE_CHECKING:
    from collections.abc import Mapping

HERE = Upstream(name="here", region="us-east-1", account="123456789012", queues=("train*",))
THERE = Upstream(name="there", region="eu-west-1", account="210987654321", queues=("eu-*",))
OPERATOR = Caller()


class Queues(ScriptedOperations):
    """The queues of one account, two a page; they and their policies are named by its Region."""

    def __init__(self, upstream: Upstream, *names: str) -> None:
        super().__init__(self._answer)
        self._upstream = upstream
        self._names = names

    def _answer(self, operation: str, params: dict[str, Any]) -> dict[str, Any]:
        if operation != "DescribeJobQueues":
            return {"asked": operation, "region": self._upstream.region, **params}
        if "jobQueues" in params:
            return {"jobQueues": [{"jobQueueName": one} for one in params["jobQueues"]]}
        start = int(params.get("nextToken", "0"))
        page = self._names[start : start + 2]
        more = {"nextToken": str(start + 2)} if start + 2 < len(self._names) else {}
        return {"jobQueues": [{"jobQueueName": one} for one in page], **more}


class Jobs:
    """A look-up that knows whose a job is."""

    def __init__(self, own: str) -> None:
        self._own = own

    async def owns(self, job: str, caller: Caller) -> bool:
        return caller.operator or job == self._own


def queue_reads(here: Queues, there: Queues, lookup: Any = None) -> QueueReads:
    reads: Mapping[str, Reads] = {
        one.tag: Reads(PacedCalls(calls, ScriptedBudget())) for one, calls in ((HERE, here), (THERE, there))
    }
    return QueueReads(routes=Routes([HERE, THERE]), lookup=lookup, reads=reads)


@pytest.fixture
def here() -> Queues:
    return Queues(HERE, "train-1", "train-2", "train-3")


@pytest.fixture
def there() -> Queues:
    return Queues(THERE, "eu-1")


def names(answer: Mapping[str, Any]) -> list[str]:
    return [one["jobQueueName"] for one in answer["jobQueues"]]


async def test_a_walk_goes_over_the_queues_of_all_upstreams(here: Queues, there: Queues) -> None:
    reads, found, pages, token = queue_reads(here, there), [], 0, None
    while pages == 0 or token:
        page = (await reads.describe_job_queues({"nextToken": token} if token else {})).answer
        found += names(page)
        pages, token = pages + 1, page.get("nextToken")
    assert (found, pages) == (["train-1", "train-2", "train-3", "eu-1"], 3)


@pytest.mark.parametrize("token", ["7.", "x", "-1.2", "99999."])
async def test_a_token_of_no_walk_is_refused(here: Queues, there: Queues, token: str) -> None:
    with pytest.raises(MalformedError, match="nextToken"):
        await queue_reads(here, there).describe_job_queues({"nextToken": token})


async def test_named_queues_are_asked_of_those_that_have_them_and_others_left_out(here: Queues, there: Queues) -> None:
    asked = ["train-1", "eu-1", "nowhere", THERE.queue_arn("eu-2"), "train-9"]
    answer = (await queue_reads(here, there).describe_job_queues({"jobQueues": asked})).answer
    assert names(answer) == ["train-1", "train-9", "eu-1", THERE.queue_arn("eu-2")]
    assert (here.calls, there.calls) == (
        [("DescribeJobQueues", {"jobQueues": ["train-1", "train-9"]})],
        [("DescribeJobQueues", {"jobQueues": ["eu-1", THERE.queue_arn("eu-2")]})],
    )


async def test_only_queues_of_nobody_are_no_call_at_all(here: Queues, there: Queues) -> None:
    answer = (await queue_reads(here, there).describe_job_queues({"jobQueues": ["nowhere"]})).answer
    assert answer == {"jobQueues": []}
    assert not here.calls
    assert not there.calls


async def test_policies_and_shares_are_asked_of_the_account_and_region_in_their_arns(
    here: Queues, there: Queues
) -> None:
    reads = queue_reads(here, there)
    policy = "arn:aws:batch:eu-west-1:210987654321:scheduling-policy/p"
    found = (await reads.describe_scheduling_policies({"arns": [policy]})).answer
    assert (found["region"], found["arns"]) == ("eu-west-1", [policy])
    share = "arn:aws:batch:us-east-1:123456789012:job-queue/train-1/quota-share/gold"
    assert (await reads.describe_quota_share({"quotaShareArn": share})).answer["region"] == "us-east-1"
    assert (await reads.list_quota_shares({"jobQueue": "eu-1"})).answer["region"] == "eu-west-1"
    with pytest.raises(MalformedError, match="quotaShareArn"):
        await reads.describe_quota_share({"quotaShareArn": share.replace("us-east-1", "us-east-2")})
    with pytest.raises(MalformedError, match="jobQueue"):
        await reads.list_quota_shares({})


async def test_at_the_front_of_a_queue_callers_see_their_own_jobs_alone(here: Queues, there: Queues) -> None:
    front = [{"jobArn": "mine"}, {"jobArn": "theirs"}]
    here.answer = lambda *_: {
        "frontOfQueue": {"jobs": front, "lastUpdatedAt": 1},
        "frontOfQuotaShares": {"quotaShares": {"gold": front[:1], "tin": front[1:]}, "lastUpdatedAt": 1},
    }
    reads = queue_reads(here, there, Jobs("mine"))
    asked = {"jobQueue": "train-1"}
    seen = (await reads.job_queue_snapshot(asked, Caller(name="a", namespace="a", operator=False))).answer
    assert seen == {
        "frontOfQueue": {"jobs": [{"jobArn": "mine"}], "lastUpdatedAt": 1},
        "frontOfQuotaShares": {"quotaShares": {"gold": [{"jobArn": "mine"}]}, "lastUpdatedAt": 1},
    }
    assert (await reads.job_queue_snapshot(asked, OPERATOR)).answer["frontOfQueue"]["jobs"] == front


@pytest.mark.parametrize(
    ("kind", "told", "retry_after"),
    [
        (AnswerKind.REFUSED, UpstreamRefusedError, None),
        (AnswerKind.DENIED, UpstreamDeniedError, None),
        (AnswerKind.THROTTLED, TooManyReadsError, 3),
        (AnswerKind.UNCLEAR, UpstreamUnavailableError, 3),
        (AnswerKind.NOT_SENT, UpstreamUnavailableError, 3),
        (AnswerKind.CREDENTIALS, UpstreamUnavailableError, 3),
        (AnswerKind.TRANSIENT, UpstreamUnavailableError, 3),
    ],
)
def test_what_batch_fails_with_is_told_in_our_words(kind: AnswerKind, told: type, retry_after: float | None) -> None:
    with pytest.raises(told) as raised, upstream_errors():
        raise CallFailedError(Answer(kind=kind, code="Code", message="words", wait_seconds=3))
    assert raised.value.retry_after_seconds == retry_after
