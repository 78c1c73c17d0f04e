"""Whether every client finds the same calls in a JSON text.

JSON readers differ where an object names a key twice, and some (Go's, C#'s) do not tell cases apart.
"""

from __future__ import annotations

from collections.abc import Iterator

from proxy.model import has_duplicate_keys
from proxy.wire.codec import MalformedTurn
from proxy.wire.responses.items import Json
from proxy.wire.writing import is_as_written

# Without one of these no text can hold a call; "\u00" can spell any.
_CALL_WORDS = (b"_call", b"call_id", b"_request", b"\\u00")
_NUL, _BACKSLASH = b"\0\\"

_EVENT = frozenset({"type", "item", "response", "output_index", "item_id", "delta", "arguments", "input"})
_RESPONSE = frozenset({"output", "status", "id"})
_ITEM = frozenset(
    {"type", "id", "call_id", "name", "namespace", "server_label", "arguments", "input", "action", "actions"}
    | {"operation", "execution", "environment"}
)
_USUAL = _EVENT | _RESPONSE | _ITEM | {"sequence_number", "object", "created_at", "background", "error"}
_USUAL |= {"incomplete_details", "instructions", "max_output_tokens", "model", "parallel_tool_calls", "usage"}
_USUAL |= {"previous_response_id", "reasoning", "store", "temperature", "text", "tool_choice", "tools"}
_USUAL |= {"top_p", "truncation", "metadata", "user", "content", "role", "service_tier", "caller"}


def may_hold_calls(data: bytes) -> bool:
    """Whether some client could find a call in a text, whatever is found in it here."""
    lowered = data.lower()
    # This is asked of every event of every stream, so the commonest answer comes first. A byte is found many
    # times faster than text.
    if lowered.find(b"call") < 0 and lowered.find(b"_request") < 0 and _BACKSLASH not in data:
        return False
    return any(word in lowered for word in _CALL_WORDS)


def check_keys(data: bytes, wire: Json) -> bool:
    """Raise ``MalformedTurn`` unless every client finds the same calls in an event, or in a body; whether it
    may hold any."""
    # The JSON reader takes UTF-16, and halves of surrogate pairs in UTF-8; clients do not.
    if _NUL in data:
        raise MalformedTurn("the answer is not UTF-8")
    if not may_hold_calls(data):
        return False
    as_written = is_as_written(data, wire)
    if not as_written and has_duplicate_keys(data):
        raise MalformedTurn("the answer names a key twice")
    for value, names in _objects(wire):
        # What is its own case-folded spelling is no other's: the usual keys are not looked at one by one.
        if not value.keys() <= _USUAL and any(k not in names and k.casefold() in names for k in value):
            raise MalformedTurn("the answer spells a key in a way that only some clients read")
    if not as_written and not _is_utf8(data):
        raise MalformedTurn("the answer is not UTF-8")
    return True


def _objects(wire: Json) -> Iterator[tuple[Json, frozenset[str]]]:
    """Every object on the way to a call, with the keys that matter in it; a body is a response, whatever type
    it says it has."""
    found = []
    if isinstance(wire.get("type"), str):
        yield wire, _EVENT
        found.append(wire.get("item"))
    for response in (wire, wire.get("response")):
        if isinstance(response, dict):
            yield response, _RESPONSE
            output = response.get("output")
            found += output if isinstance(output, list) else []
    yield from ((item, _ITEM) for item in found if isinstance(item, dict))


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
