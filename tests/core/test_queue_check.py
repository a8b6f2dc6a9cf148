"""What a queue refuses, who waits for what Batch tells of it, and how often Batch is asked."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from gateway.core import queue_check as module
from gateway.core.attempt import Answer, AnswerKind
from gateway.core.errors import StoreUnavailableError
from gateway.core.queue_check import QueueCheck
from gateway.core.queue_facts import MAX_PAGES, QueueFacts, read_queue
from gateway.core.reconcile import CallFailedError
from gateway.core.share import NO_SHARE, Share
from tests.core.fakes import ListLog

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.core.queue_check import Judgement

DENIED = CallFailedError(Answer(kind=AnswerKind.DENIED, code="AccessDeniedException", message="arn:… may not"))
ENABLED = {"state": "ENABLED", "status": "VALID", "jobQueueType": "SAGEMAKER_TRAINING"}
DISABLED = ENABLED | {"state": "DISABLED"}
FAIR = {"fairsharePolicy": {}}
QUOTA = {"quotaSharePolicy": {"idleResourceAssignmentStrategy": "FIFO"}}


@dataclass
class Clock:
    now: float = 5000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Batch:
    """Queues by name, policies by ARN, pages of quota shares; `gate` holds calls back while cleared."""

    queues: dict[str, dict[str, Any]] = field(default_factory=lambda: {"training": ENABLED})
    policies: dict[str, dict[str, Any]] = field(default_factory=lambda: {"fair": FAIR, "quota": QUOTA})
    pages: list[dict[str, str]] = field(default_factory=list)
    instead: Any = None  # of any answer
    error: Exception | None = None
    asked: list[str] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    async def call(self, operation: str, params: Mapping[str, Any]) -> dict[str, Any]:
        self.asked.append(operation)
        answer = {} if self.instead is not None else getattr(self, operation)(**params)
        await self.gate.wait()
        if self.error:
            raise self.error
        return answer if self.instead is None else self.instead

    def DescribeJobQueues(self, jobQueues: list[str]) -> dict[str, Any]:  # noqa: N802, N803 - Batch's names
        shown = [{"jobQueueName": name, **self.queues[name]} for name in jobQueues if name in self.queues]
        return {"jobQueues": shown}

    def DescribeSchedulingPolicies(self, arns: list[str]) -> dict[str, Any]:  # noqa: N802
        found = [{"name": arn, "arn": arn, **self.policies[arn]} for arn in arns if arn in self.policies]
        return {"schedulingPolicies": found}

    def ListQuotaShares(self, jobQueue: str, nextToken: str = "0") -> dict[str, Any]:  # noqa: N802, N803
        assert jobQueue in self.queues
        number = int(nextToken)
        page = self.pages[number] if self.pages else {}
        shown = [{"quotaShareName": name, "state": state} for name, state in page.items()]
        return {"quotaShares": shown} | ({"nextToken": str(number + 1)} if number + 1 < len(self.pages) else {})


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def batch() -> Batch:
    return Batch()


@pytest.fixture
def log() -> ListLog:
    return ListLog()


@pytest.fixture
def check(batch: Batch, clock: Clock, log: ListLog) -> QueueCheck:
    return QueueCheck(upstream="main", calls=batch, log=log, clock=clock)


async def judge(check: QueueCheck, queue: str = "training", **member: str) -> Judgement:
    kind, name = next(iter(member.items()), ("", NO_SHARE))
    return await check.judge(Share(queue, name), kind)


async def refused(check: QueueCheck, queue: str = "training", **member: str) -> list[str]:
    """The pointers; whoever passes must have been checked."""
    judgement = await judge(check, queue, **member)
    assert judgement.warnings == ()
    return [one.pointer for one in judgement.refused]


async def warned(check: QueueCheck, queue: str = "training") -> str | None:
    """Why it could not be checked, None where it could; nobody is refused."""
    judgement = await judge(check, queue)
    assert judgement.refused == ()
    if not judgement.warnings:
        return None
    (warning,) = judgement.warnings
    assert warning.pointer == "/jobQueue"
    assert warning.detail.startswith("could not be checked against Batch: ")
    return warning.detail.removeprefix("could not be checked against Batch: ")


async def settle() -> None:
    """Whatever is ready to run does."""
    for _ in range(20):
        await asyncio.sleep(0)


def at_once(coroutine: Any) -> Any:
    """What a coroutine answers that waits for nothing; one that waits fails the test."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    coroutine.close()
    raise AssertionError("it waits")


# What a queue refuses.

VISION, OPEN, NEITHER = {"shareIdentifier": "vision"}, {"quotaShareName": "open"}, {}


