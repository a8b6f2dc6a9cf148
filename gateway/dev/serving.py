"""Store, emulator and gateway in one event loop, each pointed at the others."""

from __future__ import annotations

import asyncio
import os
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gateway.dev.embedded import DevError, embedded_store
from gateway.emulator import Emulator, EmulatorConfig
from gateway.emulator.config import DEFAULT_ACCOUNT, DEFAULT_REGION
from gateway.runtime import AwsKeys, Gateway
from gateway.settings import Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from pathlib import Path

    from gateway.core.ports import Log

# The emulator checks no signatures; fixed keys keep the AWS chain, and so a real profile, out of it.
EMULATOR_KEYS = AwsKeys(access_key_id="emulator", secret_access_key="emulator")  # noqa: S106 - no secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to run. `tps` is what the emulator takes in calls a second; the port 0 takes a free one."""

    settings: Settings
    folder: Path
    emulator_port: int
    tps: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """What runs, once all of it does."""

    url: str
    emulator: Emulator


def dev_settings(config: Path | None, *, tps: float, environment: Mapping[str, str] = os.environ) -> Settings:
    """File and environment, with what the emulator is where neither names an upstream. Raises SettingsError."""
    given = _upstream_in(config)
    emulator = {"region": DEFAULT_REGION, "account": DEFAULT_ACCOUNT, "rate": tps}
    missing = {f"GATEWAY_UPSTREAM__{name.upper()}": str(value) for name, value in emulator.items() if name not in given}
    return load_settings(config, {**missing, **environment})


async def serve(plan: Plan, log: Log, stop: asyncio.Event, *, started: Callable[[Running], None]) -> None:
    """Until told to stop; the store ends last, however it comes to that. Raises DevError."""
    async with embedded_store(plan.folder) as store:
        section = plan.settings.upstream[0]
        emulator = Emulator(EmulatorConfig(region=section.region, account=section.account, submit_tps=plan.tps))
        try:
            await emulator.start(port=plan.emulator_port)
        except OSError as error:
            raise _taken(plan.emulator_port, "--emulator-port", error) from error
        try:
            settings = _pointed_at(plan.settings, store_url=store.url, endpoint_url=emulator.url)
            gateway = _gateway(settings, log, stop, lambda url: started(Running(url=url, emulator=emulator)))
            await _first_of(gateway, store.ended())
        finally:
            await emulator.stop()


async def _gateway(settings: Settings, log: Log, stop: asyncio.Event, started: Callable[[str], None]) -> None:
    host = settings.http.host
    try:
        await Gateway(settings, log, aws_keys=EMULATOR_KEYS).run(
            stop, started=lambda port: started(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
        )
    except OSError as error:
        raise _taken(settings.http.port, "--port", error) from error


async def _first_of(*works: Coroutine[Any, Any, None]) -> None:
    """Until one of them returns or raises, which is passed on; the others are canceled."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in ended:
        task.result()


def _upstream_in(config: Path | None) -> dict[str, Any]:
    """The file's first [[upstream]]; empty where there is none. What is wrong with the file `load_settings` says."""
    try:
        (first, *_) = tomllib.loads(config.read_text())["upstream"] if config else [{}]
    except (OSError, ValueError, LookupError, TypeError):
        return {}
    return first if isinstance(first, dict) else {}


def _pointed_at(settings: Settings, *, store_url: str, endpoint_url: str) -> Settings:
    upstream = tuple(one.model_copy(update={"endpoint_url": endpoint_url}) for one in settings.upstream)
    store = settings.store.model_copy(update={"url": store_url})
    # No balancer looks at readiness here, so nothing is served on before the drain.
    http = settings.http.model_copy(update={"unready_seconds": 0.0})
    return settings.model_copy(update={"store": store, "upstream": upstream, "http": http})


def _taken(port: int, option: str, error: OSError) -> DevError:
    reason = os.strerror(error.errno) if error.errno else str(error)
    return DevError(f"cannot listen on port {port} ({reason}): choose another with {option}")
