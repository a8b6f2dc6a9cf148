"""JSON in and out: a body becomes a checked `SubmissionRequest`, a `Submission` becomes the resource.

All that is wrong is found at once: Batch's rules by the model below (FACTS.md's table), SageMaker's by the payload
check that is handed in.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from gateway.core.errors import Finding, InvalidSubmissionError, MalformedError, NotJsonError, json_pointer
from gateway.core.identity import ClientToken
from gateway.core.submission import MAX_PAYLOAD_BYTES, State, Submission, SubmissionRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from gateway.core.ports import PayloadCheck
    from gateway.core.submission import Attempt

MAX_TAGS = 50
PayloadPolicy = Literal["strict", "warn", "off"]


class _DuplicateMemberError(ValueError):
    pass


def _whole_number(value: object) -> object:
    """620.0 is an integer to JSON Schema."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


def _no_aws_prefix(key: str) -> str:
    if key.lower().startswith("aws:"):
        raise PydanticCustomError("reserved", "must not begin with aws:, which AWS reserves")
    return key


def printable(text: str) -> str:
    if not text.isprintable():
        raise PydanticCustomError("printable", "must hold printable characters only")
    return text


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,128}$")]
Whole = BeforeValidator(_whole_number)
TagKey = Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_no_aws_prefix)]
Printable512 = Annotated[str, Field(min_length=1, max_length=512), AfterValidator(printable)]


