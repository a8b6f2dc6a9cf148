"""From a checked request to an accepted submission: identity, freezing, admission, replay."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from uuid import uuid4

import rfc8785

from gateway.core.errors import (
    DuplicateRequestError,
    Finding,
    ForbiddenError,
    InvalidSubmissionError,
    MalformedError,
    NotFoundError,
    StoreUnavailableError,
    TokenReusedError,
    TooLargeError,
)
from gateway.core.identity import TAG_CHARACTERS, ClientToken, SubmissionId, batch_token, fingerprint, submission_id
from gateway.core.outlook import Outlook
from gateway.core.submission import (
    MAX_REQUEST_BYTES,
    SUBMISSION_TAG,
    NewSubmission,
    State,
    Submission,
    SubmissionRequest,
    frozen_request,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.core.identity import Fingerprint
    from gateway.core.ports import AdmissionStore, SettledHints
    from gateway.core.share import ShareRules
    from gateway.core.upstream import Routes, Upstream

# Hints arrive in milliseconds; where one is lost, a waiting caller learns of the end this much later. Thousands may
# wait, and each look is a command of the store's that forwarding wants too.
POLL_SECONDS = 5.0
MAX_TAGS = 50

Duplicates = Literal["replay", "reject"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks: the principal's name, and the namespace that its tokens belong to."""

    name: str = "anonymous"
    namespace: str = "anonymous"
    operator: bool = True

    def must_be_operator(self) -> None:
        """Raises ForbiddenError."""
        if not self.operator:
            raise ForbiddenError("Only operators may do this.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A submission that is in the store, and whether this request put it there."""

    submission: Submission
    replayed: bool
    remaining: int | None = None


class Intake:
    """The one way in for every face of the gateway. `stores` and `hints` are by the upstream's tag."""

    def __init__(
        self,
        *,
        routes: Routes,
        stores: Mapping[str, AdmissionStore],
        hints: Mapping[str, SettledHints],
        rules: ShareRules,
        draining: asyncio.Event,
        duplicates: Duplicates = "replay",
        require_token: bool = False,
    ) -> None:
        self._routes = routes
        self._stores = stores
        self._outlooks = {tag: Outlook(store) for tag, store in stores.items()}
        self._hints = hints
        self._rules = rules
        self._draining = draining
        self._duplicates = duplicates
        self._require_token = require_token

    async def submit(self, request: SubmissionRequest, caller: Caller, traceparent: str | None = None) -> Accepted:
        """Accept a request, or find what an earlier one with its token became.

        Raises MalformedError without a token where one is required, InvalidSubmissionError, TooLargeError,
        TokenReusedError, DuplicateRequestError and what `AdmissionStore.admit` raises.
        """
        upstream, _ = self._routes.resolve(request.members["jobQueue"])
        new = self._prepared(request, upstream, caller, traceparent)
        try:
            admission = await self._stores[upstream.tag].admit(new, self._rules.limits(new.share))
        except StoreUnavailableError as error:
            raise error.about(new.submission_id, new.client_token) from error
        submission = admission.submission
        if admission.known:
            if submission.fingerprint.total != new.fingerprint.total:
                raise TokenReusedError(submission.fingerprint.differing(new.fingerprint), submission)
            if self._duplicates == "reject":
                raise DuplicateRequestError(submission)
        return Accepted(submission=submission, replayed=admission.known, remaining=admission.remaining)

    async def check(self, request: SubmissionRequest, caller: Caller) -> NewSubmission:
        """All that `submit` checks but the limits, which say nothing of later; nothing is written.

        Raises what `submit` raises, but no refusals.
        """
        upstream, _ = self._routes.resolve(request.members["jobQueue"])
        new = self._prepared(request, upstream, caller, None)
        known = await self._stores[upstream.tag].get(new.submission_id)
        if known is not None and known.fingerprint.total != new.fingerprint.total:
            raise TokenReusedError(known.fingerprint.differing(new.fingerprint), known)
        return new

    async def find(self, wanted: SubmissionId, caller: Caller) -> Submission:
        """Raises NotFoundError, for another namespace's submissions too."""
        upstream = self._routes.of(wanted)
        submission = await self._stores[upstream.tag].get(wanted) if upstream else None
        if submission is None or not (caller.operator or submission.namespace == caller.namespace):
            raise NotFoundError(f"No submission {wanted} is known here.")
        return submission

    async def find_settled(self, submission: Submission, caller: Caller, seconds: float) -> Submission:
        """The submission once it has left `queued`; as it stands after so many seconds, or when this process drains."""
        hints = self._hints[submission.submission_id[:TAG_CHARACTERS]]
        deadline = time.monotonic() + seconds
        with hints.watching(submission.submission_id) as changed:
            while True:  # look only once the hint would be heard, so that no end falls between the two
                submission = await self.find(submission.submission_id, caller)
                left = deadline - time.monotonic()
                if submission.state is not State.QUEUED or self._draining.is_set() or left <= 0:
                    return submission
                with suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), min(left, POLL_SECONDS))
                changed.clear()

    async def with_forecast(self, submission: Submission) -> Submission:
        """With `estimated_forward_at` where it is queued and that can be said."""
        return await self._outlooks[submission.submission_id[:TAG_CHARACTERS]].with_forecast(submission)

    def _prepared(
        self, request: SubmissionRequest, upstream: Upstream, caller: Caller, traceparent: str | None
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
        )


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
