"""Which headers cross, in either direction."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TypeAlias

from multidict import CIMultiDict, CIMultiDictProxy

from proxy.ports import Headers

Received: TypeAlias = CIMultiDict[str] | CIMultiDictProxy[str]
"""The headers of one message as aiohttp read them: any name may be there more than once."""

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

# Written anew for each hop.
_REQUEST_DROPPED = HOP_BY_HOP | {"host", "content-length", "expect"}
# A judged body is decoded here, and its answer is asked for without an encoding.
_JUDGED_DROPPED = _REQUEST_DROPPED | {"content-encoding", "accept-encoding"}
# What speaks of the provider's own origin, not of this one: followed here, Alt-Svc (RFC 7838) would lead
# clients around Callgate.
_RESPONSE_DROPPED = HOP_BY_HOP | {"content-length", "date", "alt-svc", "strict-transport-security"}
_DECODED_DROPPED = _RESPONSE_DROPPED | {"content-encoding"}
CREDENTIALS = frozenset({"authorization", "x-api-key", "api-key"})

# RFC 9110 5.5. Lone surrogates stand for bytes that are not UTF-8, and cannot be written again.
_UNSENDABLE = re.compile("[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")


def for_upstream(headers: Received, consumed: frozenset[str], judged: bool) -> list[tuple[str, str]]:
    """The client's headers that the provider gets.

    ``consumed`` names, in lower case, those that told Callgate who asks; a body that is not ``judged``
    goes on as it is encoded.
    """
    dropped = (_JUDGED_DROPPED if judged else _REQUEST_DROPPED) | consumed
    # Nearly every client says "keep-alive", a name that is dropped as it is.
    if (connection := headers.getall("connection", ())) and [*connection] != ["keep-alive"]:
        dropped |= _named(connection)
    return [
        (name, value)
        for name, value in headers.items()
        if (lower := name.lower()) not in dropped and not lower.startswith(INTERNAL) and is_sendable(value)
    ]


def for_client(headers: Headers, decoded: bool) -> Headers:
    """The provider's headers that the client gets; ``decoded``: the body's encoding was undone."""
    dropped = _DECODED_DROPPED if decoded else _RESPONSE_DROPPED
    names = [name.lower() for name, _ in headers]
    if "connection" in names:
        dropped |= _named(
            value for name, (_, value) in zip(names, headers, strict=True) if name == "connection"
        )
    kept = [
        header
        for name, header in zip(names, headers, strict=True)
        if name not in dropped and not name.startswith(INTERNAL) and is_sendable(header[1])
    ]
    if names.count("content-type") > 1:
        # By the first of them the body was read: the client must not go by another.
        return [("Content-Type", headers[names.index("content-type")][1]), *without(kept, {"content-type"})]
    return kept


def without(headers: Headers, names: Iterable[str]) -> list[tuple[str, str]]:
    """The headers but those of these names (in lower case)."""
    dropped = frozenset(names)
    return [(name, value) for name, value in headers if name.lower() not in dropped]


def is_sendable(value: str) -> bool:
    """Whether a header's value can be written as it was read; one that cannot is left out, not mended."""
    return value.isprintable() or _UNSENDABLE.search(value) is None


def _named(connection: Iterable[str]) -> frozenset[str]:
    """The headers that Connection headers bind to their hop."""
    return frozenset(name.strip().lower() for value in connection for name in value.split(","))
