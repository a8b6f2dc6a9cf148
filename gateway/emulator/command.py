"""`gateway emulator`: the emulator as a process of its own."""

import asyncio
import json
import signal
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, get_args

import click

from gateway.emulator import config as defaults
from gateway.emulator.config import EmulatorConfig, Limiter, Policy, QueueConfig, QuotaShareConfig, Repeats, State
from gateway.emulator.emulator import DEFAULT_HOST, DEFAULT_PORT, Emulator
from gateway.emulator.faults import KINDS
from gateway.emulator.queues import NAME

_POLICIES: dict[str, Policy] = {policy: policy for policy in get_args(Policy)}
_STATES: dict[str, State] = {state: state for state in get_args(State)}
_POSITIVE = click.FloatRange(min=0)


# A line of \b alone tells click to keep the lines that follow as they are.
_HELP = """Run AWS Batch's service-job API on this machine, in memory.

Point any AWS client at it with AWS_ENDPOINT_URL_BATCH=http://127.0.0.1:9100 and made-up credentials; signatures are
not checked. Prints one line with its URL when it is ready, and ends on SIGTERM or Ctrl-C.

Faults are set over HTTP, for example the next three submissions throttled, or one job made without an answer:

\b
  curl -X PUT localhost:9100/_emulator/faults -d '{"kind": "throttle", "times": 3}'
  curl -X PUT localhost:9100/_emulator/faults -d '{"kind": "lost_answer", "times": 1}'
  curl -X DELETE localhost:9100/_emulator/faults

All calls are in GET /_emulator/ledger?since=N, all jobs in GET /_emulator/jobs; POST /_emulator/reset forgets them.
"""
_FAULTS = "\b\nFaults, by kind:\n" + "\n".join(f"  {kind:18}{does}" for kind, does in KINDS.items())


@click.command(
    "emulator", short_help="AWS Batch's service-job API on this machine, in memory.", help=_HELP, epilog=_FAULTS
)
@click.option("--host", default=DEFAULT_HOST, show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=DEFAULT_PORT, show_default=True, type=click.IntRange(0, 65535), help="Port; 0 takes a free one."
)
@click.option("--region", default=defaults.DEFAULT_REGION, show_default=True, help="Region in ARNs.")
@click.option("--account", default=defaults.DEFAULT_ACCOUNT, show_default=True, help="Account in ARNs.")
@click.option(
    "--queue",
    "queues",
    multiple=True,
    metavar="NAME[:POLICY]",
    help="A queue that exists from the start; may be repeated. POLICY: none (the default: no share member is taken), "
    "fairshare (shareIdentifier is required), quota (quotaShareName is required) or any (whatever comes).",
)
@click.option(
    "--quota-share",
    "quota_shares",
    multiple=True,
    metavar="QUEUE/NAME[:STATE]",
    help="A quota share of a queue given by --queue NAME:quota; may be repeated. STATE: ENABLED (the default) or "
    "DISABLED (takes no jobs).",
)
@click.option(
    "--auto-queues/--no-auto-queues",
    default=True,
    show_default=True,
    help="Make unknown queues on first use, with the policy any.",
)
@click.option(
    "--tps",
    default=defaults.SUBMIT_TPS,
    show_default=True,
    type=_POSITIVE,
    help="SubmitServiceJob calls a second; 0: no limit.",
)
@click.option(
    "--read-tps",
    default=defaults.READ_TPS,
    show_default=True,
    type=_POSITIVE,
    help="All other calls a second together; 0: no limit.",
)
@click.option(
    "--limiter",
    default="bucket",
    show_default=True,
    type=click.Choice(get_args(Limiter)),
    help="How calls a second are counted: a token bucket, or a strict sliding window of one second.",
)
@click.option(
    "--bucket-size", default=None, type=click.FloatRange(min=1), help="Calls that may come at once; default: --tps."
)
@click.option(
    "--repeats",
    default="reject",
    show_default=True,
    type=click.Choice(get_args(Repeats)),
    help="What a known clientToken gets: a 400 that does not tell the job, the first answer again, or another job.",
)
@click.option(
    "--token-ttl",
    default=defaults.TOKEN_TTL_SECONDS,
    show_default=True,
    type=_POSITIVE,
    metavar="SECONDS",
    help="How long a clientToken is known.",
)
@click.option(
    "--job-seconds",
    default=defaults.JOB_SECONDS,
    show_default=True,
    type=_POSITIVE,
    help="How long a job takes from submission to SUCCEEDED.",
)
@click.option("--seed", default=None, type=int, help="Makes faults by probability the same on every run.")
@click.option("--json", "as_json", is_flag=True, help="Say where it listens as a JSON object.")
def emulator_command(
    *,
    host: str,
    port: int,
    queues: tuple[str, ...],
    quota_shares: tuple[str, ...],
    tps: float,
    token_ttl: float,
    as_json: bool,
    **others: Any,
) -> None:
    try:
        known_queues = read_queues(queues, quota_shares)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    config = EmulatorConfig(queues=known_queues, submit_tps=tps, token_ttl_seconds=token_ttl, **others)
    try:
        asyncio.run(_serve(config, host=host, port=port, as_json=as_json))
    except OSError as error:
        raise click.ClickException(f"cannot listen on {host}:{port}: {error.strerror or error}") from error


def read_queues(queues: Sequence[str], quota_shares: Sequence[str]) -> tuple[QueueConfig, ...]:
    """Queues from `NAME[:POLICY]`, quota shares from `QUEUE/NAME[:STATE]`. Raises ValueError saying what is wrong."""
    known: dict[str, QueueConfig] = {}
    for text in queues:
        name, _, policy = text.partition(":")
        policy = policy or "none"
        if not NAME.fullmatch(name) or policy not in _POLICIES or name in known:
            message = f"--queue {text}: must be a new NAME or NAME:POLICY, with a policy of {', '.join(_POLICIES)}"
            raise ValueError(message)
        known[name] = QueueConfig(name=name, policy=_POLICIES[policy])
    for text in quota_shares:
        queue, _, share = text.partition("/")
        name, _, state = share.partition(":")
        state = state or "ENABLED"
        if queue not in known or not NAME.fullmatch(name) or state not in _STATES:
            message = f"--quota-share {text}: must be QUEUE/NAME or QUEUE/NAME:DISABLED, of a queue given by --queue"
            raise ValueError(message)
        added = QuotaShareConfig(name=name, state=_STATES[state])
        known[queue] = replace(known[queue], quota_shares=(*known[queue].quota_shares, added))
    return tuple(known.values())


async def _serve(config: EmulatorConfig, *, host: str, port: int, as_json: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    async with Emulator(config).serving(host, port) as url:
        ready = {"event": "started", "url": url, "region": config.region, "account": config.account}
        # Flushed at once: who started this process waits for the line.
        click.echo(json.dumps(ready) if as_json else f"AWS Batch emulator on {url} ({config.region}, {config.account})")
        await stop.wait()
