"""`gateway dev --demo`: the main job in front of one's eyes, over real HTTP, with a check by Batch's own records."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
from rich.console import Console

from gateway import events
from gateway.dev.embedded import DevError
from gateway.dev.load import SHARES, TEAMS, Sent, send, unexpected
from gateway.dev.report import Report, share_reports, show
from gateway.dev.serving import Plan, Running, serve
from gateway.dev.verdict import made_by, violations
from gateway.dev.watch import Silence, display_on, watch
from gateway.emulator.config import DEFAULT_ACCOUNT, DEFAULT_REGION
from gateway.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.emulator import Emulator

TPS = 5.0  # Batch's own figure: what the demo is about
SETTLE_SECONDS = 5  # from the last job to the last record


async def run_demo(*, as_json: bool) -> int:
    """The exit code: 0 if every accepted submission became exactly one job."""
    folder = Path(tempfile.mkdtemp(prefix="gateway-demo-"))
    try:
        with (folder / "gateway.log").open("w", buffering=1) as log_file:
            report = await _run(folder, events.configure(log_file), Console(quiet=as_json, highlight=False))
    finally:
        shutil.rmtree(folder / "store", ignore_errors=True)  # the log stays, for a look
    if as_json:
        print(json.dumps({**report.as_json(), "log": str(folder / "gateway.log")}))  # noqa: T201 - the answer
    return 0 if report.ok else 1


async def _run(folder: Path, log: Any, console: Console) -> Report:
    """Everything up, the show, everything down."""
    stop = asyncio.Event()
    ready: asyncio.Future[Running] = asyncio.get_running_loop().create_future()
    plan = Plan(settings=_settings(), folder=folder / "store", emulator_port=0, tps=TPS)
    serving = asyncio.create_task(serve(plan, log, stop, started=ready.set_result))
    either: list[asyncio.Future[Any]] = [serving, ready]
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()
        return await _show(ready.result(), folder / "gateway.log", console)
    except aiohttp.ClientError as error:
        raise DevError(f"the gateway did not answer: {error}; {folder / 'gateway.log'} says more") from error
    finally:
        stop.set()
        await serving


def _settings() -> Settings:
    upstream = {"region": DEFAULT_REGION, "account": DEFAULT_ACCOUNT, "rate": TPS}
    return Settings.model_validate({"http": {"port": 0}, "upstream": [upstream], "share": SHARES})


async def _show(running: Running, log: Path, console: Console) -> Report:
    console.print(f"\n[bold]Three teams send 60 training jobs at once. Batch takes {TPS:g} a second.[/]\n")
    console.print(f"  gateway   {running.url}   log: {log}\n  emulator  {running.emulator.url}\n", soft_wrap=True)
    connector = aiohttp.TCPConnector(limit=0)  # the burst is one: no request waits for another's connection
    async with aiohttp.ClientSession(running.url, connector=connector) as http:
        sent = await send(http)
        _tell_sent(sent, console)
        if console.quiet:
            drained = await watch(http, Silence(), pace=TPS)
        else:
            with display_on(console) as display:
                drained = await watch(http, display, pace=TPS)
        records = await _records(http, sent.accepted())
    report = _report(sent, records, running.emulator, drained=drained)
    console.print()
    show(report, console)
    return report


def _tell_sent(sent: Sent, console: Console) -> None:
    accepted, replayed = len(sent.accepted()), sum(one.replayed for one in sent.answers)
    refused = sum(not one.accepted for one in sent.answers)
    console.print(
        f"  {len(sent.answers)} requests, answered in {sent.seconds:.2f} s: "
        f"[bold]{accepted} accepted[/], {replayed} replayed, {refused} refused.\n"
        "  Now they go to Batch in fair order, each share by its weight:\n",
        soft_wrap=True,
    )


async def _records(http: aiohttp.ClientSession, submission_ids: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Each accepted submission as the gateway tells it in the end."""

    async def record(submission_id: str) -> tuple[str, dict[str, Any]]:
        headers = {"Prefer": f"wait={SETTLE_SECONDS}"}
        async with http.get(f"/v1/submissions/{submission_id}", headers=headers) as response:
            return submission_id, await response.json(content_type=None)

    return dict(await asyncio.gather(*map(record, submission_ids)))


def _report(sent: Sent, records: dict[str, dict[str, Any]], emulator: Emulator, *, drained: bool) -> Report:
    waits: dict[str, list[float]] = {team.share: [] for team in TEAMS}
    for submission_id, share in sent.accepted().items():
        record = records[submission_id]
        if record.get("state") == "forwarded":
            waits[share].append(_seconds(record["acceptedAt"], record["forwardedAt"]))
    calls = [call for call in emulator.ledger() if call.operation == "SubmitServiceJob"]
    times = [call.at / 1000 for call in calls if call.created]
    wrong = [
        *unexpected(sent),
        *([] if drained else ["some submissions were still queued when the time was up"]),
        *violations({one: record.get("jobId") for one, record in records.items()}, made_by(emulator)),
    ]
    return Report(
        shares=share_reports(sent.answers, waits),
        jobs=len(times),
        calls=len(calls),
        goodput=(len(times) - 1) / (max(times) - min(times)) if len(set(times)) > 1 else 0.0,
        violations=tuple(wrong),
    )


def _seconds(since: str, until: str) -> float:
    return (datetime.fromisoformat(until) - datetime.fromisoformat(since)).total_seconds()
