"""`/v1/shares`: what shares have queued, and what operators change for the whole fleet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from aiohttp import web
from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from gateway.api.bodies import known_query
from gateway.api.change import Change, change_in
from gateway.api.codec import Whole
from gateway.api.keys import CALLER, LOG, REQUEST_ID, ROUTES, SHARE_RULES, SHARES, Told
from gateway.core.errors import NotFoundError
from gateway.core.share import Share

if TYPE_CHECKING:
    from gateway.core.ports import ShareStatus
    from gateway.core.share import ShareLimits
    from gateway.core.upstream import Upstream


# As Batch has it for shareIdentifier.
MAX_NAME = 255


def _none_or_one_in_1000_seconds(rate: float) -> float:
    if 0 < rate < 1e-3:  # noqa: PLR2004 - slower is a pause; at 5e-324 a second the time between two is infinite
        raise PydanticCustomError("rate", "should be 0 or at least 0.001")
    return rate


class ShareChange(Change):
    """What an operator sets; null puts the settings' value back."""

    rate: Annotated[float, Field(ge=0, le=1e6), AfterValidator(_none_or_one_in_1000_seconds)] | None = None
    burst: Annotated[int, Whole, Field(ge=1, le=1_000_000)] | None = None
    weight: Annotated[float, Field(ge=1e-3, le=1e3)] | None = None
    max_queued: Annotated[int, Whole, Field(ge=0, le=100_000_000)] | None = None
    over_limit: Literal["reject", "delay"] | None = None
    paused: bool | None = None


def routes() -> list[web.AbstractRouteDef]:
    return [
        web.get("/v1/shares", index),
        web.get(r"/v1/shares/{queue}/{share:.+}", show),
        web.patch(r"/v1/shares/{queue}/{share:.+}", change),
    ]


async def index(request: web.Request) -> web.Response:
    """Every share with a backlog, and those that are paused or that operators have set something for, by name."""
    known_query(request)
    rules = request.app[SHARE_RULES]
    items = [
        _encode(upstream, status, rules.limits(status.share))
        for upstream in request.app[ROUTES]
        for status in await request.app[SHARES][upstream.tag].shares()
    ]
    items.sort(key=lambda one: (one["jobQueue"], one["share"]))
    return web.json_response({"items": items, "nextCursor": None})


async def show(request: web.Request) -> web.Response:
    """One share, also one with nothing queued."""
    upstream, share = _of(request)
    return _answer(request, upstream, await request.app[SHARES][upstream.tag].share(share))


async def change(request: web.Request) -> web.Response:
    """Change limits, weight or pause of one share, at once for every replica."""
    request[CALLER].must_be_operator()
    upstream, share = _of(request)
    changes = (await change_in(request, ShareChange)).model_dump(exclude_unset=True, by_alias=True)
    changed = await request.app[SHARES][upstream.tag].set_share(
        share,
        {name: _text(value) for name, value in changes.items()},
        request.app[SHARE_RULES].limits(share),
    )
    request.app[LOG].info(
        "share_changed",
        request_id=request[REQUEST_ID],
        principal=request[CALLER].name,
        share=str(share),
        changes=changes,
    )
    return _answer(request, upstream, changed)


def _of(request: web.Request) -> tuple[Upstream, Share]:
    """The share that the path names, and the upstream that has it. Raises NotFoundError."""
    known_query(request)
    try:
        upstream, queue = request.app[ROUTES].resolve(request.match_info["queue"])
    except ValueError as error:
        raise NotFoundError(f"The queue {error}.") from error
    name = request.match_info["share"]
    if len(name) > MAX_NAME or not name.isprintable():
        raise NotFoundError(f"A share's name has 1-{MAX_NAME} printable characters.")
    share = Share(queue, name)
    request[Told.KEY].share = str(share)
    return upstream, share


def _text(value: object) -> str | None:
    if isinstance(value, bool):
        return "1" if value else None
    return None if value is None else str(value)


def _answer(request: web.Request, upstream: Upstream, status: ShareStatus) -> web.Response:
    return web.json_response(_encode(upstream, status, request.app[SHARE_RULES].limits(status.share)))


def _encode(upstream: Upstream, status: ShareStatus, limits: ShareLimits) -> dict[str, Any]:
    """`limits` are the settings'; what operators set holds over them."""
    in_force = {
        "rate": limits.rate,
        "burst": limits.burst,
        "weight": limits.weight,
        "maxQueued": limits.max_queued,
        "overLimit": limits.over_limit,
        **status.overrides,
    }
    return {
        "upstream": upstream.name,
        "jobQueue": status.share.queue,
        "share": status.share.name,
        "queued": status.queued,
        "oldestSeconds": None if status.oldest_seconds is None else round(status.oldest_seconds, 3),
        **in_force,
        "paused": status.paused,
        "pausedBecause": status.paused_because,
        "overrides": status.overrides,
    }
