"""What the audit reads of the store: whatever stands there, by whomever, is a fact and no error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgpack
from redis.exceptions import ResponseError

from gateway.core.submission import State
from gateway.store.records import unpack

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping, Sequence

    from gateway.core.identity import SubmissionId

_OF_ANOTHER_TYPE = "WRONGTYPE"  # how the server's answer begins; redis-py has no class for it


@dataclass(frozen=True, slots=True)
class Facts:
    """A submission and where it stands, as lua/audit.lua answers; a score is None where it does not stand.

    `record` is what changes of it, None where that cannot be read; `namespace` is None where all else cannot.
    """

    record: dict[str, Any] | None
    namespace: str | None
    head_length: int
    length: int
    pttl: int
    met: float | None
    delayed: float | None
    leased: float | None
    errands: float | None
    deadlines: float | None
    ready: float | None
    held: float | None
    waiting: float | None
    ended: float | None
    job_of_alias: bytes | None
    owner_of_job: bytes | None

    @classmethod
    def of(cls, wanted: SubmissionId, row: Sequence[Any]) -> Facts:
        head, length, pttl, *scores, job_of_alias, owner_of_job = row
        record = _changing(head or b"")
        values: list[Any] = [
            record,
            _namespace(wanted, head or b"", record),
            len(head or b""),
            length,
            pttl,
            *(float(score) if score else None for score in scores),
            job_of_alias or None,
            owner_of_job or None,
        ]
        return cls(*values)

    def standing(self, *names: str) -> list[str]:
        return [name for name in names if getattr(self, name) is not None]

    @property
    def listed(self) -> tuple[str, float] | None:
        """In the index of which namespace it must be, and with which time in ms; None where that cannot be known."""
        return None if self.record is None or self.namespace is None else (self.namespace, float(self.record["at"]))

    @property
    def queued_bytes(self) -> int | None:
        """What a queued one counts in the upstream's bytes; None for any other."""
        queued = self.record is not None and self.namespace is not None and self.record["state"] == State.QUEUED
        return int(self.record["size"]) if self.record is not None and queued else None


def since(kept: bytes | None, settings: list[int]) -> int | None:
    """Since when these have been the settings, in ms of the store's time; None where `kept` says nothing of them."""
    try:
        *before, since_ms = msgpack.unpackb(kept or b"")
    except Exception:  # noqa: BLE001 - whatever is wrong with it
        return None
    return since_ms if before == settings and isinstance(since_ms, int) else None


async def read(asked: Awaitable[Any], *, otherwise: Any) -> Any:
    """What a command answers; `otherwise` where its key holds something of another type. Raises redis-py's errors."""
    try:
        return await asked
    except ResponseError as error:
        return answered(error, otherwise=otherwise)


def answered(answer: Any, *, otherwise: Any) -> Any:
    """As `read`, of a pipeline's answer, which may be an error."""
    if isinstance(answer, ResponseError) and str(answer).startswith(_OF_ANOTHER_TYPE):
        return otherwise
    if isinstance(answer, Exception):
        raise answer
    return answer


def readable(text: bytes) -> str:
    """For people, whatever it is; a name of ours is UTF-8."""
    return text.decode(errors="backslashreplace")


def text_in(name: bytes) -> str | None:
    """None where it is no UTF-8: no name of ours."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        return None


def number_in(counter: bytes | None) -> int | None:
    """0 for a counter that is not there, None for one that is no number."""
    try:
        return int(counter or 0)
    except ValueError:
        return None


def _changing(head: bytes) -> dict[str, Any] | None:
    try:
        # No longer than what there is: else a length in its first bytes asks for gigabytes.
        unpacker = msgpack.Unpacker(raw=False, strict_map_key=False, max_buffer_size=max(1, len(head)))
        unpacker.feed(head)
        record = unpacker.unpack()
    except Exception:  # noqa: BLE001 - whatever is wrong with it
        return None
    return record if isinstance(record, dict) else None


def _namespace(wanted: SubmissionId, head: bytes, record: Mapping[str, Any] | None) -> str | None:
    """Whose it is; None where its record is unreadable to everybody."""
    if record is None or not isinstance(record.get("size"), int):
        return None
    try:
        return unpack(wanted, head).namespace
    except Exception:  # noqa: BLE001 - whatever is wrong with it
        return None
