"""What a user does with the SageMaker SDK's TrainingQueue, the same in both versions. Runs in the SDK's environment.

Nothing but the SDK and the standard library is there, so nothing of this repository is imported.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/resnet:1"
ROLE_ARN = "arn:aws:iam::123456789012:role/vision-training"
DATA = "s3://data/train"
MODELS = "s3://models/resnet"
RETRIES = {"attempts": 2, "evaluateOnExit": [{"action": "EXIT", "onStatusReason": "*"}]}


def run(queue_class: Any, trainers: Mapping[str, tuple[Any, Any]], *, share: str, attach: str) -> None:
    """`trainers` are by kind, each with inputs for it; `attach` is the method that goes on to SageMaker itself.

    Arguments of the script: a queue, a name for jobs and share, and `held` where jobs wait and never get to Batch, or
    the names of jobs that are submitted and waited for, and no more. Prints what happened as JSON.
    """
    queue_name, name, *names = sys.argv[1:]
    queue, shared = queue_class(queue_name), {share: name}
    if names and names != ["held"]:
        said = _waited_for(queue, names, trainers, shared)
    else:
        said = (_waiting if names else _lifecycle)(queue, name, trainers, shared, attach)
    sys.stdout.write(json.dumps(said) + "\n")


def _waited_for(
    queue: Any, names: list[str], trainers: Mapping[str, tuple[Any, Any]], share: dict[str, str]
) -> dict[str, Any]:
    trainer, inputs = trainers["trainer"]
    jobs = [queue.submit(trainer, inputs, job_name=name, **share) for name in names]
    return {"ended": [job.wait()["status"] for job in jobs]}


def _lifecycle(
    queue: Any, name: str, trainers: Mapping[str, tuple[Any, Any]], share: dict[str, str], attach: str
) -> dict[str, Any]:
    said: dict[str, Any] = {"described": {}}
    for kind, (trainer, inputs) in trainers.items():
        job = queue.submit(
            trainer,
            inputs,
            job_name=f"{name}-{kind}",
            priority=5,
            tags={"owner": "me"},
            timeout={"attemptDurationSeconds": 3600},
            retry_config=RETRIES,
            **share,
        )
        said["described"][kind] = job.describe() | {"ResponseMetadata": None}
    trainer, inputs = next(iter(trainers.values()))
    mapped = queue.map(trainer, [inputs] * 4, job_names=[f"{name}-map-{number}" for number in range(4)], **share)
    said["mapped"] = [job.job_name for job in mapped]
    unnamed = queue.map(trainer, [inputs] * 4, **share)
    said["unnamed"] = len({job.job_arn for job in unnamed})
    said["listed"] = [job.job_name for job in queue.list_jobs(job_name=f"{name}-map-*")]
    said["got"] = queue.get_job(mapped[1].job_name).describe()["jobName"]
    said["unknown"] = _error(lambda: queue.get_job("nobody"))
    mapped[3].terminate("enough")
    said["terminated"] = mapped[3].wait(timeout=60)["status"]
    said["terminated_result"] = _error(mapped[3].result)
    said["result"] = mapped[0].result(timeout=60)["status"]
    said["attached"] = _error(getattr(mapped[0], attach))
    said["succeeded"] = len(queue.list_jobs(status="SUCCEEDED"))
    said["running"] = len(queue.list_jobs())
    if hasattr(queue, "list_jobs_by_share"):
        said["by_share"] = len(queue.list_jobs_by_share(status="FAILED", **share))
    return said


def _waiting(
    queue: Any, name: str, trainers: Mapping[str, tuple[Any, Any]], share: dict[str, str], attach: str
) -> dict[str, Any]:
    """Jobs that only the gateway knows."""
    trainer, inputs = next(iter(trainers.values()))
    names = [f"{name}-{number}" for number in range(3)]
    jobs = queue.map(trainer, [inputs] * 3, job_names=names, **share)
    said: dict[str, Any] = {
        "statuses": [job.describe()["status"] for job in jobs],
        "listed": [job.job_arn for job in queue.list_jobs(status="SUBMITTED")] == [j.job_arn for j in jobs[::-1]],
        "got": queue.get_job(names[1]).job_arn == jobs[1].job_arn,
        "attached": _error(getattr(jobs[0], attach)),
    }
    jobs[0].terminate("enough")
    said["terminated"] = jobs[0].wait(timeout=60)["status"]
    said["result"] = _error(jobs[0].result)
    if hasattr(jobs[1], "update"):
        said["updated"] = jobs[1].update(9)["jobName"]
    if hasattr(queue, "list_jobs_by_share"):
        said["by_share"] = len(queue.list_jobs_by_share(status="SUBMITTED", **share))
    return said


def _error(call: Callable[[], Any]) -> str:
    try:
        call()
    except Exception as error:  # noqa: BLE001 - which one it is, is the question
        return f"{type(error).__name__}: {error}"
    return "none"
