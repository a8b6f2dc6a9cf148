"""From a checked request to an accepted submission: identity, freezing, admission, replay."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal
from uuid import uuid4

import rfc8785

from gateway.core.errors import (
    DuplicateRequestError,
    Finding,
    GatewayError,
    InvalidSubmissionError,
    MalformedError,
    StoreUnavailableError,
    TokenReusedError,
    TooLargeError,
)
from gateway.core.identity import TAG_CHARACTERS, ClientToken, batch_token, fingerprint, submission_id
from gateway.core.ports import Expected
from gateway.core.queue_check import Judgement
from gateway.core.submission import (
    MAX_REQUEST_BYTES,
    SUBMISSION_TAG,
    NewSubmission,
    Submission,
    SubmissionRequest,
    frozen_request,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from gateway.core.caller import Caller
    from gateway.core.identity import Fingerprint, SubmissionId
    from gateway.core.outlook import Outlook
    from gateway.core.ports import Admission, AdmissionStore
    from gateway.core.queue_check import QueueCheck
    from gateway.core.share import ShareRules
    from gateway.core.upstream import Routes, Upstream

MAX_TAGS = 50

# So many positions further the forecast tells how much later each one goes.
A_FEW = 50

Duplicates = Literal["replay", "reject"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A submission that is in the store, and whether this request put it there.

    `at_once`: nothing was ahead of it then, and the pace had room for a call.
    """

    submission: Submission
    replayed: bool
    remaining: int | None = None
    at_once: bool = False


