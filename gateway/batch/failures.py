"""What a failed call to Batch proves: foreign exceptions and error codes become the core's `Answer`, here alone.

A wrong "nothing was sent" submits twice; a wrong "unclear" costs a look by a person. So all that is not known to prove
something is unclear.
"""

from __future__ import annotations

import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

import aiohttp
from botocore import exceptions as boto

from gateway.core.attempt import Answer, AnswerKind
from gateway.core.reconcile import CallFailedError

if TYPE_CHECKING:
    from collections.abc import Iterator

# Codes that AWS services use for "slow down" (FACTS.md has Batch's own, outside its model).
THROTTLING_CODES = frozenset(
    {
        "TooManyRequestsException",
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "RequestThrottled",
        "RequestThrottledException",
        "RequestLimitExceeded",
        "BandwidthLimitExceeded",
        "PriorRequestNotComplete",
        "SlowDown",
        "EC2ThrottledException",
    }
)
CREDENTIAL_CODES = frozenset(
    {
        "UnrecognizedClientException",
        "InvalidClientTokenId",
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidSignatureException",
        "SignatureDoesNotMatch",
        "IncompleteSignature",
        "IncompleteSignatureException",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "InvalidAccessKeyId",
        "AuthFailure",
        "RequestExpired",
        "RequestTimeTooSkewed",
        "NotSignedUp",
        "OptInRequired",
    }
)
DENIED_CODES = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "NotAuthorized"})
# What we call of Batch. An error of any other operation comes from the chain of credentials, which calls STS and SSO.
BATCH_OPERATIONS = frozenset(
    {
        "SubmitServiceJob",
        "ListServiceJobs",
        "DescribeServiceJob",
        "TerminateServiceJob",
        "UpdateServiceJob",
        "DescribeJobQueues",
        "DescribeSchedulingPolicies",
        "GetJobQueueSnapshot",
        "ListQuotaShares",
        "DescribeQuotaShare",
    }
)
# A refusal that passes by itself (FACTS.md, "What goes wrong in the field").
TRANSIENT_WORDS = "Failed to create shareIdentifier"

_CREDENTIAL_ERRORS = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.MetadataRetrievalError,
    boto.NoAuthTokenError,
    boto.TokenRetrievalError,
    boto.SSOError,
    boto.ProfileNotFound,
)
_NOT_SENT_ERRORS = (boto.ConnectTimeoutError, boto.ProxyConnectionError, boto.SSLError)
_NEVER_SENT_CAUSES = (aiohttp.ClientConnectorError, socket.gaierror)

# Batch may ask for a long pause; past a minute we ask again ourselves.
MAX_TOLD_SECONDS = 60.0

_SERVER_ERROR, _REQUEST_TIMEOUT, _TOO_MANY, _UNAUTHORIZED, _FORBIDDEN, _BAD_REQUEST = 500, 408, 429, 401, 403, 400


def answer_of(error: BaseException) -> Answer:
    """The answer that an exception of a call to Batch stands for."""
    if isinstance(error, boto.ClientError):
        return _of_response(error)
    if isinstance(error, TimeoutError):
        return Answer(kind=AnswerKind.UNCLEAR, code="CallTimeout", message="No answer within the call's time.")
    if isinstance(error, boto.ParamValidationError):
        return Answer(
            kind=AnswerKind.REFUSED, code="ParamValidationError", message="The parameters do not fit botocore's model."
        )
    kind = _kind_of(error)
    if kind is AnswerKind.UNCLEAR and isinstance(error, boto.EndpointConnectionError):
        return Answer(kind=kind, code="ConnectionLost", message="The connection was lost after the request was sent.")
    return Answer(kind=kind, code=type(error).__name__, message=_first_line(error))


@contextmanager
def failing_as_calls_do() -> Iterator[None]:
    """For calls that make no job: whatever failed, an answer that makes no sense among it, they may be made again.

    Raises CallFailedError.
    """
    try:
        yield
    except CallFailedError:
        raise
    except Exception as error:
        raise CallFailedError(answer_of(error)) from error


def _kind_of(error: BaseException) -> AnswerKind:
    if isinstance(error, _CREDENTIAL_ERRORS):
        return AnswerKind.CREDENTIALS
    if isinstance(error, _NOT_SENT_ERRORS):
        return AnswerKind.NOT_SENT
    if isinstance(error, boto.EndpointConnectionError):
        # aiobotocore raises it for a reset after sending as well: only its cause tells (FACTS.md)
        cause = error.kwargs.get("error")
        return AnswerKind.NOT_SENT if isinstance(cause, _NEVER_SENT_CAUSES) else AnswerKind.UNCLEAR
    return AnswerKind.UNCLEAR


def _of_response(error: boto.ClientError) -> Answer:
    details = error.response.get("Error", {})
    code, message = str(details.get("Code", "")), str(details.get("Message", ""))
    metadata = error.response.get("ResponseMetadata", {})
    status = int(metadata.get("HTTPStatusCode", 0))
    headers = metadata.get("HTTPHeaders", {})
    kind = AnswerKind.CREDENTIALS
    if error.operation_name in BATCH_OPERATIONS:
        kind = _kind_of_response(status, code, message)
    if kind is AnswerKind.CREDENTIALS:  # what follows the first line may quote the signed request, tokens and all
        message = _first_line(message)
    return Answer(
        kind=kind,
        code=code or str(status),
        message=message,
        wait_seconds=_told_seconds(headers),
        maybe_made=kind is AnswerKind.UNCLEAR or status >= _SERVER_ERROR,
    )


def _kind_of_response(status: int, code: str, message: str) -> AnswerKind:
    if status == _TOO_MANY or code in THROTTLING_CODES:
        return AnswerKind.THROTTLED
    if code in CREDENTIAL_CODES or status == _UNAUTHORIZED:
        return AnswerKind.CREDENTIALS
    if code in DENIED_CODES or status == _FORBIDDEN:
        return AnswerKind.DENIED
    if status >= _BAD_REQUEST and TRANSIENT_WORDS in message:
        return AnswerKind.TRANSIENT
    # botocore puts the status for a code where none was sent, and Batch sends one: that is some proxy's page
    if _BAD_REQUEST <= status < _SERVER_ERROR and status != _REQUEST_TIMEOUT and code != str(status):
        return AnswerKind.REFUSED
    return AnswerKind.UNCLEAR


def _told_seconds(headers: dict[str, str]) -> float:
    """How long Batch says to wait: `x-amz-retry-after` is in milliseconds, `retry-after` in seconds."""
    for name, unit in (("x-amz-retry-after", 0.001), ("retry-after", 1.0)):
        try:
            told = float(headers[name]) * unit
        except (KeyError, ValueError):
            continue
        if told >= 0:  # not NaN either
            return min(told, MAX_TOLD_SECONDS)
    return 0.0


def _first_line(error: BaseException | str) -> str:
    return (str(error).splitlines() or [""])[0]
