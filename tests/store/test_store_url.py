"""What `store.url` may say and what it means, that nothing of it is told where it is wrong, and TLS as it really is."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio import Connection, SSLConnection
from redis.exceptions import ConnectionError as RedisConnectionError

from gateway.core.errors import StoreUnavailableError
from gateway.store.connection import connect, store_errors
from gateway.store.primary import SentinelFinder
from gateway.store.store_url import parse_store_url, written
from tests.conftest import eventually
from tests.servers import free_port, redis_binary
from tests.store.stand_ins import Refusal, stand_ins

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.servers import StoreServer

CERTIFICATES = "ssl_ca_certs, ssl_certfile, ssl_keyfile, ssl_cert_reqs, ssl_check_hostname"
OF_SENTINELS = "sentinel_username, sentinel_password"
LIKE_SENTINEL = "must be like redis+sentinel://host:26379,host:26379/name-of-the-primary/0"
LIKE_SERVER = "must be like redis://host:6379/0: a port from 1 to 65535 and the number of a database"

REFUSED = {
    "redis://:hunter2@h/0?foo=hunter2": "takes no option behind the ?",
    "redis://h/0?socket_timeout=abc": "takes no option behind the ?",
    "redis://h/0?socket_timeout=1": "takes no option behind the ?",
    "redis://h/0?foo": "takes no option behind the ?",
    "redis://h/0?ssl_ca_certs=/ca": "takes no option behind the ?",
    "rediss://h/0?hunter2=1": f"takes no option behind the ? but {CERTIFICATES}",
    "rediss+cluster://h?sentinel_password=hunter2": f"takes no option behind the ? but {CERTIFICATES}",
    "redis+sentinel://h/m?sentinel_foo=1": f"takes no option behind the ? but {OF_SENTINELS}",
    "redis+sentinel://h/m?sentinel_ssl=false": f"takes no option behind the ? but {OF_SENTINELS}",
    "unix:///s?max_connections=3": "takes no option behind the ? but db",
    "unix:///s?db=one": "has an option db that must be a number",
    "unix:///s?db=1&db=2": "has an option twice",
    "rediss://h?ssl_check_hostname=hunter2": "has an option ssl_check_hostname that must be true or false",
    "rediss://h?ssl_cert_reqs=hunter2": "has an option ssl_cert_reqs that must be required, optional or none",
    "rediss://h?ssl_ca_certs=": "has an option ssl_ca_certs that is empty",
    "rediss://h?ssl_keyfile=/key": "has an option ssl_keyfile and no ssl_certfile",
    "rediss+sentinel://h/m?ssl_certfile=/c&sentinel_ssl_keyfile=/key": (
        "has an option sentinel_ssl_keyfile and no sentinel_ssl_certfile"
    ),
    "redis+sentinel://[::1]x:26379/m": LIKE_SENTINEL,
    "redis+sentinel://a:1:2/m": LIKE_SENTINEL,
    "redis+sentinel://a,,b/m": LIKE_SENTINEL,
    "redis+sentinel://a:65536/m": LIKE_SENTINEL,
    "redis://[::1]x:6379/0": LIKE_SERVER,
    "redis://:hunter2/3@h/0": LIKE_SERVER,
    "redis://:hunter2#@h/0": "has a # in it, which is written %23",
    "redis://[hunter2@h/0": (
        "must begin with redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://, or rediss+… for TLS"
    ),
}


@pytest.mark.parametrize(("url", "sentence"), REFUSED.items(), ids=REFUSED.keys())
def test_what_it_cannot_mean_is_refused_in_a_sentence_that_shows_nothing_of_it(url: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=r"^(takes|has|must) ") as caught:
        parse_store_url(url)
    assert str(caught.value) == sentence


def test_values_are_read_as_what_they_mean() -> None:
    url = "rediss://user:pa%23ss@h:1/2?ssl_ca_certs=/a%20b&ssl_cert_reqs=none&ssl_check_hostname=false"
    assert parse_store_url(url).options == {
        "ssl_ca_certs": "/a b",
        "ssl_cert_reqs": "none",
        "ssl_check_hostname": False,
    }
    assert parse_store_url("unix:///s?db=2").options == {"db": 2}
    assert parse_store_url("redis+cluster://[::1]:7000,b").hosts == (("::1", 7000), ("b", 6379))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://user:pa%23ss@h:1/2", {"host": "h", "port": 1, "db": 2, "username": "user", "password": "pa#ss"}),
        ("rediss://h?ssl_check_hostname=false", {"host": "h", "ssl_check_hostname": False}),
        ("unix://:pw@/s?db=2", {"path": "/s", "db": 2, "password": "pw"}),
        ("rediss+cluster://:pw@[::1]:7000,b?ssl_ca_certs=/ca", {"password": "pw", "ssl_ca_certs": "/ca"}),
    ],
)
async def test_connections_are_made_as_it_says(url: str, expected: dict[str, Any]) -> None:
    async with connect(url) as client:
        options = client.connection_pool.connection_kwargs
        assert {name: options.get(name) for name in expected} == expected
        client.connection_pool.make_connection()  # redis-py takes them all


@pytest.mark.parametrize(
    ("url", "options", "way"),
    [
        ("redis+sentinel://:pw@h/m?sentinel_username=u&sentinel_password=other", {"username": "u"}, Connection),
        ("rediss+sentinel://:pw@h/m?ssl_ca_certs=/ca", {"ssl_ca_certs": "/ca"}, SSLConnection),
        ("rediss+sentinel://h/m?ssl_ca_certs=/ca&sentinel_ssl_ca_certs=/b", {"ssl_ca_certs": "/b"}, SSLConnection),
    ],
)
async def test_sentinels_have_tls_with_the_store_and_what_was_given_for_them(
    url: str, options: dict[str, str], way: type
) -> None:
    async with connect(url) as client:
        finder = client.connection_pool.connection_kwargs["primary"]._find
        assert isinstance(finder, SentinelFinder)
        assert finder._options.items() >= {**options, "connection_class": way}.items()
        assert finder._options.get("password") != "pw"


async def test_one_server_that_is_a_node_of_a_cluster_is_told_as_that() -> None:
    async with stand_ins(1) as (node,):
        node.answers["GET key"] = Refusal("MOVED 12539 127.0.0.1:7001")
        async with connect(f"redis://{written(node.address)}/0") as client:
            with pytest.raises(StoreUnavailableError) as caught, store_errors():
                await client.get("key")
    assert caught.value.cause == (
        "MOVED 12539 127.0.0.1:7001: the store is a cluster, for which store.url begins with redis+cluster://"
    )


# ---- TLS, with real servers


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA, and what it has signed for `localhost`: ca.pem, server.pem and server.key."""
    if shutil.which("openssl") is None:
        if os.environ.get("CI"):
            pytest.fail("openssl is not installed")
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("certificates")
    new = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
    signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "basicConstraints=CA:FALSE")
    name = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost")
    for command in (
        (*new, "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.pem"),
        (*new, *name, *signed, "-keyout", "server.key", "-out", "server.pem"),
    ):
        subprocess.run(["openssl", *command], cwd=folder, check=True, capture_output=True)
    return folder


