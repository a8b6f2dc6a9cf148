"""Releases of the gateway to run side by side: the last one as it was, this checkout, and what may come after it."""

from __future__ import annotations

import shutil
import tarfile
from typing import TYPE_CHECKING

from tests.upgrade.freeze import CHECKOUT, frozen

if TYPE_CHECKING:
    from pathlib import Path

# What a next release might change within a version: how often a record was written, and each script with it.
COUNTED = (
    "store/lua/prelude.lua",
    "  return cmsgpack.pack(record) .. rest\n",
    "  record.writes = (record.writes or 0) + 1\n  return cmsgpack.pack(record) .. rest\n",
)
# How a version is raised: a release that reads it, then one that writes it.
READS_2 = (
    ("store/versions.py", "VERSION_READ = 1\n", "VERSION_READ = 2\n"),
    ("store/lua/prelude.lua", "VERSION_READ, VERSION_WRITTEN = 1, 1\n", "VERSION_READ, VERSION_WRITTEN = 2, 1\n"),
)
WRITES_2 = (
    *READS_2,
    ("store/versions.py", "VERSION_WRITTEN = 1\n", "VERSION_WRITTEN = 2\n"),
    ("store/lua/prelude.lua", "VERSION_READ, VERSION_WRITTEN = 2, 1\n", "VERSION_READ, VERSION_WRITTEN = 2, 2\n"),
    COUNTED,
)


def released(folder: Path) -> Path:
    """Where the last release can be imported from."""
    with tarfile.open(frozen()) as archive:
        archive.extractall(folder, filter="data")
    shutil.copy(CHECKOUT / "openapi.yaml", folder)  # served from beside the package, and no part of what is shared
    return folder


def changed(folder: Path, *changes: tuple[str, str, str]) -> Path:
    """Where this checkout's gateway can be imported from with changes: a file, what stands there, what shall."""
    package = folder / "gateway"
    shutil.copytree(CHECKOUT / "gateway", package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(CHECKOUT / "openapi.yaml", folder)
    for name, before, after in changes:
        text = (package / name).read_text()
        assert text.count(before) == 1, f"{name} has changed: tell the tests what a next release would change there"
        (package / name).write_text(text.replace(before, after))
    return folder
