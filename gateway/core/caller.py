"""Who asks, and what that one may see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.core.errors import ForbiddenError

if TYPE_CHECKING:
    from gateway.core.submission import Submission


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The principal's name, the namespace that its tokens belong to, and whether it is an operator."""

    name: str = "anonymous"
    namespace: str = "anonymous"
    operator: bool = True

    def sees(self, submission: Submission) -> bool:
        return self.operator or submission.namespace == self.namespace

    def must_be_operator(self) -> None:
        """Raises ForbiddenError."""
        if not self.operator:
            raise ForbiddenError("Only operators may do this.")