def tls_options(certificates: Path) -> dict[str, str]:
    return {
        "tls-cert-file": f"{certificates}/server.pem",
        "tls-key-file": f"{certificates}/server.key",
        "tls-ca-cert-file": f"{certificates}/ca.pem",
        "tls-auth-clients": "no",
    }


@pytest.fixture
def tls_port(certificates: Path, start_store: Callable[..., StoreServer]) -> int:
    """Where a Redis listens that speaks TLS alone."""
    port = free_port()
    options = [word for name, value in tls_options(certificates).items() for word in (f"--{name}", value)]
    start_store("--tls-port", str(port), *options, kind="redis-7.0")
    return port


@pytest.fixture
def sentinel_port(certificates: Path, tls_port: int, tmp_path: Path) -> Iterator[int]:
    """Where a Sentinel listens that speaks TLS alone, to us and to the primary."""
    port, config = free_port(), tmp_path / "sentinel.conf"
    tls = "".join(f"{name} {value}\n" for name, value in tls_options(certificates).items())
    config.write_text(
        f"port 0\ntls-port {port}\ntls-replication yes\nbind 127.0.0.1\ndir {tmp_path}\n{tls}"
        f"sentinel monitor mymaster 127.0.0.1 {tls_port} 1\n",
        encoding="utf-8",
    )
    silent = subprocess.DEVNULL
    process = subprocess.Popen([redis_binary(), str(config), "--sentinel"], stdout=silent, stderr=silent)
    yield port
    process.kill()
    process.wait()


async def answers(url: str) -> bool:
    async with connect(url) as client:
        try:
            return bool(await client.ping())
        except RedisConnectionError:
            return False


async def cause(url: str) -> str:
    """Why it does not answer."""
    async with connect(url) as client:
        with pytest.raises(StoreUnavailableError) as caught, store_errors():
            await client.ping()
    return caught.value.cause


async def test_a_store_is_reached_over_tls_by_who_trusts_its_certificate(certificates: Path, tls_port: int) -> None:
    trust = f"?ssl_ca_certs={certificates}/ca.pem"
    assert await answers(f"rediss://localhost:{tls_port}/0{trust}")
    assert await answers(f"rediss://127.0.0.1:{tls_port}/0{trust}&ssl_check_hostname=false")
    assert await answers(f"rediss://localhost:{tls_port}/0?ssl_cert_reqs=none")
    assert "certificate is not valid for '127.0.0.1'" in await cause(f"rediss://127.0.0.1:{tls_port}/0{trust}")
    assert "CERTIFICATE_VERIFY_FAILED" in await cause(f"rediss://localhost:{tls_port}/0")
    assert not await answers(f"redis://localhost:{tls_port}/0")


async def test_sentinels_are_asked_over_tls_where_the_store_has_it(certificates: Path, sentinel_port: int) -> None:
    """The Sentinel names the primary by its number, for which the certificate is not."""
    trust = f"ssl_ca_certs={certificates}/ca.pem&ssl_check_hostname=false"
    by_name = f"sentinel_ssl_ca_certs={certificates}/ca.pem&sentinel_ssl_check_hostname=true"
    place = f"localhost:{sentinel_port}"
    await eventually(lambda: answers(f"rediss+sentinel://{place}/mymaster/0?{trust}&{by_name}"))
    assert await cause(f"rediss+sentinel://{place}/mymaster/0") == (
        f"No Sentinel names a primary that is up: {place} fails at TLS (CERTIFICATE_VERIFY_FAILED)"
    )
    assert "CERTIFICATE_VERIFY_FAILED" in await cause(
        f"rediss+sentinel://{place}/mymaster/0?ssl_check_hostname=false&{by_name}"
    )
    assert await cause(f"redis+sentinel://{place}/mymaster/0") == (
        f"No Sentinel names a primary that is up: {place} does not answer"
    )
