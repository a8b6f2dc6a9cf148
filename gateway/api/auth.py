"""Who calls. Known before any body is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from gateway.core.caller import Caller

if TYPE_CHECKING:
    from aiohttp import web


class Authenticator(Protocol):
    """Raises the core's errors for callers that it does not let in."""

    async def caller(self, request: web.Request) -> Caller: ...


class NoAuthentication:
    """`auth.mode = ["none"]`: everybody is `anonymous`, and an operator too."""

    async def caller(self, request: web.Request) -> Caller:  # noqa: ARG002 - the protocol's signature
        return Caller()
