"""When calling is held back: outages, credentials, denials by IAM, submissions and shares that never pass."""

from __future__ import annotations

from collections import Counter

import pytest

from gateway.core.attempt import PaceSignal, Report
from gateway.core.pace import PaceRules
from gateway.core.share import Share
from gateway.core.submission import State
from tests.store.world import (
    CREDENTIALS,
    DENIED,
    GIVEN_BACK,
    NOT_SENT,
    World,
    forwarded,
    refused,
    throttled,
    transient,
    uncharged,
    unclear,
)

VISION = Share("training", "vision")


async def condition(world: World) -> str:
    return str((await world.store.pace())["condition"])


async def in_outage(world: World, submissions: int = 3) -> World:
    await world.queue(submissions)
    settlement = await world.settle(await world.lease(), NOT_SENT)
    assert settlement.outage is True
    return world


# ---- Outages


async def test_five_failures_in_a_row_over_three_submissions_are_an_outage(world: World) -> None:
    await world.queue(5)
    for number in range(1, 6):
        settlement = await world.settle(await world.next_lease(), unclear(delay_seconds=60))
        assert settlement.outage is (True if number == 5 else None)
    assert await condition(world) == "outage"


async def test_one_submission_that_always_fails_is_no_outage(world: World) -> None:
    await world.queue(2)
    for _ in range(9):
        settlement = await world.settle(await world.next_lease(), unclear())
        assert settlement.outage is None
        assert settlement.charged
    assert await condition(world) == "calling"


@pytest.mark.parametrize("answer", [forwarded(), refused(), transient(), throttled(), DENIED], ids=lambda r: r.outcome)
async def test_an_answer_in_between_starts_the_count_anew(world: World, answer: Report) -> None:
    await world.queue(10)
    for _ in range(4):
        await world.settle(await world.next_lease(), unclear(delay_seconds=60))
    await world.settle(await world.next_lease(), answer)
    for _ in range(4):
        settlement = await world.settle(await world.next_lease(), unclear(delay_seconds=60))
        assert settlement.outage is None


async def test_a_refused_connection_is_an_outage_at_once(world: World) -> None:
    await in_outage(world)
    assert await condition(world) == "outage"


async def test_an_outage_is_told_once(world: World) -> None:
    await in_outage(world)
    assert (await world.settle(await world.next_lease(), NOT_SENT)).outage is None


async def test_an_outage_is_probed_once_a_second_each_time_with_another_submission(world: World) -> None:
    await in_outage(world)
    last = None
    for _ in range(6):
        wait = await world.wait()
        while wait.reason != "outage":
            await world.passes(seconds=wait.seconds)
            wait = await world.wait()
        began = world.now_us
        await world.passes(seconds=wait.seconds)
        probe = await world.lease()
        assert probe.probing
        assert probe.submission.submission_id != last
        last = probe.submission.submission_id
        settlement = await world.settle(probe, unclear(delay_seconds=30))
        assert not settlement.charged
        assert world.now_us - began <= 1e6
    assert world.now_us - 1_800_000_000_000_000 == 6e6


async def test_a_probe_under_way_is_the_only_call(world: World) -> None:
    await in_outage(world)
    await world.passes(seconds=1)
    await world.lease()
    wait = await world.wait()
    while wait.reason == "pace":
        await world.passes(seconds=wait.seconds)
        wait = await world.wait()
    assert (wait.reason, wait.seconds) == ("outage", pytest.approx(0.8, abs=0.01))


async def test_a_lone_submission_is_probed_again(world: World) -> None:
    await in_outage(world, submissions=1)
    for _ in range(3):
        await world.passes(seconds=1)
        assert (await world.settle(await world.lease(), NOT_SENT)).charged is False


async def test_one_bad_submission_at_the_head_does_not_make_an_outage_last(world: World) -> None:
    await world.queue(1, priority=9999)
    await world.queue(2)
    bad = await world.lease()
    await world.settle(bad, NOT_SENT)
    await world.passes(seconds=1)
    probe = await world.lease()
    assert probe.submission.submission_id != bad.submission.submission_id
    assert (await world.settle(probe, forwarded())).outage is False


@pytest.mark.parametrize("answer", [forwarded(), refused(), transient(), throttled(), DENIED], ids=lambda r: r.outcome)
async def test_an_answer_ends_an_outage(world: World, answer: Report) -> None:
    await in_outage(world)
    await world.passes(seconds=1)
    assert (await world.settle(await world.lease(), answer)).outage is False
    assert await condition(world) == "calling"
    assert not (await world.next_lease()).probing


async def test_nothing_is_charged_in_an_outage_however_long(world: World) -> None:
    ids = (await in_outage(world)) and [sub async for sub in _ready(world)]
    for _ in range(60):
        assert (await world.attempt(unclear(delay_seconds=5))) is not None
    for one in ids:
        record = await world.record(one)
        assert (record["state"], record.get("tries", 0)) == ("queued", 0)


async def _ready(world: World):  # noqa: ANN202
    for name in await world.client.zrange(world.keys.ready(VISION), 0, -1):
        yield name.decode()


