"""What callers say in headers of a submission: how long to wait, the token, the deadline."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from gateway.core.errors import MalformedError

if TYPE_CHECKING:
    from aiohttp import web

MAX_WAIT_SECONDS = 30.0
MAX_TOKEN_CHARACTERS = 64

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")
_WAIT = re.compile(r'\s*wait\s*=\s*"?(\d{1,9})"?\s*', re.IGNORECASE)


def preferred_wait(request: web.Request) -> float:
    """The seconds of `Prefer: wait=N` (RFC 7240), at most 30; 0 without one or with one that makes no sense."""
    for header in request.headers.getall("Prefer", []):
        for preference in header.split(","):
            match = _WAIT.fullmatch(preference.split(";")[0])
            if match:
                return min(float(match[1]), MAX_WAIT_SECONDS)
    return 0.0


def deadline_of(request: web.Request) -> datetime | None:
    """The header Deadline, RFC 3339 with its offset. Raises MalformedError."""
    values = set(request.headers.getall("Deadline", []))
    if not values:
        return None
    text = values.pop().strip()
    if values or not _RFC3339.fullmatch(text):
        raise MalformedError("The header Deadline must be one time as RFC 3339 has it, such as 2026-11-21T18:00:00Z.")
    try:
        deadline = datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise MalformedError("The header Deadline names no time that there is.") from None
    return deadline.replace(microsecond=deadline.microsecond // 1000 * 1000)  # as the store has times


def idempotency_key(request: web.Request) -> str | None:
    """The header's value, bare or quoted as a structured field's string. Raises MalformedError."""
    values = set(request.headers.getall("Idempotency-Key", []))
    if not values:
        return None
    if len(values) > 1:
        raise MalformedError("The header Idempotency-Key is there twice, with different values.")
    value = values.pop().strip()
    if value.startswith('"'):
        if not value.endswith('"') or len(value) < len('""') + 1:
            raise MalformedError("The header Idempotency-Key has an opening quote and no closing one, or is empty.")
        value = re.sub(r'\\(["\\])', r"\1", value[1:-1])
    if not 1 <= len(value) <= MAX_TOKEN_CHARACTERS or not value.isprintable():
        raise MalformedError(f"The header Idempotency-Key must hold 1 to {MAX_TOKEN_CHARACTERS} printable characters.")
    return value
