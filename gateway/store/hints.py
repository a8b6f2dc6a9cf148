"""Hints between processes, over the store's pub/sub: something is ready, something has ended. Never the truth."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from gateway.core.errors import StoreUnavailableError
from gateway.store.connection import is_left_behind, store_errors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redis.asyncio import Redis
    from redis.asyncio.client import PubSub

    from gateway.core.identity import SubmissionId
    from gateway.store.keys import Keys

RECONNECT_SECONDS = 0.5
LISTEN_SECONDS = 1.0


class Hints:
    """Wakeup and SettledHints of one upstream, from one subscribed connection a process."""

    def __init__(self, client: Redis, keys: Keys) -> None:
        self._client: Any = client
        self._keys = keys
        self._ready = asyncio.Event()
        self._watchers: defaultdict[str, set[asyncio.Event]] = defaultdict(set)

    async def run(self, stop: asyncio.Event) -> None:
        """Listen until told to stop; an unreachable store is asked again every half second."""
        while not stop.is_set():
            try:
                with store_errors():
                    await self._listen(stop)
            except StoreUnavailableError:
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), RECONNECT_SECONDS)

    async def wait(self, seconds: float) -> None:
        """Until something may be ready, at most so many seconds."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._ready.wait(), seconds)
        self._ready.clear()

    @contextmanager
    def watching(self, submission_id: SubmissionId) -> Iterator[asyncio.Event]:
        """An event that is set whenever this submission may have left `queued`, and when this process drains."""
        changed = asyncio.Event()
        watchers = self._watchers[submission_id]
        watchers.add(changed)
        try:
            yield changed
        finally:
            watchers.discard(changed)
            if not watchers:
                self._watchers.pop(submission_id, None)

    def release(self) -> None:
        """Let every waiting caller look again."""
        for events in self._watchers.values():
            for event in events:
                event.set()

    async def _listen(self, stop: asyncio.Event) -> None:
        pubsub: PubSub
        async with self._client.pubsub() as pubsub:
            await pubsub.subscribe(self._keys.wake, self._keys.ends)
            self._ready.set()
            self.release()  # what ended while nobody listened is looked up once
            asked_at = time.monotonic()
            while not stop.is_set():
                message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=LISTEN_SECONDS)
                if message is not None:
                    self._pass_on(message["channel"].decode(), message["data"].decode(errors="replace"))
                if time.monotonic() - asked_at >= LISTEN_SECONDS:
                    if await is_left_behind(pubsub.connection):  # a server that hangs is as silent as one without news
                        return
                    asked_at = time.monotonic()

    def _pass_on(self, channel: str, data: str) -> None:
        if channel == self._keys.wake:
            self._ready.set()
            return
        for event in self._watchers.get(data, ()):
            event.set()
