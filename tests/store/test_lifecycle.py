"""Whatever happens to submissions, in whatever order: nothing is lost, doubled, forgotten or miscounted."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from gateway.core.attempt import Leased, PaceSignal, Report, Verdict
from gateway.core.errors import DeadlineUnreachableError
from gateway.core.pace import PaceRules
from gateway.core.ports import Errand, ErrandReport, Wait
from gateway.core.share import Share, ShareLimits
from gateway.core.submission import Failure
from gateway.store.bounds import StoreBounds
from gateway.store.connection import connect
from tests.store.known import DEAD_LETTERS, RETENTION_MS, Known, agrees
from tests.store.world import World, examples

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from gateway.core.identity import SubmissionId
    from tests.servers import StoreServer

SHARES = (Share("training", "a"), Share("training", "b"), Share("other", "a"))
QUEUES = ("training", "other")
NAMESPACES = ("n", "m")
LIMITS = (ShareLimits(), ShareLimits(), ShareLimits(rate=0.5, burst=2, over_limit="delay"))
DEADLINES = (None, None, None, 0.1, 3.0, 61.0, 200.0)  # seconds
LEASE_MS = 60_000
MOST_KNOWN = 45  # what one call of reclaim brings back

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
ERRAND_VERDICTS: dict[str, tuple[Any, ...]] = {
    "look": ("found", "found", "looked", "unknown", "later"),
    "terminate": ("done", "done", "moot", "later"),
    "update": ("done", "done", "moot", "later"),
}


class Lifecycle(RuleBasedStateMachine):
    """All that processes and people do to one upstream.

    A process that crashes is a lease that nobody settles; one that hangs settles it when it is over.
    """

    url: str
    data: st.DataObject

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.client = connect(self.url)
        pace = PaceRules(rate=20, burst=3, poison_returns=3, like_rejections=3, ceiling_ms=20_000)
        bounds = StoreBounds(
            max_attempts=4,
            attempt_window_seconds=120,
            lease_seconds=LEASE_MS / 1000,
            retention_seconds=RETENTION_MS / 1000,
        )
        self.world: World = self.run(World(self.client, pace=pace, bounds=bounds).open())
        self.known: dict[SubmissionId, Known] = {}
        self.forgotten: set[SubmissionId] = set()
        self.indexed: dict[str, dict[SubmissionId, int]] = {namespace: {} for namespace in NAMESPACES}
        self.unswept: dict[str, dict[SubmissionId, int]] = {queue: {} for queue in QUEUES}  # ended, and forgotten
        self.leases: list[Leased] = []
        self.errands: list[Errand] = []
        self.paused: set[Share] = set()
        self.last_number = 0

    def run(self, what: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(what)

    def teardown(self) -> None:
        self.run(self._tidy())
        self.runner.close()

    async def _tidy(self) -> None:
        """Nothing stays that the next example's dumps would have to look through."""
        await self.client.delete(*[name async for name in self.client.scan_iter(match=f"{self.world.prefix}:*")])
        await self.client.aclose()

    @property
    def now(self) -> int:
        return self.world.now_us // 1000

    def unchanged(self, what: Coroutine[Any, Any, Any]) -> Any:
        """What a command answers that must not write."""
        before = self.run(self.world.dump())
        answer = self.run(what)
        assert self.run(self.world.dump()) == before
        return answer

    def draw(self, *values: Any) -> Any:
        return self.data.draw(st.sampled_from(values))

    def one_of(self, *preferred: str) -> tuple[SubmissionId, Known]:
        """One in these states, mostly, where there is one."""
        those = [wanted for wanted, one in self.known.items() if one.state in preferred]
        wanted = self.draw(*those * 3, *self.known)
        return wanted, self.known[wanted]

    @rule(data=st.data())
    def something_happens(self, data: st.DataObject) -> None:
        """Each as often as its weight says, where it has anything to do: left to chance, most would have nothing."""
        self.data = data
        owed = any(one.look or one.owes for one in self.known.values())
        dead = any(one.state in DEAD_LETTERS for one in self.known.values())
        weights = {
            self.admit: 4 * (len(self.known) < MOST_KNOWN),
            self.admit_again: bool(self.known),
            self.lease: 2 * bool(self.known),
            self.lease_and_settle: 5 * bool(self.known),
            self.settle: 4 * bool(self.leases),
            self.reclaim: 1,
            self.cancel: 3 * bool(self.known),
            self.reprioritize: 2 * bool(self.known),
            self.redrive: 2 * dead,
            self.resolve: 2 * dead,
            self.lease_errands: 2 * owed,
            self.lease_and_settle_errands: 4 * owed,
            self.settle_errand: 2 * bool(self.errands),
            self.time_goes_by: 3,
            self.pause: len(self.paused) == 0,
            self.resume: 1 + 2 * len(self.paused),
            self.sweep: 2 * bool(self.forgotten),
        }
        self.draw(*[do for do, weight in weights.items() for _ in range(weight)])()

    # ---- What callers, forwarders and operators do

    def admit(self) -> None:
        share, namespace, limits = self.draw(*SHARES), self.draw(*NAMESPACES), self.draw(*LIMITS)
        priority, seconds, size = self.draw(0, 0, 7), self.draw(*DEADLINES), self.draw(2, 500)
        for _ in range(self.draw(1, 2, 4)):
            token = f"token-{len(self.known) + len(self.forgotten)}"
            deadline = None if seconds is None else self.world.now + timedelta(seconds=seconds)
            asked = self.world.admit(
                token,
                limits,
                share=share.name,
                queue=share.queue,
                priority=priority,
                request=b"x" * size,
                namespace=namespace,
                deadline=deadline,
            )
            before = self.run(self.world.dump())
            try:
                admission = self.run(asked)
            except DeadlineUnreachableError:
                assert limits.over_limit == "delay"
                assert deadline
                assert self.run(self.world.dump()) == before
                return
            assert not admission.known
            wanted = admission.submission.submission_id
            assert wanted not in self.known
            self.known[wanted] = Known(
                token=token,
                share=share,
                namespace=namespace,
                accepted=self.now,
                asked_priority=priority,
                priority=priority,
                deadline=round(deadline.timestamp() * 1000) if deadline else None,
                deadline_ahead=deadline is not None,
            )
            self.indexed[namespace][wanted] = self.now

    def admit_again(self) -> None:
        wanted, one = self.one_of()
        admission = self.unchanged(
            self.world.admit(one.token, share=one.share.name, queue=one.share.queue, namespace=one.namespace)
        )
        assert (admission.known, admission.submission.submission_id) == (True, wanted)
        assert admission.submission.state == one.state

    def reclaim(self) -> None:
        ended = set()
        for wanted, one in self.known.items():
            if one.lease is not None and one.lease_ends <= self.now:
                one.lease = None
            if one.deadline_ahead and one.deadline is not None and one.deadline <= self.now:
                one.deadline_ahead, one.cancel = False, one.cancel or "deadline"
            if one.state == "queued" and one.cancel and one.lease is None:
                if one.sent:
                    one.look = True
                else:
                    one.end(one.early_end, self.now)
                    ended.add(wanted)
        reclaimed = self.run(self.world.store.reclaim())
        assert sorted(one.submission_id for one in reclaimed.expired) == sorted(ended)

    def lease(self) -> None:
        for _ in range(self.draw(1, 4)):
            while isinstance(got := self.run(self.world.store.lease()), Wait) and got.reason in ("due", "aside"):
                self.reclaim()
            if isinstance(got, Wait):
                if got.seconds is None or got.seconds > 5:
                    return
                self.time_passes(got.seconds)
                continue
            one = self.known[got.submission.submission_id]
            assert (one.state, one.lease, one.look, one.cancel) == ("queued", None, False, None)
            assert one.share not in self.paused
            assert got.number > self.last_number
            assert got.maybe_sent == one.sent
            self.last_number = one.lease = got.number
            one.before, one.sent = one.sent, True
            one.lease_ends = self.now + LEASE_MS
            self.leases.append(got)

    def lease_and_settle(self) -> None:
        before = len(self.leases)
        self.lease()
        for leased in self.leases[before:]:
            self._settle(leased)

    def settle(self) -> None:
        """Now or much too late, once or again: an answer may come whenever it likes."""
        self._settle(self.draw(*self.leases[-4:], *self.leases))

    def _settle(self, leased: Leased) -> None:
        report: Report = self.data.draw(reports)
        wanted = leased.submission.submission_id
        if report.verdict in (Verdict.REJECT, Verdict.RECONCILE):  # as core/attempt.py tells them apart
            refusal = Verdict.RECONCILE if leased.maybe_sent else Verdict.REJECT
            report = replace(report, verdict=refusal, proved_none=True)
        if report.verdict is Verdict.FORWARDED:
            report = replace(report, job_id=f"job-{wanted}", job_arn="arn", failure=None)
        settle = self.world.store.settle(leased, report)
        if wanted in self.forgotten:
            assert self.unchanged(settle).verdict == "gone"
            return
        one = self.known[wanted]
        if one.job_id if report.verdict is Verdict.FORWARDED else one.lease != leased.number:
            assert self.unchanged(settle).verdict == "stale"
            return
        if one.state == "queued" and one.deadline is not None and one.deadline <= self.now:
            one.cancel = one.cancel or "deadline"  # it came during the call
        settlement = self.run(settle)
        assert settlement.verdict == ("settled" if one.state == "queued" else "late")
        if settlement.share_paused:
            self.paused.add(one.share)
        self._follow(one, report, str(settlement.submission.state), charged=settlement.charged)
        assert settlement.submission.state == one.state

    def _follow(self, one: Known, report: Report, state: str, *, charged: bool) -> None:
        """What a report makes of a submission; `state` is what the store made, for what its bounds decide."""
        if report.verdict is Verdict.FORWARDED:
            one.get_job(report.job_id or "", self.now)
            return
        if report.proved_none:
            one.sent = one.before
        one.lease = None
        match report.verdict:
            case Verdict.RECONCILE:
                one.look = True
            case Verdict.REJECT:
                one.end(one.early_end if one.cancel else "rejected", self.now)
            case _ if one.cancel and one.sent:
                one.look = True
            case _ if one.cancel:
                one.end(one.early_end, self.now)
            case Verdict.UNKNOWN:
                one.end("unknown", self.now)
            case Verdict.RETRY if state != "queued":
                assert charged
                one.end("unknown" if one.sent else "rejected", self.now)

    def cancel(self) -> None:
        wanted, one = self.one_of("queued", "forwarded")
        cancel = self.world.changes.cancel(wanted, "why")
        if one.state == "canceled" or (one.state == "forwarded" and one.terminated):
            assert self.unchanged(cancel).verdict == "done"
        elif one.state not in ("queued", "forwarded"):
            assert self.unchanged(cancel).verdict == "final"
        elif one.cancel and (one.state == "queued" or one.terminate):
            assert self.unchanged(cancel).verdict == "pending"
        else:
            one.cancel = "caller"
            if one.state == "queued" and one.lease is None and not one.sent:
                one.end("canceled", self.now)
                assert self.run(cancel).verdict == "canceled"
                return
            if one.state == "forwarded":
                one.terminate = True
                one.end("forwarded", self.now)
            elif one.lease is None:
                one.look = True
            assert self.run(cancel).verdict == "requested"

    def reprioritize(self) -> None:
        wanted, one = self.one_of("queued", "forwarded")
        priority = self.draw(0, 7, 9)
        change = self.world.changes.reprioritize(wanted, priority)
        if one.state not in ("queued", "forwarded") or one.cancel:
            assert self.unchanged(change).verdict == "final"
            return
        one.priority = priority
        if one.state == "forwarded":
            one.update = True
            one.end("forwarded", self.now)
        assert self.run(change).verdict == ("owed" if one.state == "forwarded" else "placed")

    def redrive(self) -> None:
        wanted, one = self.one_of("rejected")
        redrive = self.world.changes.redrive(wanted)
        if one.state != "rejected" or one.sent or not one.is_dead_letter:
            assert self.unchanged(redrive).verdict == "refused"
            return
        assert self.run(redrive).verdict == "queued"
        one.state = "queued"
        one.deadline_ahead = one.deadline is not None and one.deadline > self.now

    def resolve(self) -> None:
        wanted, one = self.one_of("unknown", "rejected")
        job_id = self.draw(None, self._job(wanted))
        close = job_id is None and self.draw(*[False] * 3, True)
        resolve = self.world.changes.resolve(wanted, job_id, "arn", close=close)
        rejected = one.is_dead_letter and one.state == "rejected"
        if (job_id and one.job_id == job_id) or (close and one.closed) or (rejected and not job_id and not close):
            assert self.unchanged(resolve).verdict == "same"
        elif not one.is_dead_letter or rejected != close:
            assert self.unchanged(resolve).verdict == "refused"
        elif job_id and job_id != f"job-{wanted}":
            change = self.unchanged(resolve)
            assert (change.verdict, f"job-{change.owner}") == ("owned", job_id)
        else:
            assert self.run(resolve).verdict == "resolved"
            one.sent = False
            if job_id:
                one.get_job(job_id, self.now)
                return
            one.closed = close
            one.end(one.early_end if one.cancel and not one.closed else "rejected", self.now)

    def _job(self, wanted: SubmissionId) -> str:
        """Its own job, or another submission's, where there is one."""
        others = [one.job_id for other, one in self.known.items() if one.job_id and other != wanted]
        return str(self.draw(*[f"job-{wanted}"] * 3, *others[:1]))

    def lease_errands(self) -> None:
        for _ in range(self.draw(1, 4)):
            got = self.run(self.world.errands.lease())
            if isinstance(got, Wait):
                if got.seconds is None or got.seconds > 5:
                    assert got.seconds is not None or not any(one.look or one.owes for one in self.known.values())
                    return
                self.time_passes(got.seconds)
                continue
            one = self.known[got.submission.submission_id]
            assert got.kind == ("look" if one.look else "terminate" if one.terminate else "update")
            assert one.look or one.owes
            assert got.number > self.last_number
            self.last_number = one.errand = got.number
            self.errands.append(got)

    def lease_and_settle_errands(self) -> None:
        before = len(self.errands)
        self.lease_errands()
        for errand in self.errands[before:]:
            self._settle_errand(errand)

    def settle_errand(self) -> None:
        self._settle_errand(self.draw(*self.errands[-3:], *self.errands))

    def _settle_errand(self, errand: Errand) -> None:
        wanted = errand.submission.submission_id
        verdict = self.draw(*ERRAND_VERDICTS[errand.kind])
        report = ErrandReport(
            verdict=verdict,
            delay_seconds=self.draw(0.0, 1.0, 25.0) if verdict in ("looked", "later") else 0.0,
            job_id=self._job(wanted) if verdict == "found" else None,
            job_arn="arn" if verdict == "found" else None,
        )
        settle = self.world.errands.settle(errand, report)
        if wanted in self.forgotten:
            assert self.unchanged(settle).verdict == "gone"
            return
        one = self.known[wanted]
        if one.errand != errand.number:
            assert self.unchanged(settle).verdict == "stale"
            return
        if report.job_id and report.job_id != f"job-{wanted}":
            assert self.unchanged(settle).verdict == "owned"
            return
        assert self.run(settle).verdict == "settled"
        one.errand = None
        if report.job_id:
            one.get_job(report.job_id, self.now)
        elif verdict == "unknown":
            one.end("unknown", self.now)
        elif verdict in ("done", "moot"):
            one.terminated = one.terminated or (one.terminate and verdict == "done")
            one.moot = one.moot or (one.terminate and verdict == "moot")
            one.terminate = one.update = False
            one.end(one.state, self.now)

    def time_goes_by(self) -> None:
        self.time_passes(self.draw(0.05, 0.2, 1.0, 5.0, 61.0, 600.0, 1200.0))

    def time_passes(self, seconds: float) -> None:
        self.run(self.world.passes(seconds=seconds))
        # The server's own clock stands still beside this one: what it would forget goes here.
        for wanted in [wanted for wanted, one in self.known.items() if one.expires and one.expires <= self.now]:
            assert self.run(self.client.delete(self.world.keys.record(wanted))) == 1
            self.forgotten.add(wanted)
            one = self.known.pop(wanted)
            if one.is_listed:
                self.unswept[one.share.queue][wanted] = one.accepted

    def sweep(self) -> None:
        kind, passed_over = self.draw("index", "ended"), self.draw(0, 0, 0, 2)
        whose = self.draw(*(NAMESPACES if kind == "index" else QUEUES))
        entries = self.indexed[whose] if kind == "index" else self.ended(whose)
        before = self.now - RETENTION_MS
        old = sorted((at, wanted) for wanted, at in entries.items() if at <= before)[passed_over:]
        gone = [wanted for _, wanted in old if wanted in self.forgotten]
        told = self.run(self.world.index.sweep(f"{kind}:{whose}", accepted_before_ms=before, passed_over=passed_over))
        assert told == (len(old), len(gone))
        left = self.indexed[whose] if kind == "index" else self.unswept[whose]
        for wanted in gone:
            del left[wanted]

    def ended(self, queue: str) -> dict[SubmissionId, int]:
        """What ended in the gateway, without a job, and when it was accepted."""
        listed = {wanted: one for wanted, one in self.known.items() if one.is_listed and one.share.queue == queue}
        return self.unswept[queue] | {wanted: one.accepted for wanted, one in listed.items()}

    def pause(self) -> None:
        share = self.draw(*SHARES)
        assert self.run(self.world.store.set_share(share, {"paused": "1"})).paused
        self.paused.add(share)

    def resume(self) -> None:
        share, weight = self.draw(*SHARES), self.draw(None, "0.1", "3")
        assert not self.run(self.world.store.set_share(share, {"paused": None, "weight": weight})).paused
        self.paused.discard(share)

    # ---- What must be so at any moment

    @invariant()
    def nothing_is_lost_doubled_forgotten_or_miscounted(self) -> None:
        self.run(self.check())

    async def check(self) -> None:
        keys = self.world.keys
        zsets = [keys.delayed, keys.leased, keys.errands, keys.deadlines, keys.active, keys.backlog]
        zsets += [keys.index(namespace) for namespace in NAMESPACES] + [keys.ended(queue) for queue in QUEUES]
        async with self.client.pipeline(transaction=True) as pipe:
            for share in SHARES:
                pipe.zrange(keys.ready(share), 0, -1, withscores=True)
            for name in zsets:
                pipe.zrange(name, 0, -1, withscores=True)
            pipe.smembers(keys.namespaces)
            pipe.smembers(keys.endings)
            pipe.hgetall(keys.queues)
            pipe.hmget(keys.upstream, "queued", "bytes")
            for share in SHARES:
                pipe.pttl(keys.share(share))
            for wanted, one in self.known.items():
                pipe.pttl(keys.record(wanted))
                pipe.get(keys.record(wanted))
                pipe.get(keys.job(one.job_id or "-"))
            answers = await pipe.execute()
        ready = {share: _named(answers.pop(0)) for share in SHARES}
        delayed, leased, errands, deadlines, active, backlog = (_named(answers.pop(0)) for _ in range(6))
        indexes = {namespace: _named(answers.pop(0)) for namespace in NAMESPACES}
        ended = {queue: _named(answers.pop(0)) for queue in QUEUES}
        namespaces, endings, queues, (queued, size) = (answers.pop(0) for _ in range(4))
        share_expiry = {share: answers.pop(0) for share in SHARES}

        waiting = {wanted: one for wanted, one in self.known.items() if one.state == "queued"}
        looked_for = [wanted for wanted in errands if wanted in waiting]
        places = Counter([*delayed, *leased, *looked_for, *(wanted for line in ready.values() for wanted in line)])
        assert dict(places) == dict.fromkeys(waiting, 1)
        assert set(leased) == {wanted for wanted, one in waiting.items() if one.lease is not None}
        assert set(errands) == {wanted for wanted, one in self.known.items() if one.look or one.owes}
        assert deadlines == {wanted: one.deadline for wanted, one in waiting.items() if one.deadline_ahead}
        by_share = Counter(str(one.share) for one in waiting.values())
        assert backlog == by_share
        by_queue = Counter(share.split("/")[0] for share in by_share)
        assert {name.decode(): int(number) for name, number in queues.items()} == by_queue
        assert set(active) == {str(share) for share, line in ready.items() if line and share not in self.paused}
        for share, expiry in share_expiry.items():
            assert expiry <= 0 or str(share) not in by_share
        assert indexes == self.indexed
        assert {name.decode() for name in namespaces} == {name for name, index in indexes.items() if index}
        assert ended == {queue: self.ended(queue) for queue in QUEUES}
        assert {name.decode() for name in endings} == {queue for queue, entries in ended.items() if entries}

        sizes = 0
        for (wanted, one), row in zip(self.known.items(), _triples(answers), strict=True):
            record = agrees(wanted, one, *row)
            if one.state == "queued":
                sizes += record["size"]
                assert wanted not in ready[one.share] or ready[one.share][wanted] == record["place"]
        assert (int(queued or 0), int(size or 0)) == (len(waiting), sizes)


def _named(rows: list[tuple[bytes, float]]) -> dict[Any, float]:
    return {name.decode(): score for name, score in rows}


def _triples(answers: list[Any]) -> list[tuple[Any, Any, Any]]:
    return list(zip(answers[::3], answers[1::3], answers[2::3], strict=True))


async def _emptied(url: str) -> None:
    async with connect(url) as client:
        await client.flushdb()


@pytest.mark.timeout(600)  # only a counterexample takes so long: to be made small
def test_every_submission_is_in_exactly_one_place_and_counted_there(any_store: StoreServer) -> None:
    asyncio.run(_emptied(any_store.url))  # a dump looks through every key that other tests have left behind
    machine = type("Machine", (Lifecycle,), {"url": any_store.url})
    run_state_machine_as_test(machine, settings=examples(40, steps=50))
