"""The pages under `/_emulator`: faults, rates, the ledger and the jobs, for a checker in another process."""

import json
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from aiohttp import web

from gateway.emulator.faults import Fault
from gateway.emulator.jobs import Job
from gateway.emulator.service import Service

_PREFIX = "/_emulator"


class Admin:
    """Answers requests under `/_emulator`.

    `refuse` closes the listener for that many seconds, and all connections but the request's own.
    """

    def __init__(self, service: Service, *, refuse: Callable[[float, web.BaseRequest], None]) -> None:
        self._service = service
        self._refuse = refuse
        self._pages: dict[tuple[str, str], Callable[[web.BaseRequest, Any], Any]] = {
            ("GET", "/"): self._about,
            ("GET", "/faults"): self._faults,
            ("PUT", "/faults"): self._set_faults,
            ("POST", "/faults"): self._add_faults,
            ("DELETE", "/faults"): self._clear_faults,
            ("GET", "/rates"): self._rates,
            ("PUT", "/rates"): self._set_rates,
            ("GET", "/ledger"): self._ledger,
            ("GET", "/jobs"): self._jobs,
            ("POST", "/reset"): self._reset,
        }

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """400 `{"message": …}` for a bad request, 404 for an unknown page."""
        path = request.path.removeprefix(_PREFIX) or "/"
        page = self._pages.get((request.method, path))
        if page is None:
            return _json({"message": f"no page {request.method} {request.path}"}, status=HTTPStatus.NOT_FOUND)
        body = await request.read()
        try:
            answer = page(request, json.loads(body) if body else None)
        except ValueError as error:
            return _json({"message": str(error)}, status=HTTPStatus.BAD_REQUEST)
        response = _json(answer)
        # So that no kept-alive connection of a checker outlives a `refuse`, or hinders the end.
        response.force_close()
        return response

    def _about(self, _request: web.BaseRequest, _body: Any) -> dict[str, Any]:
        config = self._service.config
        return {
            "region": config.region,
            "account": config.account,
            "limiter": config.limiter,
            "repeats": config.repeats,
            "jobs": len(self._service.jobs),
            "lastCall": self._service.ledger.last,
            **self._service.rates,
        }

    def _faults(self, _request: web.BaseRequest, _body: Any) -> dict[str, Any]:
        return {"faults": self._service.faults.as_json()}

    def _set_faults(self, request: web.BaseRequest, body: Any) -> dict[str, Any]:
        faults = _read_faults(body)  # all of them, before the old ones go
        self._service.faults.clear()
        return self._take(request, faults)

    def _add_faults(self, request: web.BaseRequest, body: Any) -> dict[str, Any]:
        return self._take(request, _read_faults(body))

    def _take(self, request: web.BaseRequest, faults: list[Fault]) -> dict[str, Any]:
        for fault in faults:
            if fault.kind == "refuse":
                self._refuse(fault.seconds or 0, request)
            else:
                self._service.faults.add(fault, now=self._service.clock.monotonic())
        return self._faults(request, None)

    def _clear_faults(self, request: web.BaseRequest, _body: Any) -> dict[str, Any]:
        self._service.faults.clear()
        return self._faults(request, None)

    def _rates(self, _request: web.BaseRequest, _body: Any) -> dict[str, float]:
        return self._service.rates

    def _set_rates(self, _request: web.BaseRequest, body: Any) -> dict[str, float]:
        known = {"submitTps", "readTps"}
        if not isinstance(body, dict) or not body or body.keys() - known:
            raise ValueError("rates must be an object with submitTps, readTps or both")
        if any(isinstance(value, bool) or not isinstance(value, int | float) or value < 0 for value in body.values()):
            raise ValueError("a rate must be a number of calls a second, 0 for no limit")
        self._service.set_rates(submit_tps=body.get("submitTps"), read_tps=body.get("readTps"))
        return self._service.rates

    def _ledger(self, request: web.BaseRequest, _body: Any) -> dict[str, Any]:
        entries = self._service.ledger.entries(since=_since(request))
        return {"calls": [entry.as_json() for entry in entries], "last": self._service.ledger.last}

    def _jobs(self, request: web.BaseRequest, _body: Any) -> dict[str, Any]:
        since, now = _since(request), self._service.clock.monotonic()
        jobs = [_shown(job, now) for job in self._service.jobs.all() if job.number > since]
        return {"jobs": jobs, "last": len(self._service.jobs)}

    def _reset(self, _request: web.BaseRequest, _body: Any) -> dict[str, Any]:
        self._service.reset()
        return {}


def _shown(job: Job, now: float) -> dict[str, Any]:
    return {
        "number": job.number,
        "jobId": job.job_id,
        "jobArn": job.arn,
        "jobName": job.name,
        "queue": job.queue,
        "share": job.share,
        "status": job.progress(now).status,
        "createdAt": job.created_at,
        "schedulingPriority": job.priority,
        "clientToken": job.request.get("clientToken"),
        "tags": dict(job.tags),
    }


def _since(request: web.BaseRequest) -> int:
    text = request.query.get("since", "0")
    try:
        return int(text)
    except ValueError:
        message = f"since must be a number, not {text}"
        raise ValueError(message) from None


def _read_faults(body: Any) -> list[Fault]:
    """A fault, a list of them, or `{"faults": […]}`."""
    faults = body.get("faults", [body]) if isinstance(body, dict) else body
    if not isinstance(faults, list):
        raise ValueError('faults must be an object, a list of objects or {"faults": [...]}')  # noqa: TRY004 - see handle
    return [Fault.from_json(fault) for fault in faults]


def _json(members: Any, *, status: int = HTTPStatus.OK) -> web.Response:
    return web.Response(status=status, body=json.dumps(members).encode(), content_type="application/json")
