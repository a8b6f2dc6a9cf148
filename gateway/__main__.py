"""The command line: `gateway serve | dev | emulator | check`."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from gateway import events
from gateway.console.shares import shares
from gateway.console.submissions import submissions
from gateway.console.upstreams import upstreams
from gateway.dev.command import dev_command
from gateway.emulator.command import emulator_command
from gateway.settings import Settings, SettingsError, load_settings, without_effect

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping, Sequence

    from gateway.core.audit import Audited
    from gateway.runtime import Role

REFUSED, WRONG_USE, NOT_REACHABLE = 1, 2, 3

config_option = click.option(
    "--config",
    "config",
    envvar="GATEWAY_CONFIG",
    type=click.Path(path_type=Path, dir_okay=False),
    help="TOML file with the settings; GATEWAY_CONFIG says the same. GATEWAY_<SECTION>__<KEY> overrides a value.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="batch-gateway")
def main() -> None:
    """A gateway in front of AWS Batch service jobs.

    It takes training jobs over HTTP, remembers each one durably and once, and hands them to Batch at the pace that
    Batch allows, in fair order between the shares.

    Exit codes: 0 done, 1 refused or failed, 2 wrong use, 3 not reachable.
    """


@main.command()
@config_option
@click.option(
    "--role",
    type=click.Choice(["api", "forwarder", "all"]),
    default="all",
    show_default=True,
    help="Take requests, forward to Batch, or both.",
)
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Processes on the same port.")
@click.option("--shared-port", is_flag=True, hidden=True)  # what --workers starts its processes with
def serve(config: Path | None, role: Role, workers: int, *, shared_port: bool) -> None:
    """Run the gateway until SIGTERM, then drain; a second signal shortens the drain."""
    settings = _settings(config)
    if workers > 1:
        if role != "forwarder" and settings.http.port == 0:
            _fail("--workers share one port: give http.port a number other than 0", WRONG_USE)
        _supervise(config, role, workers)
    from gateway.runtime import Gateway, PromiseBrokenError

    log = events.configure()

    async def until_signal() -> None:
        stop, hurry = asyncio.Event(), asyncio.Event()

        def on_signal() -> None:
            (hurry if stop.is_set() else stop).set()

        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, on_signal)
        await Gateway(settings, log, role=role, shared_port=shared_port).run(stop, hurry=hurry)

    try:
        run_loop(until_signal())
    except PromiseBrokenError as error:
        _fail(str(error), REFUSED)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        _fail(f"cannot listen on {settings.http.host}:{settings.http.port} ({reason})", REFUSED)


@main.command()
@config_option
@click.option("--json", "as_json", is_flag=True, help="Answer as JSON.")
@click.option("--store", "with_store", is_flag=True, help="Audit all that the store holds, at once, too.")
def check(config: Path | None, *, as_json: bool, with_store: bool) -> None:
    """Check the settings, the store's promise, and that no queue moves away from where its submissions still are.

    With --store also that the store is as its commands leave it: each submission in its one place, each count right.
    """
    settings = _settings(config, as_json=as_json)
    from gateway.core.errors import StoreUnavailableError
    from gateway.core.upstream import Routes, Upstream
    from gateway.store.connection import Connections
    from gateway.store.durability import (
        Promise,
        confirmation,
        read_facts,
        reservations,
        shortcomings,
        unconfirmed,
    )
    from gateway.store.holdings import moved_queues
    from gateway.store.keys import Keys
    from gateway.store.versions import newer_writer

    routes = Routes(
        [
            Upstream(name=one.name, region=one.region, account=one.account, queues=one.queues)
            for one in settings.upstream
        ]
    )

    async def look() -> tuple[list[str], list[str]]:
        """(problems, notes)"""
        promise = Promise(durability=settings.store.durability, replicas=settings.store.replicas)
        problems: list[str] = []
        notes: list[str] = []
        newer: list[str] = []
        async with Connections(settings.store.url) as connections:
            for keys in (Keys(settings.store.prefix, one.tag) for one in routes):
                client = connections.to(keys.root)
                facts = await read_facts(client)
                notes += reservations(facts, promise)
                newer += await newer_writer(client, keys)
                lacking = [one.sentence for one in shortcomings(facts, promise)]
                problems += lacking or await unconfirmed(client, keys, confirmation(facts, promise))
            problems += newer or await moved_queues(connections, settings.store.prefix, routes)
        return [*dict.fromkeys(problems)], [*dict.fromkeys(notes)]

    try:
        problems, notes = asyncio.run(look())
        audits = asyncio.run(_audits(settings)) if with_store else None
    except StoreUnavailableError as error:
        _answer(as_json, ok=False, problems=[f"store.url: the store does not answer as it should: {error.cause}"])
        raise SystemExit(NOT_REACHABLE) from error
    notes = [*without_effect(settings), *notes]
    problems += [f"store: {name}: {one}" for name, audited in (audits or {}).items() for one in audited.sentences]
    _answer(as_json, ok=not problems, problems=problems, notes=notes, audits=audits)
    raise SystemExit(REFUSED if problems else 0)


main.add_command(dev_command, "dev")
main.add_command(emulator_command, "emulator")
main.add_command(shares)
main.add_command(submissions)
main.add_command(upstreams)


def run_loop(work: Coroutine[None, None, None]) -> None:
    """On uvloop where there is one: about a tenth faster end to end."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(work)
        return
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work)


