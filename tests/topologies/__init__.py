"""Real stores of more than one server: a cluster of three primaries and three replicas, and a primary under Sentinel.

Everything here blocks, and nothing longer than its deadline: in a test with an event loop, call it by
`asyncio.to_thread`. Servers are StoreServers; `kill`, `start`, `pause` and `resume` work on each of them.
"""

from tests.topologies.cluster import RunningCluster, SlotMigration, running_cluster
from tests.topologies.members import DURABLE, until
from tests.topologies.sentinel import MASTER, RunningSentinel, running_sentinel

__all__ = [
    "DURABLE",
    "MASTER",
    "RunningCluster",
    "RunningSentinel",
    "SlotMigration",
    "running_cluster",
    "running_sentinel",
    "until",
]
