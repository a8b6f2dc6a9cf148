"""The log: how its lines are made, and the list of all events and fields. A test holds the list to the code."""

from __future__ import annotations

import logging
import sys
import traceback
from typing import TYPE_CHECKING, Any, TextIO

import structlog

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.core.ports import Log

COMMON = {
    "timestamp": "when, UTC, ISO 8601",
    "level": "info, warning or error",
    "event": "one of the names below",
}

_ATTEMPT = {
    "upstream": "name of the upstream",
    "submission_id": "the submission",
    "share": "queue/share",
    "principal": "who submitted it",
    "trace_id": "W3C trace id of the request that submitted it",
}

EVENTS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "started": (
        "The process is ready to work.",
        {
            "role": "api, forwarder or all",
            "host": "where it listens",
            "port": "where it listens",
            "store": "the store's host, without credentials",
            "durability": "what a 202 promises",
            "upstreams": "names of the upstreams",
            "version": "of the gateway",
            "record_version": "what new records in the store get: gateways that read it can take over",
        },
    ),
    "queue_moved": (
        "These settings take a queue from an upstream that still has submissions of it: a repeat makes a second job.",
        {"problem": "which queue, from where to where, and how many are queued, in a sentence"},
    ),
    "draining": ("SIGTERM or SIGINT came: unready, no new leases.", {"unready_seconds": "how long it serves on"}),
    "stopped": ("The process has let go of everything.", {"seconds": "how long the drain took"}),
    "request": (
        "One HTTP request, however it ended.",
        {
            "request_id": "from X-Request-Id, or made",
            "trace_id": "from traceparent",
            "principal": "who called",
            "method": "HTTP method",
            "route": "the path's template; null where none fits",
            "status": "HTTP status",
            "duration_ms": "from its headers to its answer",
            "problem": "slug of the problem answered",
            "submission_id": "the submission that it was about",
            "share": "queue/share",
            "replayed": "true for a repeated token",
            "items": "submissions in a batch",
            "accepted": "those of a batch that are in the store now",
            "amz_sdk_invocation_id": "the AWS SDK's call: its own retries have one",
            "amz_sdk_request": "which of its tries, such as attempt=2; max=5",
        },
    ),
    "submission_accepted": (
        "One submission of a batch is in the store; a single one is told by its request line.",
        {
            "request_id": "of the batch's request",
            "principal": "who called",
            "submission_id": "the submission",
            "share": "queue/share",
            "replayed": "true for a repeated token",
        },
    ),
    "reads_failing": (
        "Batch could not be asked how a job stands: callers get what was known. At most once a minute.",
        {"upstream": "name of the upstream", "error_code": "Batch's error code, or the failure's name"},
    ),
    "queue_unchecked": (
        "Batch could not be asked about a queue: submissions to it pass with a warning. At most once a minute a queue.",
        {
            "upstream": "name of the upstream",
            "queue": "the queue's name",
            "error_code": "Batch's error code, or the failure's name; SlowReading where it took more than a second; "
            "TooManyNewQueues where callers name more unknown queues than Batch is asked about, once a minute in all",
        },
    ),
    "forward": (
        "One attempt to forward a submission, however it ended.",
        {
            **_ATTEMPT,
            "lease": "number of the lease, which fences",
            "outcome": "what the call proved: submitted, throttled, not_sent, credentials, denied, transient, refused, "
            "unclear; or found, not_certain, given_back, unconfirmed, exhausted where none was made, or a look first; "
            "cut_off: the process ended in the middle",
            "verdict": "what settling did: settled, late, stale, gone, unsettled",
            "state": "the submission's state after it",
            "charged": "whether the try counts against max_attempts",
            "maybe_sent": "whether a call may have made a job, this attempt included",
            "call_ms": "duration of the call to Batch",
            "error_code": "Batch's error code, or the failure's name",
            "error_message": "Batch's message, at most 500 characters",
            "job_id": "Batch's job id",
        },
    ),
    "submission_settled": (
        "A submission reached its last state; level error for unknown, warning for rejected.",
        {
            **_ATTEMPT,
            "state": "forwarded, rejected, unknown, canceled or expired",
            "queue_seconds": "from acceptance to here",
            "attempts": "how many leases it took",
            "job_id": "Batch's job id",
            "error_code": "why it was given up",
        },
    ),
    "late_forward": (
        "Batch made a job for a submission that was final already, or a second one.",
        {**{name: _ATTEMPT[name] for name in ("upstream", "submission_id", "share")}, "job_id": "Batch's job id"},
    ),
    "look_refused": (
        "Batch refuses to tell of its jobs before it is called again: its memory of tokens alone prevents a second.",
        {
            **{name: _ATTEMPT[name] for name in ("upstream", "submission_id", "share", "trace_id")},
            "error_code": "Batch's error code",
            "error_message": "its message, shortened",
        },
    ),
    "submission_changed": (
        "A caller or an operator changed a submission that was accepted.",
        {
            "request_id": "of the request",
            "principal": "who",
            "submission_id": "the submission",
            "share": "queue/share",
            "change": "cancel, priority, redrive or resolve",
            "state": "the submission's state after it",
        },
    ),
    "errand": (
        "Batch was asked for something beside submitting: a look for a job, a termination, an update.",
        {
            **_ATTEMPT,
            "kind": "look, terminate or update",
            "outcome": "found, looked (none yet), unknown (given up), done, moot (Batch refuses it), later (it failed)",
            "verdict": "what settling did: settled, stale, gone, unsettled, owned (the job is another submission's)",
            "lease": "number of the lease, which fences",
            "looks": "how many looks found nothing before",
            "tries": "how many tries failed before",
            "job_id": "Batch's job id",
            "error_code": "Batch's error code, or the failure's name",
            "error_message": "Batch's message, at most 500 characters",
        },
    ),
    "upstream_paced": ("Batch throttled, and calls go slower.", {"upstream": "its name", "rate": "calls a second now"}),
    "upstream_held": (
        "Calls are held, or go on again.",
        {
            "upstream": "its name",
            "reason": "credentials, denied (one queue and role) or outage",
            "held": "true when it begins (level error), false when it is over (info)",
            "message": "what Batch or the chain of credentials said",
            "share": "whose submission met it",
        },
    ),
    "share_paused": (
        "Like rejections in a row paused a share; PATCH /v1/shares/{queue}/{share} resumes it.",
        {"upstream": "its name", "share": "queue/share", "error_code": "the rejections' code"},
    ),
    "share_changed": (
        "An operator set something for a share, for the whole fleet.",
        {
            "request_id": "of the request",
            "principal": "who",
            "share": "queue/share",
            "changes": "what was set; null puts the settings' value back",
        },
    ),
    "upstream_changed": (
        "An operator set something for an upstream, for the whole fleet.",
        {
            "request_id": "of the request",
            "principal": "who",
            "upstream": "its name",
            "changes": "what was set; null switches on again, and puts the settings' rate back",
        },
    ),
    "share_status": (
        "Every ten seconds, for each share with a backlog, and those that are paused or overridden.",
        {
            "upstream": "its name",
            "share": "queue/share",
            "queued": "submissions",
            "oldest_seconds": "age of the oldest that is queued, wherever it stands",
            "weight": "of the share",
            "paused": "whether it waits aside",
        },
    ),
    "upstream_status": (
        "Every ten seconds, for each upstream.",
        {
            "upstream": "its name",
            "rate": "calls a second now",
            "queued": "submissions",
            "queued_bytes": "their size in the store",
            "leased": "calls in flight, of the fleet",
            "delayed": "submissions that wait for a retry",
            "errands": "looks, terminations and updates that are owed",
            "forwarded": "submissions forwarded since the store began",
            "throttled": "calls that Batch throttled since the store began",
            "accepting": "false where operators switched acceptance off",
            "forwarding": "false where operators switched forwarding off",
            "condition": "calling, throttled (Batch told to wait), held (credentials), outage or stopped (operators)",
        },
    ),
    "audit": (
        "Once a minute for each upstream, by one process of the fleet: the store was looked at, a little at a time.",
        {
            "upstream": "its name",
            "looked_at": "submissions, shares and pointers to jobs, each as often as it was met",
            "drifts": "how much was wrong; audit_drift lines say what",
            "round_seconds": "how long it took to look at everything, null where that goes on in the next minute",
            "bytes_compared": "whether the count of bytes was held against the records: only where none came or went",
        },
    ),
    "audit_drift": (
        "Something in the store is as no command leaves it; nothing is mended. `gateway check --store` looks anew.",
        {
            "upstream": "its name",
            "kind": "what kind of thing is wrong, as gateway/core/audit.py lists them",
            "ids": "submissionIds, shares or keys that it is about, at most 20",
            "count": "how many there are",
            "problem": "what is wrong with the first of them",
            "remedy": "what an operator can do",
        },
    ),
    "audit_failed": (
        "A bug, or a store that knows not all commands: the audit was broken off. Another turn begins after a minute.",
        {"upstream": "its name", "exception": "the traceback"},
    ),
    "store_unavailable": (
        "The store is out of reach, or does not keep what is promised.",
        {"missing": "what it lacks, in sentences"},
    ),
    "store_available": ("The store is as it should be again.", {}),
    "unexpected_error": (
        "A bug: the request was answered with 500.",
        {"request_id": "of the request", "exception": "the traceback"},
    ),
    "library_warning": (
        "A library below warns, such as aiohttp of a request that is no HTTP. What it quotes is left out.",
        {
            "logger": "which library",
            "message": "the first line of its message, without the values",
            "error": "the exception's type",
            "frames": "where it was raised",
        },
    ),
}


def configure(stream: TextIO | None = None) -> Log:
    """structlog for this process: JSON lines, or readable ones on a terminal. Call it once, first."""
    stream = stream or sys.stdout
    renderer: Any = (
        # rich tracebacks would show local variables, and payloads among them
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if stream.isatty()
        else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        renderer,
    ]
    if not stream.isatty():
        processors.insert(-1, structlog.processors.format_exc_info)
    structlog.configure(processors=processors, logger_factory=structlog.WriteLoggerFactory(stream))
    log: Log = structlog.get_logger()
    root = logging.getLogger()
    for handler in [one for one in root.handlers if isinstance(one, _Libraries)]:
        root.removeHandler(handler)
    root.addHandler(_Libraries(log))
    return log


class _Libraries(logging.Handler):
    """Warnings of libraries as lines of ours. aiohttp's quote what it could not read, a caller's secrets among it."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        kind, _, frames = record.exc_info or (None, None, None)
        self._log.warning(
            "library_warning",
            logger=record.name,
            message=str(record.msg).partition("\n")[0],
            error=kind.__name__ if kind else None,
            frames="".join(traceback.format_tb(frames)) if frames else None,
        )
