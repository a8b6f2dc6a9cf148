"""What a campaign did and saw, as JSON lines: calls of callers, faults, processes that ended."""

from __future__ import annotations

import json
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


class History:
    """Written line by line, so that a campaign that breaks off leaves what it had.

    Every line has `kind` and `at`, in seconds since the epoch:

    - `call`: one request of a caller, written once its fate is known. `at` is when it was sent, `ended` when its answer
      came or was given up; `status` is null and `failure` says why where there was none.
    - `fault`: something that was done to a gateway, the store or Batch.
    - `ended`: a gateway's process ended, with its `code`, and whether that was `planned`.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")
        self.counts: Counter[str] = Counter()
        self.acknowledged: set[str] = set()  # submissionIds

    def note(self, kind: str, *, at: float | None = None, **fields: Any) -> None:
        self._file.write(json.dumps({"kind": kind, "at": time.time() if at is None else at, **fields}) + "\n")
        self.counts[kind] += 1
        if kind == "call" and fields["act"] == "submit" and fields["status"] in (200, 202):
            self.acknowledged.add(fields["answer"]["submissionId"])

    def close(self) -> None:
        self._file.close()
