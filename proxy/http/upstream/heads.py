"""The heads of requests to one provider: what the client said, and what the operator sets over it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, Iterable
from typing import NamedTuple, TypeAlias
from urllib.parse import quote

from yarl import URL

from proxy.http.headers import CREDENTIALS
from proxy.http.upstream.endpoint import Endpoint
from proxy.ports import Headers

Body: TypeAlias = bytes | AsyncIterable[bytes] | None
"""A request's body: whole, as it comes, or none."""

# Paths and names come from clients: what is remembered of them is bounded, in number and in size.
_MAX_KNOWN = 1024
_MAX_KNOWN_CHARS = 256
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 5.6.2
_UNSENDABLE = re.compile(r"[^!-~]|#")
# They frame the message on its connection, and are written here.
_FRAMING = frozenset({"connection", "content-length", "host", "transfer-encoding"})
# Methods whose requests say no length where they have no body (RFC 9110 8.6).
_BODILESS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


class _Names(dict[str, str]):
    """Names of headers that can be written, to their lower case."""

    def __missing__(self, name: str) -> str:
        if _TOKEN.fullmatch(name) is None:
            raise ValueError("the name of a header cannot be written")
        lower = name.lower()
        if len(self) < _MAX_KNOWN and len(name) <= _MAX_KNOWN_CHARS:
            self[name] = lower
        return lower


_names = _Names()


class _Set(NamedTuple):
    """What the operator sets: its lines, and the names that it stands for."""

    lines: str
    replaced: frozenset[str]


class Heads:
    """Writes the heads of the requests to one provider."""

    def __init__(self, endpoint: Endpoint) -> None:
        origin = re.match(r"https?://[^/?#]+", endpoint.base_url, re.IGNORECASE)
        if origin is None:
            raise ValueError(f"upstream {endpoint.name}: {endpoint.base_url!r} is no base URL")
        self._endpoint, self._origin = endpoint, origin[0]
        self._set = {name.lower(): value for name, value in endpoint.headers.items()}
        self._host = URL(endpoint.base_url).host_port_subcomponent
        self._lines: dict[tuple[str, str], str] = {}
        self._sets: dict[tuple[tuple[str, str] | None, bool], _Set] = {}

    def write(self, method: str, path: str, headers: Headers, body: Body, judged: bool) -> bytes:
        """The head of a request, to the empty line.

        Raises ``ValueError`` for a header that would not be one on the wire.
        """
        endpoint = self._endpoint
        credential = None if endpoint.key is None else endpoint.credential(path, headers)
        own = self._sets.get((credential, judged)) or self._operators(credential, judged)
        text = _lines(headers, own.replaced)
        first = self._lines.get((method, path)) or self._first(method, path)
        return f"{first}{text}{own.lines}{_framing(method, headers, body)}\r\n".encode()

    def target(self, path: str) -> str:
        """What the request line asks for; whatever would end it or make it another is percent-encoded."""
        target = self._endpoint.address(path)[len(self._origin) :]
        return _UNSENDABLE.sub(lambda odd: quote(odd[0], safe="", errors="surrogateescape"), target)

    def _first(self, method: str, path: str) -> str:
        if not method.isalpha():
            raise ValueError("the method of a request cannot be written")
        line = f"{method} {self.target(path)} HTTP/1.1\r\nHost: {self._host}\r\n"
        if len(path) <= _MAX_KNOWN_CHARS and "?" not in path and len(self._lines) < _MAX_KNOWN:
            self._lines[method, path] = line
        return line

    def _operators(self, credential: tuple[str, str] | None, judged: bool) -> _Set:
        written = dict(self._set)
        if credential is not None:
            written.setdefault(*credential)
        if judged:
            written["accept-encoding"] = "identity"
        # With a key of the operator's own, in whichever header, no key of a client's goes beside it.
        replaced = written.keys() | (CREDENTIALS if CREDENTIALS & written.keys() else frozenset()) | _FRAMING
        # As many as there are ways to carry the key, twice.
        known = self._sets[credential, judged] = _Set(_lines(written.items(), _FRAMING), frozenset(replaced))
        return known


def _lines(headers: Iterable[tuple[str, str]], dropped: frozenset[str]) -> str:
    names = _names
    lines = [f"{name}: {value}\r\n" for name, value in headers if names[name] not in dropped]
    text = "".join(lines)
    # One line for each header, whatever is in its value.
    if not text.count("\n") == text.count("\r") == len(lines) or "\0" in text:
        raise ValueError("the value of a header cannot be written")
    return text


def declared(headers: Headers) -> int | None:
    """The length that a streamed body was said to have; None where it was not."""
    return next((int(value) for name, value in headers if _names[name] == "content-length"), None)


def _framing(method: str, headers: Headers, body: Body) -> str:
    if isinstance(body, bytes):
        length: int | None = len(body)
    elif body is None:
        if method in _BODILESS:
            return ""
        length = 0
    else:
        length = declared(headers)
    return "Transfer-Encoding: chunked\r\n" if length is None else f"Content-Length: {length}\r\n"
