from __future__ import annotations

import hashlib
import json

from gateway.emulator.ledger import Ledger
from tests.emulator.rig import ACCESS_KEY_ID, SUBMISSION, Rig, emulating


async def test_a_call_is_recorded_with_all_that_identifies_it(rig: Rig) -> None:
    arn = "arn:aws:batch:us-east-1:123456789012:job-queue/training"
    answer = await rig.submit(clientToken="t", shareIdentifier="vision", jobQueue=arn)
    (call,) = (await rig.admin("GET", "/ledger"))["calls"]
    assert len(call.pop("bodySha256")) == 64
    assert call == {
        "number": 1,
        "at": rig.clock.epoch_ms(),
        "operation": "SubmitServiceJob",
        "outcome": "created",
        "status": 200,
        "created": True,
        "answered": True,
        "faults": [],
        "clientToken": "t",
        "jobName": "first",
        "queue": "training",
        "share": "vision",
        "jobId": answer["jobId"],
        "accessKeyId": ACCESS_KEY_ID,
    }


async def test_the_digest_is_of_the_bytes_as_they_came(rig: Rig) -> None:
    body = json.dumps(SUBMISSION, indent=3).encode()
    await rig.raw("/v1/submitservicejob", body)
    assert rig.last_call.body_sha256 == hashlib.sha256(body).hexdigest()
    assert rig.last_call.access_key_id is None


async def test_no_signature_is_kept(rig: Rig) -> None:
    await rig.submit()
    assert "Signature" not in json.dumps(await rig.admin("GET", "/ledger"))


async def test_the_ledger_is_read_from_a_number_on(rig: Rig) -> None:
    for _ in range(3):
        await rig.submit()
    page = await rig.admin("GET", "/ledger?since=1")
    assert ([call["number"] for call in page["calls"]], page["last"]) == ([2, 3], 3)
    assert (await rig.admin("GET", "/ledger?since=3"))["calls"] == []
    assert [entry.number for entry in rig.emulator.ledger(since=2)] == [3]


async def test_the_ledger_keeps_the_newest_calls() -> None:
    async with emulating(ledger_size=2) as rig:
        for _ in range(4):
            await rig.submit()
        assert [entry.number for entry in rig.emulator.ledger()] == [3, 4]
        assert [entry.number for entry in rig.emulator.ledger(since=1)] == [3, 4]


def test_an_empty_ledger_has_no_entries() -> None:
    ledger = Ledger(size=5)
    assert (ledger.entries(), ledger.entries(since=4), ledger.last) == ([], [], 0)


async def test_jobs_are_listed_with_tags_and_tokens_for_a_checker(rig: Rig) -> None:
    first = await rig.submit(clientToken="t", tags={"team": "vision"}, shareIdentifier="vision", schedulingPriority=3)
    await rig.submit(jobName="second")
    page = await rig.admin("GET", "/jobs")
    assert page["last"] == 2
    assert page["jobs"][0] == {
        "number": 1,
        "jobId": first["jobId"],
        "jobArn": first["jobArn"],
        "jobName": "first",
        "queue": "training",
        "share": "vision",
        "status": "SUBMITTED",
        "createdAt": rig.clock.epoch_ms(),
        "schedulingPriority": 3,
        "clientToken": "t",
        "tags": {"team": "vision"},
    }
    assert [job["jobName"] for job in (await rig.admin("GET", "/jobs?since=1"))["jobs"]] == ["second"]


async def test_a_reset_forgets_all_but_the_numbers(rig: Rig) -> None:
    await rig.submit(clientToken="t", jobQueue="made")
    await rig.admin("PUT", "/faults", {"kind": "throttle"})
    await rig.admin("POST", "/reset")
    assert (rig.emulator.jobs, rig.emulator.ledger(), rig.emulator.faults) == ([], [], [])
    assert (await rig.call("describe_job_queues"))["jobQueues"] == []
    await rig.submit(clientToken="t")
    assert rig.last_call.number == 3


async def test_the_admin_pages_say_what_runs_here_and_are_not_in_the_ledger() -> None:
    async with emulating(submit_tps=5) as rig:
        about = await rig.admin("GET", "/")
        assert (about["region"], about["limiter"], about["submitTps"], about["jobs"]) == ("us-east-1", "bucket", 5, 0)
        assert await rig.admin("GET", "") == about
        assert rig.emulator.ledger() == []


async def test_an_unknown_or_wrong_admin_request_is_told_so(rig: Rig) -> None:
    assert (await rig.raw("/_emulator/nowhere", b"", method="GET")).status == 404
    assert (await rig.raw("/_emulator/faults", b"{", method="PUT")).status == 400
    assert (await rig.raw("/_emulator/ledger?since=x", b"", method="GET")).status == 400
