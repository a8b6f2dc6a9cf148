"""`gateway submissions cancel | redrive | resolve | reprioritize`: what operators do to submissions."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from gateway.console.client import Answer, GatewayClient, RefusedError, url_option
from gateway.console.wording import place_of, state_of, this_moment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DONE = 200  # 202: Batch is still to be asked or told

_ids = click.argument("ids", metavar="ID...", nargs=-1, required=True)
_id = click.argument("submission_id", metavar="ID")
_json = click.option(
    "--json",
    "as_json",
    is_flag=True,
    help='For scripts, a line for each ID: {"id", "status", "submission"}, or "problem" where it is refused.',
)


@click.command(
    epilog="""\b
    Examples:
      gateway submissions cancel fb8b5596-d40f-8a2b-8937-a9c8da8f26ae --reason "wrong data set"
      gateway submissions list --share training/vision --state queued --all --json \\
        | jq -r .submissionId | xargs -r gateway submissions cancel
    """
)
@_ids
@click.option("--reason", metavar="R", help="What Batch is told, should it have the job.")
@url_option
@_json
def cancel(ids: Sequence[str], url: str, *, reason: str | None, as_json: bool) -> None:
    """End submissions, or the jobs that came of them.

    One that surely is no job yet is canceled at once. Where a job may exist the cancel is requested: the gateway looks
    for the job, and terminates it, before it says more; the same command again tells how far it is. One that is refused
    does not stop the others.
    """
    change = _Change(method="POST", action=("cancel",), body=None if reason is None else {"reason": reason})
    _each(ids, url, change, _canceled, as_json=as_json)


@click.command(
    epilog="""\b
    Examples:
      gateway submissions redrive fb8b5596-d40f-8a2b-8937-a9c8da8f26ae
      gateway submissions list --share training/vision --state rejected --all --json \\
        | jq -r .submissionId | xargs -r gateway submissions redrive
    """
)
@_ids
@url_option
@_json
def redrive(ids: Sequence[str], url: str, *, as_json: bool) -> None:
    """Put rejected submissions back in line.

    As if they arrived now, past all limits; a deadline holds if it has not come yet. An unknown one must be resolved
    first. One that is refused does not stop the others.
    """
    _each(ids, url, _Change(method="POST", action=("redrive",)), _placed, as_json=as_json)


@click.command(
    epilog="""\b
    Examples:
      gateway submissions resolve fb8b5596-d40f-8a2b-8937-a9c8da8f26ae --not-submitted
      gateway submissions resolve fb8b5596-d40f-8a2b-8937-a9c8da8f26ae --job 3a1b6c1e-6a0e-4d0a-9a54-6d1d1b4f5a10
    """
)
@_id
@click.option("--not-submitted", is_flag=True, help="Batch has no job of it: it is rejected, and can be redriven.")
@click.option("--job", "job_id", metavar="JOB_ID", help="Batch's id of its job: it is forwarded.")
@click.option("--close", is_flag=True, help="Of a rejected one: nobody will redrive it, and what was asked is dropped.")
@url_option
@_json
def resolve(
    submission_id: str, url: str, *, not_submitted: bool, job_id: str | None, close: bool, as_json: bool
) -> None:
    """Say what became of an unknown submission, or close a rejected one.

    Somebody must have looked in Batch: a job that is there and said not to be may be made twice by a redrive.
    """
    if [not_submitted, job_id is not None, close].count(True) != 1:
        raise click.UsageError("Say one of --not-submitted, --job JOB_ID and --close.")
    body: dict[str, Any] = {"jobId": job_id} if job_id else {"close" if close else "notSubmitted": True}
    _each([submission_id], url, _Change(method="POST", action=("resolve",), body=body), _resolved, as_json=as_json)


@click.command(
    epilog="""\b
    Example, to the front of its share:
      gateway submissions reprioritize fb8b5596-d40f-8a2b-8937-a9c8da8f26ae 9999
    """
)
@_id
@click.argument("priority", type=click.IntRange(0, 9999))
@url_option
@_json
def reprioritize(submission_id: str, priority: int, url: str, *, as_json: bool) -> None:
    """Change a submission's scheduling priority.

    From 0 to 9999; higher goes first within its share. A queued one has its new place at once. Where Batch has the
    job, Batch is told of it.
    """
    change = _Change(method="PATCH", body={"schedulingPriority": priority})
    _each([submission_id], url, change, _prioritized, as_json=as_json)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Change:
    """A request to /v1/submissions/{id}, or to something below it."""

    method: str
    action: tuple[str, ...] = ()
    body: object = None


def _each(ids: Sequence[str], url: str, change: _Change, told: Callable[[Answer], str], *, as_json: bool) -> None:
    """One after the other, a line for each as it is done; ends the command with 1 where one was refused."""
    client = GatewayClient(url=url)
    refused = False
    for one in ids:
        try:
            answer = client.ask(change.method, "v1", "submissions", one, *change.action, body=change.body)
        except RefusedError as error:
            refused = True
            if as_json:
                click.echo(json.dumps({"id": one, "status": error.problem["status"], "problem": error.problem}))
            else:
                click.echo(f"{one}  refused: {error.message}", err=True)
            continue
        if as_json:
            click.echo(json.dumps({"id": one, "status": answer.status, "submission": answer.body}))
        else:
            click.echo(f"{one}  {told(answer)}")
    if refused:
        raise SystemExit(RefusedError.exit_code)


def _canceled(answer: Answer) -> str:
    item = answer.body
    if item["state"] == "forwarded":
        job = item["jobId"]
        if answer.status == DONE:
            return f"forwarded: Batch was told to terminate job {job}"
        return f"cancel requested: Batch is being told to terminate job {job}"
    return "canceled" if answer.status == DONE else "cancel requested: Batch is asked first whether it has a job of it"


def _placed(answer: Answer) -> str:
    return f"{state_of(answer.body)}: {place_of(answer.body, this_moment())}"


def _resolved(answer: Answer) -> str:
    item: dict[str, Any] = answer.body
    if item.get("closed"):
        return "closed: nobody will redrive it, and what was asked is gone"
    if item["state"] == "rejected":
        return "rejected; `gateway submissions redrive` puts it back in line"
    return _placed(answer) if place_of(item, this_moment()) else state_of(item)


def _prioritized(answer: Answer) -> str:
    priority = f"priority {answer.body['schedulingPriority']}"
    return f"{priority}, {_placed(answer)}" + ("" if answer.status == DONE else "; Batch is told")
