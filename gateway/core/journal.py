"""What the log says of each attempt: one `forward` line, and a line for each thing that it changed beside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.core.ports import Settlement
from gateway.core.submission import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.core.attempt import Answer, Leased, Report
    from gateway.core.ports import Errand, ErrandEnd, ErrandReport, Log
    from gateway.core.submission import Submission


class Journal:
    """The log of one upstream's attempts."""

    def __init__(self, upstream: str, log: Log) -> None:
        self._upstream = upstream
        self._log = log

    def tell(self, leased: Leased, report: Report, settlement: Settlement, *, call_seconds: float) -> None:
        before, after = leased.submission, settlement.submission
        about = {"upstream": self._upstream, "submission_id": before.submission_id, "share": str(before.share)}
        self._tell_attempt(leased, report, settlement, call_seconds)
        if after and settlement.verdict == "settled" and after.state is not State.QUEUED:
            self.tell_settled(after)
        known_job = after.job_id if after else None
        forgotten = settlement.verdict in ("stale", "gone") and report.job_id not in (None, known_job)
        if settlement.verdict == "late" or forgotten:
            self._log.warning("late_forward", **about, job_id=report.job_id)
        self._tell_upstream(str(before.share), report, settlement)

    def tell_settled(self, after: Submission) -> None:
        """A submission that has reached its last state."""
        end = {
            "upstream": self._upstream,
            "submission_id": after.submission_id,
            "share": str(after.share),
            "principal": after.principal,
            "trace_id": after.trace_id,
            "state": after.state,
            "queue_seconds": round(after.queue_seconds or 0.0, 3),
            "attempts": after.attempt_count,
            "job_id": after.job_id,
            "error_code": after.error.code if after.error else None,
        }
        match after.state:
            case State.UNKNOWN:  # it may be in Batch: a person must look
                self._log.error("submission_settled", **end)
            case State.REJECTED:
                self._log.warning("submission_settled", **end)
            case _:
                self._log.info("submission_settled", **end)

    def tell_errand(self, errand: Errand, report: ErrandReport, end: ErrandEnd) -> None:
        """What Batch was asked for a submission beside submitting it, and what came of it."""
        before, failure = errand.submission, report.failure
        told = {
            "upstream": self._upstream,
            "submission_id": before.submission_id,
            "share": str(before.share),
            "principal": before.principal,
            "trace_id": before.trace_id,
            "kind": errand.kind,
            "outcome": report.verdict,
            "verdict": end.verdict,
            "lease": errand.number,
            "looks": errand.looks,
            "tries": errand.tries,
            "job_id": report.job_id or before.job_id,
            "error_code": failure.code if failure else None,
            "error_message": failure.message if failure else None,
        }
        if failure:
            self._log.warning("errand", **told)
        else:
            self._log.info("errand", **told)
        if end.verdict == "settled" and end.submission and report.verdict in ("found", "unknown"):
            self.tell_settled(end.submission)

    def tell_blind(self, leased: Leased, answer: Answer) -> None:
        """Batch does not let us look for a job before it is called again: its memory of tokens has to do."""
        before, failure = leased.submission, answer.failure
        self._log.warning(
            "look_refused",
            upstream=self._upstream,
            submission_id=before.submission_id,
            share=str(before.share),
            trace_id=before.trace_id,
            error_code=failure.code if failure else None,
            error_message=failure.message if failure else None,
        )

    def tell_expired(self, expired: Sequence[Submission]) -> None:
        """Submissions whose deadline has come."""
        for one in expired:
            self.tell_settled(one)

    def tell_unsettled(self, leased: Leased, report: Report, *, call_seconds: float) -> None:
        """An attempt whose end the store could not be told of: its lease ends by itself."""
        self._tell_attempt(leased, report, Settlement(verdict="unsettled"), call_seconds)

    def _tell_attempt(self, leased: Leased, report: Report, settlement: Settlement, call_seconds: float) -> None:
        before, after = leased.submission, settlement.submission
        self._log.info(
            "forward",
            upstream=self._upstream,
            submission_id=before.submission_id,
            share=str(before.share),
            principal=before.principal,
            trace_id=before.trace_id,
            lease=leased.number,
            outcome=report.outcome,
            verdict=settlement.verdict,
            state=after.state if after else None,
            charged=settlement.charged,
            maybe_sent=after.maybe_sent if after else None,
            call_ms=round(call_seconds * 1000, 1),
            error_code=report.failure.code if report.failure else None,
            error_message=report.failure.message if report.failure else None,
            job_id=report.job_id,
        )

    def _tell_upstream(self, share: str, report: Report, settlement: Settlement) -> None:
        if settlement.pace is not None:
            self._log.warning("upstream_paced", upstream=self._upstream, rate=round(settlement.pace, 3))
        message = report.failure.message if report.failure else None
        hold = {"upstream": self._upstream, "share": share, "message": message}
        if settlement.held:
            self._log.error("upstream_held", **hold, reason=settlement.held, held=True)
        if settlement.outage:
            self._log.error("upstream_held", **hold, reason="outage", held=True)
        if settlement.released:
            self._log.info("upstream_held", **hold, reason=settlement.released, held=False)
        if settlement.outage is False:
            self._log.info("upstream_held", **hold, reason="outage", held=False)
        if settlement.share_paused:
            code = report.failure.code if report.failure else None
            self._log.error("share_paused", upstream=self._upstream, share=share, error_code=code)
