"""The rules of SubmitServiceJob that Batch's model does not hold: its API reference and user guide have them."""

from collections.abc import Mapping
from typing import Any

from gateway.emulator.errors import BatchError
from gateway.emulator.queues import NAME, Queue

MAX_REQUEST_BYTES = 30 * 1024
MAX_PAYLOAD_BYTES = 10 * 1024
_MAX_PRIORITY = 9999
_MAX_ATTEMPTS = 10
_MAX_EVALUATIONS = 5
_MAX_REASON = 512


def check_submission(params: Mapping[str, Any], *, body_bytes: int) -> None:
    """Checks what needs no queue to be known; `params` already fit the model. Raises BatchError naming the member.

    What is inside `serviceRequestPayload` is not looked at: Batch passes it on unchecked.
    """
    if body_bytes > MAX_REQUEST_BYTES:
        raise BatchError(f"the request has {body_bytes} bytes, at most {MAX_REQUEST_BYTES} are allowed")
    if not NAME.fullmatch(params["jobName"]):
        raise BatchError("jobName: must be 1 to 128 of A-Z a-z 0-9 - _")
    if not params["jobQueue"]:
        raise BatchError("jobQueue: must not be empty")
    # JSON may hold half of a surrogate pair, which is no text but must not break the emulator.
    payload_bytes = len(params["serviceRequestPayload"].encode(errors="surrogatepass"))
    if not 0 < payload_bytes <= MAX_PAYLOAD_BYTES:
        raise BatchError(f"serviceRequestPayload: must have 1 to {MAX_PAYLOAD_BYTES} bytes, has {payload_bytes}")
    check_priority(params.get("schedulingPriority"))
    _check_retries(params.get("retryStrategy"))
    _check_limits(params)
    check_tags(params.get("tags"))


def check_priority(priority: int | None) -> None:
    if priority is not None and not 0 <= priority <= _MAX_PRIORITY:
        raise BatchError(f"schedulingPriority: must be 0 to {_MAX_PRIORITY}")


def check_tags(tags: Mapping[str, str] | None) -> None:
    """Lengths and number are the model's to check."""
    reserved = [key for key in tags or () if key.lower().startswith("aws:")]
    if reserved:
        raise BatchError(f"tags: the key {reserved[0]} begins with aws:, which is reserved")


def check_share(params: Mapping[str, Any], queue: Queue) -> None:
    """Checks that the queue takes jobs, and takes this share member. Raises BatchError naming the member."""
    if queue.job_queue_type != "SAGEMAKER_TRAINING":
        raise BatchError(f"jobQueue: {queue.name} is of type {queue.job_queue_type}, not SAGEMAKER_TRAINING")
    if queue.state != "ENABLED":
        raise BatchError(f"jobQueue: {queue.name} is {queue.state} and takes no jobs")
    identifier, quota_share = params.get("shareIdentifier"), params.get("quotaShareName")
    if identifier is not None and quota_share is not None:
        raise BatchError("quotaShareName: must not be given together with shareIdentifier")
    _check_presence("shareIdentifier", identifier, queue, policy="fairshare")
    _check_presence("quotaShareName", quota_share, queue, policy="quota")
    if quota_share is not None:
        _check_quota_share(quota_share, queue)


def _check_presence(member: str, value: str | None, queue: Queue, *, policy: str) -> None:
    described = {"fairshare": "fair-share", "quota": "quota-share"}[policy]
    if value is None:
        if queue.policy == policy:
            raise BatchError(f"{member}: required, as {queue.name} has a {described} scheduling policy")
    elif not value:
        raise BatchError(f"{member}: must not be empty")
    elif queue.policy not in {policy, "any"}:
        raise BatchError(f"{member}: must not be given, as {queue.name} has no {described} scheduling policy")


def _check_quota_share(name: str, queue: Queue) -> None:
    if not NAME.fullmatch(name):
        raise BatchError("quotaShareName: must be 1 to 128 of A-Z a-z 0-9 - _")
    if queue.policy == "any":
        return
    share = queue.quota_shares.get(name)
    if share is None:
        raise BatchError(f"quotaShareName: {queue.name} has no quota share {name}")
    if share.state != "ENABLED":
        raise BatchError(f"quotaShareName: the quota share {name} is {share.state} and takes no jobs")


def _check_retries(strategy: Mapping[str, Any] | None) -> None:
    if strategy is None:
        return
    if not 1 <= strategy["attempts"] <= _MAX_ATTEMPTS:
        raise BatchError(f"retryStrategy.attempts: must be 1 to {_MAX_ATTEMPTS}")
    evaluations = strategy.get("evaluateOnExit") or []
    if len(evaluations) > _MAX_EVALUATIONS:
        raise BatchError(f"retryStrategy.evaluateOnExit: must have at most {_MAX_EVALUATIONS} elements")
    for index, evaluation in enumerate(evaluations):
        reason = evaluation.get("onStatusReason") or ""
        if len(reason) > _MAX_REASON or not reason.isprintable():
            where = f"retryStrategy.evaluateOnExit[{index}].onStatusReason"
            raise BatchError(f"{where}: must be at most {_MAX_REASON} printable characters")


def _check_limits(params: Mapping[str, Any]) -> None:
    preemption = params.get("preemptionConfiguration") or {}
    if (preemption.get("preemptionRetriesBeforeTermination") or 0) < 0:
        raise BatchError("preemptionConfiguration.preemptionRetriesBeforeTermination: must not be negative")
    seconds = (params.get("timeoutConfig") or {}).get("attemptDurationSeconds")
    if seconds is not None and seconds < 1:
        raise BatchError("timeoutConfig.attemptDurationSeconds: must be at least 1")
