from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from tests.clients.stand import eventually, standing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.clients.stand import Stand
    from tests.servers import StoreServer


@pytest.fixture(scope="package")
def shared_stand(tmp_path_factory: pytest.TempPathFactory, valkey: StoreServer) -> Iterator[Stand]:
    """One for all: starting it takes as long as ten tests. Each test has names of its own."""
    with standing(tmp_path_factory.mktemp("stand"), valkey.url, prefix=f"c{uuid4().hex[:12]}") as stand:
        yield stand


@pytest.fixture
def stand(shared_stand: Stand) -> Iterator[Stand]:
    eventually(shared_stand.is_calm)
    yield shared_stand
    shared_stand.mend_batch()


@pytest.fixture(params=["batch", "gateway"])
def endpoint(request: pytest.FixtureRequest, stand: Stand) -> str:
    """Where the client calls: what it says of Batch itself is what it must say of the gateway."""
    return stand.batch if request.param == "batch" else stand.gateway.url


@pytest.fixture
def name() -> str:
    """A job's, a queue's or a share's that no other test uses."""
    return f"t{uuid4().hex[:10]}"
