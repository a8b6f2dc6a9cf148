"""`/openapi.yaml`: the contract, as shipped in the wheel."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from aiohttp import web


def routes() -> list[web.AbstractRouteDef]:
    document = _contract()

    async def openapi(_: web.Request) -> web.Response:
        return web.Response(body=document, content_type="application/yaml", charset="utf-8")

    return [web.get("/openapi.yaml", openapi)]


def _contract() -> bytes:
    packaged = files("gateway") / "openapi.yaml"
    if packaged.is_file():
        return packaged.read_bytes()
    return (Path(__file__).parents[2] / "openapi.yaml").read_bytes()  # in a checkout it stands at the top
