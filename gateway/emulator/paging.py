"""Tokens that carry on a listing after the last thing shown, for the same query only."""

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from gateway.emulator.errors import BatchError

_LARGEST = 100  # the most that Batch gives in a page, and the number it gives unasked


def page_size(params: Mapping[str, Any]) -> int:
    """How many to show in a page. Raises BatchError where `maxResults` is not 1 to 100."""
    size = params.get("maxResults")
    if size is None:
        return _LARGEST
    if not 1 <= size <= _LARGEST:
        raise BatchError(f"maxResults: must be 1 to {_LARGEST}")
    return int(size)


def token_for(place: int, query: Mapping[str, Any]) -> str:
    """A nextToken that stands for `place` in the listing that `query` describes."""
    return base64.urlsafe_b64encode(json.dumps([place, _digest(query)]).encode()).decode()


def place_in(params: Mapping[str, Any], query: Mapping[str, Any]) -> int | None:
    """The place that `nextToken` stands for, None without one. Raises BatchError for a token of another query."""
    token = params.get("nextToken")
    if token is None:
        return None
    try:
        place, digest = json.loads(base64.urlsafe_b64decode(token))
    except (ValueError, TypeError):
        raise BatchError("nextToken: not a token of this service") from None
    if digest != _digest(query) or not isinstance(place, int):
        raise BatchError("nextToken: belongs to a request with other parameters")
    return place


def numbered_page(shown: list[dict[str, Any]], params: Mapping[str, Any], member: str, **query: Any) -> dict[str, Any]:
    """The answer for one page of a list that only ever grows at its end."""
    start, size = place_in(params, query) or 0, page_size(params)
    answer: dict[str, Any] = {member: shown[start : start + size]}
    if start + size < len(shown):
        answer["nextToken"] = token_for(start + size, query)
    return answer


def _digest(query: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(query, sort_keys=True).encode()).hexdigest()[:16]
