"""Environments of their own for clients that don't fit beside the gateway: built once, kept in `.venv-clients`.

`python -m tests.clients.environments NAME…` builds those that are named; each is what `requirements/clients/NAME.txt`
pins, and stays as long as that file is the same.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".venv-clients"
REQUIREMENTS = ROOT / "requirements" / "clients"
BUILD_SECONDS = 900


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """The one of `requirements/clients/<name>.txt`."""

    name: str

    @property
    def folder(self) -> Path:
        return FOLDER / self.name

    @property
    def python(self) -> Path:
        return self.command("python")

    @property
    def is_built(self) -> bool:
        """From just these requirements, by this Python, to the end."""
        try:
            return self._mark.read_text() == self._wanted()
        except FileNotFoundError:
            return False

    def command(self, name: str) -> Path:
        return self.folder / "bin" / name

    def build(self) -> None:
        """Installs what is pinned, unless that is done. Others who want the same wait meanwhile."""
        FOLDER.mkdir(exist_ok=True)
        (FOLDER / ".gitignore").write_text("*\n")
        with (FOLDER / f"{self.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not self.is_built:
                shutil.rmtree(self.folder, ignore_errors=True)
                venv.create(self.folder)
                self._install()
                self._mark.write_text(self._wanted())

    def _install(self) -> None:
        # What belongs to the environment that the tests run in must not be taken for this one's.
        outside = {name: value for name, value in os.environ.items() if name not in {"VIRTUAL_ENV", "PYTHONPATH"}}
        done = subprocess.run(
            [*_installer(self.python), "--quiet", "--require-hashes", "-r", REQUIREMENTS / f"{self.name}.txt"],
            env=outside,
            capture_output=True,
            text=True,
            timeout=BUILD_SECONDS,
            check=False,
        )
        if done.returncode:
            message = f"the environment {self.name} cannot be built: {done.stderr[-2000:]}"
            raise RuntimeError(message)

    @property
    def _mark(self) -> Path:
        return self.folder / ".built"

    def _wanted(self) -> str:
        pins = (REQUIREMENTS / f"{self.name}.txt").read_bytes()
        return f"{hashlib.sha256(pins).hexdigest()} {sys.version}\n"


AWS_CLI = Environment(name="aws-cli")
BOTO3 = Environment(name="boto3")
SAGEMAKER_V2 = Environment(name="sagemaker-v2")
SAGEMAKER_V3 = Environment(name="sagemaker-v3")
_ALL = {environment.name: environment for environment in (AWS_CLI, BOTO3, SAGEMAKER_V2, SAGEMAKER_V3)}


def built(environment: Environment) -> Environment:
    """For fixtures: built in CI, or it fails; at home as it finds it, or it skips."""
    if os.environ.get("CI"):
        environment.build()
    if not environment.is_built:
        pytest.skip(f"no environment {environment.name}: make test-clients builds it")
    return environment


def _installer(python: Path) -> list[str | Path]:
    """uv where it is at hand, which is several times faster; else the pip of this environment, which saves another."""
    beside = Path(sys.executable).with_name("uv")
    uv = beside if beside.exists() else shutil.which("uv")
    if uv:
        return [uv, "pip", "install", "--python", python, "--compile-bytecode"]
    return [sys.executable, "-m", "pip", "--python", python, "install", "--disable-pip-version-check"]


def main() -> None:
    for name in sys.argv[1:] or _ALL:
        _ALL[name].build()


if __name__ == "__main__":
    main()
