"""Text and JSON as wires carry them, where providers cut text by UTF-16 units."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import orjson

from proxy.model import MAX_SAFE_INTEGER, dumps
from proxy.wire.codec import MalformedTurn


def write_json(value: Any) -> bytes:
    """Compact JSON, keys in their order; half of a surrogate pair, which UTF-8 cannot carry, is escaped.

    Raises ``MalformedTurn`` for what is nested too deeply to be written.
    """
    return _written(value, escape=True)


def write_request(value: Any) -> bytes:
    """As ``write_json``, but a lone half is replaced: many providers refuse a request that has one."""
    return _written(value, escape=False)


def _written(value: Any, escape: bool) -> bytes:
    try:
        try:
            return dumps(value)
        except UnicodeError:
            text = json.dumps(value, ensure_ascii=escape, separators=(",", ":"))
            return joined([text]).encode()
    except RecursionError:
        raise MalformedTurn("the answer is nested too deeply") from None


def is_as_written(data: bytes, value: Any) -> bool:
    """Whether compact JSON writes the value with just these bytes: then they are UTF-8, and no key is there
    twice."""
    try:
        return orjson.dumps(value) == data
    except TypeError:
        return False


def shortened(message: Any) -> str:
    """What a provider says of its error, whatever it says it in."""
    try:
        said = str(message)[:500] if message else ""
    except RecursionError:
        said = ""
    return said or "the provider reported an error"


def joined(pieces: Iterable[str]) -> str:
    """The pieces as one text: halves of a pair that were cut apart are put together, lone ones replaced."""
    text = "".join(pieces)
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def is_unicode(text: str) -> bool:
    """Whether UTF-8 can carry the text."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeError:
        return False
    return True


def is_whole(pieces: Iterable[str]) -> bool:
    """Whether the pieces, put together, have no lone half of a surrogate pair."""
    text = "".join(pieces)
    if text.isascii():
        return True
    try:
        text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    except UnicodeError:
        return False
    return True


def is_exact(value: Any) -> bool:
    """Whether no number of a value that was read from JSON may have lost digits on the way."""
    rest = [value]
    while rest:
        value = rest.pop()
        if isinstance(value, float) and abs(value) > MAX_SAFE_INTEGER:
            return False
        if isinstance(value, (dict, list)):
            rest += value.values() if isinstance(value, dict) else value
    return True
