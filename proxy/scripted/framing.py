"""What every renderer needs: cutting text, writing JSON, and server-sent events with their liberties."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence, Set
from itertools import chain
from typing import Any

from proxy.model import dumps

COMMENT = b": processing"


def write_json(value: Any) -> bytes:
    """Compact JSON; half of a surrogate pair, which UTF-8 cannot carry, is escaped."""
    try:
        return dumps(value)
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":")).encode()


def cut_text(text: str, chars: int, utf16: bool = False) -> list[str]:
    """Cut text into pieces of ``chars`` characters, or of UTF-16 units, which halves an emoji."""
    if not utf16:
        return [text[at : at + chars] for at in range(0, len(text), chars)]
    units = text.encode("utf-16-le")
    size = 2 * chars
    return [units[at : at + size].decode("utf-16-le", "surrogatepass") for at in range(0, len(units), size)]


def frame(data: bytes, deviations: Set[str] = frozenset(), event: str | None = None) -> bytes:
    """One server-sent event that carries ``data``."""
    end = _line_end(deviations)
    field = b"data:" if "no_space_after_data" in deviations else b"data: "
    lines = [b"event: " + event.encode()] if event else []
    lines += [field + line for line in _data_lines(data, deviations)]
    return end.join(lines) + end + end


def frames(payloads: Iterable[bytes], deviations: Set[str]) -> list[bytes]:
    """A server-sent event for each payload, with a comment before each where the script wants them."""
    return commented([frame(payload, deviations) for payload in payloads], deviations)


def commented(events: list[bytes], deviations: Set[str]) -> list[bytes]:
    """The events, with a comment before each where the script wants them."""
    if "comments" not in deviations:
        return events
    comment = COMMENT + 2 * _line_end(deviations)
    return list(chain.from_iterable((comment, event) for event in events))


def broken(event: bytes) -> bytes:
    """The event with the second half of its text lost."""
    return event[: len(event) // 2] + b"\n\n"


def _line_end(deviations: Set[str]) -> bytes:
    return b"\r\n" if "crlf" in deviations else b"\r" if "cr" in deviations else b"\n"


def _data_lines(data: bytes, deviations: Set[str]) -> Sequence[bytes]:
    # A line break is white space to JSON, so the one place that is sure to allow one is after the "{".
    if "multiline_data" in deviations and data.startswith(b"{"):
        return (data[:1], data[1:])
    return (data,)
