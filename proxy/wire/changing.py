"""A request with another body, and what of the old one still holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import is_
from typing import Any

import orjson

from proxy.model import Request
from proxy.wire.known import KnownTools

# The members that tell of the conversation, whichever API it is, and what requests read in them alone.
_CONVERSATION = (
    *("messages", "input", "previous_response_id", "conversation"),
    *("background", "stream", "store"),
)
_READ_IN_THEM = ("history", "results", "handles", "continued", "resumable", "scope")


def rewritten(request: Request, body: dict[str, Any], write: Callable[[Any], bytes]) -> Request:
    """The request with another body as ``write`` writes it.

    Where that has the same conversation, what was read in it is not read again.
    """
    same = all(map(is_, map(body.get, _CONVERSATION), map(request.body.get, _CONVERSATION)))
    return request.with_body(body, _written(body, write), _READ_IN_THEM if same else ())


def _written(body: Mapping[str, Any], write: Callable[[Any], bytes]) -> bytes:
    """The body's JSON, with that of known tools in its place."""
    if isinstance(tools := body.get("tools"), KnownTools):
        try:
            return orjson.dumps({**body, "tools": orjson.Fragment(tools.raw)})
        except TypeError:
            pass  # half of a surrogate pair, an integer beyond 64 bits: ``write`` knows what becomes of it
    return write(body)
