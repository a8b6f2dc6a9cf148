"""What `store.url` names: one server, what Sentinels watch, or a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qsl, urlencode, urlsplit

Kind = Literal["server", "sentinel", "cluster"]
Address = tuple[str, int]

SERVER_PORT = 6379
SENTINEL_PORT = 26379

_KINDS: dict[str, tuple[Kind, str]] = {
    "redis": ("server", "redis"),
    "rediss": ("server", "rediss"),
    "unix": ("server", "unix"),
    "redis+sentinel": ("sentinel", "redis"),
    "rediss+sentinel": ("sentinel", "rediss"),
    "redis+cluster": ("cluster", "redis"),
    "rediss+cluster": ("cluster", "rediss"),
}
_OF_SENTINELS = "sentinel_"  # options of this prefix are for the Sentinels themselves

SERVED = "must begin with redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://, or rediss+… for TLS"
_SERVER_LIKE = "must be like redis://host:6379/0: a port from 1 to 65535 and the number of a database"
_SENTINEL_LIKE = "must be like redis+sentinel://host:26379,host:26379/name-of-the-primary/0"
_CLUSTER_LIKE = "must be like redis+cluster://host:6379,host:6379 (a cluster has the database 0 alone)"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreUrl:
    """`server_url` is one server's, as redis-py reads it: the first of `hosts`, with credentials, database and options.

    `service` is what the Sentinels call the primary; `sentinel_options` are theirs, such as their password.
    """

    kind: Kind
    server_url: str
    place: str
    hosts: tuple[Address, ...] = ()
    service: str = ""
    sentinel_options: tuple[tuple[str, str], ...] = ()


def parse_store_url(url: str) -> StoreUrl:
    """Raises ValueError with a sentence for operators, which shows nothing of the URL: it may hold a password.

    `place` says where the store is, without credentials.
    """
    parts = urlsplit(url)
    if parts.scheme not in _KINDS:
        raise ValueError(SERVED)
    kind, scheme = _KINDS[parts.scheme]
    if kind == "server":
        return _server(url)
    like = _SENTINEL_LIKE if kind == "sentinel" else _CLUSTER_LIKE
    userinfo, at, names = parts.netloc.rpartition("@")
    hosts = tuple(_host(name, SENTINEL_PORT if kind == "sentinel" else SERVER_PORT, like) for name in names.split(","))
    service, _, database = parts.path.strip("/").partition("/")
    if kind == "cluster":
        service, database = "", service
    fits = database in ("", "0") if kind == "cluster" else bool(service) and (not database or database.isdecimal())
    if not fits:
        raise ValueError(like)
    options = parse_qsl(parts.query)
    own = urlencode([(name, value) for name, value in options if not name.startswith(_OF_SENTINELS)])
    host, port = hosts[0]
    return StoreUrl(
        kind=kind,
        server_url=f"{scheme}://{userinfo}{at}{_bracketed(host)}:{port}/{database or 0}" + (f"?{own}" if own else ""),
        place=names,
        hosts=hosts,
        service=service,
        sentinel_options=tuple(
            (name.removeprefix(_OF_SENTINELS), value) for name, value in options if name.startswith(_OF_SENTINELS)
        ),
    )


def _server(url: str) -> StoreUrl:
    parts = urlsplit(url)
    try:
        database = parts.path.strip("/") if parts.scheme != "unix" else ""
        valid = parts.port != 0 and (database == "" or database.isdecimal())
    except ValueError:
        valid = False
    if not valid:
        raise ValueError(_SERVER_LIKE)
    return StoreUrl(kind="server", server_url=url, place=parts.hostname or parts.path)


def _host(name: str, default_port: int, like: str) -> Address:
    parts = urlsplit(f"//{name}")
    try:
        port = default_port if parts.port is None else parts.port
    except ValueError as error:
        raise ValueError(like) from error
    if not parts.hostname or port == 0:
        raise ValueError(like)
    return parts.hostname, port


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
