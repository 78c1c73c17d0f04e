"""Writing events and whole blocks of the Messages API in the one shape that every client reads alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from proxy.model import dumps, loads
from proxy.wire.messages.blocks import CALL, Block
from proxy.wire.writing import write_json

STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
PING = b'event: ping\ndata: {"type": "ping"}\n\n'
# The one field of a block that a stream builds up out of deltas.
_BUILT = {"text": ("text", "text_delta"), "thinking": ("thinking", "thinking_delta")}
_ERRORS = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def event(wire: Mapping[str, Any]) -> bytes:
    """One event, named by its type."""
    return b"event: " + str(wire["type"]).encode() + b"\ndata: " + write_json(wire) + b"\n\n"


def whole_block(index: int, block: Mapping[str, Any]) -> Iterator[bytes]:
    """A block as a stream of its own: begun, filled by deltas, stopped."""
    start, deltas = _taken_apart(block)
    yield event({"type": "content_block_start", "index": index, "content_block": start})
    for delta in deltas:
        yield event({"type": "content_block_delta", "index": index, "delta": delta})
    yield stop_block(index)


def stop_block(index: int) -> bytes:
    """The end of a block."""
    return event({"type": "content_block_stop", "index": index})


def call_block(index: int, block: Block, arguments: str) -> Iterator[bytes]:
    """A call with these arguments."""
    start = {**block.start, "id": block.id, "input": {}}
    yield event({"type": "content_block_start", "index": index, "content_block": start})
    for piece in ("", arguments):
        delta = {"type": "input_json_delta", "partial_json": piece}
        yield event({"type": "content_block_delta", "index": index, "delta": delta})
    yield stop_block(index)


def whole_call(block: Block, arguments: str) -> dict[str, Any]:
    """A call with these arguments, as a body has it."""
    return {**block.start, "id": block.id, "input": loads(arguments)}


def _taken_apart(block: Mapping[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    kind = block["type"]
    if kind == CALL:
        written = dumps(block.get("input") or {}).decode()
        pieces = [{"type": "input_json_delta", "partial_json": piece} for piece in ("", written)]
        return {**block, "input": {}}, pieces
    if kind not in _BUILT:
        return dict(block), []
    key, delta = _BUILT[kind]
    deltas: list[dict[str, Any]] = [{"type": delta, key: block.get(key) or ""}]
    if kind == "thinking":
        # The start keeps the signature too, by which a block that was sent before is known again.
        deltas.append({"type": "signature_delta", "signature": block.get("signature") or ""})
    return {**block, key: ""}, deltas


def error_body(status: int, code: str, message: str) -> bytes:
    """An error in Anthropic's shape, with Callgate's own code beside the type."""
    kind = _ERRORS.get(status) or ("invalid_request_error" if status < 500 else "api_error")
    return dumps({"type": "error", "error": {"type": kind, "message": message, "code": code}})


def replayed(held: Mapping[str, Any], stream: bool) -> bytes:
    """A held turn as a provider would send it. Its text was already said with the question."""
    content = [block for block in held["content"] if block["type"] != "text"]
    usage = {"input_tokens": 0, "output_tokens": 0}
    message = {
        "id": held["id"],
        "type": "message",
        "role": "assistant",
        "model": held["model"],
        "content": content,
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": usage,
    }
    if not stream:
        return write_json(message)
    begun = {**message, "content": [], "stop_reason": None}
    end = {"stop_reason": "tool_use", "stop_sequence": None}
    blocks = [piece for index, block in enumerate(content) for piece in whole_block(index, block)]
    return b"".join(
        (
            event({"type": "message_start", "message": begun}),
            *blocks,
            event({"type": "message_delta", "delta": end, "usage": usage}),
            STOP,
        )
    )
