"""Whose keys sign an upstream's calls: those of the usual AWS chain, or of a role that they assume.

botocore looks for keys once, when a client is made, and never again where it found none. Here the chain is asked with
each call until it has some, within a time, and whatever fails says that nothing was sent.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from aiobotocore.config import AioConfig
from aiobotocore.credentials import (
    AioAssumeRoleCredentialFetcher,
    AioCredentials,
    AioDeferredRefreshableCredentials,
)
from aiobotocore.session import get_session
from botocore import UNSIGNED
from botocore.exceptions import CredentialRetrievalError, NoCredentialsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aiobotocore.session import AioSession

SESSION_NAME = "batch-gateway"

# Parts of a call's time. They end before the call's own deadline, which would leave open whether Batch was called. Who
# waits for another's try has time for one of its own.
TRY_PART = 0.25
WAIT_PART = 0.5


class ChainCredentials(AioCredentials):  # type: ignore[misc]
    """The usual chain's keys; while it has none, it is asked again each time.

    Whatever keeps us from having keys is raised as CredentialRetrievalError, in less than a call's time.
    """

    def __init__(self, chain: AioSession, *, call_timeout_seconds: float) -> None:
        super().__init__("", "", method="chain")
        self._chain = chain
        self._wait_seconds = call_timeout_seconds * WAIT_PART

    async def get_frozen_credentials(self) -> Any:
        with _as_credentials_error("chain"):
            async with asyncio.timeout(self._wait_seconds):
                credentials = await self._chain.get_credentials()
                if credentials is None:
                    raise NoCredentialsError
                return await credentials.get_frozen_credentials()


class RoleCredentials(AioDeferredRefreshableCredentials):  # type: ignore[misc]
    """A role's temporary keys: new ones from 15 minutes before the old ones expire, must-have from 10 minutes on.

    Whatever keeps us from having keys is raised as CredentialRetrievalError, in less than a call's time; until the
    10 minutes begin the old ones are used on. The next call tries again.
    """

    def __init__(self, chain: AioSession, role_arn: str, *, config: AioConfig, call_timeout_seconds: float) -> None:
        super().__init__(self._assume, "assume-role")
        self._source = ChainCredentials(chain, call_timeout_seconds=call_timeout_seconds)
        self._role_arn = role_arn
        self._client_creator = partial(chain.create_client, config=config)
        self._try_seconds = call_timeout_seconds * TRY_PART
        self._wait_seconds = call_timeout_seconds * WAIT_PART

    async def get_frozen_credentials(self) -> Any:
        with _as_credentials_error("assume-role"):
            async with asyncio.timeout(self._wait_seconds):
                return await super().get_frozen_credentials()

    async def _assume(self) -> Any:
        # A fetcher for each try: it caches what STS says before it looks at it, so one bad answer would stay.
        fetcher = AioAssumeRoleCredentialFetcher(
            self._client_creator, self._source, self._role_arn, extra_args={"RoleSessionName": SESSION_NAME}
        )
        with _as_credentials_error("assume-role"):
            async with asyncio.timeout(self._try_seconds):
                return await fetcher.fetch_credentials()


class _Only:
    """Takes the place of a session's chain."""

    def __init__(self, credentials: AioCredentials) -> None:
        self._credentials = credentials

    async def load_credentials(self) -> AioCredentials:
        return self._credentials


def session_with(credentials: AioCredentials) -> AioSession:
    """A session whose clients sign with these."""
    session = get_session()
    session.register_component("credential_provider", _Only(credentials))
    return session


async def session_as(role_arn: str, chain: AioSession, *, config: AioConfig, call_timeout_seconds: float) -> AioSession:
    """A session whose clients are the role, which the credentials of the session `chain` assume.

    Calls nobody, and blocks the loop for about 100 ms: botocore reads STS's model here and not with the first call.
    """
    unsigned = config.merge(AioConfig(signature_version=UNSIGNED))  # else the chain would be asked for credentials
    async with chain.create_client("sts", config=unsigned):
        pass
    return session_with(RoleCredentials(chain, role_arn, config=config, call_timeout_seconds=call_timeout_seconds))


@contextmanager
def _as_credentials_error(provider: str) -> Iterator[None]:
    """STS says "denied", "throttled" and "not reachable" as Batch does: here all mean that Batch was not called."""
    try:
        yield
    except CredentialRetrievalError:
        raise
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise CredentialRetrievalError(provider=provider, error_msg=reason) from error
