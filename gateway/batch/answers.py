"""What of a 200 answer can be believed: what the wire says is not what botocore's model says."""

from __future__ import annotations

from typing import Any

# Batch's ids are UUIDs, its ARNs some hundred characters long.
MAX_NAME_CHARACTERS = 512


class MalformedAnswerError(Exception):
    """Batch answered 200, and not what its model promises."""


def name_in(answer: dict[str, Any], member: str) -> str:
    """The id or ARN that the answer has there. Raises MalformedAnswerError."""
    name = answer.get(member)
    if isinstance(name, str) and name.isascii() and name.isprintable() and 0 < len(name) <= MAX_NAME_CHARACTERS:
        return name
    raise MalformedAnswerError(f"Batch answered 200 without a {member}.")
