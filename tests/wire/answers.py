"""Answers written by hand, and what the codec makes of them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Any

from proxy.model import Failure, Passage, ToolCall, Turn
from proxy.wire.chat import ChatCodec
from proxy.wire.codec import Caps, MalformedTurn

CODEC = ChatCodec()
CAPS = Caps()
DONE = b"data: [DONE]\n\n"
HEAD = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m"}

Json = dict[str, Any]


def event(wire: Any) -> bytes:
    return b"data: " + (wire if isinstance(wire, bytes) else json.dumps(wire).encode()) + b"\n\n"


def chunk(delta: Any = None, finish: Any = None, index: Any = 0, **extra: Any) -> bytes:
    choice = {"index": index, "delta": {} if delta is None else delta, "finish_reason": finish}
    return event({**HEAD, "choices": [choice], **extra})


def call(
    arguments: Any = "{}", name: Any = "f", id: Any = "call_1", index: Any = 0, type: Any = "function"
) -> Json:
    return {"index": index, "id": id, "type": type, "function": {"name": name, "arguments": arguments}}


def more(arguments: Any, index: Any = 0) -> Json:
    return {"index": index, "function": {"arguments": arguments}}


def calls(*pieces: Any) -> Json:
    return {"tool_calls": list(pieces)}


def stream(*frames: bytes, done: bool = True) -> bytes:
    return b"".join(frames) + (DONE if done else b"")


def whole(*pieces: Any, finish: Any = "tool_calls") -> bytes:
    """A stream of one call or more, each piece in a chunk, with its end."""
    return stream(*(chunk(calls(piece)) for piece in pieces), chunk(finish=finish))


def body(message: Json, finish: Any = "tool_calls", **extra: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    return json.dumps({**HEAD, "object": "chat.completion", "choices": [choice], **extra}).encode()


EVIL = call('{"cmd":"evil"}', "evil")
HALF = "\ud83d"
GOOD = chunk(calls(call()))
END = chunk(finish="tool_calls")


def spelled(frame: bytes, plain: bytes, other: bytes) -> bytes:
    assert plain in frame
    return frame.replace(plain, other)


class Read:
    """An answer, decoded: what went on at once, and the turn or what was wrong."""

    def __init__(self, data: bytes, stream: bool = True, cuts: Sequence[int] = (), caps: Caps = CAPS) -> None:
        decoder = CODEC.decoder(stream, caps)
        points = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
        self.passages: list[Passage] = []
        self.failure: Failure | None = None
        self.turn: Turn | None = None
        self.fault: MalformedTurn | None = None
        try:
            for a, b in itertools.pairwise(points):
                self._take(decoder.feed(data[a:b]))
            events, self.turn = decoder.close()
            self._take(events)
        except MalformedTurn as exc:
            self.fault = exc

    def _take(self, events: Sequence[Passage | Failure]) -> None:
        for one in events:
            assert self.failure is None, "nothing follows a failure"
            if isinstance(one, Failure):
                self.failure = one
            else:
                self.passages.append(one)

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        assert self.fault is None, self.fault
        assert self.turn is not None
        return self.turn.calls


def written(read: Read, stream: bool = True, allow: Sequence[bool] | None = None) -> bytes:
    """The client's bytes where these calls go on (all, unless ``allow`` says which)."""
    assert read.turn is not None
    encoder = CODEC.encoder(stream)
    passed = b"".join(encoder.passage(passage) for passage in read.passages)
    going = [c.fault is None for c in read.calls] if allow is None else allow
    arguments = [c.arguments_json if go else None for c, go in zip(read.calls, going, strict=True)]
    return passed + encoder.release(read.turn, arguments, {})