def _settings(config: Path | None, *, as_json: bool = False) -> Settings:
    try:
        return load_settings(config)
    except SettingsError as error:
        _answer(as_json, ok=False, problems=error.problems)
        raise SystemExit(REFUSED) from error


async def _audits(settings: Settings) -> dict[str, Audited]:
    """A whole round over each upstream's part of the store, by the upstream's name."""
    from gateway.core.audit import whole_round
    from gateway.core.identity import upstream_tag
    from gateway.store.audit import StoreAudit
    from gateway.store.bounds import StoreBounds
    from gateway.store.connection import Connections
    from gateway.store.keys import Keys

    store = settings.store
    bounds = StoreBounds(
        retention_seconds=store.retention_seconds, alias_retention_seconds=store.alias_retention_seconds
    )
    found = {}
    async with Connections(store.url) as connections:
        for one in settings.upstream:
            keys = Keys(store.prefix, upstream_tag(one.account, one.region))
            audit = StoreAudit(connections.to(keys.root), keys, bounds=bounds)
            await audit.open()
            found[one.name] = await whole_round(audit)
    return found


def _answer(
    as_json: bool,  # noqa: FBT001
    *,
    ok: bool,
    problems: list[str],
    notes: Sequence[str] = (),
    audits: Mapping[str, Audited] | None = None,
) -> None:
    """`audits` by the upstream's name, where the store was audited."""
    if as_json:
        told = {} if audits is None else {"audits": [{"upstream": name, **one.told} for name, one in audits.items()]}
        click.echo(json.dumps({"ok": ok, "problems": problems, "notes": list(notes), **told}))
        return
    for name, audited in (audits or {}).items():
        click.echo(f"Audit of {name}: {audited.summary}.")
    for note in notes:
        click.echo(f"Note: {note}.")
    for problem in problems:
        click.echo(problem, err=True)
    if ok:
        click.echo("The settings are sound and the store keeps what they promise.")


def _supervise(config: Path | None, role: Role, workers: int) -> NoReturn:
    """Run so many processes that share the port; the first to die by itself takes the others along, loudly."""
    command = [sys.executable, "-m", "gateway", "serve", "--role", role, "--shared-port"]
    if config:
        command += ["--config", str(config)]
    running = [subprocess.Popen(command) for _ in range(workers)]  # noqa: S603 - our own command
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True
        for process in running:
            process.terminate()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    while all(process.poll() is None for process in running):
        time.sleep(0.2)
    died = not stopping
    if died:
        stop()
    codes = [process.wait() for process in running]
    raise SystemExit(REFUSED if died or any(codes) else 0)


def _fail(message: str, code: int) -> NoReturn:
    click.echo(message, err=True)
    raise SystemExit(code)


if __name__ == "__main__":
    sys.exit(main())
