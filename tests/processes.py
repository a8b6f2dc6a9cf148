"""The gateway as users run it: `gateway serve` as a process, with its log read as it comes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from gateway.emulator import Emulator, LedgerEntry

START_SECONDS = 20.0


@dataclass
class GatewayProcess:
    """A running gateway; `events` are its log lines so far."""

    process: subprocess.Popen[str]
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.event('started')['port']}"

    def event(self, name: str, seconds: float = START_SECONDS) -> dict[str, Any]:
        """The first line with this event, waiting for it at most so long."""
        return self.find(lambda line: line["event"] == name, seconds)

    def find(self, fits: Callable[[dict[str, Any]], bool], seconds: float = START_SECONDS) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for line in list(self.events):
                if fits(line):
                    return line
            assert self.process.poll() is None or any(map(fits, self.events)), f"it ended: {self.events[-3:]}"
            time.sleep(0.01)
        raise AssertionError(f"no such line in time; the last ones: {self.events[-5:]}")

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def terminate(self, seconds: float = 30.0) -> int:
        self.process.terminate()
        return self.process.wait(seconds)


def submits(emulator: Emulator) -> list[LedgerEntry]:
    """The calls of SubmitServiceJob; Batch is asked for its queues, too, and of its jobs."""
    return [call for call in emulator.ledger() if call.operation == "SubmitServiceJob"]


@contextmanager
def gateway_process(
    folder: Path, settings: str, *arguments: str, port: int = 0, package: Path | None = None
) -> Iterator[GatewayProcess]:
    """`gateway serve` with these settings, on a free port unless one is given; killed at the end if need be.

    `package` is a folder to import it from instead of this checkout.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "gateway.toml"
    config.write_text(settings)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("GATEWAY_", "AWS_"))},
        "GATEWAY_HTTP__PORT": str(port),
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }
    if package is not None:
        environment["PYTHONPATH"] = str(package)
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway", "serve", "--config", str(config), *arguments],
        env=environment,
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
    )
    running = GatewayProcess(process=process)

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            running.events.append(json.loads(line))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        running.event("started")
        yield running
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        reader.join()
        assert process.stdout is not None
        process.stdout.close()
