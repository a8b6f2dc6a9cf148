"""Batch's REST-JSON over HTTP: paths to operations, answers and errors to bytes."""

import asyncio
import json
import socket
import struct
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web
from botocore.model import ServiceModel

from gateway.emulator.calls import Call, read_call
from gateway.emulator.errors import BatchError, ConnectionLostError
from gateway.emulator.service import Service

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

ADMIN_PREFIX = "/_emulator"
_TAGS_PREFIX = "/v1/tags/"
_RESET = struct.pack("ii", 1, 0)  # linger for no time at all: closing sends a reset instead of an orderly end


class Wire:
    """The handler of all HTTP requests; those under `/_emulator` go to `admin`.

    A handler below aiohttp's router and middlewares: the paths are few and fixed, and the benchmarks share two cores
    with this server.
    """

    def __init__(self, service: Service, *, model: ServiceModel, admin: Handler) -> None:
        self._service = service
        self._admin = admin
        self._routes: dict[tuple[str, str], str] = {}
        for name in service.operations:
            http = model.operation_model(name).http
            self._routes[http["method"], http["requestUri"].partition("{")[0]] = name

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path
        if path.startswith(ADMIN_PREFIX):
            return await self._admin(request)
        try:
            body = await request.read()
        except ConnectionError:  # the caller left in the middle of its request
            return web.Response()
        resource_arn = path.removeprefix(_TAGS_PREFIX) if path.startswith(_TAGS_PREFIX) else None
        operation = self._routes.get((request.method, path if resource_arn is None else _TAGS_PREFIX))
        if operation is None:
            return self._unknown(request, body)
        elsewhere = None
        if resource_arn is not None:
            keys = {"tagKeys": request.query.getall("tagKeys")} if "tagKeys" in request.query else {}
            elsewhere = {"resourceArn": resource_arn, **keys}
        call = read_call(operation, body, elsewhere=elsewhere, authorization=request.headers.get("Authorization"))
        return await self._answer(request, call)

    def _unknown(self, request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        asked = f"{request.method} {request.path}"
        error = BatchError(f"the emulator has no {asked}", status=404, code="UnknownOperationException")
        self._service.record(read_call(asked, body), outcome=error.outcome, status=error.status, answered=True)
        return _error(error)

    async def _answer(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        try:
            response = _json(await self._service.answer(call))
            outcome = call.outcome
        except BatchError as error:
            response, outcome = _error(error), error.outcome
        except ConnectionLostError as lost:
            # Into the ledger before the wait: a checker may look while the caller still hangs.
            self._service.record(call, outcome=lost.outcome, status=None, answered=False)
            if lost.after_seconds:
                await self._service.pause(lost.after_seconds)
            if request.transport is not None:
                reset(request.transport)
            return web.Response()  # goes nowhere
        # A caller that gave up during a pause has closed its end; whether the bytes arrive nobody can know.
        answered = request.transport is not None and not request.transport.is_closing()
        self._service.record(call, outcome=outcome, status=response.status, answered=answered)
        return response


def reset(transport: asyncio.Transport) -> None:
    """Ends the connection with a TCP reset."""
    peer = transport.get_extra_info("socket")
    if peer is not None:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    transport.abort()


def _json(members: dict[str, Any]) -> web.Response:
    return _response(200, json.dumps(members, separators=(",", ":")).encode(), {})


def _error(error: BatchError) -> web.Response:
    if error.body is not None:
        return web.Response(status=error.status, body=error.body, content_type="text/html", headers=error.headers)
    headers = {**error.headers, "x-amzn-errortype": error.code} if error.code is not None else error.headers
    return _response(error.status, json.dumps({"message": error.message}).encode(), headers)


def _response(status: int, body: bytes, headers: Mapping[str, str]) -> web.Response:
    return web.Response(
        status=status,
        body=body,
        content_type="application/json",
        headers={"x-amzn-RequestId": str(uuid.uuid4()), **headers},
    )
