"""What goes wrong, on demand: which faults are set, and which of them a call meets.

Where in a call each kind strikes is `service.py`'s and `operations.py`'s business.
"""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from gateway.emulator.calls import Call
from gateway.emulator.errors import BatchError, ConnectionLostError

_SUBMIT = "SubmitServiceJob"
_EVERY = "*"

KINDS: Mapping[str, str] = {
    "down": "the connection is reset, on every call",
    "drop": "the connection is reset before anything is done",
    "jitter": "a uniform pause of 0 to `ms` milliseconds before the call is counted",
    "slow": "a pause of `seconds`, then all goes on as usual",
    "credentials": "403 UnrecognizedClientException, or ExpiredTokenException by `code`",
    "access_denied": "403 AccessDeniedException, for payloads whose RoleArn fits the glob `roleArn` if it is given",
    "throttle": "429 TooManyRequestsException",
    "throttle_bare": "429 without a code, `body` (empty) for a body",
    "error_500": "500 ServerException, no job is made",
    "client_error": "400 ClientException with `message`, no job is made",
    "first_share_500": "500 `Failed to create shareIdentifier` on the first use of each share",
    "late_listing": "jobs show up in ListServiceJobs `seconds` after they were made",
    "late_500": "the job is made, then 500 ServerException",
    "lost_answer": "the job is made, then the connection is reset",
    "lost_answer_hang": "the job is made, then no answer comes for `seconds` (60), then the connection is reset",
    "error_200_garbage": "the job is made, then 200 with a body that is no JSON",
    "refuse": "the listener is closed for `seconds`: connections are refused",
}
"""Every kind with what it does."""

# All others are met by SubmitServiceJob alone, unless `operation` says otherwise.
_MET_BY_ALL = frozenset({"down", "credentials"})
_NEED_SECONDS = frozenset({"slow", "late_listing", "refuse"})
_HANG_SECONDS = 60.0  # the read time-out of the AWS SDKs

