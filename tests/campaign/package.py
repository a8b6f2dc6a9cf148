"""The package that a campaign runs: a copy, so that nothing changes under it, with edits where some are wanted."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

CHECKOUT = Path(__file__).parents[2]


class EditError(Exception):
    """The text that an edit replaces is not in its file, or more than once."""


@dataclass(frozen=True, slots=True)
class Edit:
    """Replaces `old`, which must be in `file` exactly once, by `new`; `file` is relative to the package."""

    file: str
    old: str
    new: str


# The product waits for minutes where Batch may list late or be ill. A campaign of a minute has not got them: the same
# code with shorter waits meets the same cases.
HURRY = (
    Edit("core/reconcile.py", "LOOK_AFTER_SECONDS = (5.0, 25.0, 90.0)", "LOOK_AFTER_SECONDS = (0.5, 1.0, 1.5)"),
    Edit("core/attempt.py", "LISTED_WITHIN_SECONDS = 5.0", "LISTED_WITHIN_SECONDS = 1.0"),
    Edit("core/errands.py", "HELD_SECONDS = 60.0", "HELD_SECONDS = 2.0"),
    Edit("core/backoff.py", "BASE_SECONDS = 1.0", "BASE_SECONDS = 0.25"),
    Edit("core/backoff.py", "CAP_SECONDS = 60.0", "CAP_SECONDS = 2.0"),
)


def copy_package(folder: Path, edits: Sequence[Edit] = ()) -> Path:
    """Copies the package into a new folder, edits it there, and answers what to put on the path.

    Raises EditError; nothing runs then.
    """
    package = folder / "gateway"
    shutil.copytree(CHECKOUT / "gateway", package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(CHECKOUT / "openapi.yaml", folder)
    for edit in edits:
        path = package / edit.file
        text = path.read_text(encoding="utf-8")
        found = text.count(edit.old)
        if found != 1:
            raise EditError(f"{edit.file}: the text to replace is there {found} times, not once:\n{edit.old}")
        path.write_text(text.replace(edit.old, edit.new), encoding="utf-8")
    return folder
