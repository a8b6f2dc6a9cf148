"""`/livez` and `/readyz`. Never Batch or credentials: those are alarms, acceptance goes on."""

from __future__ import annotations

from aiohttp import web

from gateway.api.keys import MISSING
from gateway.core.errors import NotReadyError


def routes() -> list[web.AbstractRouteDef]:
    return [web.get("/livez", livez), web.get("/readyz", readyz)]


async def livez(_: web.Request) -> web.Response:
    return web.json_response({"status": "live"})


async def readyz(request: web.Request) -> web.Response:
    """503 with what is missing while the store is not reachable or not as durable as promised, and while draining."""
    missing = request.app[MISSING]()
    if missing:
        raise NotReadyError(" ".join(missing))
    return web.json_response({"status": "ready"})
