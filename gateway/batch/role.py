"""The role that an upstream is called as: assumed with the usual chain's credentials, before the last keys expire."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from aiobotocore.config import AioConfig
from aiobotocore.credentials import AioAssumeRoleCredentialFetcher, AioDeferredRefreshableCredentials
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


class RoleCredentials(AioDeferredRefreshableCredentials):  # type: ignore[misc]
    """A role's temporary keys: new ones from 15 minutes before the old ones expire, must-have from 10 minutes on.

    Whatever keeps us from having keys is raised as CredentialRetrievalError, in less than a call's time; until the
    10 minutes begin the old ones are used on. The next call tries again.
    """

    def __init__(self, chain: AioSession, role_arn: str, *, config: AioConfig, call_timeout_seconds: float) -> None:
        super().__init__(self._assume, "assume-role")
        self._chain = chain
        self._role_arn = role_arn
        self._client_creator = partial(chain.create_client, config=config)
        self._try_seconds = call_timeout_seconds * TRY_PART
        self._wait_seconds = call_timeout_seconds * WAIT_PART

    async def get_frozen_credentials(self) -> Any:
        with _as_credentials_error():
            async with asyncio.timeout(self._wait_seconds):
                return await super().get_frozen_credentials()

    async def _assume(self) -> Any:
        # A fetcher for each try: it caches what STS says before it looks at it, so one bad answer would stay.
        fetcher = AioAssumeRoleCredentialFetcher(
            self._client_creator, _Source(self._chain), self._role_arn, extra_args={"RoleSessionName": SESSION_NAME}
        )
        with _as_credentials_error():
            async with asyncio.timeout(self._try_seconds):
                return await fetcher.fetch_credentials()


class _Source:
    """The usual chain's credentials; while it has none, it is asked again each time."""

    def __init__(self, chain: AioSession) -> None:
        self._chain = chain

    async def get_frozen_credentials(self) -> Any:
        credentials = await self._chain.get_credentials()
        if credentials is None:
            raise NoCredentialsError
        return await credentials.get_frozen_credentials()


class _Only:
    """Takes the place of a session's chain."""

    def __init__(self, credentials: RoleCredentials) -> None:
        self._credentials = credentials

    async def load_credentials(self) -> RoleCredentials:
        return self._credentials


async def session_as(role_arn: str, chain: AioSession, *, config: AioConfig, call_timeout_seconds: float) -> AioSession:
    """A session whose clients are the role, which the credentials of the session `chain` assume.

    Calls nobody, and blocks the loop for about 100 ms: botocore reads STS's model here and not with the first call.
    """
    unsigned = config.merge(AioConfig(signature_version=UNSIGNED))  # else the chain would be asked for credentials
    async with chain.create_client("sts", config=unsigned):
        pass
    session = get_session()
    credentials = RoleCredentials(chain, role_arn, config=config, call_timeout_seconds=call_timeout_seconds)
    session.register_component("credential_provider", _Only(credentials))
    return session


@contextmanager
def _as_credentials_error() -> Iterator[None]:
    """STS says "denied", "throttled" and "not reachable" as Batch does: here all mean that Batch was not called."""
    try:
        yield
    except CredentialRetrievalError:
        raise
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise CredentialRetrievalError(provider="assume-role", error_msg=reason) from error
