"""Every row of DESIGN.md section 7's table, in both of its columns."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import pytest

from gateway.core.attempt import (
    LISTED_WITHIN_SECONDS,
    Answer,
    AnswerKind,
    Leased,
    PaceSignal,
    Verdict,
    verdict_on,
    verdict_on_failed_look,
    verdict_on_look,
)
from gateway.core.backoff import CAP_SECONDS, full_jitter_seconds
from gateway.core.identity import ClientToken, SubmissionId, fingerprint
from gateway.core.job_search import Looked
from gateway.core.reconcile import Candidate
from gateway.core.share import Share
from gateway.core.submission import State, Submission

CHANCE = random.Random(7)


def leased(*, maybe_sent: bool, tries: int = 0, request: bytes = b"{}") -> Leased:
    submission = Submission(
        submission_id=SubmissionId("0000"),
        client_token=ClientToken("t"),
        token_generated=False,
        principal="p",
        namespace="n",
        state=State.QUEUED,
        share=Share("q", "s"),
        share_kind="shareIdentifier",
        priority=0,
        job_name="j",
        job_queue="q",
        fingerprint=fingerprint({}),
        accepted_at=datetime.now(UTC),
        request=request,
    )
    return Leased(
        submission=submission,
        number=1,
        maybe_sent=maybe_sent,
        maybe_sent_since=submission.accepted_at,
        tries=tries,
    )


@pytest.mark.parametrize("maybe_sent", [False, True])
@pytest.mark.parametrize(
    ("kind", "verdict", "charged", "proved_none", "delayed", "signal"),
    [
        (AnswerKind.SUBMITTED, Verdict.FORWARDED, False, False, False, PaceSignal.ANSWERED),
        (AnswerKind.THROTTLED, Verdict.RETRY, False, True, False, PaceSignal.THROTTLED),
        (AnswerKind.NOT_SENT, Verdict.RETRY, False, True, False, PaceSignal.UNREACHABLE),
        (AnswerKind.CREDENTIALS, Verdict.RETRY, False, True, False, PaceSignal.CREDENTIALS),
        (AnswerKind.DENIED, Verdict.RETRY, False, True, False, PaceSignal.DENIED),
        (AnswerKind.TRANSIENT, Verdict.RETRY, True, True, True, PaceSignal.ANSWERED),
        (AnswerKind.UNCLEAR, Verdict.RETRY, True, False, True, PaceSignal.FAILED),
        (AnswerKind.REFUSED, None, True, True, False, PaceSignal.ANSWERED),
    ],
)
def test_each_answer_has_its_row(
    *,
    kind: AnswerKind,
    verdict: Verdict | None,
    charged: bool,
    proved_none: bool,
    delayed: bool,
    signal: PaceSignal,
    maybe_sent: bool,
) -> None:
    if verdict is None:  # a refusal proves nothing of an earlier call that may have made a job
        verdict = Verdict.RECONCILE if maybe_sent else Verdict.REJECT
    report = verdict_on(
        Answer(kind=kind, code="C", message="m", job_id="J", job_arn="A"), leased(maybe_sent=maybe_sent), CHANCE
    )
    assert (report.verdict, report.charged, report.proved_none, report.delay_seconds > 0, report.signal) == (
        verdict,
        charged,
        proved_none,
        delayed,
        signal,
    )
    assert report.outcome == kind


def test_a_transient_5xx_is_retried_and_proves_nothing() -> None:
    answer = Answer(kind=AnswerKind.TRANSIENT, code="ServerException", maybe_made=True)
    report = verdict_on(answer, leased(maybe_sent=False), CHANCE)
    assert (report.verdict, report.proved_none, report.signal) == (Verdict.RETRY, False, PaceSignal.ANSWERED)


@pytest.mark.parametrize(
    ("answer", "least"),
    [
        (Answer(kind=AnswerKind.UNCLEAR), LISTED_WITHIN_SECONDS),
        (Answer(kind=AnswerKind.TRANSIENT, maybe_made=True), LISTED_WITHIN_SECONDS),
        (Answer(kind=AnswerKind.TRANSIENT), 0.0),
    ],
)
def test_what_may_have_made_a_job_is_not_tried_again_before_batch_could_list_it(answer: Answer, least: float) -> None:
    delays = [verdict_on(answer, leased(maybe_sent=False), CHANCE).delay_seconds for _ in range(200)]
    assert least <= min(delays) < least + 0.1
    assert least + 0.9 < max(delays) <= least + 1


TAGGED = b'{"tags": {"gateway:submission-id": "0000"}}'
OURS = Candidate(job_id="J", job_arn="A", submission="0000")
UNTAGGED = Candidate(job_id="U", job_arn="A", submission=None)
UNDESCRIBED = Candidate(job_id="U", job_arn="", submission=None)


def test_a_look_that_did_not_see_all_lets_nobody_call_again() -> None:
    submission = leased(maybe_sent=True, request=TAGGED).submission
    report = verdict_on_look(Looked(own=None, possible=[], complete=False), submission)
    assert report is not None
    assert (report.verdict, report.proved_none) == (Verdict.RECONCILE, True)


def test_a_look_that_was_throttled_slows_no_submissions() -> None:
    throttled = Answer(kind=AnswerKind.THROTTLED, wait_seconds=7)
    report = verdict_on_failed_look(throttled, leased(maybe_sent=True), CHANCE)
    assert report is not None
    assert (report.verdict, report.signal, report.charged) == (Verdict.RETRY, PaceSignal.NONE, False)
    assert (report.delay_seconds, report.wait_seconds) == (7, 0)


@pytest.mark.parametrize(
    ("request_sent", "own", "possible", "verdict"),
    [
        (TAGGED, None, [], None),
        (TAGGED, OURS, [OURS], Verdict.FORWARDED),
        (TAGGED, OURS, [OURS, UNTAGGED], Verdict.FORWARDED),
        (TAGGED, None, [UNTAGGED], None),  # somebody else's, of the same name: ours carries the tag
        (TAGGED, None, [UNDESCRIBED], Verdict.RECONCILE),
        (TAGGED, None, [OURS, OURS], Verdict.RECONCILE),
        (b"{}", None, [UNTAGGED], Verdict.RECONCILE),  # the tag is switched off
        (b"{}", None, [], None),
    ],
)
def test_a_look_decides_whether_batch_is_called_again(
    request_sent: bytes, own: Candidate | None, possible: list[Candidate], verdict: Verdict | None
) -> None:
    submission = leased(maybe_sent=True, request=request_sent).submission
    report = verdict_on_look(Looked(own=own, possible=possible, complete=True), submission)
    assert (report.verdict if report else None) == verdict
    if report and own:
        assert (report.job_id, report.job_arn) == ("J", "A")


def test_the_table_has_a_row_for_every_kind_of_answer() -> None:
    for kind in AnswerKind:
        assert verdict_on(Answer(kind=kind), leased(maybe_sent=False), CHANCE).outcome == kind


def test_the_job_is_kept_and_so_is_the_reason() -> None:
    made = verdict_on(Answer(kind=AnswerKind.SUBMITTED, job_id="J", job_arn="A"), leased(maybe_sent=True), CHANCE)
    assert (made.job_id, made.job_arn, made.failure) == ("J", "A", None)
    refused = verdict_on(
        Answer(kind=AnswerKind.REFUSED, code="ClientException", message="no" * 1000), leased(maybe_sent=False), CHANCE
    )
    assert refused.failure is not None
    assert (refused.failure.code, len(refused.failure.message)) == ("ClientException", 500)


def test_what_batch_says_to_wait_is_passed_on() -> None:
    report = verdict_on(Answer(kind=AnswerKind.THROTTLED, wait_seconds=3.5), leased(maybe_sent=False), CHANCE)
    assert report.wait_seconds == 3.5


def test_backoff_doubles_up_to_its_cap_and_uses_the_whole_range() -> None:
    for tries in range(1, 20):
        top = min(CAP_SECONDS, 2.0 ** (tries - 1))
        drawn = [full_jitter_seconds(tries, CHANCE) for _ in range(400)]
        assert 0 <= min(drawn) < 0.05 * top
        assert 0.95 * top < max(drawn) <= top