async def test_attempts_beyond_twenty_are_counted_and_not_kept(world: World) -> None:
    (only,) = await world.queue(1)
    for _ in range(30):
        await world.attempt(NOT_SENT)
    submission = await world.store.get(only)
    assert (len(submission.attempts), submission.attempt_count) == (20, 30)
    assert submission.attempts[-1].at > submission.attempts[0].at


# ---- Submissions that never pass


async def _returned(world: World, report: Report, times: int) -> list[bool]:
    """Whether each return was charged: the first in line comes back, others pass in between."""
    charged = []
    for _ in range(times):
        first = await world.next_lease()
        await world.queue(1, share="other")
        second = await world.next_lease()
        await world.settle(second, forwarded(second.submission.submission_id))
        settlement = await world.settle(first, report)
        charged.append(settlement.charged)
        if settlement.submission.state is not State.QUEUED:
            break
    return charged


async def test_what_is_returned_again_and_again_while_others_pass_comes_to_an_end(world: World) -> None:
    (poison,) = await world.queue(1)
    charged = await _returned(world, throttled(), 40)
    assert charged == [False] * 20 + [True] * 10
    assert (await world.store.get(poison)).state is State.REJECTED


async def test_returns_while_nothing_passes_are_never_charged(world: World) -> None:
    await world.queue(1)
    for _ in range(50):
        leased = await world.next_lease()
        assert not (await world.settle(leased, throttled())).charged


async def test_what_the_forwarder_gives_back_itself_is_no_sign_of_poison(world: World) -> None:
    await world.queue(1)
    assert await _returned(world, GIVEN_BACK, 30) == [False] * 30


async def test_an_outage_charges_nothing_even_to_what_was_often_returned(world: World) -> None:
    (poison,) = await world.queue(1)
    assert (await _returned(world, throttled(), 21))[-1]
    for _ in range(30):
        leased = await world.next_lease()
        assert not (await world.settle(leased, NOT_SENT)).charged
    assert (await world.store.get(poison)).state is State.QUEUED


# ---- Credentials


async def test_bad_credentials_hold_the_upstream_and_charge_nothing(world: World) -> None:
    await world.queue(2)
    settlement = await world.settle(await world.lease(), CREDENTIALS)
    assert (settlement.held, settlement.charged) == ("credentials", False)
    assert await condition(world) == "held"
    await world.passes(seconds=4.5)
    wait = await world.wait()
    assert (wait.seconds, wait.reason) == (0.5, "held")
    await world.passes(seconds=0.5)
    settlement = await world.settle(await world.lease(), forwarded())
    assert settlement.released == "credentials"
    assert (await world.settle(await world.next_lease(), forwarded("two"))).released is None


# ---- Denials by IAM


async def test_a_denial_puts_aside_its_queue_and_role_only(world: World) -> None:
    denied = await world.queue(3, role_arn="arn:denied")
    others = await world.queue(3, role_arn="arn:fine")
    settlement = await world.settle(await world.lease(), DENIED)
    assert (settlement.held, settlement.charged) == ("denied", False)
    for expected in others:
        leased = await world.next_lease()
        assert leased.submission.submission_id == expected
        await world.settle(leased, forwarded(expected))
    wait = await world.wait()
    while wait.reason == "pace":
        await world.passes(seconds=wait.seconds)
        wait = await world.wait()
    assert wait.reason == "idle"
    assert 59 < wait.seconds <= 60
    assert {(await world.store.get(one)).state for one in denied} == {State.QUEUED}


async def test_what_is_denied_is_probed_each_minute_by_one(world: World) -> None:
    await world.queue(4, role_arn="arn:denied")
    calls = []
    began = world.now_us
    while world.now_us - began < 200e6:
        leased = await world.next_lease()
        calls.append(round((world.now_us - began) / 1e6))
        await world.settle(leased, DENIED)
    assert calls == [0, 60, 120, 180, 240]


async def test_while_one_denied_submission_is_tried_again_the_others_wait_for_its_answer(world: World) -> None:
    first, second = await world.queue(2, role_arn="arn:denied")
    await world.attempt(DENIED)
    await world.passes(seconds=60)
    probe = await world.next_lease()
    assert probe.submission.submission_id == first
    await world.passes(seconds=1)
    assert (await world.wait()).reason == "idle"
    await world.passes(seconds=1.5)  # no answer yet: another one is tried
    assert (await world.lease()).submission.submission_id == second


async def test_a_share_whose_last_one_is_put_aside_leaves_the_order(world: World) -> None:
    await world.queue(1, share="a", role_arn="arn:denied")
    await world.queue(2, share="b", role_arn="arn:fine")
    await world.attempt(DENIED)
    assert [(await world.next_lease()).submission.share.name for _ in range(2)] == ["b", "b"]
    assert await world.client.zrange(world.keys.active, 0, -1) == []


async def test_a_share_full_of_denied_roles_takes_turns_with_the_others(world: World) -> None:
    for number in range(20):
        await world.queue(1, share="evil", role_arn=f"arn:denied-{number}")
    await world.queue(3, share="good", role_arn="arn:fine")
    served = []
    while served.count("good") < 3:
        leased = await world.next_lease()
        served.append(leased.submission.share.name)
        await world.settle(leased, DENIED if served[-1] == "evil" else forwarded())
    assert len(served) <= 7


