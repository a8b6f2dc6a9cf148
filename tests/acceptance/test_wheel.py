"""What is shipped: the wheel, installed somewhere else and run outside the checkout."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import ZipFile

import aiohttp
import pytest

from tests.examples import settings
from tests.processes import gateway_process

if TYPE_CHECKING:
    from tests.servers import StoreServer

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    subprocess.run([*command, str(CHECKOUT)], check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_every_module_the_scripts_and_the_contract(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
    folder = CHECKOUT / "gateway"
    sources = {
        str(path.relative_to(CHECKOUT)) for path in folder.rglob("*") if path.suffix in (".py", ".lua", ".html", ".js")
    }
    assert inside == sources | {"gateway/openapi.yaml"}


async def test_the_installed_wheel_serves_the_contract_outside_the_checkout(
    wheel: Path, valkey: StoreServer, prefix: str, tmp_path: Path
) -> None:
    installed = tmp_path / "installed"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(installed), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)  # noqa: ASYNC221 - nothing else waits
    config = settings(store_url=valkey.url, endpoint_url="http://127.0.0.1:9", prefix=prefix)
    with gateway_process(tmp_path / "run", config, package=installed) as gateway:
        where = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "import gateway; print(gateway.__file__)",
            env={**os.environ, "PYTHONPATH": str(installed)}, cwd=tmp_path, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        output, _ = await where.communicate()
        assert output.decode().strip().startswith(str(installed))
        async with aiohttp.ClientSession(gateway.url) as http, http.get("/openapi.yaml") as answer:
            assert answer.content_type == "application/yaml"
            assert await answer.read() == (CHECKOUT / "openapi.yaml").read_bytes()
