"""Which version of the store's records this gateway reads, and what it says of a store that is past it.

During an upgrade two releases work on one store. README, "Upgrades", says how that stays safe: within a version changes
only add, and a new version is read by one release before the next one writes it. Whoever is older all the same takes
nothing, hands nothing out, changes no record that it cannot read, and says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redis.exceptions import ResponseError

from gateway.core.errors import StoreUnavailableError
from gateway.store.connection import UNAVAILABLE, is_out_of_service, store_errors

if TYPE_CHECKING:
    from gateway.store.keys import Keys

# The newest that is read, and what new records get; lua/prelude.lua has the same.
VERSION_READ = 1
VERSION_WRITTEN = 1


def refuse_newer(version: int) -> None:
    """Raises StoreUnavailableError where this gateway cannot read what that version wrote."""
    if version > VERSION_READ:
        raise StoreUnavailableError(UNAVAILABLE, cause=_sentence(version))


async def newer_writer(client: Any, keys: Keys) -> list[str]:
    """For operators, a sentence where a newer gateway has written to this upstream's part of the store; else nothing.

    Raises StoreUnavailableError.
    """
    with store_errors():
        try:
            version = int(await client.hget(keys.upstream, "version") or 0)
        except (ResponseError, ValueError) as error:
            if isinstance(error, ResponseError) and is_out_of_service(error):
                raise
            return []  # no hash of ours, or no number: the audit tells of that
    return [f"{_sentence(version)}."] if version > VERSION_READ else []


def _sentence(version: int) -> str:
    return (
        f"The store holds records of a newer gateway (version {version}, this one knows {VERSION_READ}): "
        "upgrade this one"
    )
