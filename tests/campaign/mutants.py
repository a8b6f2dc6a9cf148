"""Bugs that would lose or double submissions, put in one at a time: `make mutants` shows that a campaign finds each."""

from __future__ import annotations

from dataclasses import dataclass

from tests.campaign.package import Edit


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """A bug, and the campaign that is likely to meet it: the seeds are tried from `seed` on."""

    name: str
    edits: tuple[Edit, ...]
    seed: int
    faults: tuple[str, ...]
    repeats: str
    store: str = "standalone"


_CALL = "        report = verdict_on(await self._batch.submit(leased.submission.request), leased, self._chance)\n"
_SPLIT = "        parts = [group[start : start + MOST_A_SCRIPT] for start in range(0, len(group), MOST_A_SCRIPT)]\n"

MUTANTS = (
    Mutant(
        name="no fencing",
        edits=(
            Edit(
                "store/lua/settle.lua",
                "local current = queued and record.lease == number",
                "local current = queued",
            ),
        ),
        seed=1,
        faults=("stop_gateway", "slow", "lost_answer", "lost_answer_hang", "throttle"),
        repeats="reject",
    ),
    Mutant(
        name="settle before the answer",
        edits=(
            Edit(
                "core/forwarder.py",
                _CALL,
                "        early = Report(verdict=Verdict.FORWARDED, outcome='submitted', job_id='-')\n"
                "        await self._settle(leased, early)\n" + _CALL,
            ),
        ),
        seed=1,
        faults=("drop", "error_500", "kill_gateway"),
        repeats="reject",
    ),
    Mutant(
        name="new token on retry",
        edits=(
            Edit(
                "core/forwarder.py",
                _CALL,
                '        head, mark, token = leased.submission.request.partition(b\'"clientToken": "\')\n'
                "        request = head + mark + b'%d' % leased.tries + token[1:]\n"
                "        report = verdict_on(await self._batch.submit(request), leased, self._chance)\n",
            ),
        ),
        seed=1,
        faults=("lost_answer", "late_listing", "errands_fail"),
        repeats="reject",
    ),
    Mutant(
        name="expired lease taken as unsent",
        edits=(
            Edit(
                "store/lua/reclaim.lua",
                "record.lease, record.before, record.cost = nil, nil, nil",
                "record.sent = record.before\n      record.lease, record.before, record.cost = nil, nil, nil",
            ),
        ),
        seed=1,
        faults=("kill_gateway", "slow", "lost_answer_hang"),
        repeats="forgotten",
    ),
    Mutant(
        name="admit in two steps",
        edits=(
            Edit(
                "store/admission.py",
                _SPLIT,
                f"{_SPLIT}"
                "        ids = [new.submission_id for new, _, _ in group]\n"
                "        known = dict(zip(ids, await read(self._client, self._keys, ids), strict=True))\n"
                "        if any(known.values()):\n"
                "            fresh = [one for one in group if not known[one[0].submission_id]]\n"
                "            taken = iter(await self(fresh)) if fresh else iter(())\n"
                "            return [\n"
                "                Admission(submission=found, known=True) if found else next(taken)\n"
                "                for found in (known[one[0].submission_id] for one in group)\n"
                "            ]\n",
            ),
            Edit("store/lua/admit.lua", "  if known then\n", "  if false then\n"),
        ),
        seed=1,
        faults=("kill_gateway",),
        repeats="replay",
    ),
    Mutant(
        name="lease not durable",
        edits=(Edit("core/forwarder.py", "            await self._store.confirm(leased)\n", "            pass\n"),),
        seed=1,
        faults=("lose_unreplicated",),
        repeats="forgotten",
        store="sentinel",
    ),
    Mutant(
        name="late 200 thrown away",
        edits=(
            Edit(
                "store/lua/settle.lua",
                "  if record.job_id then\n    return { 'stale', value }",
                "  if record.job_id or not current then\n    return { 'stale', value }",
            ),
        ),
        seed=6,
        faults=("stop_store", "stop_gateway", "slow", "late_listing", "stop_gateway", "stop_store"),
        repeats="reject",
    ),
)
