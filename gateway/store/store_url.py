"""What `store.url` names: one server, what Sentinels watch, or a cluster."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal
from urllib.parse import SplitResult, parse_qsl, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Kind = Literal["server", "sentinel", "cluster"]
Address = tuple[str, int]
Option = str | int | bool

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

_HOST = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+(?:%\w+)?)\]|(?P<name>[^\[\]:@\s]+))(?::(?P<port>\d{1,5}))?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreUrl:
    """`server_url` is one server's, as redis-py reads it: the first of `hosts`, with credentials and database.

    `options` go with it, by redis-py's names. `service` is what the Sentinels call the primary; `sentinel_options` are
    theirs: their credentials, and the certificates of the store or those that were given for them.
    """

    kind: Kind
    tls: bool
    server_url: str
    place: str
    options: Mapping[str, Option] = field(default_factory=dict)
    hosts: tuple[Address, ...] = ()
    service: str = ""
    sentinel_options: Mapping[str, Option] = field(default_factory=dict)


def parse_store_url(url: str) -> StoreUrl:
    """Raises ValueError with a sentence for operators, which shows nothing of the URL: it may hold a password.

    `place` says where the store is, without credentials.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError(SERVED) from None  # Python's own words repeat what it was given
    if parts.scheme not in _KINDS:
        raise ValueError(SERVED)
    if "#" in url:  # what comes behind it would be dropped: the end of a password and the host
        raise ValueError("has a # in it, which is written %23")
    kind, scheme = _KINDS[parts.scheme]
    return _server(parts, url.partition("?")[0]) if kind == "server" else _servers(parts, kind, scheme)


def written(address: Address) -> str:
    """host:port, as in a URL."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _server(parts: SplitResult, url: str) -> StoreUrl:
    tls = parts.scheme == "rediss"
    if parts.scheme == "unix":
        place, options = parts.path, _options(parts.query, _OF_A_SOCKET)
    else:
        place, _ = _host(parts.netloc.rpartition("@")[2], SERVER_PORT, _SERVER_LIKE)
        if not re.fullmatch(r"/?\d*/?", parts.path, re.ASCII):
            raise ValueError(_SERVER_LIKE)
        options = _options(parts.query, _CERTIFICATES if tls else {})
    return StoreUrl(kind="server", tls=tls, server_url=url, place=place, options=options)


def _servers(parts: SplitResult, kind: Kind, scheme: str) -> StoreUrl:
    like = _SENTINEL_LIKE if kind == "sentinel" else _CLUSTER_LIKE
    userinfo, at, names = parts.netloc.rpartition("@")
    hosts = tuple(_host(name, SENTINEL_PORT if kind == "sentinel" else SERVER_PORT, like) for name in names.split(","))
    service, _, database = parts.path.strip("/").partition("/")
    if kind == "cluster":
        service, database = "", service
    fits = database in ("", "0") if kind == "cluster" else bool(service) and (not database or database.isdecimal())
    if not fits:
        raise ValueError(like)
    tls = scheme == "rediss"
    certificates = _CERTIFICATES if tls else {}
    theirs = {f"{_OF_SENTINELS}{name}": read for name, read in {**_CREDENTIALS, **certificates}.items()}
    options = _options(parts.query, {**certificates, **(theirs if kind == "sentinel" else {})})
    own = {name: value for name, value in options.items() if name not in theirs}
    given = {name.removeprefix(_OF_SENTINELS): value for name, value in options.items() if name in theirs}
    return StoreUrl(
        kind=kind,
        tls=tls,
        server_url=f"{scheme}://{userinfo}{at}{written(hosts[0])}/{database or 0}",
        place=names,
        options=own,
        hosts=hosts,
        service=service,
        sentinel_options={**own, **given} if kind == "sentinel" else {},
    )


def _host(name: str, default_port: int, like: str) -> Address:
    found = _HOST.fullmatch(name)
    port = int(found["port"] or default_port) if found else 0
    if found is None or not 0 < port <= 65535:  # noqa: PLR2004 - the last one that there is
        raise ValueError(like)
    return found["v6"] or found["name"], port


def _options(query: str, taken: Mapping[str, Callable[[str], Option]]) -> dict[str, Option]:
    """Only those that are taken, with their values read; no other name is told, for it may be half a password."""
    given = parse_qsl(query, keep_blank_values=True)
    if any(name not in taken for name, _ in given):
        raise ValueError("takes no option behind the ?" + (f" but {', '.join(taken)}" if taken else ""))
    if len({name for name, _ in given}) < len(given):
        raise ValueError("has an option twice")
    options: dict[str, Option] = {}
    for name, value in given:
        try:
            options[name] = taken[name](value)
        except ValueError as error:
            raise ValueError(f"has an option {name} that {error}") from None
    for prefix in ("", _OF_SENTINELS):
        if f"{prefix}ssl_keyfile" in options and f"{prefix}ssl_certfile" not in options:
            raise ValueError(f"has an option {prefix}ssl_keyfile and no {prefix}ssl_certfile")
    return options


def _text(value: str) -> str:
    if not value:
        raise ValueError("is empty")
    return value


def _number(value: str) -> int:
    if not re.fullmatch(r"\d{1,9}", value, re.ASCII):
        raise ValueError("must be a number")
    return int(value)


def _yes(value: str) -> bool:
    if value not in ("true", "false"):
        raise ValueError("must be true or false")
    return value == "true"


def _strictness(value: str) -> str:
    if value not in ("required", "optional", "none"):
        raise ValueError("must be required, optional or none")
    return value


_CERTIFICATES: dict[str, Callable[[str], Option]] = {
    "ssl_ca_certs": _text,
    "ssl_certfile": _text,
    "ssl_keyfile": _text,
    "ssl_cert_reqs": _strictness,
    "ssl_check_hostname": _yes,
}
_CREDENTIALS: dict[str, Callable[[str], Option]] = {"username": _text, "password": _text}
_OF_A_SOCKET: dict[str, Callable[[str], Option]] = {"db": _number}
