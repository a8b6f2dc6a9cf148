"""How a call can end other than well: with an error answer, or with none at all."""

from collections.abc import Mapping


class BatchError(Exception):
    """An error answer as Batch sends it: a status, a code in `x-amzn-errortype` and a message in the body.

    `code` is None for the bare answers that load balancers give. `outcome` is the word for the ledger. `body`, where it
    is given, is sent instead of the message.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        code: str | None = "ClientException",
        outcome: str = "rejected",
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.outcome = outcome
        self.headers = headers or {}
        self.body = body


class ConnectionLostError(Exception):
    """The caller's connection is reset without an answer, `after_seconds`; `outcome` is the word for the ledger."""

    def __init__(self, outcome: str, *, after_seconds: float = 0) -> None:
        super().__init__(outcome)
        self.outcome = outcome
        self.after_seconds = after_seconds
