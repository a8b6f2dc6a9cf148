"""`gateway shares`: what shares have queued, and what operators set for the whole fleet."""

from __future__ import annotations

import json
from typing import Any

import click
from rich.console import Console

from gateway.console.client import GatewayClient, json_option, url_option
from gateway.console.tables import duration, table, watching

COLUMNS = ("share", "queued", "oldest", "rate", "weight", "set by operators", "")
NUMBERS = ("queued", "rate", "weight")


@click.group()
def shares() -> None:
    """Shares: their backlog, and what operators set for the whole fleet."""


@shares.command("list")
@url_option
@json_option
@click.option("--watch", is_flag=True, help="Again every second, until Ctrl-C.")
def list_shares(url: str, *, as_json: bool, watch: bool) -> None:
    """Every share with a backlog."""
    client = GatewayClient(url=url)
    if as_json:
        click.echo(json.dumps(client.call("GET", "v1", "shares")))
        return
    if watch:
        watching(lambda: _table(client.call("GET", "v1", "shares")["items"]))
        return
    items = client.call("GET", "v1", "shares")["items"]
    Console(highlight=False, markup=False).print(_table(items) if items else "No share has anything queued.")


@shares.command("set")
@click.argument("share", metavar="QUEUE/SHARE")
@click.option("--rate", help="Submissions a second that callers may send; 0: no limit.")
@click.option("--burst", help="Submissions that may come at once.")
@click.option("--weight", help="Against the other shares' weights.")
@click.option("--max-queued", help="Submissions that may wait.")
@click.option(
    "--over-limit",
    type=click.Choice(["reject", "delay", "reset"]),
    help="What becomes of submissions over the rate: refused, or kept back until the rate lets them pass.",
)
@url_option
@json_option
def set_share(share: str, url: str, *, as_json: bool, **changes: str | None) -> None:
    """Set a share's limits over the settings, at once for every replica; `reset` as a value puts the settings' back."""
    body = {_member(name): _value(name, text) for name, text in changes.items() if text is not None}
    if not body:
        raise click.UsageError("Say what to set: --rate, --burst, --weight, --max-queued or --over-limit.")
    _patch(url, share, body, as_json=as_json)


@shares.command()
@click.argument("share", metavar="QUEUE/SHARE")
@url_option
@json_option
def pause(share: str, url: str, *, as_json: bool) -> None:
    """Take a share aside: it is accepted, kept and not forwarded."""
    _patch(url, share, {"paused": True}, as_json=as_json)


@shares.command()
@click.argument("share", metavar="QUEUE/SHARE")
@url_option
@json_option
def resume(share: str, url: str, *, as_json: bool) -> None:
    """Let a paused share go on, also one that like rejections paused."""
    _patch(url, share, {"paused": False}, as_json=as_json)


def _patch(url: str, share: str, body: dict[str, Any], *, as_json: bool) -> None:
    queue, slash, name = _parts(share)
    if not (queue and slash and name):
        raise click.BadParameter("is written queue/share, as in training/vision", param_hint="QUEUE/SHARE")
    changed = GatewayClient(url=url).call("PATCH", "v1", "shares", queue, name, body=body)
    if as_json:
        click.echo(json.dumps(changed))
    else:
        Console(highlight=False, markup=False).print(_table([changed]))


def _parts(share: str) -> tuple[str, str, str]:
    """Queue, slash and name; the queue may be an ARN, which has a slash of its own."""
    arn, _, rest = share.partition(":job-queue/") if share.startswith("arn:") else ("", "", share)
    queue, slash, name = rest.partition("/")
    return f"{arn}:job-queue/{queue}" if arn else queue, slash, name


def _table(items: list[dict[str, Any]]) -> Any:
    """With the upstream where there are several: they may have queues of one name."""
    if len({item["upstream"] for item in items}) > 1:
        rows = [[item["upstream"], *_row(item)] for item in items]
        return table(("upstream", *COLUMNS), rows, numbers=NUMBERS)
    return table(COLUMNS, [_row(item) for item in items], numbers=NUMBERS)


def _row(item: dict[str, Any]) -> list[str]:
    overrides = ", ".join(f"{name} {_shown(value)}" for name, value in item["overrides"].items())
    paused = "paused" + (f" ({item['pausedBecause']})" if item.get("pausedBecause") else "") if item["paused"] else ""
    return [
        f"{item['jobQueue']}/{item['share']}",
        str(item["queued"]),
        duration(item["oldestSeconds"]),
        f"{item['rate']:g}" if item["rate"] else "-",
        f"{item['weight']:g}",
        overrides or "-",
        paused,
    ]


def _member(option: str) -> str:
    first, *others = option.split("_")
    return first + "".join(word.capitalize() for word in others)


def _shown(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def _value(option: str, text: str) -> float | str | None:
    if text == "reset":
        return None
    if option == "over_limit":
        return text
    try:
        return float(text)
    except ValueError:
        raise click.BadParameter("must be a number, or reset", param_hint=f"--{option.replace('_', '-')}") from None
