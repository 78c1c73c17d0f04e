"""Which headers cross, in either direction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from proxy.ports import Headers

# RFC 9110 7.6.1, and what older proxies still send.
HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
INTERNAL = "x-callgate-"
TRACE_ID = "x-callgate-trace-id"

# Written anew for each hop: the body is decoded here, and measured again.
_REQUEST_DROPPED = HOP_BY_HOP | {"host", "content-length", "content-encoding", "accept-encoding", "expect"}
_RESPONSE_DROPPED = HOP_BY_HOP | {"content-length", "date"}
CREDENTIALS = frozenset({"authorization", "x-api-key", "api-key"})


def for_upstream(headers: Mapping[str, str], consumed: frozenset[str]) -> list[tuple[str, str]]:
    """The client's headers that the provider gets.

    ``consumed`` names, in lower case, those that told Callgate who asks.
    """
    dropped = _REQUEST_DROPPED | consumed
    if "connection" in headers:
        dropped |= _named(headers["connection"])
    return [
        (name, value)
        for name, value in headers.items()
        if (lower := name.lower()) not in dropped and not lower.startswith(INTERNAL)
    ]


def for_client(headers: Mapping[str, str], decoded: bool) -> Headers:
    """The provider's headers that the client gets; ``decoded``: the body's encoding was undone."""
    dropped = _RESPONSE_DROPPED | {"content-encoding"} if decoded else _RESPONSE_DROPPED
    if "connection" in headers:
        dropped |= _named(headers["connection"])
    return [
        (name, value)
        for name, value in headers.items()
        if (lower := name.lower()) not in dropped and not lower.startswith(INTERNAL)
    ]


def without(headers: Headers, names: Iterable[str]) -> list[tuple[str, str]]:
    """The headers but those of these names (in lower case)."""
    dropped = frozenset(names)
    return [(name, value) for name, value in headers if name.lower() not in dropped]


def _named(connection: str) -> frozenset[str]:
    """The headers that a Connection header binds to its hop."""
    return frozenset(name.strip().lower() for name in connection.split(","))
