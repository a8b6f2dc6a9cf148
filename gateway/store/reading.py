"""Submissions as they stand, read in two round trips however many they are."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from gateway.core.submission import State
from gateway.store.records import head_length, standing, unpack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.core.identity import SubmissionId
    from gateway.core.submission import Submission
    from gateway.store.keys import Keys


# Few records are longer before their request begins; requests have up to 30 KiB, and lists have no need of them.
HEAD_BYTES = 4096


async def read(
    client: Any, keys: Keys, wanted: Sequence[SubmissionId], *, requests: bool = True
) -> list[Submission | None]:
    """In the order of `wanted`, None where there is none; with their requests or without. Raises redis-py's errors."""
    if not wanted:
        return []
    names = [keys.record(one) for one in wanted]
    values = await client.mget(names) if requests else await _heads(client, names)
    found = {one: unpack(one, value) for one, value in zip(wanted, values, strict=True) if value}
    standings = {
        one: standing(value)
        for one, value in zip(wanted, values, strict=True)
        if one in found and found[one].state is State.QUEUED
    }
    if standings:
        async with client.pipeline(transaction=False) as pipe:
            for one, (place, _) in standings.items():
                # how many of its share stand ready before its place, also while it waits elsewhere for its next try;
                # and how many wait for the share's rate before it
                pipe.zcount(keys.ready(found[one].share), "-inf", f"({place}")
                pipe.zscore(keys.delayed, one)
                pipe.zrank(keys.held(found[one].share), one)
            answers = await pipe.execute()
        for (one, (_, with_batch)), before, due_ms, held in zip(
            standings.items(), answers[::3], answers[1::3], answers[2::3], strict=True
        ):
            found[one] = replace(
                found[one],
                position=0 if with_batch else int(before) + int(held or 0) + 1,
                not_before=datetime.fromtimestamp(due_ms / 1000, UTC) if due_ms else None,
            )
    return [found.get(one) for one in wanted]


async def _heads(client: Any, names: Sequence[str]) -> list[bytes]:
    """Each record up to its request; empty where there is none."""
    async with client.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.getrange(name, 0, HEAD_BYTES - 1)
        heads: list[bytes] = await pipe.execute()
    for number, head in enumerate(heads):
        end = head_length(head) if head else 0
        if end is None:
            whole = await client.get(names[number]) or b""
            end = head_length(whole) if whole else 0
            heads[number] = whole
        heads[number] = heads[number][:end]
    return heads
