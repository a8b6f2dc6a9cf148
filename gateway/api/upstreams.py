"""`/v1/upstreams`: how each account and Region is called, and what operators change for the whole fleet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from aiohttp import web
from pydantic import Field

from gateway.api.bodies import known_query
from gateway.api.change import Change, change_in
from gateway.api.codec import timestamp
from gateway.api.keys import CALLER, LOG, REQUEST_ID, ROUTES, UPSTREAMS
from gateway.core.errors import NotFoundError

if TYPE_CHECKING:
    from gateway.core.ports import UpstreamStatus, UpstreamStore
    from gateway.core.upstream import Upstream


class UpstreamChange(Change):
    """What an operator sets; null switches on again, and puts the settings' rate back."""

    accepting: bool | None = None
    forwarding: bool | None = None
    # Calls a second; one in a thousand seconds is the slowest that is not better said by switching off.
    rate: Annotated[float, Field(ge=1e-3, le=10_000)] | None = None


def routes() -> list[web.AbstractRouteDef]:
    return [
        web.get("/v1/upstreams", index),
        web.get("/v1/upstreams/{name}", show),
        web.patch("/v1/upstreams/{name}", change),
    ]


async def index(request: web.Request) -> web.Response:
    """Every upstream, in the order of the settings, which is the order in which they are asked for a queue."""
    known_query(request)
    items = [_encode(one, await request.app[UPSTREAMS][one.tag].upstream()) for one in request.app[ROUTES]]
    return web.json_response({"items": items, "nextCursor": None})


async def show(request: web.Request) -> web.Response:
    upstream, store = _of(request)
    return web.json_response(_encode(upstream, await store.upstream()))


async def change(request: web.Request) -> web.Response:
    """Switch acceptance or forwarding, or change the rate, at once for every replica."""
    request[CALLER].must_be_operator()
    upstream, store = _of(request)
    changes = (await change_in(request, UpstreamChange)).model_dump(exclude_unset=True, by_alias=True)
    changed = await store.set_upstream({name: _text(value) for name, value in changes.items()})
    request.app[LOG].info(
        "upstream_changed",
        request_id=request[REQUEST_ID],
        principal=request[CALLER].name,
        upstream=upstream.name,
        changes=changes,
    )
    return web.json_response(_encode(upstream, changed))


def _of(request: web.Request) -> tuple[Upstream, UpstreamStore]:
    """The upstream that the path names, and the store that has it. Raises NotFoundError."""
    known_query(request)
    upstream = request.app[ROUTES].named(request.match_info["name"])
    if upstream is None:
        raise NotFoundError("This gateway has no upstream of that name.")
    return upstream, request.app[UPSTREAMS][upstream.tag]


def _text(value: object) -> str | None:
    """As the scripts read it: a switch is `0` or absent."""
    if isinstance(value, bool):
        return None if value else "0"
    return None if value is None else str(value)


def _encode(upstream: Upstream, status: UpstreamStatus) -> dict[str, Any]:
    body = {
        "name": upstream.name,
        "region": upstream.region,
        "account": upstream.account,
        "queues": list(upstream.queues),
        "accepting": status.accepting,
        "forwarding": status.forwarding,
        "rate": status.rate,
        "pace": round(status.pace, 3),
        "condition": status.condition,
        "queued": status.queued,
        "queuedBytes": status.queued_bytes,
        "leased": status.leased,
        "delayed": status.delayed,
        "errands": status.errands,
        "forwarded": status.forwarded,
        "throttled": status.throttled,
        "credentials": "held" if status.credentials_held else "ok",
        "deniedPairs": status.denied_pairs,
        "overrides": status.overrides,
    }
    if status.held_until is not None:
        body["heldUntil"] = timestamp(status.held_until)
    return body