class _Members(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", alias_generator=to_camel, hide_input_in_errors=True)


class EvaluateOnExit(_Members):
    action: Annotated[Literal["RETRY", "EXIT"], BeforeValidator(_upper)] | None = None
    on_status_reason: Printable512 | None = None


class RetryStrategy(_Members):
    attempts: Annotated[int, Whole, Field(ge=1, le=10)]
    evaluate_on_exit: Annotated[list[EvaluateOnExit], Field(max_length=5)] | None = None


class PreemptionConfiguration(_Members):
    preemption_retries_before_termination: Annotated[int, Whole, Field(ge=0, le=2**31 - 1)] | None = None


class TimeoutConfig(_Members):
    attempt_duration_seconds: Annotated[int, Whole, Field(ge=1, le=2**31 - 1)] | None = None


class SubmitServiceJob(_Members):
    """The members of Batch's SubmitServiceJob, with the rules that botocore's model does not have."""

    job_name: Name
    job_queue: str
    service_job_type: Literal["SAGEMAKER_TRAINING"]
    service_request_payload: Any
    client_token: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    preemption_configuration: PreemptionConfiguration | None = None
    quota_share_name: Name | None = None
    retry_strategy: RetryStrategy | None = None
    scheduling_priority: Annotated[int, Whole, Field(ge=0, le=9999)] | None = None
    share_identifier: Annotated[str, Field(min_length=1, max_length=255), AfterValidator(printable)] | None = None
    tags: Annotated[dict[TagKey, Annotated[str, Field(max_length=256)]], Field(max_length=MAX_TAGS)] | None = None
    timeout_config: TimeoutConfig | None = None


_MEMBERS = frozenset(to_camel(name) for name in SubmitServiceJob.model_fields)


def parse_json(body: bytes, content_type: str) -> Any:
    """Raises NotJsonError for another content type, MalformedError for what is not strict JSON in UTF-8."""
    if content_type != "application/json" and not content_type.endswith("+json"):
        raise NotJsonError("Send the body as application/json.")
    try:
        return _strict_json(body)
    except _DuplicateMemberError as error:
        raise MalformedError(f"The body names a member twice: {error}.") from error
    except (ValueError, RecursionError) as error:
        raise MalformedError("The body is not JSON in UTF-8" + _place(error)) from error


class Decoder:
    """Bodies of submissions. `queue_name` gives a queue's name or raises ValueError with the reason against it."""

    def __init__(
        self,
        *,
        queue_name: Callable[[str], str],
        payload_check: PayloadCheck,
        policy: PayloadPolicy = "strict",
    ) -> None:
        self._queue_name = queue_name
        self._payload_check = payload_check
        self._policy = policy

    def request(self, body: Any, header_token: str | None = None, *, text_payload: bool = False) -> SubmissionRequest:
        """`text_payload`: the payload must be a string, as Batch has it.

        Raises InvalidSubmissionError with all that is wrong, MalformedError where the body is no JSON object.
        """
        if not isinstance(body, dict):
            raise MalformedError("The body must be a JSON object.")
        findings: list[Finding] = []
        if text_payload and not isinstance(body.get("serviceRequestPayload", ""), str):
            findings.append(Finding(pointer="/serviceRequestPayload", detail="must be a string that holds JSON"))
            body = {**body, "serviceRequestPayload": body["serviceRequestPayload"] or "{}"}  # it is there, and wrong
        # null and {} mean absent, but in an unknown member they are a mistake like any other value
        body = {name: value for name, value in body.items() if name not in _MEMBERS or value not in (None, {})}
        model = None
        try:
            model = SubmitServiceJob.model_validate(body)
        except ValidationError as error:
            findings += pydantic_findings(error)
        findings += _exclusive_shares(body)
        queue = self._queue(body.get("jobQueue"), findings)
        text, payload, warnings = self._payload(body.get("serviceRequestPayload"), findings)
        token = _token(body.get("clientToken"), header_token, findings)
        if findings or model is None:
            raise InvalidSubmissionError(_summary(findings), findings=sorted(findings, key=lambda one: one.pointer))
        members = model.model_dump(by_alias=True, exclude_none=True, exclude={"client_token"})
        members["serviceRequestPayload"] = text
        return SubmissionRequest(
            members={name: value for name, value in members.items() if value != {}},
            payload=payload,
            queue=queue,
            client_token=token,
            warnings=tuple(warnings),
        )

    def _queue(self, value: object, findings: list[Finding]) -> str:
        if isinstance(value, str):
            try:
                return self._queue_name(value)
            except ValueError as error:
                findings.append(Finding(pointer="/jobQueue", detail=str(error)))
        return ""

    def _payload(self, value: object, findings: list[Finding]) -> tuple[str, dict[str, Any], Sequence[Finding]]:
        """(the string that Batch gets, the object in it, warnings about it)."""
        here = "/serviceRequestPayload"
        if value is None:
            return "", {}, ()  # the model says that it is required
        text = ""
        if isinstance(value, dict):
            text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        if isinstance(value, str):
            text = value
            try:
                value = _strict_json(text)
            except _DuplicateMemberError as error:
                findings.append(Finding(pointer=here, detail=f"names a member twice: {error}"))
                return text, {}, ()
            except (ValueError, RecursionError) as error:
                findings.append(
                    Finding(pointer=here, detail="must be a JSON object or a string of one" + _place(error))
                )
                return text, {}, ()
        if not isinstance(value, dict):
            findings.append(Finding(pointer=here, detail="must be a JSON object or a string of one"))
            return text, {}, ()
        size = len(text.encode())
        if size > MAX_PAYLOAD_BYTES:
            detail = f"must be at most {MAX_PAYLOAD_BYTES} bytes long as sent; it has {size}"
            findings.append(Finding(pointer=here, detail=detail))
            return text, value, ()
        return text, value, self._checked(value, findings)

    def _checked(self, payload: dict[str, Any], findings: list[Finding]) -> Sequence[Finding]:
        if self._policy == "off":
            return ()
        errors, warnings = (
            [Finding(pointer="/serviceRequestPayload" + one.pointer, detail=one.detail) for one in group]
            for group in self._payload_check(payload)
        )
        if self._policy == "warn":
            return [*errors, *warnings]
        findings += errors
        return warnings


def encode(submission: Submission) -> dict[str, Any]:
    """The resource of DESIGN.md section 2; members that a submission does not have are left out."""
    body: dict[str, Any] = {
        "submissionId": submission.submission_id,
        "clientToken": submission.client_token,
        "tokenGenerated": submission.token_generated,
        "state": submission.state.value,
        "cancelRequested": submission.cancel_requested,
        "jobName": submission.job_name,
        "jobQueue": submission.job_queue,
        "schedulingPriority": submission.priority,
        "acceptedAt": timestamp(submission.accepted_at),
        "attempts": [encode_attempt(one) for one in submission.attempts],
        "warnings": encode_findings(submission.warnings),
    }
    if submission.share_kind:
        body[submission.share_kind] = submission.share.name
    if submission.deadline:
        body["deadline"] = timestamp(submission.deadline)
    if submission.state is State.FORWARDED and submission.settled_at:
        body["forwardedAt"] = timestamp(submission.settled_at)
    if submission.settled_at and submission.state is not State.FORWARDED:
        body["endedAt"] = timestamp(submission.settled_at)
    if submission.closed:
        body["closed"] = True
    if submission.terminated_at:
        body["terminatedAt"] = timestamp(submission.terminated_at)
    if submission.job_id:
        body["jobId"], body["jobArn"] = submission.job_id, submission.job_arn
    if submission.error:
        body["error"] = {"code": submission.error.code, "message": submission.error.message}
    if submission.state is State.QUEUED:
        expected = submission.estimated_forward_at
        body["position"] = submission.position
        body["estimatedForwardAt"] = timestamp(expected) if expected else None
    return body


def encode_attempt(attempt: Attempt) -> dict[str, Any]:
    return {"at": timestamp(attempt.at), "outcome": attempt.outcome, "error": attempt.error}


def encode_findings(findings: Sequence[Finding]) -> list[dict[str, str]]:
    return [{"pointer": one.pointer, "detail": one.detail} for one in findings]


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC, to the millisecond."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


_SURROGATE = re.compile("[\ud800-\udfff]")


def _strict_json(text: str | bytes) -> Any:
    if isinstance(text, bytes):
        text = text.decode()
    value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    # \ud800 alone is no character: nothing that holds one can be sent on
    if "\\u" in text and _SURROGATE.search(json.dumps(value, ensure_ascii=False)):
        raise ValueError("lone surrogate")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise _DuplicateMemberError(json.dumps(twice[:64]))
    return members


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _place(error: BaseException) -> str:
    return f", see line {error.lineno}, column {error.colno}." if isinstance(error, json.JSONDecodeError) else "."


def pydantic_findings(error: ValidationError) -> list[Finding]:
    """What a model found, with JSON pointers; values stay out of it."""
    found = []
    for one in error.errors(include_url=False, include_context=False, include_input=False):
        if one["loc"] == ("serviceRequestPayload",) and one["type"] != "missing":
            continue
        steps = [step for step in one["loc"] if step != "[key]"]
        found.append(Finding(pointer=json_pointer(steps), detail=_sentence(one["type"], one["msg"])))
    return found


def _sentence(kind: str, message: str) -> str:
    if kind == "missing":
        return "is required"
    if kind == "extra_forbidden":
        return "is not a member that is known here"
    told = re.sub(r"^(Input|String|List|Dictionary) should", "should", message)
    return re.sub(r" after validation, not .*", "", told)


def _exclusive_shares(body: dict[str, Any]) -> list[Finding]:
    if body.get("shareIdentifier") is not None and body.get("quotaShareName") is not None:
        return [Finding(pointer="/quotaShareName", detail="excludes shareIdentifier: give one of the two")]
    return []


def _token(in_body: object, in_header: str | None, findings: list[Finding]) -> ClientToken | None:
    if in_header is not None and in_body is not None and in_header != in_body:
        findings.append(Finding(pointer="/clientToken", detail="differs from the header Idempotency-Key"))
    token = in_body if in_body is not None else in_header
    return ClientToken(token) if isinstance(token, str) else None


def _summary(findings: list[Finding]) -> str:
    return "One thing is wrong; see errors." if len(findings) == 1 else f"{len(findings)} things are wrong; see errors."
