"""A submission, as the gateway's JSON has it, in words for people. Times are told as seen from `now`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from gateway.console.tables import duration


def state_of(item: dict[str, Any]) -> str:
    """`queued`, or `queued, cancel requested`; what is canceled was asked to be."""
    return f"{item['state']}, cancel requested" if cancel_pending(item) else str(item["state"])


def cancel_pending(item: dict[str, Any]) -> bool:
    """Whether its state alone does not tell that it was to end."""
    return bool(item["cancelRequested"]) and item["state"] != "canceled"


def share_of(item: dict[str, Any]) -> str:
    """`queue/share`, as filters and the commands for shares take it: an ARN of the queue gives way to its name."""
    return f"{item['jobQueue'].rpartition('/')[2]}/{item.get('shareIdentifier') or item.get('quotaShareName') or '-'}"


def place_of(item: dict[str, Any], now: datetime) -> str:
    """Its place in line and when it leaves it; or its job; or why there is none."""
    if item["state"] == "queued":
        if not item.get("position"):
            return "with Batch now"
        expected = item["estimatedForwardAt"]
        return f"number {item['position']}, {when(expected, now) if expected else 'no forecast'}"
    if item.get("jobId"):
        return f"job {item['jobId']}"
    return str(item["error"]["code"]) if item.get("error") else ""


def when(moment: str, now: datetime) -> str:
    """`in 12 s`, `now` or `3 min 20 s ago`."""
    seconds = round((datetime.fromisoformat(moment) - now).total_seconds())
    if seconds == 0:
        return "now"
    return f"in {duration(seconds)}" if seconds > 0 else f"{duration(-seconds)} ago"


def seconds_since(moment: str, now: datetime) -> float:
    return (now - datetime.fromisoformat(moment)).total_seconds()


def this_moment() -> datetime:
    return datetime.now(UTC)
