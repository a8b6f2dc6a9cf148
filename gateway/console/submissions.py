"""`gateway submissions`: find them, and see where one stands and why."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.text import Text

from gateway.console.changes import cancel, redrive, reprioritize, resolve
from gateway.console.client import GatewayClient, json_option, url_option
from gateway.console.listing import Layout, pages
from gateway.console.tables import show as show_table
from gateway.console.tables import watching
from gateway.console.wording import state_of, this_moment, when

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DEFAULT_LIMIT = 50
STATES = ("queued", "forwarded", "rejected", "unknown", "canceled", "expired")
NONE_FITS = "No submission fits."
SHARES_NAMED = 5


@click.group()
def submissions() -> None:
    """Submissions: where they stand and why, and what operators do to them.

    Wherever an ID is wanted, a submissionId, Batch's job id and its ARN do alike.
    """


for command in (cancel, redrive, reprioritize, resolve):
    submissions.add_command(command)


def _share(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    if value is not None and not all(value.partition("/")):
        raise click.BadParameter("is written queue/share, as in training/vision")
    return value


@submissions.command(
    "list",
    epilog="""\b
    Examples:
      gateway submissions list --share training/vision --state queued
      gateway submissions list --state unknown --all --json | jq -r .submissionId
    """,
)
@click.option("--token", "clientToken", metavar="T", help="With this client token.")
@click.option("--queue", "jobQueue", metavar="Q", help="Of this queue, by name or ARN.")
@click.option(
    "--share", metavar="QUEUE/SHARE", callback=_share, help="Of this share; QUEUE/- for those without a share."
)
@click.option("--state", type=click.Choice(STATES), help="That stand so.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help=f"How many to show.  [default: {DEFAULT_LIMIT}]")
@click.option("--all", "everything", is_flag=True, help="All that fit, shown while more are fetched.")
@click.option("--watch", is_flag=True, help="Again every second, until Ctrl-C.")
@url_option
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help='For scripts: {"items": […], "nextCursor": …}; with --all one submission a line.',
)
def list_submissions(
    url: str, *, limit: int | None, everything: bool, watch: bool, as_json: bool, **filters: str | None
) -> None:
    """What was submitted, newest first.

    A submission has two lines on a terminal of less than 132 columns, else one, and on a pipe always one, with nothing
    cut. Its age is since its acceptance. The last column says its place in its share's line and when it will go to
    Batch, or its job, or the code of its error.
    """
    if everything and limit is not None:
        raise click.UsageError("--all has no --limit.")
    if watch and (everything or as_json):
        raise click.UsageError("--watch goes with neither --all nor --json.")
    client = GatewayClient(url=url)
    given = {name: value for name, value in filters.items() if value is not None}
    most = None if everything else limit or DEFAULT_LIMIT
    if watch:
        watching(lambda: _drawn(pages(client, given, most)))
    elif as_json:
        _print_json(pages(client, given, most), a_line_each=everything)
    else:
        _print(pages(client, given, most))


def _print(found: Iterator[dict[str, Any]]) -> None:
    layout, more = None, False
    for page in found:
        items, more = page["items"], page["nextCursor"] is not None
        if items and layout is None:
            layout = Layout.of(items)
            click.echo("\n".join(layout.header()))
        if items and layout is not None:
            click.echo("\n".join(layout.rows(items, this_moment())))
    if layout is None:
        click.echo(NONE_FITS)
    elif more:
        click.echo("There may be more: see --limit and --all.", err=True)


def _print_json(found: Iterator[dict[str, Any]], *, a_line_each: bool) -> None:
    if a_line_each:
        for page in found:
            if page["items"]:
                click.echo("\n".join(json.dumps(item) for item in page["items"]))
        return
    items, cursor = [], None
    for page in found:
        items += page["items"]
        cursor = page["nextCursor"]
    click.echo(json.dumps({"items": items, "nextCursor": cursor}))


def _drawn(found: Iterator[dict[str, Any]]) -> Text:
    items = [item for page in found for item in page["items"]]
    layout = Layout.of(items)
    return Text("\n".join([*layout.header(), *layout.rows(items, this_moment())]) if items else NONE_FITS, no_wrap=True)


@submissions.command(
    epilog="""\b
    Examples:
      gateway submissions show fb8b5596-d40f-8a2b-8937-a9c8da8f26ae
      gateway submissions show 3a1b6c1e-6a0e-4d0a-9a54-6d1d1b4f5a10 --json | jq -r .explanation.sentence
    """
)
@click.argument("submission_id", metavar="ID")
@url_option
@json_option
def show(submission_id: str, url: str, *, as_json: bool) -> None:
    """Where one submission stands, and why.

    What holds it, who is ahead of it, its attempts, its job. With --json it is the submission, with all that the
    gateway knows of what holds it as `explanation`.
    """
    client = GatewayClient(url=url)
    found = client.call("GET", "v1", "submissions", submission_id)
    explanation = client.call("GET", "v1", "submissions", found["submissionId"], "explanation")
    if as_json:
        click.echo(json.dumps({**found, "explanation": explanation}))
        return
    console = Console(highlight=False)
    console.print(Text(explanation["sentence"]), soft_wrap=not console.is_terminal)
    click.echo()
    fields = list(_fields(found, explanation))
    widest = max(len(name) for name, _ in fields)
    for name, text in fields:  # one long line each: who copies an ARN wants no line break in it
        click.echo(f"{name:<{widest}}  {text}")
    now = this_moment()
    rows = [[when(one["at"], now), one["outcome"], one["error"] or ""] for one in found["attempts"]]
    if rows:
        click.echo()
        show_table(("attempt", "outcome", "error"), rows, empty="")


def _fields(found: Mapping[str, Any], explanation: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """By the names of the JSON, but for what reads better together."""
    now = this_moment()
    item = dict(found)
    yield "submissionId", item.pop("submissionId")
    yield "state", state_of(item)
    for hold in explanation["holds"]:
        until = f" Until {hold['until']}, {when(hold['until'], now)}." if hold["until"] else ""
        yield "held by", f"{hold['kind']}: {hold['detail']}{until}"
    if explanation["ahead"]:
        yield "callsBefore", _ahead(explanation)
    for name, value in item.items():
        match value:
            case _ if name in ("state", "cancelRequested", "tokenGenerated", "attempts"):
                continue
            case {"code": code, "message": message}:
                yield name, f"{code}: {message}"
            case [*warnings]:
                for one in warnings:
                    yield "warning", f"{one['pointer']} {one['detail']}"
            case str() if name.endswith("At") or name == "deadline":
                yield name, f"{value}, {when(value, now)}"
            case None:
                yield name, "-"
            case _:
                made = " (made by the gateway)" if name == "clientToken" and found["tokenGenerated"] else ""
                yield name, f"{value}{made}"


def _ahead(explanation: Mapping[str, Any]) -> str:
    named = [f"{one['submissions']} of {one['jobQueue']}/{one['share']}" for one in explanation["ahead"]]
    rest = ["…"] if len(named) > SHARES_NAMED else []
    return f"{explanation['callsBefore']}: {', '.join(named[:SHARES_NAMED] + rest)}"
