"""What can go wrong with a submission, in the gateway's own words.

Each adapter translates foreign exceptions into these, in one place; `api/problems.py` alone knows their status codes.
The first line of a docstring is the title that callers read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gateway.core.submission import Submission


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong or odd in what was sent: a JSON pointer (RFC 6901) and one sentence without values."""

    pointer: str
    detail: str


def json_pointer(steps: Iterable[str | int]) -> str:
    """The steps into a JSON document as RFC 6901 writes them."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A limit that refuses: its name, what it allows, and when the same request would pass it.

    `quota` and `remaining` are in submissions, `window_seconds` is the time in which the quota is restored.
    """

    name: str
    quota: int
    remaining: int = 0
    window_seconds: float = 0.0
    retry_after_seconds: float = 1.0


class GatewayError(Exception):
    """The gateway could not do what was asked."""

    retry_after_seconds: float | None = None

    def __init__(self, detail: str = "", *, findings: Sequence[Finding] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.findings = tuple(findings)


class MalformedError(GatewayError):
    """The request is not well-formed."""


class NotJsonError(GatewayError):
    """The body must be JSON."""


class TooLargeError(GatewayError):
    """The request is too large."""


class InvalidSubmissionError(GatewayError):
    """The submission breaks Batch's or SageMaker's rules."""


class InvalidChangeError(GatewayError):
    """What shall be changed is not as it must be."""


class NotFoundError(GatewayError):
    """There is no such thing here."""


class ForbiddenError(GatewayError):
    """The caller may not do this."""


class AlreadyFinalError(GatewayError):
    """The submission has a final state."""

    def __init__(self, submission: Submission) -> None:
        until = " until an operator resolves it" if submission.state.value == "unknown" else ""
        super().__init__(f"The submission is {submission.state.value}, which is final{until}.")
        self.submission = submission


class WrongStateError(GatewayError):
    """The submission's state does not allow this."""

    def __init__(self, detail: str, submission: Submission) -> None:
        super().__init__(detail)
        self.submission = submission


class MethodNotAllowedError(GatewayError):
    """This path does not take that method."""

    def __init__(self, detail: str, *, allow: str = "") -> None:
        super().__init__(detail)
        self.allow = allow


class TokenReusedError(GatewayError):
    """The client token names another request already."""

    def __init__(self, members: Sequence[str], submission: Submission) -> None:
        super().__init__(
            f"Client token {submission.client_token!r} was used for a request that differs in: {', '.join(members)}. "
            "A new request needs a new token."
        )
        self.members = tuple(members)
        self.submission = submission


class DuplicateRequestError(GatewayError):
    """The request was accepted before."""

    def __init__(self, submission: Submission) -> None:
        super().__init__("This client token was accepted before, and this gateway answers repeats with an error.")
        self.submission = submission


class RefusedError(GatewayError):
    """A limit refuses the submission."""

    def __init__(self, limits: Sequence[Limit]) -> None:
        super().__init__("Refused by: " + ", ".join(f"{limit.name} ({limit.quota})" for limit in limits) + ".")
        self.limits = tuple(limits)
        self.retry_after_seconds = max(limit.retry_after_seconds for limit in limits)


class RateLimitedError(RefusedError):
    """The share sends faster than its rate."""


class TooManySharesError(RefusedError):
    """The queue has too many active shares."""


class BacklogFullError(RefusedError):
    """The backlog is full."""


class TooManyRequestsError(GatewayError):
    """This process has too many requests in hand."""

    retry_after_seconds = 1.0


class TooManyReadsError(TooManyRequestsError):
    """Batch is asked as often as it may be."""

    def __init__(
        self,
        detail: str = "Too many ask Batch at once, and nothing is known of this one yet.",
        *,
        retry_after_seconds: float = 1.0,
    ) -> None:
        super().__init__(detail)
        self.retry_after_seconds = retry_after_seconds


class UpstreamRefusedError(GatewayError):
    """Batch refuses this."""


class UpstreamDeniedError(GatewayError):
    """The gateway's own role may not do this at Batch."""


class UpstreamUnavailableError(GatewayError):
    """Batch does not answer this now."""

    def __init__(self, detail: str, *, retry_after_seconds: float = 1.0) -> None:
        super().__init__(detail)
        self.retry_after_seconds = retry_after_seconds


class DeadlineUnreachableError(GatewayError):
    """The submission cannot be forwarded by its deadline."""

    def __init__(self, detail: str, *, retry_after_seconds: float) -> None:
        super().__init__(detail)
        self.retry_after_seconds = retry_after_seconds


class NotAcceptingError(GatewayError):
    """The gateway does not take submissions for this upstream now."""

    retry_after_seconds = 30.0


class StoreUnavailableError(GatewayError):
    """The store cannot be used now.

    Whether a submission under way was accepted may be open: a retry with the same token is safe and tells.
    """

    retry_after_seconds = 2.0

    def __init__(
        self, detail: str, *, cause: str = "", submission_id: str | None = None, client_token: str | None = None
    ) -> None:
        """`cause` is for operators: the store's address and what its client says."""
        super().__init__(detail)
        self.cause = cause or detail
        self.submission_id = submission_id
        self.client_token = client_token

    def about(self, submission_id: str, client_token: str) -> Self:
        """The same for one submission: one failed write may be the answer to many."""
        return type(self)(self.detail, cause=self.cause, submission_id=submission_id, client_token=client_token)


UNCONFIRMED = (
    "It is written, and the store has not confirmed in time that it is as durable as promised. "
    "A retry finds it and waits for it too."
)


class DurabilityUnconfirmedError(StoreUnavailableError):
    """What was asked is done, and not yet known to be as durable as promised.

    A retry finds it, and waits for it too.
    """

    def __init__(self, detail: str = UNCONFIRMED, **about: Any) -> None:
        super().__init__(detail, **about)


class NotReadyError(GatewayError):
    """This process should get no requests now."""

    retry_after_seconds = 2.0
