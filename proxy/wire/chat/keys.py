"""Whether every client finds the same calls in a JSON text.

JSON readers differ where an object names a key twice, and some (Go's, C#'s) do not tell cases apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from proxy.model import Fault, has_duplicate_keys, loads_frame
from proxy.wire.chat.reading import CALL_KEYS
from proxy.wire.codec import MalformedTurn

_TOP = frozenset({"choices"})
_CHOICE = frozenset({"index", "delta", "message", "finish_reason"})
_PART = frozenset(CALL_KEYS)
_PIECE = frozenset({"index", "id", "type", "function", "custom"})
_BODY = frozenset({"name", "arguments", "input"})
_BACKSLASH = 0x5C


def may_hide_calls(data: bytes) -> bool:
    """Whether some client could find a call in a text in which this reading found none.

    Without one of these words no key of the text can name a call; ``\\u00`` can spell any.
    """
    # This is asked of every frame of every stream, so the commonest answer comes first: no such word, and
    # no escape. A byte is found many times faster than text.
    if data.lower().find(b"_call") < 0 and _BACKSLASH not in data:
        return False
    lowered = data.lower()
    return b"tool_call" in lowered or b"function_call" in lowered or b"\\u00" in lowered


def check_keys(data: bytes, wire: dict[str, Any]) -> None:
    """Raise ``MalformedTurn`` unless every client finds the same calls in this text."""
    as_written = _is_as_written(data, wire)
    if not as_written and has_duplicate_keys(data):
        raise MalformedTurn("the answer names a key twice")
    for value, names in _objects(wire):
        if any(key not in names and key.casefold() in names for key in value):
            raise MalformedTurn("the answer spells a key in a way that only some clients read")
    # The JSON reader takes UTF-16, and halves of surrogate pairs in UTF-8; clients do not.
    if not as_written and (b"\0" in data or not _is_utf8(data)):
        raise MalformedTurn("the answer is not UTF-8")


def check_lines(data: bytes) -> None:
    """Raise ``MalformedTurn`` where a line of an event that has several is an event with a call by itself.

    Clients that read line by line would run it.
    """
    for line in data.splitlines():
        if may_hide_calls(line) and _is_chunk(line):
            raise MalformedTurn("a line of an event is an event by itself")


def _is_chunk(line: bytes) -> bool:
    try:
        wire = loads_frame(line)
    except Fault:
        return False
    return isinstance(wire, dict) and any(key.casefold() in _TOP for key in wire)


def _objects(wire: dict[str, Any]) -> Iterator[tuple[dict[str, Any], frozenset[str]]]:
    """Every object on the way to a call, with the keys that matter in it."""
    yield wire, _TOP
    for choice in _dicts(wire.get("choices")):
        yield choice, _CHOICE
        for part in _dicts([choice.get("delta"), choice.get("message")]):
            yield part, _PART
            yield from ((legacy, _BODY) for legacy in _dicts([part.get("function_call")]))
            for piece in _dicts(part.get("tool_calls")):
                yield piece, _PIECE
                yield from ((body, _BODY) for body in _dicts([piece.get("function"), piece.get("custom")]))


def _dicts(values: Any) -> Iterator[dict[str, Any]]:
    return (value for value in values or () if isinstance(value, dict))


def _is_as_written(data: bytes, wire: Any) -> bool:
    """Whether compact JSON writes the value with these bytes: then no key is there twice."""
    try:
        return orjson.dumps(wire) == data
    except TypeError:
        return False


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