@pytest.mark.parametrize(
    ("queue", "member", "pointers"),
    [
        (ENABLED, NEITHER, []),
        (ENABLED, VISION, ["/shareIdentifier"]),
        (ENABLED, OPEN, ["/quotaShareName"]),
        (ENABLED | {"schedulingPolicyArn": "fair"}, VISION, []),
        (ENABLED | {"schedulingPolicyArn": "fair"}, NEITHER, ["/shareIdentifier"]),
        (ENABLED | {"schedulingPolicyArn": "fair"}, OPEN, ["/quotaShareName", "/shareIdentifier"]),
        (ENABLED | {"schedulingPolicyArn": "quota"}, OPEN, []),
        (ENABLED | {"schedulingPolicyArn": "quota"}, NEITHER, ["/quotaShareName"]),
        (ENABLED | {"schedulingPolicyArn": "quota"}, VISION, ["/quotaShareName", "/shareIdentifier"]),
        (ENABLED | {"schedulingPolicyArn": "quota"}, {"quotaShareName": "shut"}, ["/quotaShareName"]),
        (ENABLED | {"schedulingPolicyArn": "quota"}, {"quotaShareName": "absent"}, ["/quotaShareName"]),
        (ENABLED | {"schedulingPolicyArn": "quota"}, {"quotaShareName": "on-page-two"}, []),
        (DISABLED, NEITHER, ["/jobQueue"]),
        (DISABLED | {"schedulingPolicyArn": "fair"}, NEITHER, ["/jobQueue", "/shareIdentifier"]),
        (DISABLED | {"status": "DELETING"}, NEITHER, ["/jobQueue"]),
        (ENABLED | {"status": "DELETED"}, NEITHER, ["/jobQueue"]),
        (ENABLED | {"status": "UPDATING"}, NEITHER, []),
        (ENABLED | {"status": "INVALID"}, NEITHER, []),
        (ENABLED | {"jobQueueType": "ECS"}, NEITHER, ["/jobQueue"]),
        (DISABLED | {"jobQueueType": "ECS"}, VISION, ["/jobQueue"]),
        (None, VISION, ["/jobQueue"]),
        # what Batch does not say, or says in a way that is not known here, is held against nobody
        ({}, NEITHER, []),
        (ENABLED | {"schedulingPolicyArn": "of neither kind"}, VISION, []),
        (ENABLED | {"schedulingPolicyArn": "of both kinds"}, NEITHER, []),
        (ENABLED | {"schedulingPolicyArn": "not found"}, OPEN, []),
        (ENABLED | {"state": "NEW_IN_2030"}, NEITHER, []),
    ],
)
async def test_a_queue_refuses_what_batch_would(
    queue: dict[str, str] | None, member: dict[str, str], pointers: list[str], batch: Batch, check: QueueCheck
) -> None:
    batch.queues = {} if queue is None else {"training": queue}
    batch.policies |= {"of neither kind": {}, "of both kinds": FAIR | QUOTA}
    batch.pages = [{"open": "ENABLED", "shut": "DISABLED"}, {"on-page-two": "ENABLED"}]
    judgement = await judge(check, **member)
    assert [one.pointer for one in judgement.refused] == pointers
    assert judgement.warnings == ()
    told = " ".join(one.detail for one in judgement.refused)
    assert not any(name in told for name in ("vision", "shut", "absent"))  # no values of members
    assert all("training" in one.detail for one in judgement.refused)


async def test_only_what_decides_is_asked_for(batch: Batch, check: QueueCheck) -> None:
    batch.queues = {
        "plain": ENABLED,
        "fair": ENABLED | {"schedulingPolicyArn": "fair"},
        "quota": ENABLED | {"schedulingPolicyArn": "quota"},
    }
    batch.pages = [{"open": "ENABLED"}]
    asked = {}
    for queue, member in {"plain": NEITHER, "fair": VISION, "quota": OPEN, "absent": NEITHER}.items():
        before = len(batch.asked)
        await judge(check, queue, **member)
        asked[queue] = batch.asked[before:]
    policy = ["DescribeJobQueues", "DescribeSchedulingPolicies"]
    assert asked == {
        "plain": ["DescribeJobQueues"],
        "fair": policy,
        "quota": [*policy, "ListQuotaShares"],
        "absent": ["DescribeJobQueues"],
    }


