"""The self-audit of running gateways: one line a minute from all of them, and loud where something is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.core.identity import upstream_tag
from gateway.store.keys import Keys
from tests.conftest import eventually
from tests.examples import ACCOUNT, REGION, settings
from tests.processes import gateway_process

if TYPE_CHECKING:
    from pathlib import Path

    from redis.asyncio import Redis

    from tests.processes import GatewayProcess
    from tests.servers import StoreServer


async def told(*gateways: GatewayProcess) -> bool:
    return any(line["event"] == "audit" for gateway in gateways for line in list(gateway.events))


async def test_one_process_of_the_fleet_audits_and_says_what_is_wrong(
    client: Redis, valkey: StoreServer, prefix: str, tmp_path: Path
) -> None:
    keys = Keys(prefix, upstream_tag(ACCOUNT, REGION))
    await client.sadd(keys.marked, "training/nobody")
    config = settings(store_url=valkey.url, endpoint_url="http://127.0.0.1:9", prefix=prefix)
    with gateway_process(tmp_path / "one", config) as one, gateway_process(tmp_path / "other", config) as other:
        await eventually(lambda: told(one, other))
        assert (one.terminate(), other.terminate()) == (0, 0)
    (line,) = [line for line in (*one.events, *other.events) if line["event"] == "audit"]
    (drift,) = [line for line in (*one.events, *other.events) if line["event"] == "audit_drift"]
    assert (line["level"], line["drifts"], line["bytes_compared"]) == ("info", 1, True)
    assert (drift["level"], drift["kind"], drift["ids"], drift["count"]) == ("error", "share", ["training/nobody"], 1)
