"""Keeps the gateway that was released last for the tests of upgrades: `python -m tests.upgrade.freeze COMMIT`.

A checkout in CI may have no history, and only the code itself, as a process of its own, shows what an upgrade meets. So
the whole package as it was at that commit lies beside this file, packed as git packs it: `git get-tar-commit-id` tells
which one it is. To be done again with each release, for tests hold the code of today to that one.
"""

from __future__ import annotations

import lzma
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
CHECKOUT = FOLDER.parents[1]


def frozen() -> Path:
    """The archive; there is one."""
    (archive,) = FOLDER.glob("gateway-*.tar.xz")
    return archive


def freeze(commit: str) -> Path:
    """Puts that commit's package in the place of the one before. Raises CalledProcessError where git has none."""
    git = ["git", "-C", str(CHECKOUT)]
    name = subprocess.run([*git, "rev-parse", "--short=7", f"{commit}^{{commit}}"], check=True, capture_output=True)
    package = subprocess.run([*git, "archive", "--format=tar", commit, "gateway"], check=True, capture_output=True)
    for former in FOLDER.glob("gateway-*.tar.xz"):
        former.unlink()
    archive = FOLDER / f"gateway-{name.stdout.decode().strip()}.tar.xz"
    archive.write_bytes(lzma.compress(package.stdout, preset=9 | lzma.PRESET_EXTREME))
    return archive


if __name__ == "__main__":
    sys.stdout.write(f"{freeze(sys.argv[1]).name}\n")
