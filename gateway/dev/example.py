"""A submission that Batch and SageMaker would take, for the demo and for a first try by hand."""

from __future__ import annotations

import json
from typing import Any

from gateway.emulator.config import DEFAULT_ACCOUNT

QUEUE = "training"


def example(name: str, *, share: str = "vision", token: str | None = None) -> dict[str, Any]:
    """The body of POST /v1/submissions."""
    body = {
        "jobName": name,
        "jobQueue": QUEUE,
        "shareIdentifier": share,
        "serviceJobType": "SAGEMAKER_TRAINING",
        "serviceRequestPayload": {
            "TrainingJobName": name,
            "RoleArn": f"arn:aws:iam::{DEFAULT_ACCOUNT}:role/{share}-training",
            "AlgorithmSpecification": {"TrainingImage": f"{share}:1", "TrainingInputMode": "File"},
            "OutputDataConfig": {"S3OutputPath": f"s3://models/{share}"},
            "ResourceConfig": {"InstanceType": "ml.g5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 50},
            "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
        },
    }
    return {**body, "clientToken": token} if token else body


def curl_line(url: str, token: str) -> str:
    """One command to paste into a shell, in lines that no usual terminal breaks: a broken string is no JSON."""
    body = example("first")
    payload = body.pop("serviceRequestPayload")
    outer, inner = (
        [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in members.items()] for members in (body, payload)
    )
    between = ",\n      "
    return (
        f"curl -i {url}/v1/submissions \\\n"
        f"  -H 'Content-Type: application/json' -H 'Prefer: wait=5' \\\n"
        f"  -H 'Idempotency-Key: {token}' -d '{{\n"
        f"    {', '.join(outer[:2])},\n"
        f"    {', '.join(outer[2:])},\n"
        f'    "serviceRequestPayload": {{\n'
        f"      {between.join(inner)}}}}}'"
    )
