"""Where Redis is: the URL forms of one server, of Sentinel and of a cluster, strictly read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qsl, unquote, urlsplit

Kind = Literal["single", "sentinel", "cluster"]

_KINDS: dict[str, Kind] = {"": "single", "+sentinel": "sentinel", "+cluster": "cluster"}
_FORMS = "redis://HOST:PORT/DB, redis+sentinel://HOST:PORT,HOST:PORT/SERVICE or redis+cluster://HOST:PORT,HOST:PORT"
_TLS_OPTIONS = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"})
_SENTINEL_OPTIONS = frozenset({"sentinel_username", "sentinel_password"})
_MAX_DATABASE = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Address:
    """Where Redis is, and as whom to go there."""

    kind: Kind
    nodes: tuple[tuple[str, int], ...]
    """The server; with Sentinel the sentinels; of a cluster some of its nodes."""
    tls: bool = False
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    service: str = ""
    """The master's name, with Sentinel."""
    database: int = 0
    options: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def where(self) -> str:
        """The place, for messages: it holds no credentials."""
        return ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.nodes)

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must never be shown."""
        return tuple(s for s in (self.password, self.options.get("sentinel_password")) if s)

    @property
    def has_credentials(self) -> bool:
        """Whether the URL says as whom to go there."""
        return bool(self.username or self.password or _SENTINEL_OPTIONS & self.options.keys())


def parse_url(url: str) -> Address:
    """Read a URL; raises ``ValueError``, which never repeats the URL: it may hold a password."""
    try:
        parts = urlsplit(url)
    except ValueError:  # a broken IPv6 address
        raise ValueError(f"is not a URL of Redis (write {_FORMS})") from None
    scheme, plus, form = parts.scheme.partition("+")
    kind = _KINDS.get(plus + form)
    if kind is None or scheme not in ("redis", "rediss") or any(c.isspace() for c in url):
        raise ValueError(f"is not a URL of Redis (write {_FORMS}; rediss:// for TLS)")
    if parts.fragment:
        raise ValueError("has a '#' (in a password, write %23)")
    user, _, hosts = parts.netloc.rpartition("@")
    username, _, password = user.partition(":")
    service, database = _path(kind, parts.path)
    return Address(
        kind,
        _nodes(hosts, kind),
        scheme == "rediss",
        unquote(username) or None,
        unquote(password) or None,
        service,
        database,
        _options(parts.query, kind, scheme == "rediss"),
    )


def _nodes(hosts: str, kind: Kind) -> tuple[tuple[str, int], ...]:
    nodes = tuple(_node(host, 26379 if kind == "sentinel" else 6379) for host in hosts.split(","))
    if len(nodes) > 1 and kind == "single":
        raise ValueError("names several servers (write redis+sentinel:// or redis+cluster://)")
    return nodes


def _node(text: str, default_port: int) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or port == 0 or any(c in text for c in "/?#@"):
        raise ValueError(f"does not name its servers as HOST:PORT (write {_FORMS})")
    return host, port or default_port


def _path(kind: Kind, path: str) -> tuple[str, int]:
    steps = [unquote(step) for step in path.split("/") if step]
    service = steps.pop(0) if kind == "sentinel" and steps else ""
    if kind == "sentinel" and not service:
        raise ValueError("does not name the master (write redis+sentinel://HOST:PORT/SERVICE)")
    database = steps.pop(0) if steps else "0"
    if steps or not (database.isascii() and database.isdecimal() and int(database) <= _MAX_DATABASE):
        raise ValueError("does not end in the number of a database (as /0)")
    if kind == "cluster" and int(database):
        raise ValueError("names a database, and a cluster has only database 0 (leave it out)")
    return service, int(database)


def _options(query: str, kind: Kind, tls: bool) -> dict[str, str]:
    known = (_TLS_OPTIONS if tls else frozenset()) | (
        _SENTINEL_OPTIONS if kind == "sentinel" else frozenset()
    )
    options = dict(parse_qsl(query, keep_blank_values=True))
    if unknown := sorted(options.keys() - known):
        those = ", ".join(sorted(known)) or "none"
        raise ValueError(f"has the option {unknown[0]!r}, which it does not take here (it takes {those})")
    return options
