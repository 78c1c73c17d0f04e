"""Answers as OpenAI sends them, changed as other servers would; and what the codec makes of them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from proxy.model import Failure, Passage, ToolCall, Turn
from proxy.scripted import responses as dialect
from proxy.scripted.dialect import Shape
from proxy.scripted.script import Played, Script
from proxy.wire.codec import Caps, MalformedTurn
from proxy.wire.responses import ResponsesCodec

CODEC = ResponsesCodec()
CAPS = Caps()
STREAM, BODY = Shape("m", True), Shape("m", False)

Json = dict[str, Any]
Change = Callable[[list[Json]], Iterable[Json]]


def played(*turns: Json, number: int = 0) -> Played:
    return Played(Script.of("m", turns), number)


def events(turn: Played) -> list[Json]:
    """The events of a turn, read."""
    return [json.loads(frame.split(b"data: ", 1)[1]) for frame in dialect.frames(turn, STREAM)]


def written(wires: Iterable[Json], named: bool = True) -> bytes:
    """Events as a stream."""
    head = "event: {}\n" if named else ""
    return b"".join(
        (head.format(wire["type"]) + "data: " + json.dumps(wire, separators=(",", ":")) + "\n\n").encode(
            errors="surrogatepass"
        )
        for wire in wires
    )


def items_events(*items: Json) -> list[Json]:
    """A whole answer of these items, each added and done, and no more said of it."""
    response = {"id": "resp_1", "object": "response", "created_at": 1, "model": "m", "error": None}
    response |= {"incomplete_details": None, "usage": None}
    wires: list[Json] = [
        {"type": "response.created", "response": {**response, "status": "in_progress", "output": []}}
    ]
    for index, item in enumerate(items):
        wires.append({"type": "response.output_item.added", "output_index": index, "item": item})
        wires.append({"type": "response.output_item.done", "output_index": index, "item": item})
    done = {**response, "status": "completed", "output": list(items)}
    wires.append({"type": "response.completed", "response": done})
    return [{**wire, "sequence_number": number} for number, wire in enumerate(wires)]


def body_of(*items: Json) -> bytes:
    return json.dumps(items_events(*items)[-1]["response"]).encode()


def read(data: bytes, stream: bool = True, cuts: Sequence[int] | None = None, caps: Caps = CAPS) -> Any:
    """What passes before the end, and the turn; an error where the answer has no safe reading."""
    decoder = CODEC.decoder(stream, caps)
    points = [0, len(data)] if cuts is None else sorted({c % (len(data) + 1) for c in cuts} | {0, len(data)})
    passed: list[Passage] = []
    try:
        for start, end in itertools.pairwise(points):
            for event in decoder.feed(data[start:end]):
                if isinstance(event, Failure):
                    return passed, event
                passed.append(event)
        last, turn = decoder.close()
    except MalformedTurn as exc:
        return passed, exc
    return [*passed, *last], turn


def turn_of(data: bytes, stream: bool = True) -> Turn:
    _, turn = read(data, stream)
    assert isinstance(turn, Turn), turn
    return turn


def said(calls: Sequence[ToolCall]) -> list[tuple[str, str, str, str | None]]:
    return [(call.id, call.name, call.arguments_json, call.fault) for call in calls]


def released(data: bytes, stream: bool = True, drop: Sequence[str] = (), notice: str = "") -> bytes:
    """The client's bytes where all calls go on but those that are named."""
    passed, turn = read(data, stream)
    assert isinstance(turn, Turn), turn
    encoder = CODEC.encoder(stream)
    out = b"".join(encoder.passage(passage) for passage in passed)
    arguments = [None if call.name in drop else call.arguments_json for call in turn.calls]
    return (out if stream else b"") + encoder.release(turn, arguments, {0: notice} if notice else {})
