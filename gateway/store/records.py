"""How a submission is packed into the store's one value, and read back.

A value is a msgpack map that the scripts change (see lua/prelude.lua), the identity (a msgpack map, written once) and
the request (JSON, dropped when Batch has it).
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

import msgpack

from gateway.core.errors import Finding
from gateway.core.identity import ClientToken, Fingerprint, SubmissionId
from gateway.core.share import Share
from gateway.core.submission import Attempt, Cancel, Failure, NewSubmission, State, Submission
from gateway.store.versions import refuse_newer

# Places are (9999 - priority) * 2^39 + arrival, as lua/prelude.lua makes them.
PLACE_SHIFT = 39
TOP_PRIORITY = 9999


def pack_identity(new: NewSubmission) -> bytes:
    """What stays of a submission as long as its record."""
    fields: dict[str, Any] = {
        "token": new.client_token,
        "principal": new.principal,
        "namespace": new.namespace,
        "kind": new.share_kind,
        "name": new.job_name,
        "job_queue": new.job_queue,
        "print": new.fingerprint.total,
        "members": dict(new.fingerprint.members),
    }
    if new.token_generated:
        fields["generated"] = True
    if new.warnings:
        fields["warnings"] = [[warning.pointer, warning.detail] for warning in new.warnings]
    if new.traceparent:
        fields["trace"] = new.traceparent
    packed: bytes = msgpack.packb(fields)
    return packed


def hold_of(new: NewSubmission) -> str:
    """What a denial by IAM is about, in 16 characters: the queue and the role that the job runs as."""
    return hashlib.sha256(f"{new.share.queue}\0{new.role_arn}".encode()).hexdigest()[:16]


def moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def moment_or_none(milliseconds: int | None) -> datetime | None:
    return moment(milliseconds) if milliseconds else None


def unpack(
    submission_id: SubmissionId, value: bytes, *, position: int | None = None, not_before: datetime | None = None
) -> Submission:
    """The submission of a stored value, which tells neither its position nor its delay.

    Raises StoreUnavailableError, here and below, for what a newer gateway wrote in a way that this one cannot read.
    """
    changing, identity_at = _changing(value)
    request_at = identity_at + changing["identity"]
    identity = msgpack.unpackb(value[identity_at:request_at])
    error, cancel = changing.get("error"), changing.get("cancel")
    return Submission(
        submission_id=submission_id,
        client_token=ClientToken(identity["token"]),
        token_generated=identity.get("generated", False),
        principal=identity["principal"],
        namespace=identity["namespace"],
        state=State(changing["state"]),
        share=Share.parse(changing["share"]),
        share_kind=identity["kind"],
        priority=TOP_PRIORITY - (int(changing["place"]) >> PLACE_SHIFT),
        job_name=identity["name"],
        job_queue=identity["job_queue"],
        fingerprint=Fingerprint(total=identity["print"], members=identity["members"]),
        accepted_at=moment(changing["at"]),
        settled_at=moment_or_none(changing.get("settled")),
        maybe_sent=changing.get("sent", False),
        attempts=tuple(
            Attempt(at=moment(one["at"]), outcome=one["outcome"], error=one.get("error"))
            for one in changing.get("attempts", ())
        ),
        attempt_count=changing.get("attempt_count", 0),
        job_id=changing.get("job_id"),
        job_arn=changing.get("job_arn"),
        error=Failure(code=error["code"], message=error["message"]) if error else None,
        warnings=tuple(Finding(pointer=pointer, detail=detail) for pointer, detail in identity.get("warnings", ())),
        traceparent=identity.get("trace"),
        deadline=moment_or_none(changing.get("deadline")),
        cancel=Cancel(by=cancel["by"], reason=cancel.get("reason", "")) if cancel else None,
        terminated_at=moment_or_none(changing.get("terminated")),
        owes_termination=changing.get("terminate", False),
        sought="look" in changing,
        closed=changing.get("closed", False),
        position=position,
        not_before=not_before,
        request=value[request_at:],
    )


def standing(value: bytes) -> tuple[int, bool]:
    """(place in the share's line, whether Batch is being called for it or looked through) of a queued record."""
    changing, _ = _changing(value)
    return int(changing["place"]), "lease" in changing or "look" in changing


def errand_fields(value: bytes) -> tuple[int, datetime, int]:
    """(looks so far, since when a call may have made a job, failed tries so far) of a record with an errand."""
    changing, _ = _changing(value)
    return (
        int(changing.get("look", {}).get("looks", 0)),
        _maybe_sent_since(changing),
        int(changing.get("errand_tries", 0)),
    )


def head_length(value: bytes) -> int | None:
    """How much of a record stands before its request; None where `value` is too short a part of it."""
    try:
        changing, identity_at = _changing(value)
    except msgpack.OutOfData:
        return None
    end: int = identity_at + changing["identity"]
    return end if end <= len(value) else None


def hold_in(value: bytes) -> str:
    """What a denial by IAM would be about."""
    changing, _ = _changing(value)
    return str(changing["hold"])


def lease_fields(value: bytes) -> tuple[bool, datetime, int]:
    """(whether a job may have been made before this lease, since when, charged tries so far) of a leased record."""
    changing, _ = _changing(value)
    return bool(changing.get("before", False)), _maybe_sent_since(changing), int(changing.get("tries", 0))


def _maybe_sent_since(changing: dict[str, Any]) -> datetime:
    return moment(changing.get("sent_at") or changing["at"])


def _changing(value: bytes) -> tuple[dict[str, Any], int]:
    """(what the scripts change of a record, how long that is). A record of any version begins with a map that has v."""
    unpacker = msgpack.Unpacker(raw=False, strict_map_key=False)
    unpacker.feed(value)
    changing: dict[str, Any] = unpacker.unpack()
    refuse_newer(changing["v"])
    return changing, unpacker.tell()
