"""The operators' command line speaks to a gateway over HTTP, like any caller."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

import click

REFUSED, NOT_REACHABLE = 1, 3
TIMEOUT_SECONDS = 40.0  # above the longest wait that a caller may ask for


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayClient:
    """Calls a gateway and ends the command with the right exit code where it refuses or is not there."""

    url: str
    token: str | None = None

    def call(self, method: str, *path: str, body: object = None, query: str = "") -> dict[str, Any]:
        """The answer's JSON; path segments are percent-encoded here."""
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
                found: dict[str, Any] = json.load(answer)
                return found
        except HTTPError as error:
            _refused(error)
        except (URLError, OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            click.echo(f"{self.url} is not reachable: {reason}", err=True)
            sys.exit(NOT_REACHABLE)


def _refused(error: HTTPError) -> NoReturn:
    with error:
        try:
            problem = json.load(error)
            lines = [problem.get("detail") or problem.get("title") or str(error)]
            lines += [f"  {one['pointer']} {one['detail']}" for one in problem.get("errors", [])]
        except ValueError:
            lines = [str(error)]
    click.echo("\n".join(lines), err=True)
    sys.exit(REFUSED)


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
