"""A small STS on loopback: AssumeRole as AWS answers it, with keys that tell whose they are, and faults on demand."""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HOUR = 3600.0

Fault = Literal["denied", "throttled", "error_500", "garbage", "no_keys", "redirect", "reset", "hang", "refuse"]

# What a real one's message holds where a signature does not fit: the request that was signed, tokens and all.
DENIAL = "User is not authorized to perform: sts:AssumeRole\nx-amz-security-token:secret-token"


def _error(code: str, message: str) -> str:
    return f"<ErrorResponse><Error><Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>"


ANSWERS: dict[Fault, tuple[int, str]] = {
    "denied": (403, _error("AccessDenied", DENIAL)),
    "throttled": (400, _error("Throttling", "Rate exceeded")),
    "error_500": (500, _error("InternalFailure", "")),
    "garbage": (200, "<html>"),
    "no_keys": (200, "<AssumeRoleResponse><AssumeRoleResult/></AssumeRoleResponse>"),
    "redirect": (307, ""),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    role_arn: str
    session: str
    access_key_id: str
    region: str


class FakeSts:
    """Gives the keys ASIA<role><number>, which live for an hour or as `lifetimes` says for the next ones."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.lifetimes: list[float] = []
        self.fault: Fault | None = None
        self.url = ""
        self._let_go = asyncio.Event()
        self._runner = web.AppRunner(self._app(), shutdown_timeout=1)

    async def break_with(self, fault: Fault) -> None:
        self.fault = fault
        if fault == "refuse":
            for site in list(self._runner.sites):
                await site.stop()

    async def heal(self) -> None:
        self.fault = None
        self._let_go.set()
        if not self._runner.sites:
            await self._listen(int(self.url.rpartition(":")[2]))

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[FakeSts]:
        await self._runner.setup()
        try:
            await self._listen(0)
            self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
            yield self
        finally:
            self._let_go.set()
            await self._runner.cleanup()

    async def _listen(self, port: int) -> None:
        await web.TCPSite(self._runner, "127.0.0.1", port).start()

    def _app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/", self._assume_role)
        return app

    async def _assume_role(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        credential = re.search(r"Credential=(\S+?)/\d{8}/(\S+?)/sts/", request.headers["Authorization"])
        assert credential
        assert form["Action"] == "AssumeRole"
        role_arn = str(form["RoleArn"])
        self.asked.append(
            Asked(
                role_arn=role_arn,
                session=str(form["RoleSessionName"]),
                access_key_id=credential[1],
                region=credential[2],
            )
        )
        if self.fault is not None:
            return await self._fail(request, self.fault)
        lifetime = self.lifetimes.pop(0) if self.lifetimes else HOUR
        number = sum(one.role_arn == role_arn for one in self.asked)
        return _keys(f"{role_arn.rpartition('/')[2]}{number}", lifetime)

    async def _fail(self, request: web.Request, fault: Fault) -> web.StreamResponse:
        if fault in ANSWERS:
            status, text = ANSWERS[fault]
            return web.Response(status=status, text=text, content_type="text/xml", headers={"Location": "/elsewhere"})
        if fault == "hang":
            await self._let_go.wait()
        if request.transport:
            request.transport.abort()
        return web.Response()


def _keys(owner: str, lifetime: float) -> web.Response:
    expiration = (datetime.now(UTC) + timedelta(seconds=lifetime)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return web.Response(
        text=f"""<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult>
        <AssumedRoleUser><AssumedRoleId>AROA:batch-gateway</AssumedRoleId>
        <Arn>arn:aws:sts::123456789012:assumed-role/x/batch-gateway</Arn></AssumedRoleUser>
        <Credentials><AccessKeyId>ASIA{owner}</AccessKeyId><SecretAccessKey>secret</SecretAccessKey>
        <SessionToken>token-{owner}</SessionToken><Expiration>{expiration}</Expiration></Credentials>
        </AssumeRoleResult></AssumeRoleResponse>""",
        content_type="text/xml",
    )
