"""Server-sent events, incrementally and byte for byte (WHATWG HTML, section 9.2)."""

from __future__ import annotations

import re
from dataclasses import dataclass

# Atomic groups: a CRLF must never be read as two line ends.
_LINE_END = rb"(?>\r\n|\n|\r)"
_BLANK_LINE = re.compile(_LINE_END + _LINE_END)
_SPLIT = re.compile(_LINE_END)
# Lines that say nothing: blank ones, comments, and the fields that hold neither data nor a name.
_SILENT = frozenset({b"", b"id", b"retry"})
# Some clients end lines here too: ``str.splitlines`` does, and with it httpx's ``iter_lines``.
_OTHER_LINE_END = re.compile(rb"[\x0b\x0c\x1c-\x1e]|\xc2\x85|\xe2\x80[\xa8\xa9]")
_MAX_NAME_BYTES, _MAX_NAMES = 64, 256
_names: set[bytes] = set()
"""Of events that came before, so that each is looked at once."""
_LF, _CR = 10, 13
BOM = b"\xef\xbb\xbf"
_BLANK_LINES = (b"\n\n", b"\n\r", b"\r\r", b"\n\r\n", b"\r\r\n")


@dataclass(slots=True)  # not frozen: that would triple the cost of making one
class Frame:
    """One event: the bytes it stood in, its data (None: it has none, as a comment), its event name."""

    raw: bytes
    data: bytes | None
    event: bytes = b""

    @property
    def is_ended(self) -> bool:
        """Whether its blank line stands in the stream: clients may drop an event without one."""
        return self.raw.endswith(_BLANK_LINES)


class SseDecoder:
    """Cut a byte stream into events. However the bytes arrive, the frames are the same.

    Joining the frames' ``raw`` gives the stream back, up to an event that is larger than the cap: there
    ``too_large`` is set, and nothing more is read.
    """

    def __init__(self, max_event_bytes: int) -> None:
        self.too_large = False
        self._max_event_bytes = max_event_bytes
        self._rest = bytearray()
        self._scanned = 0
        self._has_cr = False
        self._first = True

    def feed(self, chunk: bytes) -> list[Frame]:
        """The events that these bytes complete."""
        rest = self._rest
        has_cr = self._has_cr or _CR in chunk
        if not (rest or has_cr) and len(chunk) <= self._max_event_bytes and (whole := _plain(chunk)):
            self._first = False
            return [whole]
        self._has_cr = has_cr
        buffer: bytes | bytearray = chunk
        if rest:
            rest += chunk
            buffer = rest
        if not has_cr and len(buffer) <= self._max_event_bytes:
            return self._split(buffer)
        frames: list[Frame] = []
        find_end = _end_with_cr if has_cr else _end
        start = 0
        end = find_end(buffer, self._scanned)
        while end >= 0 and not self._exceeds(end - start):
            frames.append(self._frame(bytes(buffer[start:end])))
            start = end
            end = find_end(buffer, start)
        self._keep(buffer, start)
        return frames

    def _split(self, buffer: bytes | bytearray) -> list[Frame]:
        """As the loop over events that may be too large or end in carriage returns, in one step."""
        if _end(buffer, self._scanned) < 0:
            self._keep(buffer, 0)
            return []
        *events, left = bytes(buffer).split(b"\n\n")
        self._rest, self._scanned = bytearray(left), max(len(left) - 3, 0)
        return [self._frame(event + b"\n\n") for event in events]

    def _exceeds(self, size: int) -> bool:
        self.too_large = self.too_large or size > self._max_event_bytes
        return self.too_large

    def _keep(self, buffer: bytes | bytearray, start: int) -> None:
        if buffer is self._rest:
            del self._rest[:start]
        else:
            self._rest += buffer[start:]
        # A blank line may begin in the last three bytes already seen: "\r\n\r" + "\n".
        self._scanned = max(len(self._rest) - 3, 0)
        self._exceeds(len(self._rest))

    def close(self) -> list[Frame]:
        """What is left when the stream ends: an event without its blank line, which some clients read."""
        rest = bytes(self._rest)
        self._rest.clear()
        return [self._frame(rest)] if rest and not self.too_large else []

    def _frame(self, raw: bytes) -> Frame:
        if _CR not in raw and (plain := _plain(raw)) is not None:
            self._first = False
            return plain
        text = raw.removeprefix(BOM) if self._first else raw
        self._first = False
        return _read_lines(raw, text)


def _plain(raw: bytes) -> Frame | None:
    """One whole event of one line, or of its name and one line, without looking at each line.

    That is what a model's stream mostly brings. ``raw`` has no carriage return.
    """
    if not raw.endswith(b"\n\n"):
        return None
    line, last = raw.find(_LF), len(raw) - 2
    if line == last:
        return Frame(raw, raw[6:-2]) if raw.startswith(b"data: ") else None
    if raw.find(_LF, line + 1) == last and raw.startswith(b"event: ") and raw.startswith(b"data: ", line + 1):
        name = raw[7:line]
        return Frame(raw, raw[line + 7 : -2], name) if name in _names or _is_name(name) else None
    return None


def _is_name(name: bytes) -> bool:
    if len(name) > _MAX_NAME_BYTES or _hides_an_event(name):
        return False
    if len(_names) < _MAX_NAMES:
        _names.add(name)
    return True


def _hides_an_event(line: bytes) -> bool:
    """Whether some client may find an event's data in a line that has none."""
    return _OTHER_LINE_END.search(line) is not None or (b"data:" in line and b"{" in line)


def _end(buffer: bytes | bytearray, search: int) -> int:
    found = buffer.find(b"\n\n", search)
    return found + 2 if found >= 0 else -1


def _end_with_cr(buffer: bytes | bytearray, search: int) -> int:
    match = _BLANK_LINE.search(buffer, _line_start(buffer, search))
    if match is None:
        return -1
    end = match.end()
    # A carriage return at the very end may be half of a CRLF: the next bytes tell.
    if end == len(buffer) and buffer.endswith(b"\r"):
        return -1
    return end


def _line_start(buffer: bytes | bytearray, search: int) -> int:
    """Do not begin between the halves of a CRLF: the LF would count as a line end of its own."""
    if 0 < search < len(buffer) and buffer[search] == 0x0A and buffer[search - 1] == 0x0D:
        return search - 1
    return search


def _read_lines(raw: bytes, text: bytes) -> Frame:
    data: list[bytes] = []
    event = b""
    hides = False
    for line in _SPLIT.split(text):
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            data.append(value)
        elif name == b"event" or name in _SILENT:
            event = value if name == b"event" else event
            hides = hides or _hides_an_event(line)
        else:
            # No event's line, so clients of streams skip it; but a client that did not ask for a stream
            # may read the whole as JSON. It counts as data, to be judged or refused.
            data.append(line)
    if hides:
        return Frame(raw, text, event)  # which as data has no reading, so that it goes to nobody
    return Frame(raw, b"\n".join(data) if data else None, event)
