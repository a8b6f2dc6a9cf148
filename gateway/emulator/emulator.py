"""The emulator as a part of another program: start it in the running event loop, break it, look at it, stop it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from aiohttp import web

from gateway.emulator.admin import Admin
from gateway.emulator.clock import Clock, SystemClock
from gateway.emulator.config import EmulatorConfig
from gateway.emulator.faults import Fault
from gateway.emulator.jobs import Job
from gateway.emulator.ledger import LedgerEntry
from gateway.emulator.service import Service
from gateway.emulator.validation import load_model
from gateway.emulator.wire import Wire, reset

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 9100
_SHUTDOWN_SECONDS = 1.0  # for answers that are being written; all others hang on purpose
_REOPEN_SECONDS = 0.05  # between two tries to get the port back


class Emulator:
    """AWS Batch's service-job API on one port.

    Not safe across threads: call everything in the loop that it was started in. Making one takes some 50 ms, for
    botocore's model.
    """

    def __init__(self, config: EmulatorConfig | None = None, *, clock: Clock | None = None) -> None:
        self.config = config or EmulatorConfig()
        model = load_model()
        self._service = Service(self.config, clock=clock or SystemClock(), model=model)
        admin = Admin(self._service, refuse=self._refuse_from_admin)
        self._wire = Wire(self._service, model=model, admin=admin.handle)
        self._host = DEFAULT_HOST
        self._port = 0
        self._http: web.Server | None = None
        self._listener: asyncio.Server | None = None
        self._reopening: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Where it listens, for `endpoint_url`. Only after `start`."""
        host = "127.0.0.1" if self._host in {"", "0.0.0.0"} else self._host  # noqa: S104 - compared, not bound
        return f"http://[{host}]:{self._port}" if ":" in host else f"http://{host}:{self._port}"

    @property
    def faults(self) -> list[Fault]:
        """The faults that are set, spent ones too."""
        return self._service.faults.all()

    @property
    def jobs(self) -> list[Job]:
        """All jobs, oldest first."""
        return list(self._service.jobs.all())

    def ledger(self, *, since: int = 0) -> list[LedgerEntry]:
        """The calls with a number above `since`, in the order in which they were decided."""
        return self._service.ledger.entries(since=since)

    def status(self, job: Job) -> str:
        """The job's status now."""
        return job.progress(self._service.clock.monotonic()).status

    def set_faults(self, *faults: Fault) -> None:
        """These faults and no others; `refuse` begins at once."""
        self._service.faults.clear()
        self.add_faults(*faults)

    def add_faults(self, *faults: Fault) -> None:
        """These faults too; `refuse` begins at once."""
        for fault in faults:
            if fault.kind == "refuse":
                self.refuse(fault.seconds or 0)
            else:
                self._service.faults.add(fault, now=self._service.clock.monotonic())

    def clear_faults(self) -> None:
        """No faults any more; a listener that is closed stays so until its time is over."""
        self._service.faults.clear()

    def set_rates(self, *, submit_tps: float | None = None, read_tps: float | None = None) -> None:
        """Calls a second from now on, 0 for without limit; None leaves a rate alone."""
        self._service.set_rates(submit_tps=submit_tps, read_tps=read_tps)

    def reset(self) -> None:
        """Forgets jobs, tokens, calls and faults; queues and rates are as configured. The ledger counts on."""
        self._service.reset()

    @contextlib.asynccontextmanager
    async def serving(self, host: str = DEFAULT_HOST, port: int = 0) -> AsyncIterator[str]:
        """Serves inside the block; gives the URL. Port 0 takes a free one. Raises OSError where it is taken."""
        await self.start(host, port)
        try:
            yield self.url
        finally:
            await self.stop()

    async def start(self, host: str = DEFAULT_HOST, port: int = DEFAULT_PORT) -> None:
        """Begins to listen. Raises OSError where the port is taken."""
        self._host, self._port = host, port
        self._http = web.Server(self._wire.handle, access_log=None)
        await self.open_listener()

    async def stop(self) -> None:
        """Closes the listener and every connection; calls that hang are cut off."""
        if self._reopening is not None:
            self._reopening.cancel()
            await asyncio.gather(self._reopening, return_exceptions=True)
        if self._http is None:
            return
        http, self._http = self._http, None
        self.close_listener()
        self._service.end_pauses()
        http.pre_shutdown()
        await http.shutdown(_SHUTDOWN_SECONDS)

    def refuse(self, seconds: float) -> None:
        """Closes the listener and cuts all connections; after `seconds` it listens on the same port again."""
        self._refuse(seconds, spare=None)

    def close_listener(self) -> None:
        """Refuses new connections until `open_listener`."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def open_listener(self) -> None:
        """Listens on the port of `start`, the one that was found where that was 0. Raises OSError if it is taken."""
        if self._listener is not None or self._http is None:
            return
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(self._http, self._host, self._port, reuse_address=True)
        self._port = self._listener.sockets[0].getsockname()[1]

    def _refuse_from_admin(self, seconds: float, request: web.BaseRequest) -> None:
        self._refuse(seconds, spare=request.transport)

    def _refuse(self, seconds: float, *, spare: asyncio.BaseTransport | None) -> None:
        if self._http is None:
            raise RuntimeError("the emulator is not serving")
        self.close_listener()
        for connection in self._http.connections:
            if connection.transport is not None and connection.transport is not spare:
                reset(connection.transport)
        if self._reopening is not None:
            self._reopening.cancel()
        self._reopening = asyncio.create_task(self._reopen_after(seconds))

    async def _reopen_after(self, seconds: float) -> None:
        await self._service.clock.sleep(seconds)
        while self._listener is None:
            try:
                await self.open_listener()
            except OSError:
                # Another program has taken the port meanwhile: until it gives it back, callers are no worse off.
                await asyncio.sleep(_REOPEN_SECONDS)
