"""AWS Batch's service-job API on one machine, in memory, for integration tests and development.

`Emulator` runs inside the caller's event loop; `gateway emulator` and `python -m gateway.emulator` run it alone. A call
goes through `wire` (HTTP) to `service` (faults, call rate, checks), then to `operations` or `queue_operations`, and
ends in the `ledger`. `admin` is for tests in other processes. Stands alone: imports nothing else of this package.
"""

from gateway.emulator.clock import Clock, ManualClock, SystemClock
from gateway.emulator.config import EmulatorConfig, QueueConfig, QuotaShareConfig
from gateway.emulator.emulator import Emulator
from gateway.emulator.faults import KINDS, Fault
from gateway.emulator.jobs import Job
from gateway.emulator.ledger import LedgerEntry

__all__ = [
    "KINDS",
    "Clock",
    "Emulator",
    "EmulatorConfig",
    "Fault",
    "Job",
    "LedgerEntry",
    "ManualClock",
    "QueueConfig",
    "QuotaShareConfig",
    "SystemClock",
]
