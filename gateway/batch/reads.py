"""Any operation of Batch's by its name, for what callers ask of Batch through the gateway."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from botocore import xform_name
from botocore.exceptions import ParamValidationError

from gateway.batch.answers import MalformedAnswerError
from gateway.batch.failures import failing_as_calls_do
from gateway.core.attempt import Answer, AnswerKind
from gateway.core.reconcile import CallFailedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# Connections of their own: who reads waits for no submission and no errand. A budget of 30 a second with answers in a
# quarter of a second keeps eight busy.
READ_CONNECTIONS = 8


class OperationClient:
    """The core's OperationCalls over an aiobotocore client of Batch, each call with a deadline.

    Parameters are held to botocore's model before anything is sent; a 200 answer without a member that the model
    requires, or without AWS's request id, is none of Batch's.
    """

    def __init__(self, client: Any, *, call_timeout_seconds: float) -> None:
        self._client = client
        self._call_timeout_seconds = call_timeout_seconds
        self._slots = asyncio.Semaphore(READ_CONNECTIONS)

    async def call(self, operation: str, params: Mapping[str, Any]) -> dict[str, Any]:
        shape = self._client.meta.service_model.operation_model(operation)
        for name in sorted(params.keys() - shape.input_shape.members.keys()):  # they become names of arguments
            raise _refused(f"{name[:64]}: is not a member that is known here")
        with failing_as_calls_do(), _naming_what_does_not_fit():
            async with asyncio.timeout(self._call_timeout_seconds), self._slots:
                answer: dict[str, Any] = await getattr(self._client, xform_name(operation))(**params)
            metadata = answer.pop("ResponseMetadata")
            if not metadata.get("RequestId") or any(one not in answer for one in shape.output_shape.required_members):
                raise MalformedAnswerError("Batch answered 200, and not what its model promises.")
            return answer


@contextmanager
def _naming_what_does_not_fit() -> Iterator[None]:
    """The caller's own parameters, to the caller: nothing of it goes into the log."""
    try:
        yield
    except ParamValidationError as error:
        told = "; ".join(str(error.kwargs.get("report", "")).splitlines())
        raise _refused(told) from error


def _refused(told: str) -> CallFailedError:
    """As Batch would have."""
    return CallFailedError(Answer(kind=AnswerKind.REFUSED, code="ClientException", message=told))
