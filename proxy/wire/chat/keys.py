"""Whether every client finds the same calls in a JSON text.

JSON readers differ where an object names a key twice, and some (Go's, C#'s) do not tell cases apart.
"""

from __future__ import annotations

from typing import Any

from proxy.model import has_duplicate_keys
from proxy.wire.chat.reading import CALL_KEYS
from proxy.wire.codec import MalformedTurn
from proxy.wire.writing import is_as_written

_TOP = frozenset({"choices"})
_CHOICE = frozenset({"index", "delta", "message", "finish_reason"})
_PART = frozenset(CALL_KEYS)
_PIECE = frozenset({"index", "id", "type", "function", "custom"})
_BODY = frozenset({"name", "arguments", "input"})
_USUAL = _TOP | _CHOICE | _PART | _PIECE | _BODY | {"object", "created", "model", "system_fingerprint"}
_USUAL |= {"service_tier", "usage", "obfuscation", "logprobs", "role", "content", "refusal", "annotations"}
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
    as_written = is_as_written(data, wire)
    if not as_written and has_duplicate_keys(data):
        raise MalformedTurn("the answer names a key twice")
    if _is_oddly_spelled(wire):
        raise MalformedTurn("the answer spells a key in a way that only some clients read")
    # The JSON reader takes UTF-16, and halves of surrogate pairs in UTF-8; clients do not.
    if not as_written and (b"\0" in data or not _is_utf8(data)):
        raise MalformedTurn("the answer is not UTF-8")


def _is_oddly_spelled(wire: dict[str, Any]) -> bool:
    """Whether an object on the way to a call spells a key that matters there in another case."""
    if _has_odd_key(wire, _TOP):
        return True
    for choice in _dicts(wire.get("choices")):
        if _has_odd_key(choice, _CHOICE):
            return True
        for part in _dicts((choice.get("delta"), choice.get("message"))):
            if _has_odd_key(part, _PART) or _has_odd_key(part.get("function_call"), _BODY):
                return True
            for piece in _dicts(part.get("tool_calls")):
                if _has_odd_key(piece, _PIECE):
                    return True
                if _has_odd_key(piece.get("function"), _BODY) or _has_odd_key(piece.get("custom"), _BODY):
                    return True
    return False


def _has_odd_key(value: Any, names: frozenset[str]) -> bool:
    # What is its own case-folded spelling is no other's: the usual keys are not looked at one by one.
    if not isinstance(value, dict) or value.keys() <= _USUAL:
        return False
    return any(key not in names and key.casefold() in names for key in value)


def _dicts(values: Any) -> list[dict[str, Any]]:
    return [value for value in values or () if isinstance(value, dict)]


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
