"""Frames that repeat an earlier one of their stream but for the text that the model goes on with.

A frame that has the bytes of one that was read whole, except for the inside of one JSON string, has its
reading too, with this text in its place: no quote, key, bracket or line end can stand inside a string. So
every byte of it is looked at, and nothing that a parser could find in it is missed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from proxy.wire.chat.keys import may_hide_calls
from proxy.wire.chat.reading import Choice
from proxy.wire.sse import Frame

_CONTENT = b'"content":"'
# Some providers fill frames up, to hide how long the words in them are. Nothing is read from these members.
_PADDING = (b'"obfuscation":"', b'"p":"')
_BACKSLASH, _LF = b"\\\n"


class Repeated:
    """What the frames are like that go on with one choice's text."""

    __slots__ = ("_event", "_head", "_middle", "_size", "_tail", "choice")

    def __init__(self, frame: Frame, choice: Choice, pieces: tuple[bytes, bytes, bytes]) -> None:
        self.choice = choice
        self._event = frame.event
        self._head, self._middle, self._tail = pieces
        self._size = sum(map(len, pieces))

    def text(self, frame: Frame) -> str | None:
        """The text of a frame that is alike; None for any other, and for a text that may spell a call."""
        data = frame.data
        if data is None or not data.startswith(self._head) or not data.endswith(self._tail):
            return None
        if frame.event != self._event or len(data) < self._size:
            return None
        inside = data[len(self._head) : len(data) - len(self._tail)]
        if self._middle:
            inside, found, padding = inside.partition(self._middle)
            if not found or _text(padding) is None:
                return None
        return _text(inside)


def _text(inside: bytes) -> str | None:
    """The text whose JSON has just this between its quotes."""
    if may_hide_calls(inside):
        return None
    try:
        text: str = orjson.loads(b'"' + inside + b'"')
    except ValueError:
        return None
    return text


def repeated(frame: Frame, wire: Mapping[str, Any], choice: Choice) -> Repeated | None:
    """What frames repeat this one, which the decoder has read whole as text for one choice, and harmless.

    None where that cannot be told by its bytes.
    """
    data = frame.data or b""
    delta = wire["choices"][0]["delta"]
    others = [value for key, value in delta.items() if key not in ("role", "content") and value is not None]
    # What names the answer is told once: with it, the frames that follow say nothing but their text.
    if others or wire.get("usage") is not None or not wire.get("id"):
        return None
    # Without escapes, a quote in JSON is the beginning or the end of a string. So where a member is named
    # once in the text, it is the one that the reading found.
    if _BACKSLASH in data or _LF in data or data.count(_CONTENT[:-1]) != 1 or _CONTENT not in data:
        return None
    head, _, rest = data.partition(_CONTENT)
    _, _, rest = rest.partition(b'"')
    middle, tail = b"", b'"' + rest
    for name in _PADDING:
        before, member, after = tail.partition(name)
        if member:
            middle, tail = before + member, b'"' + after.partition(b'"')[2]
            break
    return Repeated(frame, choice, (head + _CONTENT, middle, tail))