# Status, code and message of the kinds that are error answers, where the fault says nothing else.
_ANSWERS: Mapping[str, tuple[int, str | None, str]] = {
    "throttle": (429, "TooManyRequestsException", "Too Many Requests"),
    "throttle_bare": (429, None, ""),
    "credentials": (403, "UnrecognizedClientException", "The security token included in the request is invalid."),
    "access_denied": (403, "AccessDeniedException", "User is not authorized to perform this operation"),
    "client_error": (400, "ClientException", "the request was refused"),
    "error_500": (500, "ServerException", "Internal server error"),
    "late_500": (500, "ServerException", "Internal server error"),
    "first_share_500": (500, "ServerException", "Failed to create shareIdentifier"),
    "error_200_garbage": (200, None, ""),
}
_MESSAGES = {"ExpiredTokenException": "The security token included in the request is expired"}
_GARBAGE = b"<html>this is no JSON"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong; which members a kind looks at is said in `KINDS`.

    - `times`: how often, None for without end; `probability`: 0 to 1, on each call that fits; `for_seconds`: only that
      long after it was set.
    - Met by calls of `operation` (a name such as `ListServiceJobs`, or `*`) whose job name begins with `job_name` and
      whose share is `share` (`name` or `queue/name`).
    - `status`, `code`, `message`: instead of the kind's own, where it is an error answer.
    - `retry_after_ms`: sent as `x-amz-retry-after` and, in whole seconds, as `Retry-After`.

    Raises ValueError for an unknown kind, figures out of range and a missing `seconds` or `ms`.
    """

    kind: str
    times: int | None = None
    probability: float = 1.0
    for_seconds: float | None = None
    operation: str | None = None
    job_name: str | None = None
    share: str | None = None
    role_arn: str | None = None
    seconds: float | None = None
    ms: float | None = None
    retry_after_ms: int | None = None
    status: int | None = None
    code: str | None = None
    message: str | None = None
    body: str = ""

    def __post_init__(self) -> None:
        for problem, holds in (
            (f"kind must be one of {', '.join(KINDS)}, not {self.kind}", self.kind not in KINDS),
            ("times must be at least 1", self.times is not None and self.times < 1),
            ("probability must be 0 to 1", not 0 <= self.probability <= 1),
            (f"{self.kind} needs seconds", self.kind in _NEED_SECONDS and self.seconds is None),
            (f"{self.kind} needs ms", self.kind == "jitter" and self.ms is None),
            ("seconds must not be negative", (self.seconds or 0) < 0),
            ("ms must not be negative", (self.ms or 0) < 0),
        ):
            if holds:
                raise ValueError(problem)

    @classmethod
    def from_json(cls, members: Any) -> "Fault":
        """From an object with camelCase or snake_case member names. Raises ValueError saying what is wrong."""
        if not isinstance(members, dict):
            raise ValueError("a fault must be an object")  # noqa: TRY004 - callers translate one error, ValueError
        names = {_snake_case(name): value for name, value in members.items()}
        unknown = sorted(names.keys() - _MEMBERS.keys())
        if unknown:
            message = f"unknown member of a fault: {', '.join(unknown)}"
            raise ValueError(message)
        for name, value in names.items():
            if not isinstance(value, _MEMBERS[name]) or isinstance(value, bool):
                message = f"{name} must be {' or '.join(kind.__name__ for kind in _MEMBERS[name])}"
                raise ValueError(message)  # noqa: TRY004 - see above
        if "kind" not in names:
            raise ValueError("kind is required")
        return cls(**names)

    def as_json(self) -> dict[str, Any]:
        """The members that are set, in camelCase."""
        members = {_camel_case(name): getattr(self, name) for name in _MEMBERS}
        return {name: value for name, value in members.items() if value not in _UNSET}

    @property
    def met_by(self) -> str:
        """The operation whose calls meet it, `*` for all."""
        return self.operation or (_EVERY if self.kind in _MET_BY_ALL else _SUBMIT)

    def fits(self, call: Call) -> bool:
        return (
            self.met_by in {_EVERY, call.operation}
            and (self.job_name is None or (call.job_name or "").startswith(self.job_name))
            and (self.share is None or self.share in {call.share, f"{call.queue}/{call.share}"})
            and (self.role_arn is None or fnmatchcase(call.role_arn or "", self.role_arn))
        )

    def error(self) -> BatchError:
        """The answer of a kind that is an error answer."""
        headers = {}
        if self.retry_after_ms is not None:
            # The AWS SDKs read only the first, everybody else the second, which knows whole seconds only.
            headers["x-amz-retry-after"] = str(self.retry_after_ms)
            headers["Retry-After"] = str(math.ceil(self.retry_after_ms / 1000))
        status, code, message = _ANSWERS[self.kind]
        code = code and (self.code or code)  # bare answers stay bare
        body = None
        if self.kind == "throttle_bare":
            body = self.body.encode()
        elif self.kind == "error_200_garbage":
            body = _GARBAGE
        return BatchError(
            self.message or _MESSAGES.get(code or "", message),
            status=self.status or status,
            code=code,
            outcome=self.kind,
            headers=headers,
            body=body,
        )

    def loss(self) -> ConnectionLostError:
        """The end of a kind that gives no answer."""
        hang = self.kind == "lost_answer_hang"
        seconds = _HANG_SECONDS if self.seconds is None else self.seconds
        return ConnectionLostError(self.kind, after_seconds=seconds if hang else 0)


_NUMBER = (int, float)
_MEMBERS: Mapping[str, tuple[type, ...]] = {
    "times": (int,),
    "status": (int,),
    "retry_after_ms": (int,),
    **dict.fromkeys(("probability", "for_seconds", "seconds", "ms"), _NUMBER),
    **dict.fromkeys(("kind", "operation", "job_name", "share", "role_arn"), (str,)),
    **dict.fromkeys(("code", "message", "body"), (str,)),
}


def _snake_case(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


def _camel_case(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


_UNSET = (None, "")


# Not frozen: it counts.
@dataclass(slots=True, kw_only=True)
class _SetFault:
    fault: Fault
    until: float
    met: int = 0

    @property
    def spent(self) -> bool:
        return self.fault.times is not None and self.met >= self.fault.times


class FaultBook:
    """The faults that are set. A call meets the first of a kind that fits it."""

    def __init__(self, *, seed: int | None) -> None:
        self._random = random.Random(seed)  # noqa: S311 - it decides what breaks, and must be repeatable
        self._set: list[_SetFault] = []

    def add(self, fault: Fault, *, now: float) -> None:
        """That one too, after the others; `now` is monotonic seconds.

        Raises ValueError for `refuse`, which no call can meet.
        """
        if fault.kind == "refuse":
            raise ValueError("refuse is the listener's to do")
        until = math.inf if fault.for_seconds is None else now + fault.for_seconds
        self._set.append(_SetFault(fault=fault, until=until))

    def clear(self) -> None:
        self._set.clear()

    def meet(self, call: Call, *kinds: str, now: float) -> Fault | None:
        """The fault of one of these kinds that the call meets now; it is counted and noted in the call."""
        for entry in self._set:
            fault = entry.fault
            if fault.kind not in kinds or entry.spent or now >= entry.until or not fault.fits(call):
                continue
            if fault.probability < 1 and self._random.random() >= fault.probability:
                continue
            entry.met += 1
            call.faults.append(fault.kind)
            return fault
        return None

    def uniform(self, most: float) -> float:
        """A number between 0 and `most`, for jitter."""
        return self._random.uniform(0, most)

    def all(self) -> list[Fault]:
        return [entry.fault for entry in self._set]

    def as_json(self) -> list[dict[str, Any]]:
        """Each fault as it was set, and how often it has been `met`."""
        return [entry.fault.as_json() | {"met": entry.met} for entry in self._set]
