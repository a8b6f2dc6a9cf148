"""`gateway upstreams`: how each account and Region is called, and what operators change for the whole fleet."""

from __future__ import annotations

import json
from typing import Any

import click
from rich.console import Console

from gateway.console.client import GatewayClient, json_option, url_option
from gateway.console.tables import table, watching

COLUMNS = ("upstream", "condition", "calls/s", "queued", "forwarded", "throttled", "")
NUMBERS = COLUMNS[2:-1]

_switch = click.Choice(["on", "off"])


@click.group()
def upstreams() -> None:
    """Upstreams: how AWS Batch is called, and what operators change for the whole fleet."""


@upstreams.command("list")
@url_option
@json_option
@click.option("--watch", is_flag=True, help="Again every second, until Ctrl-C.")
def list_upstreams(url: str, *, as_json: bool, watch: bool) -> None:
    """Every upstream: calls a second now and at most, and what is queued."""
    client = GatewayClient(url=url)
    if as_json:
        click.echo(json.dumps(client.call("GET", "v1", "upstreams")))
        return
    if watch:
        watching(lambda: _table(client.call("GET", "v1", "upstreams")["items"]))
        return
    _show(client.call("GET", "v1", "upstreams")["items"])


@upstreams.command("set")
@click.argument("name", metavar="NAME")
@click.option("--accepting", type=_switch, help="Whether new submissions are taken.")
@click.option("--forwarding", type=_switch, help="Whether submissions are handed to Batch.")
@click.option("--rate", metavar="N", help="Calls a second, of all processes together; `reset` puts the settings' back.")
@url_option
@json_option
def set_upstream(
    name: str, url: str, *, as_json: bool, accepting: str | None, forwarding: str | None, rate: str | None
) -> None:
    """Switch acceptance or forwarding, or set the rate, at once for every replica and until it is set again."""
    body: dict[str, Any] = {
        switch: state == "on"
        for switch, state in (("accepting", accepting), ("forwarding", forwarding))
        if state is not None
    }
    if rate is not None:
        body["rate"] = _rate(rate)
    if not body:
        raise click.UsageError("Say what to set: --accepting, --forwarding or --rate.")
    changed = GatewayClient(url=url).call("PATCH", "v1", "upstreams", name, body=body)
    if as_json:
        click.echo(json.dumps(changed))
    else:
        _show([changed])


def _rate(text: str) -> float | None:
    if text == "reset":
        return None
    try:
        return float(text)
    except ValueError:
        raise click.BadParameter("must be a number, or reset", param_hint="--rate") from None


def _show(items: list[dict[str, Any]]) -> None:
    Console(highlight=False, markup=False).print(_table(items))


def _table(items: list[dict[str, Any]]) -> Any:
    return table(COLUMNS, [_row(item) for item in items], numbers=NUMBERS)


def _row(item: dict[str, Any]) -> list[str]:
    return [
        item["name"],
        item["condition"],
        f"{item['pace']:g} of {item['rate']:g}",
        *(str(item[name]) for name in ("queued", "forwarded", "throttled")),
        "\n".join(_remarks(item)),
    ]


def _remarks(item: dict[str, Any]) -> list[str]:
    """What an operator should know beside the figures, in lines that leave the table within 80 columns."""
    remarks = [] if item["accepting"] else ["refuses new"]
    if item["credentials"] == "held":
        remarks.append("keys refused")
    if item["deniedPairs"]:
        remarks.append(f"IAM denies {item['deniedPairs']}")
    if "rate" in item["overrides"]:
        remarks.append("rate set")
    return remarks