class Intake:
    """The one way in for every face of the gateway.

    `stores`, `outlooks` and `queue_checks` are by the upstream's tag; queues of an upstream without a check are not
    checked.
    """

    def __init__(
        self,
        *,
        routes: Routes,
        stores: Mapping[str, AdmissionStore],
        outlooks: Mapping[str, Outlook],
        rules: ShareRules,
        queue_checks: Mapping[str, QueueCheck] | None = None,
        duplicates: Duplicates = "replay",
        require_token: bool = False,
    ) -> None:
        self._routes = routes
        self._stores = stores
        self._outlooks = outlooks
        self._rules = rules
        self._queue_checks = queue_checks or {}
        self._duplicates = duplicates
        self._require_token = require_token

    async def submit(
        self,
        request: SubmissionRequest,
        caller: Caller,
        *,
        traceparent: str | None = None,
        deadline: datetime | None = None,
        retried: bool = False,
    ) -> Accepted:
        """Accept a request, or find what an earlier one with its token became.

        With a deadline the forecast is held against it, and who is too late is not taken. `retried`: its caller has not
        heard of a try before; so it finds what that became also where repeats are answered with an error.

        Raises MalformedError without a token where one is required, InvalidSubmissionError, TooLargeError,
        TokenReusedError, DuplicateRequestError and what `AdmissionStore.admit` raises.
        """
        upstream, _ = self._routes.resolve(request.members["jobQueue"])
        new = self._prepared(request, upstream, caller, traceparent=traceparent, deadline=deadline)
        judgement = await self._judgement(upstream, new)
        try:
            new = _as_judged(new, judgement, known=await self._is_known(upstream, new, judgement))
            expected = await self._expected(upstream, new) if deadline else None
            admission = await self._stores[upstream.tag].admit(new, self._rules.limits(new.share), expected)
        except StoreUnavailableError as error:
            raise error.about(new.submission_id, new.client_token) from error
        return self._accepted(new, admission, retried=retried)

    async def submit_many(
        self,
        requests: Sequence[SubmissionRequest],
        caller: Caller,
        *,
        traceparent: str | None = None,
        deadline: datetime | None = None,
    ) -> list[Accepted | Exception]:
        """What `submit` would answer or raise for each, one after another, with few round trips to the store."""
        results: list[Accepted | Exception] = [GatewayError()] * len(requests)
        lines: dict[str, list[tuple[int, NewSubmission]]] = {}
        for number, request in enumerate(requests):
            upstream, _ = self._routes.resolve(request.members["jobQueue"])
            try:
                new = self._prepared(request, upstream, caller, traceparent=traceparent, deadline=deadline)
            except Exception as error:  # noqa: BLE001 - a bug with one must not hide what became of the others
                results[number] = error
            else:
                lines.setdefault(upstream.tag, []).append((number, new))
        for tag, line in lines.items():
            for number, result in await self._admitted(tag, line):
                results[number] = result
        return results

    async def check(self, request: SubmissionRequest, caller: Caller) -> NewSubmission:
        """All that `submit` checks but the limits, which say nothing of later; nothing is written.

        Raises what `submit` raises, but no refusals.
        """
        upstream, _ = self._routes.resolve(request.members["jobQueue"])
        new = self._prepared(request, upstream, caller)
        judgement = await self._judgement(upstream, new)
        known = await self._stores[upstream.tag].get(new.submission_id)
        if known is not None and known.fingerprint.total != new.fingerprint.total:
            raise TokenReusedError(known.fingerprint.differing(new.fingerprint), known)
        return _as_judged(new, judgement, known=known is not None)

    async def with_forecast(self, submission: Submission) -> Submission:
        """With `estimated_forward_at` where it is queued and that can be said."""
        return await self._outlooks[submission.submission_id[:TAG_CHARACTERS]].with_forecast(submission)

    async def _admitted(
        self, tag: str, line: Sequence[tuple[int, NewSubmission]]
    ) -> list[tuple[int, Accepted | Exception]]:
        """One upstream's part of many, each by its number."""
        upstream = next(one for one in self._routes if one.tag == tag)
        found: list[tuple[int, Accepted | Exception]] = []
        try:
            line, found = await self._judged(upstream, line)
            asked = [
                (new, self._rules.limits(new.share), await self._expected(upstream, new) if new.deadline else None)
                for _, new in line
            ]
            admissions = await self._stores[tag].admit_many(asked) if asked else []
        except StoreUnavailableError as error:
            return [*found, *((number, error.about(new.submission_id, new.client_token)) for number, new in line)]
        for (number, new), admission in zip(line, admissions, strict=True):
            try:
                found.append((number, self._accepted(new, admission)))
            except StoreUnavailableError as error:
                found.append((number, error.about(new.submission_id, new.client_token)))
            except GatewayError as error:
                found.append((number, error))
        return found

    async def _judgement(self, upstream: Upstream, new: NewSubmission) -> Judgement:
        check = self._queue_checks.get(upstream.tag)
        return await check.judge(new.share, new.share_kind) if check else Judgement()

    async def _is_known(self, upstream: Upstream, new: NewSubmission, judgement: Judgement) -> bool:
        """Looked up only where that decides: who repeats is not refused for what has changed since."""
        if not judgement.refused or new.token_generated:
            return False
        return await self._stores[upstream.tag].get(new.submission_id) is not None

    async def _judged(
        self, upstream: Upstream, line: Sequence[tuple[int, NewSubmission]]
    ) -> tuple[list[tuple[int, NewSubmission]], list[tuple[int, Accepted | Exception]]]:
        """Those that go on to the store, and what became of the others."""
        check = self._queue_checks.get(upstream.tag)
        if check is None:
            return list(line), []
        judgements = await check.judge_many([(new.share, new.share_kind) for _, new in line])
        going: list[tuple[int, NewSubmission]] = []
        ended: list[tuple[int, Accepted | Exception]] = []
        before: set[SubmissionId] = set()
        for (number, new), judgement in zip(line, judgements, strict=True):
            if isinstance(judgement, Exception):
                ended.append((number, judgement))
                continue
            # after one with its token it is a repeat, or another request under that token: the store tells
            known = new.submission_id in before or await self._is_known(upstream, new, judgement)
            try:
                going.append((number, _as_judged(new, judgement, known=known)))
            except InvalidSubmissionError as error:
                ended.append((number, error))
            else:
                before.add(new.submission_id)
        return going, ended

    def _accepted(self, new: NewSubmission, admission: Admission | Exception, *, retried: bool = False) -> Accepted:
        """Raises the refusal, and TokenReusedError and DuplicateRequestError."""
        if isinstance(admission, Exception):
            raise admission
        submission = admission.submission
        if admission.known:
            if submission.fingerprint.total != new.fingerprint.total:
                raise TokenReusedError(submission.fingerprint.differing(new.fingerprint), submission)
            if self._duplicates == "reject" and not retried:
                raise DuplicateRequestError(submission)
        return Accepted(
            submission=submission,
            replayed=admission.known,
            remaining=admission.remaining,
            at_once=admission.at_once,
        )

    async def _expected(self, upstream: Upstream, new: NewSubmission) -> Expected | None:
        """For the position that it would have now; who comes before it meanwhile, the store knows."""
        outlook = self._outlooks[upstream.tag]
        position = await self._stores[upstream.tag].position_of_next(new.share, new.priority)
        at = await outlook.expected_at(new.share, position)
        further = await outlook.expected_at(new.share, position + A_FEW)
        if at is None or further is None:
            return None
        return Expected(at=at, position=position, seconds_each=(further - at).total_seconds() / A_FEW)

    def _prepared(
        self,
        request: SubmissionRequest,
        upstream: Upstream,
        caller: Caller,
        *,
        traceparent: str | None = None,
        deadline: datetime | None = None,
    ) -> NewSubmission:
        token = request.client_token
        if token is None and self._require_token:
            raise MalformedError(
                "This gateway requires a client token: send clientToken or the header Idempotency-Key.",
                findings=[Finding(pointer="/clientToken", detail="is required")],
            )
        if token is None:
            token_generated, token = True, ClientToken(str(uuid4()))
        else:
            token_generated = False
        names = {
            "namespace": caller.namespace,
            "account": upstream.account,
            "region": upstream.region,
            "token": token,
        }
        wanted = submission_id(**names)
        tags = {SUBMISSION_TAG: wanted} if upstream.submission_tag else {}
        frozen = frozen_request(request, batch_token=batch_token(**names), added_tags=tags)
        _check_as_sent(request, frozen, tags)
        return NewSubmission(
            submission_id=wanted,
            client_token=token,
            token_generated=token_generated,
            principal=caller.name,
            namespace=caller.namespace,
            share=request.share,
            share_kind=next((kind for kind in ("shareIdentifier", "quotaShareName") if request.members.get(kind)), ""),
            priority=request.priority,
            job_name=request.members["jobName"],
            job_queue=request.members["jobQueue"],
            fingerprint=_fingerprint(request),
            role_arn=request.role_arn,
            request=frozen,
            warnings=request.warnings,
            traceparent=traceparent,
            deadline=deadline,
        )