async def test_a_list_without_an_end_says_nothing_of_a_share_that_it_has_not_shown(batch: Batch) -> None:
    batch.queues = {"training": ENABLED | {"schedulingPolicyArn": "quota"}}
    batch.pages = [{f"s{number}": "DISABLED"} for number in range(MAX_PAGES + 1)]
    facts = await read_queue(batch, "training")
    assert facts.against(Share("training", "s1"), "quotaShareName") == []
    assert [one.pointer for one in facts.against(Share("training", NO_SHARE), "")] == ["/quotaShareName"]
    assert batch.asked.count("ListQuotaShares") == MAX_PAGES


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"message": "<html>"},
        {"jobQueues": None},
        {"jobQueues": ["training"]},
        {"jobQueues": [{"jobQueueName": "another", "state": "DISABLED"}]},
        {"jobQueues": [{"jobQueueName": "training", "schedulingPolicyArn": "fair"}]},  # no policies then
    ],
)
async def test_an_answer_that_makes_no_sense_refuses_nobody(
    answer: dict[str, Any], batch: Batch, check: QueueCheck, log: ListLog
) -> None:
    batch.instead = answer
    assert await warned(check) == "it cannot be asked about the queue now"
    assert log.of("queue_unchecked") == [{"upstream": "main", "queue": "training", "error_code": "MalformedAnswer"}]


async def test_a_quota_share_without_a_name_refuses_nobody(batch: Batch, check: QueueCheck) -> None:
    batch.queues = {"training": ENABLED | {"schedulingPolicyArn": "quota"}}
    batch.pages = [{"": "DISABLED", "shut": "DISABLED"}]
    judgement = await judge(check, **OPEN)
    assert (judgement.refused, len(judgement.warnings)) == ((), 1)


# Who waits, and how often Batch is asked.


async def test_the_first_wait_for_one_reading_and_the_next_for_nothing(batch: Batch, check: QueueCheck) -> None:
    batch.gate.clear()
    asking = [asyncio.ensure_future(refused(check)) for _ in range(5)]
    await settle()
    assert not any(one.done() for one in asking)
    batch.gate.set()
    assert await asyncio.gather(*asking) == [[]] * 5
    batch.gate.clear()
    assert at_once(refused(check)) == []
    assert len(batch.asked) == 1


async def test_after_a_minute_the_queue_is_read_again_beside_the_callers(
    batch: Batch, check: QueueCheck, clock: Clock
) -> None:
    await refused(check)
    batch.queues["training"] = DISABLED
    batch.gate.clear()
    for age, readings in ((59, 1), (60, 1), (60.5, 2), (61, 2), (300, 2), (600, 2)):
        clock.now = 5000 + age
        assert at_once(refused(check)) == []
        await settle()
        assert len(batch.asked) == readings
    batch.gate.set()
    await settle()
    clock.now = 5601.0
    assert await refused(check) == ["/jobQueue"]


async def test_past_ten_minutes_the_next_caller_waits_again(batch: Batch, check: QueueCheck, clock: Clock) -> None:
    await refused(check)
    batch.queues["training"] = DISABLED
    clock.now += 600.5
    assert await refused(check) == ["/jobQueue"]
    assert len(batch.asked) == 2


async def test_who_has_just_enabled_a_queue_is_not_refused(batch: Batch, check: QueueCheck, clock: Clock) -> None:
    batch.queues["training"] = DISABLED
    assert await refused(check) == ["/jobQueue"]
    batch.queues["training"] = ENABLED
    clock.now += 5.0
    assert at_once(refused(check)) == ["/jobQueue"]  # what is known is young enough
    clock.now += 0.1
    assert await refused(check) == []
    assert len(batch.asked) == 2


async def test_however_many_are_refused_the_queue_is_read_every_five_seconds(
    batch: Batch, check: QueueCheck, clock: Clock
) -> None:
    batch.queues["training"] = DISABLED
    for tick in range(600):
        clock.now = 5000 + tick / 10
        assert await refused(check) == ["/jobQueue"]
    assert 11 <= len(batch.asked) <= 12


async def test_a_refusal_never_rests_on_a_reading_that_began_too_long_ago(
    batch: Batch, check: QueueCheck, clock: Clock
) -> None:
    """A renewal that is under way when the caller comes may have asked before the queue was enabled."""
    await refused(check)
    batch.queues["training"] = DISABLED
    batch.gate.clear()
    clock.now += 61
    assert at_once(refused(check)) == []
    await settle()
    batch.queues["training"] = ENABLED
    clock.now += 550  # the facts at hand are history: the caller waits for the renewal
    asking = asyncio.ensure_future(refused(check))
    await settle()
    batch.gate.set()
    assert await asking == []
    assert len(batch.asked) == 3


