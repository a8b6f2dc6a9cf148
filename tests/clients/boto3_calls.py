"""Calls of a boto3 in an environment of its own, with what it does by default. Runs there; imports nothing from here.

Reads `[[operation, parameters], …]` from the standard input and prints, for each, its answer or error and how many
times it repeated it in how many seconds.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import boto3
from botocore.exceptions import ClientError


def main() -> None:
    client = boto3.client("batch")
    said: dict[str, Any] = {"mode": client.meta.config.retries["mode"], "calls": []}
    for operation, parameters in json.load(sys.stdin):
        began = time.monotonic()
        try:
            answer = getattr(client, operation)(**parameters)
        except ClientError as error:
            answer = error.response
        answer["seconds"] = time.monotonic() - began
        answer["repeats"] = answer.pop("ResponseMetadata")["RetryAttempts"]
        said["calls"].append(answer)
    json.dump(said, sys.stdout)


main()
