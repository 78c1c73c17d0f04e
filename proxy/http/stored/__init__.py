"""What a provider stores, read back: what a client was not given it cannot fetch.

Only what was given to a principal, or begun by it, can be read, changed or deleted by it; of anything else
the answer is the same 404, whether it exists or not. What is known of it is kept for
``limits.settled_ttl_s``; once that is forgotten, the same 404 is the answer.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from proxy.core import Core
from proxy.http.stored import completions, conversations, responses
from proxy.http.stored.reading import Answer, Asked, Reading
from proxy.http.upstream import HttpUpstream
from proxy.wire.codec import Codec

__all__ = ["Answer", "Asked", "StoredObjects"]

_ROUTE = re.compile(r"/(?P<what>responses|conversations|chat/completions)(?P<rest>(?:/[A-Za-z0-9_.-]+)*)")


@dataclass
class StoredObjects:
    """Answers the routes of what providers store."""

    core: Core
    codec: Codec
    upstream: HttpUpstream

    async def answer(self, asked: Asked) -> Answer | None:
        """The answer to one request, or None where it was streamed to the client."""
        reading = Reading(self.core, self.codec, self.upstream, asked)
        found = _find(reading, asked.route)
        if not found:
            message = f"{asked.method} {asked.route[:200]} is refused: Callgate does not know this route."
            return reading.error(404, "route_refused", message)
        serve: Callable[[], Awaitable[Answer | None]] | None = found.get(asked.method)
        if serve is None:
            message = f"{asked.method} is not allowed on {asked.route[:200]}; use {', '.join(sorted(found))}."
            return reading.error(405, "method_not_allowed", message)
        return await reading.run(serve)


def _find(reading: Reading, route: str) -> dict[str, Any]:
    match = _ROUTE.fullmatch(route)
    if match is None:
        return {}
    rest = match["rest"]
    match match["what"]:
        case "responses":
            id, slash, below = rest.removeprefix("/").partition("/")
            return responses.routes(reading, id, slash + below) if id else {}
        case "conversations":
            return conversations.routes(reading, rest)
        case _:
            return completions.routes(reading, rest)
