"""From a turn to the exact writes on the connection: rendering, then its fault, encoding and pieces."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from proxy.scripted import framing
from proxy.scripted.dialect import Dialect, Shape
from proxy.scripted.faults import Cut, Eof, ErrorFrame, Malformed, Raw, Stall, Status
from proxy.scripted.script import Played, ScriptedTurn

STREAM_TYPE = "text/event-stream; charset=utf-8"
BODY_TYPE = "application/json"

# RFC 9110 8.4.1.2: what HTTP calls deflate is the zlib format.
_WINDOW_BITS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP response, ready to be sent: nothing in it depends on who asks."""

    status: int
    headers: Mapping[str, str]
    pieces: tuple[bytes, ...]
    """The body, one write each."""
    length: int | None = None
    """Content-Length, or None for a chunked body."""
    ending: Literal["clean", "cut", "stall"] = "clean"
    delay_s: float = 0
    """How long to wait before the head."""
    gap_s: float = 0
    """How long to wait between two writes."""


def plain_reply(status: int, body: bytes) -> Reply:
    """A JSON body, with nothing wrong."""
    return Reply(status, {"content-type": BODY_TYPE}, (body,), len(body))


def compose(dialect: Dialect, played: Played, shape: Shape) -> Reply:
    """The reply that plays this turn; raises ScriptError where the API cannot say the turn."""
    turn = played.turn
    status, headers, pieces = _rendered(dialect, played, shape)
    headers["x-request-id"] = f"req_{played.token('request')}"
    if turn.encoding is not None:
        headers["content-encoding"] = turn.encoding
        pieces = _encoded(pieces, _WINDOW_BITS[turn.encoding])
    declared = sum(map(len, pieces))
    chunked = headers["content-type"].startswith("text/event-stream")
    pieces, ending = _stopped(turn, pieces, whole_body=not chunked)
    if isinstance(turn.fault, Eof):
        declared = sum(map(len, pieces))
    return Reply(
        status,
        headers,
        tuple(_rewritten(turn, pieces)),
        None if chunked else declared,
        ending,
        turn.delay_ms / 1000,
        turn.gap_ms / 1000,
    )


def _rendered(dialect: Dialect, played: Played, shape: Shape) -> tuple[int, dict[str, str], list[bytes]]:
    fault = played.turn.fault
    own_type = {"content-type": STREAM_TYPE if shape.stream else BODY_TYPE}
    if isinstance(fault, Raw):
        return fault.status, {"content-type": fault.content_type or own_type["content-type"]}, fault.pieces
    if isinstance(fault, Status):
        message = fault.message or f"The scripted provider answers {fault.status}."
        headers = {"content-type": BODY_TYPE}
        if fault.retry_after_s is not None:
            headers["retry-after"] = f"{fault.retry_after_s:g}"
        return fault.status, headers, [dialect.error(fault.status, message, fault.code)]
    if shape.stream:
        return 200, own_type, _stream(dialect, played, shape)
    if isinstance(fault, ErrorFrame):
        return 200, own_type, [dialect.error(500, fault.message, fault.code)]
    body = dialect.body(played, shape)
    return 200, own_type, [body[: len(body) // 2] if isinstance(fault, Malformed) else body]


def _stream(dialect: Dialect, played: Played, shape: Shape) -> list[bytes]:
    fault, frames = played.turn.fault, dialect.frames(played, shape)
    if isinstance(fault, ErrorFrame):
        data = dialect.error(500, fault.message, fault.code)
        event = framing.frame(data, played.turn.deviations, "error" if fault.event else None)
        return [*frames[: fault.after_frames], event]
    if isinstance(fault, Malformed):
        at = min(fault.after_frames, len(frames) - 1)
        frames[at] = framing.broken(frames[at])
    return frames


def _encoded(pieces: Sequence[bytes], window_bits: int) -> list[bytes]:
    """Compress the body so that each piece can be read as soon as it comes."""
    if not pieces:
        return []
    packer = zlib.compressobj(wbits=window_bits)
    packed = [packer.compress(piece) + packer.flush(zlib.Z_SYNC_FLUSH) for piece in pieces]
    packed[-1] += packer.flush(zlib.Z_FINISH)
    return packed


def _stopped(
    turn: ScriptedTurn, pieces: list[bytes], whole_body: bool
) -> tuple[list[bytes], Literal["clean", "cut", "stall"]]:
    fault = turn.fault
    if not isinstance(fault, Cut | Stall | Eof):
        return pieces, "clean"
    ending: Literal["clean", "cut", "stall"] = "clean" if isinstance(fault, Eof) else fault.kind
    if fault.after_bytes is not None:
        return [b"".join(pieces)[: fault.after_bytes]], ending
    if whole_body:
        body = b"".join(pieces)
        return ([body[: len(body) // 2]] if fault.after_frames else []), ending
    return pieces[: fault.after_frames], ending


def _rewritten(turn: ScriptedTurn, pieces: list[bytes]) -> list[bytes]:
    """Cut the body for the connection; an empty write would end a chunked body, so there are none."""
    if turn.write_bytes is not None:
        body = b"".join(pieces)
        return [body[at : at + turn.write_bytes] for at in range(0, len(body), turn.write_bytes)]
    return [b"".join(pieces)] if turn.burst and pieces else [piece for piece in pieces if piece]
