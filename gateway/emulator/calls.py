"""One call of the API as it came in, and what becomes of it on its way."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.emulator.errors import BatchError
from gateway.emulator.jobs import Job


# Not frozen: it gathers what becomes of the call.
@dataclass(slots=True, kw_only=True)
class Call:
    """`params` are the request's members, without those that are null. `problem` is set where the body held none."""

    operation: str
    body: bytes
    params: Mapping[str, Any]
    problem: BatchError | None = None
    access_key_id: str | None = None
    outcome: str = "ok"
    created: bool = False
    job: Job | None = None
    faults: list[str] = field(default_factory=list)

    @property
    def job_name(self) -> str | None:
        return self._text("jobName") or (self.job.name if self.job is not None else None)

    @property
    def queue(self) -> str | None:
        """The queue's name, also where its ARN was given."""
        name = self._text("jobQueue")
        return name.rpartition("/")[2] if name is not None and name.startswith("arn:") else name

    @property
    def share(self) -> str | None:
        return self._text("shareIdentifier") or self._text("quotaShareName")

    @property
    def client_token(self) -> str | None:
        return self._text("clientToken")

    @property
    def role_arn(self) -> str | None:
        """The RoleArn in the payload, None where the payload does not hold one."""
        try:
            role = json.loads(self.params["serviceRequestPayload"])["RoleArn"]
        except (ValueError, TypeError, LookupError, RecursionError):
            return None
        return role if isinstance(role, str) else None

    @property
    def body_sha256(self) -> str:
        """Of the raw body, in hexadecimal."""
        return hashlib.sha256(self.body).hexdigest()

    def _text(self, member: str) -> str | None:
        value = self.params.get(member)
        return value if isinstance(value, str) else None


def read_call(
    operation: str, body: bytes, *, elsewhere: Mapping[str, Any] | None = None, authorization: str | None = None
) -> Call:
    """The call with its body decoded; `elsewhere` are the members that came in the path or the query string.

    Never raises: a body that holds no JSON object is the call's `problem`, to be answered in its turn.
    """
    call = Call(operation=operation, body=body, params=elsewhere or {}, access_key_id=_access_key_id(authorization))
    try:
        members = json.loads(body) if body else {}
    except (ValueError, RecursionError):
        members = None
    if isinstance(members, dict):
        call.params = {name: value for name, value in members.items() if value is not None} | dict(call.params)
    else:
        call.problem = BatchError("the request's body must be a JSON object")
    return call


def _access_key_id(authorization: str | None) -> str | None:
    """From `AWS4-HMAC-SHA256 Credential=<access key id>/<date>/…`: who signed, never the signature."""
    if authorization is None:
        return None
    _, found, credential = authorization.partition("Credential=")
    return credential.partition("/")[0] if found else None
