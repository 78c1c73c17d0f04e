"""The one strict reading of JSON: that which every client shares."""

from __future__ import annotations

import json
from typing import Any, NoReturn

import orjson

# RFC 7493 (I-JSON) 2.2: beyond this, JavaScript clients run another number than Python clients do.
MAX_SAFE_INTEGER = 2**53 - 1
_BOM = b"\xef\xbb\xbf"


class Fault(ValueError):
    """The text has no reading that every client shares; the message says why, for the model to read."""


def loads(text: bytes | str) -> Any:
    """Read JSON in the one way that every client shares.

    Duplicate keys, NaN and infinities, lone surrogates, trailing data and nesting beyond the parser's
    depth raise ``Fault``. Integers of any size are kept exact.

    Text that is already compact (as nearly all clients and models write it) is proven unambiguous by
    writing it back; only other text pays for the slower parser.
    """
    try:
        raw = text.encode() if isinstance(text, str) else text
        value = orjson.loads(raw)
        if orjson.dumps(value) == raw:
            return value
    except (ValueError, TypeError):
        pass  # includes lone surrogates and integers beyond 64 bits: the slow reading words the fault
    return _read_slowly(text)


def _read_slowly(text: bytes | str) -> Any:
    try:
        decoded = text if isinstance(text, str) else text.decode()
        value = json.loads(
            decoded, object_pairs_hook=_unique, parse_constant=_not_a_number, parse_float=_finite
        )
        if "\\u" in decoded or not decoded.isascii():
            json.dumps(value, ensure_ascii=False).encode()
    except Fault:
        raise
    except UnicodeError:
        raise Fault("text that is not valid Unicode (a lone surrogate or broken UTF-8)") from None
    except RecursionError:
        raise Fault("nested too deeply") from None
    except ValueError as exc:
        raise Fault(f"not valid JSON: {_position(exc)}") from None
    return value


def _position(exc: ValueError) -> str:
    if isinstance(exc, json.JSONDecodeError):
        return f"{exc.msg[0].lower()}{exc.msg[1:]} at character {exc.pos + 1}"
    return "a number with too many digits"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise Fault(f"duplicate key {key!r}")
            seen.add(key)
    return value


def _not_a_number(constant: str) -> NoReturn:
    raise Fault(f"{constant} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise Fault(f"the number {text} is out of range")
    return value


def dumps(value: Any) -> bytes:
    """Write compact JSON, keys in their order; integers of any size are kept exact."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def loads_frame(data: bytes) -> Any:
    """Read one wire frame: as ``loads``, but a surrogate pair may be cut in two across frames.

    Providers that cut text by UTF-16 units send one half of an emoji a frame, so a lone half is no
    fault here; the call that is assembled from the frames is held to the strict reading.
    """
    try:
        return orjson.loads(data)
    except ValueError:
        pass
    # The reader below takes UTF-16 and byte order marks; clients do not.
    if b"\0" in data:
        raise Fault("not UTF-8")
    if data.startswith(_BOM):
        raise Fault("not valid JSON: it begins with a byte order mark")
    try:
        return json.loads(data, object_pairs_hook=_unique, parse_constant=_not_a_number)
    except RecursionError:
        raise Fault("nested too deeply") from None
    except Fault:
        raise
    except ValueError:
        raise Fault("not valid JSON") from None


def has_duplicate_keys(data: bytes) -> bool:
    """Whether some object of this JSON text names a key twice, or is too deep to be sure."""
    try:
        json.loads(data, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        return True
    return False


def unsafe_integer(value: Any) -> int | None:
    """The first integer in a JSON value that some clients would read as another."""
    if isinstance(value, int):
        return value if abs(value) > MAX_SAFE_INTEGER else None
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            if (found := unsafe_integer(item)) is not None:
                return found
    return None
