"""What a change is made of: a body with known members only, or every reason against it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from gateway.api.bodies import json_object, known_query
from gateway.api.codec import pydantic_findings
from gateway.core.errors import InvalidChangeError

if TYPE_CHECKING:
    from aiohttp import web


class Change(BaseModel):
    """Members by their names in JSON; values stay out of what is said against them."""

    model_config = ConfigDict(strict=True, extra="forbid", alias_generator=to_camel, hide_input_in_errors=True)


Kind = TypeVar("Kind", bound=Change)


async def change_in(request: web.Request, kind: type[Kind], *, optional: bool = False) -> Kind:
    """The change that the body asks for. Raises MalformedError, NotJsonError, InvalidChangeError with all findings."""
    known_query(request)
    body: dict[str, Any] = {}
    if request.can_read_body or not optional:
        body = await json_object(request)
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        raise InvalidChangeError("The change is not valid; see errors.", findings=pydantic_findings(error)) from error
