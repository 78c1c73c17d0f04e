"""One answer, from the bytes of its connection: bytes in, a head and a body out.

llhttp reads heads and chunks, strictly. Where it knows more than one reading of a message, here there is none
(RFC 9112 6.1, 11.2): who takes an answer's end to be elsewhere than the provider gives a part of it to
somebody else.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from proxy.http.upstream import faults
from proxy.ports import UpstreamFailed

MAX_HEAD_BYTES = 64 * 2**10
"""For the head of an answer with all that is said before it (RFC 9110 15.2), and for its trailers."""
MAX_FIELDS = 256

_BEGIN = b"HTTP/1."
_END = b"\r\n\r\n"
_LAST_CHUNK = b"0\r\n\r\n"
_BARE_LINE_BREAK = re.compile(rb"(?<!\r)\n")
_KEEP_ALIVE = re.compile(r"timeout=(\d{1,9})", re.IGNORECASE)
# How the end of what is being read is found. Plain numbers: each frame of a stream asks.
_HEAD, _LENGTH, _CHUNKS, _CLOSE = range(4)
_FRAMING = frozenset({"connection", "content-length", "keep-alive", "transfer-encoding"})


class Head:
    """What an answer says of itself."""

    __slots__ = ("fields", "idle_s", "keeps", "length", "status")

    def __init__(self, status: int, fields: list[tuple[str, str]]) -> None:
        self.status = status
        self.fields = fields
        """Its headers, as they were written and in their order."""
        self.length: int | None = None
        """How many bytes the body was said to have."""
        self.keeps = True
        """Whether the connection was said to take another request."""
        self.idle_s: int | None = None
        """For how long the provider keeps the connection open, where it says so."""

    def get(self, name: str) -> str:
        """The first value under a name (in lower case); empty where there is none."""
        return next((value for known, value in self.fields if known.lower() == name), "")

    def all(self, name: str) -> list[str]:
        """Every value under a name (in lower case)."""
        return [value for known, value in self.fields if known.lower() == name]


class _SecondAnswer(Exception):
    """Nobody asked for it."""


class _Events:
    """What llhttp tells of one message. Holds no parser, which holds it: nothing is left to the collector."""

    __slots__ = ("ended", "fields", "has_head", "on_body")

    def __init__(self, on_body: Callable[[bytes], None]) -> None:
        self.fields: list[tuple[str, str]] = []
        self.has_head = self.ended = False
        self.on_body = on_body

    def on_message_begin(self) -> None:
        # Stops the parser: not a byte of what follows an answer is taken for its body.
        if self.ended:
            raise _SecondAnswer

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.has_head:
            text = value.decode("utf-8", "surrogateescape").rstrip(" \t")
            self.fields.append((name.decode("ascii"), text))

    def on_headers_complete(self) -> None:
        self.has_head = True

    def on_message_complete(self) -> None:
        self.ended = True


class Answer:
    """One answer while it arrives."""

    __slots__ = ("_events", "_framing", "_head_bytes", "_held", "_is_bodiless", "_left", "_parser", "_silent",
                 "body", "ended", "fault", "head", "is_exact")  # fmt: skip

    def __init__(self, method: str) -> None:
        self.head: Head | None = None
        self.body: list[bytes] = []
        """What has arrived of the body, and was not yet taken."""
        self.ended = False
        """Whether all of it has arrived."""
        self.fault: UpstreamFailed | None = None
        """Why no more of it comes."""
        self.is_exact = False
        """Whether it ended just where the bytes of its connection did."""
        self._is_bodiless = method == "HEAD"
        self._framing = _HEAD
        self._held = bytearray()
        self._head_bytes = self._left = self._silent = 0
        self._parser: HttpResponseParser | None = None
        self._events: _Events | None = None

    @property
    def is_heard_of(self) -> bool:
        """Whether a byte of it has arrived."""
        return self.head is not None or bool(self._held) or self._head_bytes > 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the connection."""
        framing = self._framing
        if self.ended:
            self.is_exact = False
        elif self.fault is not None:
            return
        elif framing == _CHUNKS:
            self._chunks(data)
        elif framing == _LENGTH:
            self._counted(data)
        elif framing == _CLOSE:
            self.body.append(data)
        else:
            self._begin(data)

    def close(self, is_clean: bool) -> None:
        """The connection has ended; ``is_clean`` where the provider said so, and was not just gone."""
        if self.ended or self.fault is not None:
            return
        if self.head is None:
            self.fault = faults.broken()
        elif self._framing == _CLOSE and is_clean:
            self.ended = True
        else:
            self.fault = faults.incomplete()
        self._parser = None

    # -- the head

    def _begin(self, data: bytes) -> None:
        """Read heads until there is the one of the answer itself."""
        held = self._held
        if held:
            known = len(held)
            held += data
            if held.find(_END, max(known - 3, 0)) < 0:
                self._check_part(known)
                return
            data = bytes(held)
            held.clear()
        while (end := data.find(_END) + len(_END)) >= len(_END):
            self._head_bytes += end
            raw, data = data[:end], data[end:]
            if self._head_bytes > MAX_HEAD_BYTES or not raw.startswith(_BEGIN):
                self.fault = faults.malformed()
                return
            self._read(raw)
            if self.head is not None:
                self._go_on(data)
            if self.head is not None or self.fault is not None:
                return
        held += data
        self._check_part(0)

    def _check_part(self, known: int) -> None:
        """Refuse at once what cannot become a head; up to ``known`` it was looked at."""
        held = self._held
        if (
            self._head_bytes + len(held) > MAX_HEAD_BYTES
            or held[: len(_BEGIN)] != _BEGIN[: len(held)]
            or _BARE_LINE_BREAK.search(held, known) is not None
        ):
            self.fault = faults.malformed()

    def _read(self, raw: bytes) -> None:
        """One head, whole."""
        events = _Events(self.body.append)
        parser = HttpResponseParser(events)
        # Odd characters in a value are left out with their header, padded chunk sizes are sent and have one
        # reading. What else it would let through (RFC 9112 2.2, 5.2, RFC 9110 5.5) is refused here: to it, a
        # CR before a value ends its line, and so does a LF behind an odd character.
        parser.set_dangerous_leniencies(lenient_headers=True, lenient_spaces_after_chunk_size=True)
        lines = raw.count(b"\r\n")
        if (
            raw.count(b"\r") != lines
            or raw.count(b"\n") != lines
            or b"\r\n " in raw
            or b"\r\n\t" in raw
            or b"\0" in raw
        ):
            self.fault = faults.malformed()
            return
        try:
            parser.feed_data(raw)
        except (HttpParserError, HttpParserUpgrade):
            status = parser.get_status_code()
            self.fault = faults.another_protocol(status) if status == 101 else faults.malformed()
            return
        status = parser.get_status_code()
        fields = events.fields
        if (
            not events.has_head
            or len(fields) > MAX_FIELDS
            or status < 100
            or (b" :" in raw and any(name.endswith(" ") for name, _ in fields))
        ):
            self.fault = faults.malformed()
        elif status >= 200:
            self._frame(Head(status, fields), raw, parser, events)

    def _frame(self, head: Head, raw: bytes, parser: HttpResponseParser, events: _Events) -> None:
        """Find out how the end of the body is told (RFC 9112 6.3)."""
        encodings = 0
        head.keeps = raw.startswith(b"HTTP/1.1")
        for name, value in head.fields:
            if (lower := name.lower()) not in _FRAMING:
                continue
            if lower == "content-length":
                head.length = int(value)  # llhttp saw to it that it is one number, and there once
            elif lower == "transfer-encoding":
                encodings += 1 if value.isascii() and value.lower() == "chunked" else 2
            elif lower == "connection":
                head.keeps = head.keeps and value.lower() == "keep-alive"
            elif (idle := _KEEP_ALIVE.search(value)) is not None:
                head.idle_s = int(idle[1])
        if encodings > 1:
            # Other encodings than chunks would hide the body from whoever reads it here.
            self.fault = faults.malformed()
            return
        self.head = head
        if self._is_bodiless or head.status in (204, 304) or (head.length == 0):
            self._framing, self._left = _LENGTH, 0
        elif encodings:
            self._framing, self._parser, self._events = _CHUNKS, parser, events
        elif head.length is not None:
            self._framing, self._left = _LENGTH, head.length
        else:
            self._framing, head.keeps = _CLOSE, False

    def _go_on(self, data: bytes) -> None:
        """What came with the head."""
        if self._framing == _LENGTH:
            self._counted(data)
        elif data:
            self.feed(data)

    # -- the body

    def _counted(self, data: bytes) -> None:
        left = self._left = self._left - len(data)
        if left < 0:
            data = data[:left]
        if data:
            self.body.append(data)
        if left <= 0:
            self.ended, self.is_exact = True, left == 0

    def _chunks(self, data: bytes) -> None:
        parser, events, before = self._parser, self._events, len(self.body)
        if parser is None or events is None:
            raise AssertionError("chunks have a head before them")
        try:
            parser.feed_data(data)
        except HttpParserError:
            # Broken, unless the chunks had ended: then something is behind them.
            if events.ended:
                self._end(False)
            else:
                self.fault, self._parser = faults.incomplete(), None
            return
        if events.ended:
            # llhttp skips line breaks behind a message, and takes trailers: both are something more.
            self._end(data.endswith(_LAST_CHUNK))
        elif len(self.body) > before:
            self._silent = 0
        else:
            # Extensions and trailers, which nobody reads.
            self._silent += len(data)
            if self._silent > MAX_HEAD_BYTES:
                self.fault, self._parser = faults.incomplete(), None

    def _end(self, is_exact: bool) -> None:
        self.ended, self.is_exact, self._parser = True, is_exact, None