def _as_judged(new: NewSubmission, judgement: Judgement, *, known: bool) -> NewSubmission:
    """With what could not be checked among its warnings. Raises InvalidSubmissionError for one that is not known."""
    if judgement.refused and not known:
        raise InvalidSubmissionError("Its queue does not take this submission; see errors.", findings=judgement.refused)
    return replace(new, warnings=(*new.warnings, *judgement.warnings)) if judgement.warnings else new


def _check_as_sent(request: SubmissionRequest, frozen: bytes, added_tags: Mapping[str, str]) -> None:
    """Batch's bounds hold for the request as it will be sent, with the tags that the gateway adds."""
    tags = request.members.get("tags", {})
    taken = sorted(added_tags.keys() & tags.keys())
    if taken:
        raise InvalidSubmissionError(
            findings=[Finding(pointer=f"/tags/{tag}", detail="is a tag that the gateway sets itself") for tag in taken]
        )
    if len(tags) + len(added_tags) > MAX_TAGS:
        most = MAX_TAGS - len(added_tags)
        detail = f"must have at most {most} tags: the gateway adds {len(added_tags)} of Batch's {MAX_TAGS}"
        raise InvalidSubmissionError(findings=[Finding(pointer="/tags", detail=detail)])
    if len(frozen) > MAX_REQUEST_BYTES:
        raise TooLargeError(
            f"As sent to Batch the request is {len(frozen)} bytes long, with the tags that the gateway adds; "
            f"Batch takes {MAX_REQUEST_BYTES}."
        )


def _fingerprint(request: SubmissionRequest) -> Fingerprint:
    try:
        return fingerprint(request.asked())
    except (rfc8785.CanonicalizationError, RecursionError) as error:
        raise InvalidSubmissionError(
            findings=[
                Finding(
                    pointer="/serviceRequestPayload",
                    detail="holds a number beyond ±(2^53 - 1) or not finite, or is nested too deeply",
                )
            ]
        ) from error