@pytest.mark.parametrize(
    ("error", "code"),
    [(DENIED, "AccessDeniedException"), (StoreUnavailableError("away"), "StoreUnavailableError")],
)
async def test_a_queue_that_cannot_be_read_is_logged_with_the_reason(
    error: Exception, code: str, batch: Batch, check: QueueCheck, log: ListLog
) -> None:
    batch.error = error
    await warned(check)
    assert log.of("queue_unchecked") == [{"upstream": "main", "queue": "training", "error_code": code}]


async def test_where_batch_cannot_be_asked_submissions_pass_and_ten_seconds_long_nobody_waits(
    batch: Batch, check: QueueCheck, clock: Clock
) -> None:
    batch.error = DENIED
    assert await warned(check) == "it cannot be asked about the queue now"
    batch.error = None
    for seconds in (0, 5, 4.9):
        clock.now += seconds
        assert at_once(warned(check)) == "it cannot be asked about the queue now"
    assert len(batch.asked) == 1
    clock.now += 0.1
    assert at_once(warned(check)) == "it cannot be asked about the queue now"  # it is asked beside the caller now
    await settle()
    assert len(batch.asked) > 1
    assert at_once(warned(check)) is None


async def test_facts_at_hand_serve_on_while_batch_cannot_be_asked(
    batch: Batch, check: QueueCheck, clock: Clock, log: ListLog
) -> None:
    await refused(check)
    batch.error = DENIED
    for age in range(61, 601):
        clock.now = 5000.0 + age
        assert at_once(refused(check)) == []
        await settle()
    assert len(batch.asked) == 1 + 54  # every ten seconds
    assert len(log.of("queue_unchecked")) == 9  # once a minute
    clock.now = 5601.0
    assert await warned(check)


async def test_nobody_is_refused_by_old_facts_that_cannot_be_read_again(
    batch: Batch, check: QueueCheck, clock: Clock
) -> None:
    batch.queues["training"] = DISABLED
    await refused(check)
    batch.error = DENIED
    clock.now += 6
    assert await warned(check) == "it cannot be asked about the queue now"


