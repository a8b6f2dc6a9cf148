"""While the store is away nothing is promised, and what may have been accepted can be found again."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import pytest

from gateway.core.audit import whole_round
from gateway.core.errors import StoreUnavailableError
from gateway.core.identity import submission_id
from gateway.store.audit import StoreAudit
from gateway.store.bounds import StoreBounds
from gateway.store.connection import connect
from gateway.store.durability import Confirmation
from tests.contract.in_process import in_process_gateway
from tests.examples import ACCOUNT, REGION, submission
from tests.servers import running, valkey_binary

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.contract.in_process import InProcessGateway
    from tests.servers import StoreServer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StoreServer]:
    with running(valkey_binary(), tmp_path) as server:
        yield server


@pytest.fixture
async def gateway(server: StoreServer) -> AsyncIterator[InProcessGateway]:
    async with connect(server.url) as client, in_process_gateway(client, "p") as gateway:
        yield gateway


async def test_a_submission_is_503_with_the_names_to_find_it_by(server: StoreServer, gateway: InProcessGateway) -> None:
    server.kill()
    answer = await gateway.post(submission(clientToken="t"))
    assert (answer.kind, answer.headers["Retry-After"]) == ((503, "store-unavailable"), "2")
    assert answer.json["clientToken"] == "t"
    assert answer.json["submissionId"] == submission_id(
        namespace="anonymous", account=ACCOUNT, region=REGION, token="t"
    )


async def test_everything_else_is_503_too(server: StoreServer, gateway: InProcessGateway) -> None:
    made = (await gateway.post()).json
    server.kill()
    for method, path in (
        ("GET", f"/v1/submissions/{made['submissionId']}"),
        ("GET", "/v1/shares"),
        ("PATCH", "/v1/shares/training/vision"),
    ):
        answer = await gateway.call(method, path, {} if method == "PATCH" else None)
        assert (answer.kind, answer.headers["Retry-After"]) == ((503, "store-unavailable"), "2")
        assert "submissionId" not in answer.json


async def test_what_is_wrong_in_a_request_is_told_without_the_store(
    server: StoreServer, gateway: InProcessGateway
) -> None:
    server.kill()
    assert (await gateway.post(submission(jobName=""))).kind == (422, "invalid-submission")
    assert (await gateway.post_text("{")).kind == (400, "malformed")
    assert (await gateway.get("/livez")).status == 200


async def test_work_goes_on_when_the_store_is_back(server: StoreServer, gateway: InProcessGateway) -> None:
    server.kill()
    assert (await gateway.post()).status == 503
    server.start()
    assert (await gateway.post()).status == 202


async def test_an_acceptance_whose_answer_was_lost_is_found_by_its_token(
    server: StoreServer, gateway: InProcessGateway
) -> None:
    """The store stops in the middle, and has the submission when it goes on: a token that was made here tells too."""
    assert server.process is not None
    await gateway.post()
    server.process.send_signal(signal.SIGSTOP)
    lost = await gateway.post()
    assert lost.kind == (503, "store-unavailable")
    server.process.send_signal(signal.SIGCONT)
    again = await gateway.post(submission(clientToken=lost.json["clientToken"]))
    assert (again.status, again.json["submissionId"]) == (202, lost.json["submissionId"])
    assert again.headers["Idempotent-Replayed"] == "true"


async def test_a_broken_promise_refuses_submissions_and_answers_the_rest(gateway: InProcessGateway) -> None:
    made = (await gateway.post()).json
    gateway.confirmer.how = _cannot
    answer = await gateway.post()
    assert (answer.kind, answer.json["detail"]) == ((503, "store-unavailable"), "The store's appendfsync is everysec.")
    assert (await gateway.show(made["submissionId"])).status == 200


def _cannot() -> Confirmation | None:
    raise StoreUnavailableError("The store's appendfsync is everysec.")


async def test_what_is_not_known_to_be_durable_is_503_with_the_names_to_find_it_by(gateway: InProcessGateway) -> None:
    """No replica is there to have it: it is queued, and no 202 says so until one has."""
    made = (await gateway.post()).json
    gateway.confirmer.how = lambda: Confirmation(waits=(("WAIT", 1, 50),), wanted=(1,))
    asked = submission(clientToken="t")
    for _ in range(2):  # a replay waits for it too
        answer = await gateway.post(asked)
        assert (answer.kind, answer.headers["Retry-After"]) == ((503, "durability-unconfirmed"), "2")
        assert answer.json["clientToken"] == "t"
    found = (await gateway.show(answer.json["submissionId"])).json
    assert (found["state"], found["clientToken"]) == ("queued", "t")
    batch = await gateway.call("POST", "/v1/submissions/batch", {"submissions": [asked, submission(jobName="")]})
    assert [one["problem"]["type"] for one in batch.json["results"]] == [
        "/problems/durability-unconfirmed",
        "/problems/invalid-submission",
    ]
    assert batch.json["results"][0]["problem"]["submissionId"] == found["submissionId"]
    canceled = await gateway.call("POST", f"/v1/submissions/{made['submissionId']}/cancel", {})
    assert (canceled.kind, canceled.json["submissionId"]) == ((503, "durability-unconfirmed"), made["submissionId"])
    (settled,) = gateway.lines_of("submission_settled")  # it has happened, and is told once
    assert (settled["submission_id"], settled["state"]) == (made["submissionId"], "canceled")
    for path in ("/v1/shares/training/vision", "/v1/upstreams/main"):
        changed = await gateway.call("PATCH", path, {"rate": 3})
        assert changed.kind == (503, "durability-unconfirmed")
    gateway.confirmer.how = lambda: None
    replayed = await gateway.post(asked)
    assert (replayed.status, replayed.headers["Idempotent-Replayed"]) == (202, "true")
    assert (await gateway.call("POST", f"/v1/submissions/{made['submissionId']}/cancel", {})).status == 200


async def test_callers_who_hang_up_disturb_nobody_and_nothing_is_half_accepted(
    server: StoreServer, gateway: InProcessGateway
) -> None:
    """The store stops while they wait for one flush: half of them go away, the others hear of their own."""
    assert server.process is not None
    ids = {
        token: submission_id(namespace="anonymous", account=ACCOUNT, region=REGION, token=token)
        for token in (f"t{number}" for number in range(40))
    }
    await gateway.post()
    server.process.send_signal(signal.SIGSTOP)
    calls = {token: asyncio.create_task(gateway.post(submission(clientToken=token))) for token in ids}
    await asyncio.sleep(0.2)  # all of them have sent theirs
    gone = list(ids)[::2]
    for token in gone:
        calls[token].cancel()
    await asyncio.gather(*(calls[token] for token in gone), return_exceptions=True)
    server.process.send_signal(signal.SIGCONT)
    for token, call in calls.items():
        if token not in gone:
            answer = await call
            assert (answer.status, answer.json["submissionId"], answer.json["clientToken"]) == (202, ids[token], token)
    for token in gone:
        answer = await gateway.post(submission(clientToken=token))
        assert (answer.status, answer.json["submissionId"]) == (202, ids[token])
    assert {answer.json["state"] for answer in [await gateway.show(one) for one in ids.values()]} == {"queued"}
    audited = await whole_round(StoreAudit(gateway.store._client, gateway.store._keys, bounds=StoreBounds()))
    assert audited.drifts == ()
