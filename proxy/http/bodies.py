"""A request's body: read within bounds of size and time, its encoding undone."""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import Sequence

from aiohttp import web
from aiohttp.web_protocol import RequestPayloadError

# zlib's window bits that take exactly this container (RFC 9110 8.4.1).
_WINDOW_BITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
# To the end where it has none: what does not match would be tried again from each of its quotes.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.?[^"\\]*+)*+(?:"|\Z)', re.DOTALL)


class Unreadable(Exception):
    """The body has no reading, or not in time; the message is for the client."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


async def read_body(request: web.BaseRequest, max_bytes: int, timeout_s: float) -> bytes:
    """The whole body, as it was sent.

    Raises ``Unreadable``: 413 where it is larger than ``max_bytes`` (a declared length is believed, and
    nothing is read), 408 where it is not there within ``timeout_s``, 400 where its framing is broken.
    """
    if (request.content_length or 0) > max_bytes:
        raise too_large(max_bytes)
    await continue_if_expected(request)
    try:
        # Most bodies are there with their head, and nothing has to be waited for.
        if request.content.is_eof():
            return within(request.content.read_nowait(), max_bytes)
        async with asyncio.timeout(timeout_s):
            return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise too_large(max_bytes) from None
    except TimeoutError:
        message = f"The request's body did not arrive within {timeout_s:g} s."
        raise Unreadable(408, "request_timeout", message) from None
    except RequestPayloadError:
        raise Unreadable(400, "bad_http", "The request's body is not valid HTTP.") from None


async def continue_if_expected(request: web.BaseRequest) -> None:
    """Tell a client that asked first (RFC 9110 10.1.1) that its body is wanted."""
    if request.headers.get("expect", "").lower() == "100-continue" and request.version >= (1, 1):
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # no part of the answer yet


def decoded(raw: bytes, encodings: Sequence[str], max_bytes: int) -> bytes:
    """The body without its encoding (the values of Content-Encoding).

    Raises ``Unreadable``: 415 for an encoding other than gzip and deflate, 413 where more than
    ``max_bytes`` come out, 400 where it is not what it says it is.
    """
    if not encodings:
        return raw
    names = [name.strip().lower() for value in encodings for name in value.split(",")]
    names = [name for name in names if name not in ("", "identity")]
    if not names:
        return raw
    if len(names) > 1 or names[0] not in _WINDOW_BITS:
        message = (
            f"The content encoding {', '.join(names)[:100]!r} is not served: send gzip, deflate or none."
        )
        raise Unreadable(415, "unsupported_encoding", message)
    unpacker = zlib.decompressobj(wbits=_WINDOW_BITS[names[0]])
    try:
        body = unpacker.decompress(raw, max_bytes + 1)
    except zlib.error:
        raise _not_encoded(names[0]) from None
    within(body, max_bytes)
    # Cut off, or with something behind it: another reader might see another body.
    if not unpacker.eof or unpacker.unused_data:
        raise _not_encoded(names[0])
    return body


def within(body: bytes, max_bytes: int) -> bytes:
    """The body; raises ``Unreadable`` (413) where it is larger than ``max_bytes``."""
    if len(body) > max_bytes:
        raise too_large(max_bytes)
    return body


def too_large(max_bytes: int) -> Unreadable:
    message = f"The request is larger than {max_bytes} bytes (limits.max_request_bytes)."
    return Unreadable(413, "request_too_large", message)


def few_enough(body: bytes, max_values: int) -> bytes:
    """The body; raises ``Unreadable`` (413) where its JSON would come to more than ``max_values`` values.

    Twenty megabytes are one picture, or ten million empty lists, which take thirty times as much memory
    and hold up everybody while they are read.
    """
    # A value takes two bytes at least, so that nearly every body is short enough.
    if len(body) > 2 * max_values and _marks(body) > max_values:
        rest, strings = _STRING.subn(b"", body, 2 * max_values + 1)
        if strings > 2 * max_values or _marks(rest) > max_values:
            message = f"The request holds more than {max_values} JSON values (limits.max_request_values)."
            raise Unreadable(413, "request_too_large", message)
    return body


def _marks(text: bytes) -> int:
    """How many values JSON without its strings has, not counting the first; of empty lists and objects, each
    counts as two."""
    return text.count(b",") + text.count(b"[") + text.count(b"{")


def _not_encoded(name: str) -> Unreadable:
    return Unreadable(400, "bad_encoding", f"The request's body is not one whole {name} body.")
