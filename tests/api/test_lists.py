"""`GET /v1/submissions`: pages, filters, and finding one by whatever name it has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from tests.api.callers import TEXT, VISION, ByHeader
from tests.contract.in_process import FORWARDED, in_process_gateway
from tests.examples import submission

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis

    from tests.contract.in_process import InProcessGateway

PATH = "/v1/submissions"


@pytest.fixture
async def shared(client: Redis, prefix: str) -> AsyncIterator[InProcessGateway]:
    """A gateway with callers of several namespaces."""
    async with in_process_gateway(client, prefix, authenticator=ByHeader()) as gateway:
        yield gateway


async def posted(gateway: InProcessGateway, number: int, **members: Any) -> list[str]:
    """Ids of so many new submissions, in their order."""
    return [(await gateway.post(submission(**members))).json["submissionId"] for _ in range(number)]


async def listed(gateway: InProcessGateway, query: str = "", **how: Any) -> list[str]:
    answer = await gateway.get(f"{PATH}?{query}" if query else PATH, **how)
    assert answer.status == 200
    return [one["submissionId"] for one in answer.json["items"]]


async def walked(gateway: InProcessGateway, query: str = "") -> list[str]:
    """Every page, to the end."""
    found, cursor = [], ""
    while True:
        answer = (await gateway.get(f"{PATH}?limit=3{query}{cursor}")).json
        found += [one["submissionId"] for one in answer["items"]]
        if answer["nextCursor"] is None:
            return found
        cursor = f"&cursor={answer['nextCursor']}"


async def test_an_empty_gateway_has_an_empty_page(gateway: InProcessGateway) -> None:
    assert (await gateway.get(PATH)).json == {"items": [], "nextCursor": None}


async def test_a_list_has_each_submission_as_its_own_path_has_it(gateway: InProcessGateway) -> None:
    (one,) = await posted(gateway, 1)
    (item,) = (await gateway.get(PATH)).json["items"]
    shown = (await gateway.show(one)).json
    for volatile in ("estimatedForwardAt",):
        item.pop(volatile)
        shown.pop(volatile)
    assert item == shown


async def test_the_newest_comes_first_over_all_pages(gateway: InProcessGateway) -> None:
    results = (await gateway.call("POST", f"{PATH}/batch", {"submissions": [submission()] * 10})).json["results"]
    ids = [one["submission"]["submissionId"] for one in results]
    found = await walked(gateway)
    assert sorted(found) == sorted(ids)
    accepted = {one: (await gateway.show(one)).json["acceptedAt"] for one in ids}
    assert [accepted[one] for one in found] == sorted(accepted.values(), reverse=True)


async def test_what_comes_and_ends_meanwhile_makes_none_appear_twice_or_not_at_all(gateway: InProcessGateway) -> None:
    before = await posted(gateway, 7)
    first = (await gateway.get(f"{PATH}?limit=3")).json
    await posted(gateway, 4)
    await gateway.settle()
    rest = (await gateway.get(f"{PATH}?limit=200&cursor={first['nextCursor']}")).json
    found = [one["submissionId"] for one in [*first["items"], *rest["items"]]]
    assert sorted(found) == sorted(before)
    assert rest["nextCursor"] is None


async def test_filters_narrow_the_list(gateway: InProcessGateway) -> None:
    (named,) = await posted(gateway, 1, clientToken="mine")
    await gateway.settle()
    text = await posted(gateway, 2, shareIdentifier="text")
    other = await posted(gateway, 2, jobQueue="other")
    assert await listed(gateway, "clientToken=mine") == [named]
    assert await listed(gateway, "clientToken=nobodys") == []
    assert await listed(gateway, "state=forwarded") == [named]
    assert sorted(await listed(gateway, "state=queued")) == sorted([*text, *other])
    assert sorted(await listed(gateway, "share=training/text")) == sorted(text)
    assert sorted(await listed(gateway, "jobQueue=other")) == sorted(other)
    arn = quote("arn:aws:batch:us-east-1:123456789012:job-queue/other", safe="")
    assert sorted(await listed(gateway, f"jobQueue={arn}")) == sorted(other)
    assert await listed(gateway, "jobQueue=other&state=forwarded") == []
    assert await listed(gateway, "clientToken=mine&state=queued") == []


async def test_filters_and_cursors_work_together(gateway: InProcessGateway) -> None:
    text = []
    for _ in range(5):
        await posted(gateway, 2)
        text += await posted(gateway, 1, shareIdentifier="text")
    assert await walked(gateway, "&share=training/text") == text[::-1]


async def test_a_page_that_few_fit_is_short_and_has_a_cursor(
    gateway: InProcessGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.core.lookup.SCAN_AT_ONCE", 2)
    monkeypatch.setattr("gateway.core.lookup.SCAN_MOST", 4)
    (oldest,) = await posted(gateway, 1, shareIdentifier="text")
    await posted(gateway, 8)
    first = (await gateway.get(f"{PATH}?share=training/text")).json
    assert (first["items"], first["nextCursor"] is None) == ([], False)
    assert await walked(gateway, "&share=training/text") == [oldest]


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=201",
        "limit=x",
        "limit=-1",
        "state=gone",
        "share=vision",
        "share=training/",
        "cursor=nonsense",
        "cursor=%FF",
        "cursor=MS4y",
        "jobQueue=no%20queue",
        "page=2",
        "limit=1&limit=2",
    ],
)
async def test_a_query_that_makes_no_sense_is_malformed(gateway: InProcessGateway, query: str) -> None:
    assert (await gateway.get(f"{PATH}?{query}")).kind == (400, "malformed")


async def test_callers_see_their_own_and_operators_all(shared: InProcessGateway) -> None:
    vision = (await shared.post(submission(clientToken="t"), headers=VISION)).json["submissionId"]
    text = (await shared.post(submission(clientToken="t"), headers=TEXT)).json["submissionId"]
    assert await listed(shared, headers=VISION) == [vision]
    assert await listed(shared, "clientToken=t", headers=TEXT) == [text]
    assert sorted(await listed(shared)) == sorted([vision, text])
    assert sorted(await listed(shared, "clientToken=t")) == sorted([vision, text])


async def test_another_ones_cursor_leads_nowhere_but_to_ones_own(shared: InProcessGateway) -> None:
    for _ in range(3):
        await shared.post(submission(), headers=VISION)
    cursor = (await shared.get(f"{PATH}?limit=1", headers=VISION)).json["nextCursor"]
    assert await listed(shared, f"cursor={cursor}", headers=TEXT) == []


# ---- One, by whatever name it has


async def test_a_job_leads_to_its_submission_by_id_and_by_arn(gateway: InProcessGateway) -> None:
    (one,) = await posted(gateway, 1)
    await gateway.settle()
    assert FORWARDED.job_id
    assert FORWARDED.job_arn
    for name in (FORWARDED.job_id, quote(FORWARDED.job_arn, safe=""), one.upper()):
        assert (await gateway.show(name)).json["submissionId"] == one


@pytest.mark.parametrize(
    "name",
    [
        "3a1b6c1e-6a0e-4d0a-9a54-6d1d1b4f5a10",
        "nonsense",
        "%20",
        "a" * 300,
        quote("arn:aws:batch:us-east-1:999999999999:service-job/3a1b6c1e-6a0e-4d0a-9a54-6d1d1b4f5a10", safe=""),
        quote("arn:aws:batch:us-east-1:123456789012:job/3a1b6c1e-6a0e-4d0a-9a54-6d1d1b4f5a10", safe=""),
    ],
)
async def test_what_nobody_has_is_not_found(gateway: InProcessGateway, name: str) -> None:
    assert (await gateway.show(name)).kind == (404, "not-found")


async def test_another_ones_job_is_not_found(shared: InProcessGateway) -> None:
    made = await shared.post(submission(), headers=VISION)
    await shared.settle()
    for name in (made.json["submissionId"], FORWARDED.job_id):
        assert (await shared.show(name, headers=TEXT)).kind == (404, "not-found")
        assert (await shared.show(name, headers=VISION)).status == 200


async def test_an_expired_record_leaves_its_job_for_operators_to_know(shared: InProcessGateway, client: Redis) -> None:
    one = (await shared.post(submission(), headers=VISION)).json["submissionId"]
    await shared.settle()
    await client.delete(shared.store._keys.record(one))  # as its retention does in time
    answer = await shared.show(one)
    assert answer.kind == (404, "not-found")
    assert f"Batch made job {FORWARDED.job_id} of it" in answer.json["detail"]
    assert str(FORWARDED.job_id) not in (await shared.show(one, headers=VISION)).body.decode()