async def test_a_slow_reading_keeps_one_caller_a_second_and_the_next_not_at_all(
    batch: Batch, check: QueueCheck, clock: Clock, log: ListLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert module.WAIT_SECONDS == 1.0
    monkeypatch.setattr(module, "WAIT_SECONDS", 0.05)
    batch.queues["training"] = DISABLED
    batch.gate.clear()
    assert await asyncio.wait_for(warned(check), 5) == "it did not answer in time"
    clock.now += 2
    assert at_once(warned(check)) == "it did not answer in time"
    assert log.of("queue_unchecked") == [{"upstream": "main", "queue": "training", "error_code": "SlowReading"}]
    batch.gate.set()
    await settle()
    assert at_once(refused(check)) == ["/jobQueue"]  # the late answer is of use
    assert len(batch.asked) == 1
    clock.now += 4  # and shows that there is no reason any more not to wait
    assert await refused(check) == ["/jobQueue"]
    assert len(batch.asked) == 2


async def test_who_waits_twice_waits_a_second_in_all(batch: Batch, check: QueueCheck, clock: Clock) -> None:
    """The answer comes so late that it is too old to refuse by, and there is no time for another."""
    batch.queues["training"] = DISABLED
    batch.gate.clear()
    first = asyncio.ensure_future(warned(check))
    await settle()
    clock.now += 5.5
    batch.gate.set()
    assert await first == "it did not answer in time"
    assert len(batch.asked) == 1


async def test_who_gives_up_waiting_takes_the_reading_from_nobody(batch: Batch, check: QueueCheck) -> None:
    batch.gate.clear()
    impatient, patient = (asyncio.ensure_future(refused(check)) for _ in range(2))
    await settle()
    impatient.cancel()
    await settle()
    batch.gate.set()
    assert await patient == []


# Queues that nobody knows.


async def test_invented_names_cost_one_call_a_second_and_take_nothing_from_known_queues(
    batch: Batch, check: QueueCheck, clock: Clock, log: ListLog
) -> None:
    await refused(check)
    judgements = [await judge(check, f"invented-{number}") for number in range(3000)]
    assert [len(one.refused) for one in judgements[:49]] == [1] * 49
    assert {one.refused for one in judgements[49:]} == {()}
    (warning,) = judgements[-1].warnings
    assert warning.detail.endswith("too many queues that are new to this gateway are named at once")
    assert len(batch.asked) == 50
    assert [line["error_code"] for line in log.of("queue_unchecked")] == ["TooManyNewQueues"]
    clock.now += 2
    for number in range(100):
        await judge(check, f"more-{number}")
    assert len(batch.asked) == 52


async def test_a_flood_of_invented_names_keeps_no_known_queue_from_being_read_again(
    batch: Batch, check: QueueCheck, clock: Clock
) -> None:
    await refused(check)
    batch.queues["training"] = DISABLED
    clock.now += 61
    for number in range(2000):
        await judge(check, f"invented-{number}")
    assert await refused(check) == []
    await settle()
    assert await refused(check) == ["/jobQueue"]


async def test_quiet_hours_save_up_no_more_readings_of_invented_names(
    batch: Batch, check: QueueCheck, clock: Clock
) -> None:
    clock.now += 3600
    for number in range(100):
        await judge(check, f"invented-{number}")
    assert len(batch.asked) == 50


async def test_the_same_invented_name_again_and_again_is_within_the_budget_too(
    batch: Batch, check: QueueCheck, clock: Clock
) -> None:
    names = [f"invented-{number}" for number in range(50)]
    for tick in range(60):
        clock.now = 5000.0 + tick * 10
        for name in names:
            await judge(check, name)
    assert len(batch.asked) <= 50 + 590


async def test_only_so_many_queues_are_remembered(
    batch: Batch, check: QueueCheck, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KNOWN_QUEUES", 3)
    monkeypatch.setattr(module, "STRANGE_QUEUES", 4)
    batch.queues = {f"q{number}": ENABLED for number in range(5)}
    for number in range(4):
        await refused(check, f"q{number}")
        await refused(check, "q0")  # one that is used stays
    assert len(batch.asked) == 4
    for number in range(10):
        await refused(check, f"invented-{number}")
    assert list(check._known) == ["q2", "q3", "q0"]
    assert list(check._strange) == [f"invented-{number}" for number in range(6, 10)]


async def test_a_queue_that_was_deleted_is_a_strange_one_and_the_other_way_round(
    batch: Batch, check: QueueCheck, clock: Clock
) -> None:
    seen = []
    for queues in ({}, {"training": ENABLED}, {}):
        batch.queues = queues
        clock.now += 601
        seen.append((await refused(check), list(check._known), list(check._strange)))
    assert seen == [(["/jobQueue"], [], ["training"]), ([], ["training"], []), (["/jobQueue"], [], ["training"])]


# Many at once, bugs, the end.


async def test_many_are_judged_in_order_with_one_reading_a_queue_and_all_queues_at_once(
    batch: Batch, check: QueueCheck
) -> None:
    batch.queues = {"a": ENABLED, "b": DISABLED}
    batch.gate.clear()
    plain = [(Share(queue, NO_SHARE), "") for queue in ("a", "b", "a", "c", "b")]
    asking = asyncio.ensure_future(check.judge_many([*plain, (Share("a", "vision"), "shareIdentifier")]))
    await settle()
    assert len(batch.asked) == 3
    batch.gate.set()
    judged = await asking
    pointers = [[finding.pointer for finding in one.refused] for one in judged if not isinstance(one, Exception)]
    assert pointers == [[], ["/jobQueue"], [], ["/jobQueue"], ["/jobQueue"], ["/shareIdentifier"]]
    assert len(batch.asked) == 3
    assert await check.judge_many([]) == []


async def test_a_bug_with_one_of_many_is_its_own(check: QueueCheck, monkeypatch: pytest.MonkeyPatch) -> None:
    def against(_: QueueFacts, share: Share, __: str) -> list[Any]:
        raise ZeroDivisionError if share.name == "bug" else LookupError

    monkeypatch.setattr(QueueFacts, "against", against)
    judged = await check.judge_many([(Share("training", name), "") for name in ("bug", "other")])
    assert [type(one) for one in judged] == [ZeroDivisionError, LookupError]


async def test_a_bug_in_a_reading_is_told_to_the_log_and_not_to_callers(
    batch: Batch, check: QueueCheck, log: ListLog
) -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    batch.error = ZeroDivisionError("a bug")
    assert await warned(check) == "it cannot be asked about the queue now"
    assert at_once(warned(check))
    assert [context["exception"] for context in told] == [batch.error]
    assert [line["error_code"] for line in log.of("queue_unchecked")] == ["ZeroDivisionError"]


async def test_closing_ends_all_readings_and_begins_none(batch: Batch, check: QueueCheck) -> None:
    await check.aclose()
    check._closed = False
    batch.gate.clear()
    asking = [asyncio.ensure_future(warned(check, queue)) for queue in ("training", "other")]
    await settle()
    assert {task.get_name() for task in asyncio.all_tasks()} >= {"queue_check"}
    await check.aclose()
    assert await asyncio.gather(*asking) == ["it cannot be asked about the queue now"] * 2
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert len(batch.asked) == 2
