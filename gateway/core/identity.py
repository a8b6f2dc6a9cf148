"""Who a submission is: one id, one token and one fingerprint, computed alike by every replica.

The README gives test vectors, so that a caller can compute its submissionId before it sends anything.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, NewType
from uuid import UUID

import rfc8785

if TYPE_CHECKING:
    from collections.abc import Mapping

SubmissionId = NewType("SubmissionId", str)
ClientToken = NewType("ClientToken", str)

# Eight bytes tell two values of one member apart; only the fingerprint decides whether requests are the same.
MEMBER_DIGEST_BYTES = 8
_MAX_INTEGER = 2**53 - 1
_PLAIN_JSON = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"))
# A submissionId begins with its upstream's tag: 16 bits as hex digits.
TAG_CHARACTERS = 4


def _digest(*parts: str) -> bytes:
    """SHA-256 over the parts as UTF-8, each behind its length in four big-endian bytes: none runs into another."""
    hasher = hashlib.sha256()
    for part in parts:
        encoded = part.encode()
        hasher.update(len(encoded).to_bytes(4, "big"))
        hasher.update(encoded)
    return hasher.digest()


@lru_cache(maxsize=4)  # the id and Batch's token are asked for one after the other
def _named(namespace: str, account: str, region: str, token: str) -> bytes:
    return _digest(namespace, account, region, token)


@cache
def upstream_tag(account: str, region: str) -> str:
    """The first 16 bits of every submissionId of this upstream, as four hex digits."""
    return _digest(account, region)[:2].hex()


def submission_id(*, namespace: str, account: str, region: str, token: str) -> SubmissionId:
    """A UUID of version 8: 16 bits of the upstream, then bits of the digest over who asked and by which token."""
    raw = bytearray(bytes.fromhex(upstream_tag(account, region)) + _named(namespace, account, region, token)[:14])
    raw[6] = raw[6] & 0x0F | 0x80  # version 8 (RFC 9562, section 5.8)
    raw[8] = raw[8] & 0x3F | 0x80  # the RFC's variant
    return SubmissionId(str(UUID(bytes=bytes(raw))))


def batch_token(*, namespace: str, account: str, region: str, token: str) -> str:
    """The clientToken that Batch sees: 64 hex digits, the most that it takes. Namespaces cannot collide in it."""
    return _named(namespace, account, region, token).hex()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """SHA-256 of what was asked, and a short digest a member: they name what differs without keeping values."""

    total: bytes
    members: Mapping[str, bytes]

    def differing(self, other: Fingerprint) -> list[str]:
        names = self.members.keys() | other.members.keys()
        return sorted(name for name in names if self.members.get(name) != other.members.get(name))


def _canonical(value: Any) -> bytes:
    """As RFC 8785 writes it. Where there are no fractions and only ASCII, json writes the same, ten times as fast."""
    if _is_plain(value):
        text = _PLAIN_JSON.encode(value)
        if text.isascii():  # beyond, the RFC sorts names by UTF-16 units
            return text.encode()
    return rfc8785.dumps(value)


def _is_plain(value: Any) -> bool:
    """Whether it holds no fraction, and no integer that JSON cannot carry exactly."""
    kind = type(value)
    if kind is dict:
        return all(map(_is_plain, value.values()))
    if kind is list:
        return all(map(_is_plain, value))
    return kind is not float and (kind is not int or -_MAX_INTEGER <= value <= _MAX_INTEGER)


def fingerprint(asked: Mapping[str, Any]) -> Fingerprint:
    """Over RFC 8785's canonical JSON of the asked members; `{}` and null count as absent.

    Raises rfc8785.CanonicalizationError for what JSON cannot carry exactly: integers past 2^53 - 1, NaN, infinities.
    """
    canonical = {name: _canonical(value) for name, value in sorted(asked.items()) if value is not None and value != {}}
    whole = b"{" + b",".join(b'"' + name.encode() + b'":' + text for name, text in canonical.items()) + b"}"
    return Fingerprint(
        total=hashlib.sha256(whole).digest(),
        members={name: hashlib.sha256(text).digest()[:MEMBER_DIGEST_BYTES] for name, text in canonical.items()},
    )
