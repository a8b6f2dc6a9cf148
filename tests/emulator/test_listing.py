from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.emulator.rig import Rig


async def listed(rig: Rig, **params: Any) -> list[str]:
    answer = await rig.call("list_service_jobs", jobQueue="training", **params)
    return [job["jobName"] for job in answer["jobSummaryList"]]


def only(name: str, *values: str) -> list[dict[str, Any]]:
    return [{"name": name, "values": list(values)}]


async def test_only_running_jobs_are_listed_unless_a_status_is_asked_for(rig: Rig) -> None:
    await rig.submit(jobName="running")
    rig.clock.advance(5)
    await rig.submit(jobName="new")
    assert await listed(rig) == ["running"]
    assert await listed(rig, jobStatus="SUBMITTED") == ["new"]
    assert await listed(rig, jobStatus="FAILED") == []


async def test_a_name_is_found_in_any_case_and_any_status_newest_first(rig: Rig) -> None:
    await rig.submit(jobName="Test1")
    rig.clock.advance(11)
    await rig.submit(jobName="test1")
    await rig.submit(jobName="test10")
    assert await listed(rig, filters=only("JOB_NAME", "TEST1"), jobStatus="FAILED") == ["test1", "Test1"]


async def test_a_star_finds_all_names_that_begin_alike(rig: Rig) -> None:
    for name in ("test1", "Test10", "best1"):
        await rig.submit(jobName=name)
    assert await listed(rig, filters=only("JOB_NAME", "TEST*")) == ["Test10", "test1"]
    assert await listed(rig, filters=only("JOB_NAME", "*")) == ["best1", "Test10", "test1"]


async def test_jobs_are_found_by_when_they_were_created(rig: Rig) -> None:
    moments = []
    for name in ("a", "b", "c"):
        await rig.submit(jobName=name)
        moments.append(str(rig.clock.epoch_ms()))
        rig.clock.advance(1)
    assert await listed(rig, filters=only("BEFORE_CREATED_AT", moments[1])) == ["a"]
    assert await listed(rig, filters=only("AFTER_CREATED_AT", moments[1])) == ["c"]


async def test_jobs_are_found_by_share_and_narrowed_by_status(rig: Rig) -> None:
    await rig.submit(jobName="a", shareIdentifier="vision")
    rig.clock.advance(11)
    await rig.submit(jobName="b", shareIdentifier="vision")
    await rig.submit(jobName="c", quotaShareName="vision")
    await rig.submit(jobName="d", shareIdentifier="text")
    assert await listed(rig, filters=only("SHARE_IDENTIFIER", "vision")) == ["b", "a"]
    assert await listed(rig, filters=only("SHARE_IDENTIFIER", "vision"), jobStatus="SUCCEEDED") == ["a"]
    assert await listed(rig, filters=only("QUOTA_SHARE_NAME", "vision")) == ["c"]


async def test_jobs_of_other_queues_are_not_listed(rig: Rig) -> None:
    await rig.submit(jobQueue="elsewhere")
    for filters in (only("JOB_NAME", "first"), only("JOB_NAME", "f*"), only("AFTER_CREATED_AT", "0")):
        assert await listed(rig, filters=filters) == []


async def test_a_walk_of_pages_shows_each_job_once_while_new_ones_arrive(rig: Rig) -> None:
    names = [f"job{number}" for number in range(7)]
    for name in names:
        await rig.submit(jobName=name)
    seen: list[str] = []
    page: dict[str, Any] = {}
    while not seen or "nextToken" in page:
        more = {"nextToken": page["nextToken"]} if page else {}
        page = await rig.call(
            "list_service_jobs", jobQueue="training", filters=only("JOB_NAME", "job*"), maxResults=3, **more
        )
        seen += [job["jobName"] for job in page["jobSummaryList"]]
        await rig.submit(jobName="job-late")
    assert seen == names[::-1]


async def test_a_page_that_shows_all_has_no_token(rig: Rig) -> None:
    for name in ("a", "b"):
        await rig.submit(jobName=name)
    answer = await rig.call("list_service_jobs", jobQueue="training", jobStatus="SUBMITTED", maxResults=2)
    assert len(answer["jobSummaryList"]) == 2
    assert "nextToken" not in answer


async def test_a_page_holds_a_hundred_unless_asked(rig: Rig) -> None:
    for number in range(101):
        await rig.raw("/v1/submitservicejob", {"jobName": f"j{number}", "jobQueue": "training"} | BARE)
    assert len(await listed(rig, jobStatus="SUBMITTED")) == 100


BARE = {"serviceJobType": "SAGEMAKER_TRAINING", "serviceRequestPayload": "{}"}


@pytest.mark.parametrize(
    ("params", "member"),
    [
        ({"filters": [*only("JOB_NAME", "a"), *only("JOB_NAME", "b")]}, "filters"),
        ({"filters": only("COLOUR", "red")}, "filters[0].name"),
        ({"filters": only("JOB_NAME")}, "filters[0].values"),
        ({"filters": only("BEFORE_CREATED_AT", "yesterday")}, "filters[0].values"),
        ({"maxResults": 0}, "maxResults"),
        ({"maxResults": 101}, "maxResults"),
        ({"nextToken": "nonsense"}, "nextToken"),
        ({"jobStatus": "ASLEEP"}, "jobStatus"),
    ],
)
async def test_a_bad_query_is_refused_by_name(rig: Rig, params: dict[str, Any], member: str) -> None:
    refusal = await rig.refused("list_service_jobs", jobQueue="training", **params)
    assert (refusal.status, refusal.code) == (400, "ClientException")
    assert refusal.message.startswith(f"{member}:")


async def test_a_token_belongs_to_its_query(rig: Rig) -> None:
    for _ in range(2):
        await rig.submit()
    answer = await rig.call("list_service_jobs", jobQueue="training", jobStatus="SUBMITTED", maxResults=1)
    refusal = await rig.refused("list_service_jobs", jobQueue="training", nextToken=answer["nextToken"])
    assert "nextToken" in refusal.message


async def test_a_list_needs_a_queue(rig: Rig) -> None:
    assert "jobQueue" in (await rig.refused("list_service_jobs")).message
