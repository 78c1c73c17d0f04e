"""Plays raw provider bytes through the core: what the client gets, and what was judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from tests.core.harness import Outcome, World, run

USAGE = {"input_tokens": 20, "cache_read_input_tokens": 5, "output_tokens": 1}
START = {
    "type": "message_start",
    "message": {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": USAGE,
    },
}
TOOLSET = {"type": "computer_toolset_20260801"}
REQUEST: dict[str, Any] = {"tools": ["get", "drop", TOOLSET]}
POLICY = {"drop": {"effect": "deny", "reasons": ["Not for you."]}}

Json = dict[str, Any]


def wires(part: Any) -> list[Json | bytes]:
    """The events that one entry of a stream stands for."""
    if part == "start":
        return [START]
    ((kind, what),) = part.items()
    match kind:
        case "text":
            index, *pieces = what
            return block(
                index,
                {"type": "text", "text": ""},
                [{"type": "text_delta", "text": piece} for piece in pieces],
            )
        case "call":
            return _call(dict(what))
        case "end":
            delta = {"stop_reason": what, "stop_sequence": None}
            end = {"type": "message_delta", "delta": delta, "usage": {"output_tokens": 9}}
            return [end, {"type": "message_stop"}]
        case "bytes":
            return [str(what).encode()]
        case _:
            return [what]


def _call(call: Json) -> list[Json | bytes]:
    index, deltas = call.pop("index"), call.pop("deltas")
    pieces = [{"type": "input_json_delta", "partial_json": piece} for piece in deltas]
    return block(index, {"type": "tool_use", "input": {}, **call}, pieces)


def block(index: int, start: Json, deltas: Sequence[Json]) -> list[Json | bytes]:
    return [
        {"type": "content_block_start", "index": index, "content_block": start},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def written(parts: Sequence[Any], line_end: str = "\n", unnamed_from: int | None = None) -> bytes:
    """A stream's bytes."""
    out = []
    for number, wire in enumerate(wire for part in parts for wire in wires(part)):
        if isinstance(wire, bytes):
            out.append(wire)
            continue
        named = unnamed_from is None or number < unnamed_from
        head = f"event: {wire['type']}{line_end}".encode() if named else b""
        out.append(head + b"data: " + orjson.dumps(wire) + 2 * line_end.encode())
    return b"".join(out)


async def play(
    answers: Sequence[bytes],
    stream: bool,
    cuts: Sequence[int] | None = None,
    world: World | None = None,
    body: Mapping[str, Any] | None = None,
) -> Outcome:
    """Ask once; the provider's answers are these bytes, one after the other."""
    kind = "text/event-stream" if stream else "application/json"
    turns = [{"fault": {"kind": "raw", "raw": answer, "content_type": kind}} for answer in answers]
    case = {"request": REQUEST, "policy": POLICY, "upstream": turns}
    return await run(case, stream, cuts, world, body, protocol="messages")
