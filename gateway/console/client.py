"""The operators' command line speaks to a gateway over HTTP, like any caller."""

from __future__ import annotations

import json
from dataclasses import dataclass
from http.client import HTTPException
from typing import IO, Any
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

import click

TIMEOUT_SECONDS = 40.0  # above the longest wait that a caller may ask for


class RefusedError(click.ClickException):
    """The gateway refuses; `problem` says why (RFC 9457), with its `status`. Ends a command that does not catch it."""

    exit_code = 1

    def __init__(self, problem: dict[str, Any]) -> None:
        lines = [problem.get("detail") or problem["title"]]
        lines += [f"  {one['pointer']} {one['detail']}" for one in problem.get("errors", [])]
        super().__init__("\n".join(lines))
        self.problem = problem

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(self.message, file, err=True)


class NotReachableError(click.ClickException):
    """No gateway is there, or none that speaks HTTP and JSON."""

    exit_code = 3

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(self.message, file, err=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the gateway did and said."""

    status: int
    body: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayClient:
    """Calls a gateway. What it raises ends a command with the right exit code."""

    url: str
    token: str | None = None

    def call(self, method: str, *path: str, body: object = None, query: str = "") -> dict[str, Any]:
        """The answer's JSON; raises as `ask` does."""
        return self.ask(method, *path, body=body, query=query).body

    def ask(self, method: str, *path: str, body: object = None, query: str = "") -> Answer:
        """Path segments are percent-encoded here. Raises RefusedError and NotReachableError."""
        headers = {"Accept": "application/json"}
        data = None
        if body is not None:
            headers["Content-Type"], data = "application/json", json.dumps(body).encode()
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        target = "/".join([self.url.rstrip("/"), *(quote(segment, safe="") for segment in path)])
        request = Request(target + (f"?{query}" if query else ""), data, headers, method=method)  # noqa: S310 - see option
        try:
            with urlopen(request, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310
                return Answer(status=answer.status, body=json.load(answer))
        except HTTPError as error:
            raise RefusedError(_problem(error)) from error
        except OSError as error:  # URLError is one, with the cause as its reason
            raise NotReachableError(f"{self.url} is not reachable: {getattr(error, 'reason', error)}") from error
        except (HTTPException, ValueError) as error:
            raise NotReachableError(f"{self.url} does not answer as a gateway: {str(error).strip()}") from error


def _problem(error: HTTPError) -> dict[str, Any]:
    """Also of an answer that is none of ours, as a load balancer gives."""
    bare = {"title": str(error), "status": error.code}
    with error:
        try:
            found = json.load(error)
        except (OSError, HTTPException, ValueError):
            return bare
    return {**bare, **found} if isinstance(found, dict) else bare


def _http_url(_: click.Context, __: click.Parameter, value: str) -> str:
    if not value.startswith(("http://", "https://")):
        raise click.BadParameter("must begin with http:// or https://")
    return value


url_option = click.option(
    "--url",
    envvar="GATEWAY_URL",
    default="http://127.0.0.1:8080",
    show_default=True,
    callback=_http_url,
    help="The gateway to speak to; GATEWAY_URL says the same.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="The gateway's own JSON, for scripts.")