async def test_a_denial_that_is_over_lets_all_go_in_their_order(world: World) -> None:
    ids = await world.queue(4, role_arn="arn:denied")
    await world.attempt(DENIED)
    probe = await world.next_lease()
    assert probe.submission.submission_id == ids[0]
    assert (await world.settle(probe, forwarded())).released == "denied"
    released_at = world.now_us
    rest = [(await world.next_lease()).submission.submission_id for _ in range(3)]
    assert rest == ids[1:]
    assert world.now_us - released_at <= 0.6e6  # at the pace, and no longer one by one


async def test_a_long_line_of_denied_ones_does_not_hold_up_others(world: World) -> None:
    await world.queue(150, role_arn="arn:denied")
    (other,) = await world.queue(1, share="other")
    leased = await world.lease()
    if leased.submission.submission_id == other:
        leased = await world.next_lease()
    await world.settle(leased, DENIED)
    await world.queue(1, share="third")
    assert (await world.next_lease(within_seconds=1)).submission.share.name in {"other", "third"}


async def test_a_lease_looks_at_few_denied_roles_however_many_there_are(world: World) -> None:
    """Callers name roles: a lease that read all of them would let one caller slow the upstream down."""
    await world.queue(1)
    roles = {f"{number:016x}": world.now_us // 1000 for number in range(1000)}
    await world.client.hset(world.keys.denied, mapping=roles)
    await world.client.config_resetstat()
    await world.lease()
    stats = await world.client.info("commandstats")
    assert sum(row["calls"] for name, row in stats.items() if name.startswith("cmdstat_h")) < 10
    assert not {"cmdstat_hgetall", "cmdstat_hkeys", "cmdstat_hvals"} & stats.keys()


async def test_roles_that_nobody_asks_for_any_more_are_forgotten(world: World) -> None:
    await world.client.hset(world.keys.denied, mapping={f"{n:016x}": world.now_us // 1000 for n in range(20)})
    await world.queue(1, role_arn="arn:denied")
    for _ in range(100):
        await world.attempt(DENIED)
    await world.passes(seconds=10)
    assert await world.client.hlen(world.keys.denied) == 1


async def test_a_record_that_is_gone_holds_up_nobody(world: World) -> None:
    """Somebody deleted it by hand; a script that broke on it would break on each call from here on."""
    gone, kept = await world.queue(2)
    (other,) = await world.queue(1, share="other")
    await world.client.delete(world.keys.record(gone))
    assert {(await world.next_lease()).submission.submission_id for _ in range(2)} == {kept, other}
    await world.client.delete(world.keys.record(kept))
    await world.passes(seconds=60)
    assert (await world.next_lease()).submission.submission_id == other


# ---- Shares that send the same mistake


async def test_five_like_rejections_in_a_row_pause_the_share(world: World) -> None:
    await world.queue(7)
    await world.queue(1, share="other")
    paused = []
    for _ in range(6):
        leased = await world.next_lease()
        if leased.submission.share.name == "other":
            await world.settle(leased, forwarded())
            continue
        paused.append((await world.settle(leased, refused())).share_paused)
    assert paused == [False] * 4 + [True]
    (status,) = await world.store.shares()
    assert (status.paused, status.paused_because, status.queued) == (True, "rejections: ClientException", 2)
    await world.store.set_share(VISION, {"paused": None})
    resumed = await world.next_lease()
    assert not (await world.settle(resumed, refused())).share_paused  # a clean sheet


@pytest.mark.parametrize("between", [forwarded(), refused("AnotherException")], ids=["a success", "another mistake"])
async def test_rejections_that_are_not_alike_or_in_a_row_pause_nothing(world: World, between: Report) -> None:
    await world.queue(9)
    for number in range(9):
        report = between if number == 4 else refused()
        assert not (await world.settle(await world.next_lease(), report)).share_paused


async def test_rejections_of_other_shares_do_not_count(world: World) -> None:
    for share in "abcde":
        await world.queue(1, share=share)
    verdicts = Counter([(await world.settle(await world.next_lease(), refused())).share_paused for _ in range(5)])
    assert verdicts == {False: 5}


async def test_calls_under_way_while_a_share_is_paused_settle_as_always(world: World) -> None:
    world = await world.variant(pace=PaceRules(rate=1000, burst=10)).open()
    await world.queue(7)
    leased = [await world.next_lease() for _ in range(7)]
    for one in leased[:5]:
        await world.settle(one, refused())
    await world.settle(leased[5], forwarded())
    await world.settle(leased[6], throttled())
    (status,) = await world.store.shares()
    assert (status.paused, status.queued) == (True, 1)
    assert (await world.wait()).reason in {"idle", "pace"}


async def test_signals_that_hold_are_never_mistaken_for_answers(world: World) -> None:
    await in_outage(world)
    await world.passes(seconds=1)
    settlement = await world.settle(await world.lease(), uncharged("credentials", PaceSignal.CREDENTIALS))
    assert (settlement.outage, settlement.held) == (None, "credentials")
