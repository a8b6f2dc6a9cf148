"""`gateway submissions`: look one up."""

from __future__ import annotations

import json
from typing import Any

import click

from gateway.console.client import GatewayClient, json_option, url_option
from gateway.console.tables import show as show_table


@click.group()
def submissions() -> None:
    """Submissions: where they stand and why."""


@submissions.command()
@click.argument("submission_id", metavar="ID")
@url_option
@json_option
def show(submission_id: str, url: str, *, as_json: bool) -> None:
    """One submission: its state, its attempts, its job."""
    found = GatewayClient(url=url).call("GET", "v1", "submissions", submission_id)
    if as_json:
        click.echo(json.dumps(found))
        return
    plain = {name: value for name, value in found.items() if not isinstance(value, (list, dict))}
    show_table(("", ""), [[name, _text(value)] for name, value in plain.items()], empty="")
    if found.get("error"):
        click.echo(f"error: {found['error']['code']}: {found['error']['message']}")
    for warning in found.get("warnings", []):
        click.echo(f"warning: {warning['pointer']} {warning['detail']}")
    rows = [[one["at"], one["outcome"], one["error"] or ""] for one in found["attempts"]]
    if rows:
        show_table(("attempt", "outcome", "error"), rows, empty="")


def _text(value: Any) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
