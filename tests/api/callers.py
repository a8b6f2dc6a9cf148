"""Callers who name themselves, as if they were authenticated."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.core.caller import Caller

if TYPE_CHECKING:
    from aiohttp import web

VISION, TEXT = {"X-Caller": "vision"}, {"X-Caller": "text"}


class ByHeader:
    """An authenticator: whoever names himself in X-Caller is no operator, everybody else is one."""

    async def caller(self, request: web.Request) -> Caller:
        name = request.headers.get("X-Caller")
        return Caller(name=name, namespace=name, operator=False) if name else Caller()
