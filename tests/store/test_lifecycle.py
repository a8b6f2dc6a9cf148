"""Whatever happens to submissions, in whatever order: nothing is lost, doubled or miscounted."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from gateway.core.attempt import Leased, PaceSignal, Report, Verdict
from gateway.core.pace import PaceRules
from gateway.core.ports import Wait
from gateway.core.share import Share
from gateway.core.submission import Failure
from gateway.store.bounds import StoreBounds
from gateway.store.connection import connect
from tests.store.world import World, examples

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from gateway.core.identity import SubmissionId
    from tests.servers import StoreServer

SHARES = (Share("training", "a"), Share("training", "b"), Share("other", "a"))
FINAL = {"forwarded", "rejected", "unknown"}

reports = st.builds(
    Report,
    verdict=st.sampled_from([*Verdict, Verdict.RETRY, Verdict.RETRY, Verdict.FORWARDED]),
    outcome=st.just("outcome"),
    charged=st.booleans(),
    proved_none=st.booleans(),
    delay_seconds=st.sampled_from([0.0, 0.0, 0.5, 30.0]),
    signal=st.sampled_from([*PaceSignal, *[PaceSignal.ANSWERED] * 5]),
    wait_seconds=st.sampled_from([0.0, 0.0, 3.0]),
    failure=st.sampled_from([None, Failure(code="One", message="1"), Failure(code="Two", message="2")]),
)


@dataclass
class Known:
    """What the test knows of a submission that was accepted."""

    token: str
    share: Share
    state: str = "queued"
    lease: int | None = None  # the number of the last one handed out
    maybe_sent: bool = False
    before: bool = False  # as it was when the last lease was taken
    job_id: str | None = None


class Lifecycle(RuleBasedStateMachine):
    """Admit, lease, settle, pause, wait: all that processes and people do to one upstream.

    A process that crashes is a lease that nobody settles; one that hangs settles it when it is over.
    """

    url: str

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.client = connect(self.url)
        pace = PaceRules(rate=20, burst=3, poison_returns=3, like_rejections=3, ceiling_ms=20_000)
        bounds = StoreBounds(max_attempts=4, attempt_window_seconds=120, lease_seconds=60)
        self.world: World = self.run(World(self.client, pace=pace, bounds=bounds).open())
        self.known: dict[SubmissionId, Known] = {}
        self.leases: list[Leased] = []
        self.paused: set[Share] = set()
        self.last_number = 0

    def run(self, what: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(what)

    def teardown(self) -> None:
        self.run(self.client.aclose())
        self.runner.close()

    # ---- What callers, forwarders and operators do

    @rule(
        share=st.sampled_from(SHARES),
        priority=st.sampled_from([0, 0, 7]),
        size=st.sampled_from([2, 500]),
        number=st.integers(1, 4),
    )
    def admit(self, share: Share, priority: int, size: int, number: int) -> None:
        for _ in range(number):
            token = f"token-{len(self.known)}"
            admission = self.run(
                self.world.admit(token, share=share.name, queue=share.queue, priority=priority, request=b"x" * size)
            )
            assert not admission.known
            assert admission.submission.submission_id not in self.known
            self.known[admission.submission.submission_id] = Known(token, share)

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def admit_again(self, data: st.DataObject) -> None:
        wanted = data.draw(st.sampled_from(list(self.known)))
        one = self.known[wanted]
        before = self.run(self.world.dump())
        admission = self.run(self.world.admit(one.token, share=one.share.name, queue=one.share.queue))
        assert (admission.known, admission.submission.submission_id) == (True, wanted)
        assert admission.submission.state == one.state
        assert self.run(self.world.dump()) == before

    @precondition(lambda self: self.known)
    @rule(number=st.integers(1, 4))
    def lease(self, number: int) -> None:
        for _ in range(number):
            got = self.run(self.world.try_lease())
            if isinstance(got, Wait):
                if got.seconds is None or got.seconds > 5:
                    return
                self.run(self.world.passes(seconds=got.seconds))
                continue
            one = self.known[got.submission.submission_id]
            assert one.state == "queued"
            assert one.share not in self.paused
            assert got.number > self.last_number
            assert got.maybe_sent == one.maybe_sent
            self.last_number = one.lease = got.number
            one.before, one.maybe_sent = one.maybe_sent, True
            self.leases.append(got)

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), report=reports)
    def settle_the_latest(self, data: st.DataObject, report: Report) -> None:
        self._settle(data.draw(st.sampled_from(self.leases[-4:])), report)

    @precondition(lambda self: self.known)
    @rule(report=reports)
    def lease_and_settle(self, report: Report) -> None:
        before = len(self.leases)
        self.lease(number=3)
        for leased in self.leases[before:]:
            self._settle(leased, report)

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), report=reports)
    def settle_any(self, data: st.DataObject, report: Report) -> None:
        """Now or much too late, once or again: an answer may come whenever it likes."""
        self._settle(data.draw(st.sampled_from(self.leases)), report)

    def _settle(self, leased: Leased, report: Report) -> None:
        wanted = leased.submission.submission_id
        one = self.known[wanted]
        if report.verdict is Verdict.FORWARDED:
            report = replace(report, job_id=f"job-{wanted}", job_arn="arn", failure=None)
        held = self.run(self.world.client.zscore(self.world.keys.leased, wanted)) is not None
        current = one.state == "queued" and held and one.lease == leased.number
        before = self.run(self.world.dump())
        settlement = self.run(self.world.store.settle(leased, report))
        if (report.verdict is Verdict.FORWARDED and one.state == "forwarded") or (
            report.verdict is not Verdict.FORWARDED and not current
        ):
            assert settlement.verdict == "stale"
            assert self.run(self.world.dump()) == before
            return
        assert settlement.verdict == ("settled" if one.state == "queued" else "late")
        if report.verdict is not Verdict.FORWARDED and report.proved_none:
            one.maybe_sent = one.before
        if settlement.share_paused:
            self.paused.add(one.share)
        one.state = str(settlement.submission.state)
        if report.verdict is Verdict.FORWARDED:
            one.job_id = report.job_id
            assert one.state == "forwarded"
        elif report.verdict is Verdict.RETRY:
            assert one.state == "queued" or settlement.charged
            assert one.state == "queued" or (one.state == "unknown") == one.maybe_sent
        else:
            assert one.state == {"reject": "rejected", "unknown": "unknown"}[report.verdict]

    @rule(seconds=st.sampled_from([0.05, 0.2, 1.0, 5.0, 61.0, 600.0]))
    def time_passes(self, seconds: float) -> None:
        self.run(self.world.passes(seconds=seconds))

    @rule(share=st.sampled_from(SHARES))
    def pause(self, share: Share) -> None:
        assert self.run(self.world.store.set_share(share, {"paused": "1"})).paused
        self.paused.add(share)

    @rule(share=st.sampled_from(SHARES), weight=st.sampled_from([None, "0.1", "3"]))
    def resume(self, share: Share, weight: str | None) -> None:
        assert not self.run(self.world.store.set_share(share, {"paused": None, "weight": weight})).paused
        self.paused.discard(share)

    # ---- What must be so at any moment

    @invariant()
    def nothing_is_lost_doubled_or_miscounted(self) -> None:
        self.run(self.check())

    async def check(self) -> None:
        keys = self.world.keys
        async with self.client.pipeline(transaction=True) as pipe:
            for share in SHARES:
                pipe.zrange(keys.ready(share), 0, -1, withscores=True)
            for name in (keys.delayed, keys.leased, keys.active, keys.backlog):
                pipe.zrange(name, 0, -1, withscores=True)
            pipe.hgetall(keys.queues)
            pipe.hmget(keys.upstream, "queued", "bytes")
            for share in SHARES:
                pipe.pttl(keys.share(share))
            for wanted in self.known:
                pipe.pttl(keys.record(wanted))
            answers = await pipe.execute()
        ready = {share: _named(answers.pop(0)) for share in SHARES}
        delayed, leased, active, backlog = (_named(answers.pop(0)) for _ in range(4))
        queues, (queued, size) = answers.pop(0), answers.pop(0)
        share_expiry = {share: answers.pop(0) for share in SHARES}
        places = Counter([*delayed, *leased, *(wanted for line in ready.values() for wanted in line)])
        waiting = {wanted: one for wanted, one in self.known.items() if one.state == "queued"}

        assert dict(places) == dict.fromkeys(waiting, 1)
        by_share = Counter(str(one.share) for one in waiting.values())
        assert backlog == by_share
        by_queue = Counter(share.split("/")[0] for share in by_share)
        assert {name.decode(): int(number) for name, number in queues.items()} == by_queue
        assert set(active) == {str(share) for share, line in ready.items() if line and share not in self.paused}
        for share, expiry in share_expiry.items():
            assert expiry <= 0 or str(share) not in by_share

        sizes = 0
        for (wanted, one), expiry in zip(self.known.items(), answers, strict=True):
            record = await self.world.record(wanted)
            submission = await self.world.store.get(wanted)
            assert record["state"] == one.state
            assert (record.get("lease") is not None) == (wanted in leased) or one.state in FINAL
            assert bool(record.get("sent")) == one.maybe_sent or one.state == "forwarded"
            assert submission.job_id == one.job_id
            if one.state == "queued":
                sizes += record["size"]
                assert expiry == -1
                assert submission.request
                assert wanted not in ready[one.share] or ready[one.share][wanted] == record["place"]
            elif one.state == "forwarded":
                assert expiry > 0
                assert submission.request == b""
                assert await self.client.get(keys.job(one.job_id)) == wanted.encode()
            else:
                assert expiry == -1
                assert submission.request
        assert (int(queued or 0), int(size or 0)) == (len(waiting), sizes)


def _named(rows: list[tuple[bytes, float]]) -> dict[Any, float]:
    return {name.decode(): score for name, score in rows}


@pytest.mark.timeout(600)  # only a counterexample takes so long: to be made small
def test_every_submission_is_in_exactly_one_place_and_counted_there(any_store: StoreServer) -> None:
    machine = type("Machine", (Lifecycle,), {"url": any_store.url})
    run_state_machine_as_test(machine, settings=examples(40, steps=50))
