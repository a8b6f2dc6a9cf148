"""The command `gateway dev`. Imports what runs only when it runs, so that help is quick and needs no extra."""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from gateway import events
from gateway.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from gateway.dev.serving import Plan, Running

_PORT = click.IntRange(0, 65535)


@click.command("dev", short_help="Store, emulator and gateway on this machine; --demo shows them at work.")
@click.option("--port", type=_PORT, help="The gateway's port; 0 takes a free one.  [default: http.port, 8080]")
@click.option("--emulator-port", type=_PORT, default=9100, show_default=True, help="The emulator's; 0: a free one.")
@click.option(
    "--tps",
    type=click.FloatRange(0.1, 10_000),
    default=5.0,
    show_default=True,
    help="Submissions a second that the emulator takes, and the gateway forwards unless its settings give a rate.",
)
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".gateway"),
    show_default=True,
    help="Where the store keeps its data: what is queued survives a restart.",
)
@click.option(
    "--config",
    envvar="GATEWAY_CONFIG",
    type=click.Path(path_type=Path, dir_okay=False),
    help="TOML file with the gateway's settings; its store.url and endpoint_url are not used.",
)
@click.option("--demo", is_flag=True, help="Watch 60 jobs of three shares go through, on free ports and a new store.")
@click.option("--json", "as_json", is_flag=True, help="The demo's result as one JSON object, and nothing else.")
def dev_command(
    *,
    port: int | None,
    emulator_port: int,
    tps: float,
    folder: Path,
    config: Path | None,
    demo: bool,
    as_json: bool,
) -> None:
    """Run everything on this machine, with no configuration.

    An embedded store that writes each change to the disk, AWS Batch's emulator in place of Batch, and the gateway on
    127.0.0.1. No AWS account, profile or network is used. Ctrl-C or SIGTERM ends all three.

    With --demo: the main job with a burst from three shares, live, then what came of it. Its exit code is 0 only if
    every accepted submission became exactly one job.
    """
    if as_json and not demo:
        raise click.UsageError("--json goes with --demo")
    from gateway.dev.embedded import DevError

    try:
        if demo:
            raise SystemExit(_demo(as_json=as_json))
        from gateway.dev.serving import Plan, dev_settings

        settings = dev_settings(config, tps=tps)
        if port is not None:
            settings = settings.model_copy(update={"http": settings.http.model_copy(update={"port": port})})
        asyncio.run(_until_signal(Plan(settings=settings, folder=folder, emulator_port=emulator_port, tps=tps)))
    except (DevError, SettingsError) as error:
        _fail(str(error))


async def _until_signal(plan: Plan) -> None:
    from gateway.dev.serving import serve

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await serve(plan, events.configure(), stop, started=lambda running: _tell(running, plan))


def _demo(*, as_json: bool) -> int:
    from gateway.dev.demo import run_demo
    from gateway.dev.embedded import DevError

    async def until_signal(work: Coroutine[None, None, int]) -> int:
        task = asyncio.ensure_future(work)
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        with suppress(asyncio.CancelledError):
            return await task
        raise DevError("stopped before its end")

    return asyncio.run(until_signal(run_demo(as_json=as_json)))


def _tell(running: Running, plan: Plan) -> None:
    """To stderr: stdout is the log's, for whoever reads that line by line."""
    from gateway.dev.example import curl_line

    def line(name: str, where: str, what: str) -> str:
        return f"  {click.style(f'{name:<10}', bold=True)}{click.style(f'{where:<24}', fg='cyan')}  {what}"

    rows = [
        line("gateway", running.url, "API; its contract is at /openapi.yaml"),
        line("emulator", running.emulator.url, f"AWS Batch, {plan.tps:g} submissions a second; jobs: /_emulator/jobs"),
        line("store", f"{plan.folder.resolve()}/", "Valkey; submissions survive a restart, the emulator's jobs do not"),
    ]
    token = f"first-{time.strftime('%H%M%S')}"
    click.echo("\n" + "\n".join(rows), err=True)
    click.echo(f"\nFor boto3, the AWS CLI and the SageMaker SDK: AWS_ENDPOINT_URL_BATCH={running.url}", err=True)
    click.echo("\nTry this in another terminal; sent twice, it is still one job:\n", err=True)
    click.echo(curl_line(running.url, token) + "\n", err=True)


def _fail(message: str) -> NoReturn:
    click.echo(message, err=True)
    raise SystemExit(1)
