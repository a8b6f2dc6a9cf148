"""A valid request, as callers would send it."""

from __future__ import annotations

import json
from typing import Any

ACCOUNT, REGION = "123456789012", "us-east-1"


def training_job(name: str = "resnet") -> dict[str, Any]:
    """A CreateTrainingJob request that SageMaker would take."""
    return {
        "TrainingJobName": name,
        "RoleArn": f"arn:aws:iam::{ACCOUNT}:role/vision-training",
        "AlgorithmSpecification": {
            "TrainingImage": f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/resnet:1",
            "TrainingInputMode": "File",
        },
        "OutputDataConfig": {"S3OutputPath": "s3://models/resnet"},
        "ResourceConfig": {"InstanceType": "ml.g5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 50},
        "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
        "HyperParameters": {"epochs": "10", "lr": "0.001"},
    }


def submission(**members: Any) -> dict[str, Any]:
    """The body of POST /v1/submissions, with members changed, added or (by None) taken out."""
    body: dict[str, Any] = {
        "jobName": "resnet",
        "jobQueue": "training",
        "serviceJobType": "SAGEMAKER_TRAINING",
        "shareIdentifier": "vision",
        "serviceRequestPayload": training_job(),
        **members,
    }
    return {name: value for name, value in body.items() if value is not None}


def batch_submission(**members: Any) -> dict[str, Any]:
    """The same as Batch's own face takes it, and its clients send it: the payload as a string."""
    body = submission(**members)
    return {**body, "serviceRequestPayload": json.dumps(body["serviceRequestPayload"])}


def settings(*, store_url: str, endpoint_url: str, prefix: str, extra: str = "", upstream: str = "") -> str:
    """A gateway's TOML file over a test's own store and emulator."""
    return f"""
[http]
unready_seconds = 0
drain_seconds = 10
[store]
url = "{store_url}"
prefix = "{prefix}"
durability = "memory"
{extra}
[[upstream]]
name = "main"
region = "{REGION}"
account = "{ACCOUNT}"
endpoint_url = "{endpoint_url}"
{upstream}
"""
