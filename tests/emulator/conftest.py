from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.emulator.rig import Rig, emulating

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with emulating() as rig:
        yield rig
