"""What goes wrong in a campaign: each kind, done when the plan says."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tests.campaign.plan import DRAIN_SECONDS, Plan, Trouble

if TYPE_CHECKING:
    from tests.campaign.batch import Batch
    from tests.campaign.fleet import Gateway
    from tests.campaign.history import History
    from tests.campaign.stores import CampaignStore


SPELL_SECONDS = 4.0  # how long calls are slow, or jobs are listed late, at a time


class Troubles:
    """Does what the plan says to the gateways, the store and Batch, and writes down what and when."""

    def __init__(
        self, plan: Plan, *, gateways: list[Gateway], store: CampaignStore, batch: Batch, history: History
    ) -> None:
        self._plan = plan
        self._gateways = gateways
        self._store = store
        self._batch = batch
        self._history = history

    async def run(self) -> None:
        """All of them, each at its time; back when the last is over."""
        began = time.monotonic()
        async with asyncio.TaskGroup() as running:
            for trouble in self._plan.troubles:
                await asyncio.sleep(max(0.0, began + trouble.after - time.monotonic()))
                running.create_task(self._make(trouble))

    async def _make(self, trouble: Trouble) -> None:
        if trouble.kind.endswith("_gateway"):
            await self._to_gateway(self._gateways[trouble.gateway], trouble)
        elif trouble.kind in self._store.faults:
            if not self._store.busy:
                self._note(trouble)
                await self._store.faults[trouble.kind](trouble.seconds)
                self._note(trouble, over=True)
        else:
            self._note(trouble)
            for fault in batch_faults(trouble):
                await self._batch.add_fault(fault)

    async def _to_gateway(self, gateway: Gateway, trouble: Trouble) -> None:
        async with gateway.turn:
            self._note(trouble, gateway=gateway.number)
            if trouble.kind == "stop_gateway":
                gateway.stop()
                try:
                    await asyncio.sleep(trouble.seconds)
                finally:
                    with suppress(ProcessLookupError):
                        gateway.go_on()
            else:
                await (gateway.kill() if trouble.kind == "kill_gateway" else gateway.terminate(DRAIN_SECONDS))
                await asyncio.sleep(trouble.seconds)
                await gateway.start()
            self._note(trouble, gateway=gateway.number, over=True)

    def _note(self, trouble: Trouble, **fields: Any) -> None:
        self._history.note("fault", fault=trouble.kind, **fields)
        if not fields.get("over"):
            self._history.counts[trouble.kind] += 1


def batch_faults(trouble: Trouble) -> list[dict[str, Any]]:
    """The emulator's faults that make this trouble, as its admin face takes them."""
    kind, seconds, times = trouble.kind, trouble.seconds, trouble.times
    if kind == "errands_fail":
        fault = {"kind": "error_500", "forSeconds": seconds, "probability": trouble.probability}
        return [{**fault, "operation": name} for name in ("ListServiceJobs", "TerminateServiceJob")]
    how: dict[str, dict[str, Any]] = {
        "down": {"forSeconds": seconds},
        "refuse": {"seconds": seconds},
        "slow": {"forSeconds": SPELL_SECONDS, "seconds": seconds, "probability": trouble.probability},
        "late_listing": {"forSeconds": SPELL_SECONDS, "seconds": seconds},
        "lost_answer_hang": {"times": times, "seconds": seconds},
        "throttle": {"times": times, "retryAfterMs": round(seconds * 300)},
        "client_error": {"times": 1},  # five alike in a row would pause the share until a person comes
    }
    return [{"kind": kind, **how.get(kind, {"times": times})}]
