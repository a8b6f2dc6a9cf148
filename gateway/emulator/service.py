"""Batch as a whole, without HTTP: a call comes in and ends as an answer, an error or a lost connection."""

import asyncio
from typing import Any

from botocore.model import ServiceModel

from gateway.emulator.arns import Arns
from gateway.emulator.calls import Call
from gateway.emulator.clock import Clock
from gateway.emulator.config import EmulatorConfig
from gateway.emulator.errors import BatchError
from gateway.emulator.faults import FaultBook
from gateway.emulator.jobs import Jobs
from gateway.emulator.ledger import Ledger, LedgerEntry
from gateway.emulator.operations import JobOperations, Operation
from gateway.emulator.queue_operations import QueueOperations
from gateway.emulator.queues import Queues
from gateway.emulator.rate import Rate, new_rate
from gateway.emulator.validation import Check, compile_check

# In the order in which they strike. What a front door does comes before the call is counted, what a service does
# after; the last are met only by what has succeeded, so that `times` counts jobs that were made.
_PAUSES = ("jitter", "slow")
_AT_THE_DOOR = ("credentials", "access_denied", "throttle", "throttle_bare")
_INSIDE = ("error_500", "client_error")
_ON_THE_WAY_BACK = ("late_500", "error_200_garbage", "lost_answer", "lost_answer_hang")
_LOSSES = frozenset({"lost_answer", "lost_answer_hang"})


class Service:
    """The state of one account and Region, and the way of a call through it."""

    def __init__(self, config: EmulatorConfig, *, clock: Clock, model: ServiceModel) -> None:
        self.config = config
        self.clock = clock
        self.faults = FaultBook(seed=config.seed)
        self.ledger = Ledger(size=config.ledger_size)
        self.queues = Queues(config, Arns(region=config.region, account=config.account))
        self._job_operations = JobOperations(config, clock=clock, queues=self.queues, faults=self.faults)
        self.operations: dict[str, Operation] = {
            **self._job_operations.table(),
            **QueueOperations(self.queues).table(),
        }
        self._checks: dict[str, Check] = {
            name: compile_check(model.operation_model(name).input_shape) for name in self.operations
        }
        self._pausing: set[asyncio.Task[Any]] = set()
        self.set_rates(submit_tps=config.submit_tps, read_tps=config.read_tps)

    @property
    def jobs(self) -> Jobs:
        return self._job_operations.jobs

    @property
    def rates(self) -> dict[str, float]:
        """The calls a second that are let through now, 0 for without limit."""
        return {"submitTps": self._submit_tps, "readTps": self._read_tps}

    def set_rates(self, *, submit_tps: float | None = None, read_tps: float | None = None) -> None:
        """Changes a rate from now on, with a full bucket or an empty window; None leaves it alone."""
        now = self.clock.monotonic()
        if submit_tps is not None:
            self._submit_tps = submit_tps
            self._submit_rate: Rate = new_rate(
                tps=submit_tps, limiter=self.config.limiter, bucket_size=self.config.bucket_size, now=now
            )
        if read_tps is not None:
            self._read_tps = read_tps
            self._read_rate: Rate = new_rate(tps=read_tps, limiter=self.config.limiter, bucket_size=None, now=now)

    def reset(self) -> None:
        """Back to the start: no jobs, tokens, calls or faults, the configured queues and rates."""
        self.faults.clear()
        self.ledger.clear()
        self.queues.reset()
        self._job_operations.reset()
        self.set_rates(submit_tps=self.config.submit_tps, read_tps=self.config.read_tps)

    async def answer(self, call: Call) -> dict[str, Any]:
        """The members of a 200 answer. Raises BatchError or ConnectionLostError for every other end."""
        await self._meet_early_faults(call)
        now = self.clock.monotonic()
        rate = self._submit_rate if call.operation == "SubmitServiceJob" else self._read_rate
        if not rate.take(now):
            raise BatchError("Too Many Requests", status=429, code="TooManyRequestsException", outcome="throttled")
        spoiled = self.faults.meet(call, *_INSIDE, now=now)
        if spoiled is not None:
            raise spoiled.error()
        if call.problem is not None:
            raise call.problem
        self._checks[call.operation](call.params, "")
        answer = self.operations[call.operation](call)
        self._meet_late_faults(call, now)
        return answer

    def record(self, call: Call, *, outcome: str, status: int | None, answered: bool) -> None:
        """Writes the call into the ledger."""
        self.ledger.add(
            LedgerEntry(
                number=self.ledger.next_number(),
                at=self.clock.epoch_ms(),
                operation=call.operation,
                outcome=outcome,
                status=status,
                created=call.created,
                answered=answered,
                faults=tuple(call.faults),
                client_token=call.client_token,
                job_name=call.job_name,
                queue=call.queue,
                share=call.share,
                job_id=call.job.job_id if call.job is not None else None,
                body_sha256=call.body_sha256,
                access_key_id=call.access_key_id,
            )
        )

    async def pause(self, seconds: float) -> None:
        """Waits on behalf of a call; `end_pauses` cancels the call instead."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a call is always a task")
        self._pausing.add(task)
        try:
            await self.clock.sleep(seconds)
        finally:
            self._pausing.discard(task)

    def end_pauses(self) -> None:
        """Cancels all calls that are waiting, for the end of the service."""
        for task in self._pausing:
            task.cancel()

    async def _meet_early_faults(self, call: Call) -> None:
        now = self.clock.monotonic()
        lost = self.faults.meet(call, "down", "drop", now=now)
        if lost is not None:
            raise lost.loss()
        for kind in _PAUSES:
            pause = self.faults.meet(call, kind, now=now)
            if pause is not None:
                await self.pause(self.faults.uniform(pause.ms or 0) / 1000 if kind == "jitter" else pause.seconds or 0)
        spoiled = self.faults.meet(call, *_AT_THE_DOOR, now=self.clock.monotonic())
        if spoiled is not None:
            raise spoiled.error()

    def _meet_late_faults(self, call: Call, now: float) -> None:
        if call.operation == "SubmitServiceJob" and not call.created:
            return
        spoiled = self.faults.meet(call, *_ON_THE_WAY_BACK, now=now)
        if spoiled is not None:
            raise spoiled.loss() if spoiled.kind in _LOSSES else spoiled.error()
