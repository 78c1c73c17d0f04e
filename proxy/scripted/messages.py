"""Anthropic's Messages: its requests read, and script turns rendered as its bodies and streams."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from proxy.model import Fault, loads
from proxy.scripted import framing
from proxy.scripted.dialect import BadRequest, Shape
from proxy.scripted.expect import Seen
from proxy.scripted.script import Played, ScriptedCall, ScriptedChoice, ScriptedUsage, ScriptError

PATH: Final = "/messages"

Json = dict[str, Any]

_ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_FINISHES = {
    "stop": "end_turn",
    "tool_calls": "tool_use",
    "length": "max_tokens",
    "content_filter": "refusal",
}


def shape(body: Mapping[str, Any]) -> Shape:
    """How the answer must look; raises BadRequest."""
    model, messages = body.get("model"), body.get("messages")
    if not isinstance(model, str):
        raise BadRequest("model: Field required")
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise BadRequest("messages: Input should be a valid list of objects")
    if not isinstance(body.get("max_tokens"), int):
        raise BadRequest("max_tokens: Field required")
    _check_results(messages)
    return Shape(model=model, stream=body.get("stream") is True)


def _check_results(messages: list[Json]) -> None:
    """As Anthropic does: every call is answered in the message that follows it, and before any text."""
    for at, message in enumerate(messages):
        calls = [block["id"] for block in _blocks(message) if block.get("type") == "tool_use"]
        if message.get("role") != "assistant" or not calls:
            continue
        after = _blocks(messages[at + 1]) if at + 1 < len(messages) else []
        results = [block.get("tool_use_id") for block in after if block.get("type") == "tool_result"]
        if missing := [call for call in calls if call not in results]:
            message_ = "`tool_use` ids were found without `tool_result` blocks immediately after"
            raise BadRequest(f"messages.{at}: {message_}: {', '.join(missing)}")
        if [block.get("type") for block in after[: len(results)]] != ["tool_result"] * len(results):
            raise BadRequest(f"messages.{at + 1}: `tool_result` blocks must come first")


def _blocks(message: Mapping[str, Any]) -> list[Json]:
    content = message.get("content")
    return content if isinstance(content, list) else [{"type": "text", "text": content}]


def answered(body: Mapping[str, Any]) -> int:
    """How many assistant messages the request holds."""
    return sum(message.get("role") == "assistant" for message in body["messages"])


def seen(body: Mapping[str, Any]) -> Seen:
    """What the request says; ``tool_choice`` goes by its type."""
    results: dict[str, str] = {}
    texts: list[str] = []
    for message in body["messages"]:
        for block in _blocks(message):
            if block.get("type") == "tool_result":
                results[str(block.get("tool_use_id"))] = _text(block.get("content"))
        texts.append("".join(_text(block.get("text", block.get("content"))) for block in _blocks(message)))
    choice = body.get("tool_choice")
    system = [_text(body["system"])] if body.get("system") else []
    return Seen(results, choice.get("type") if isinstance(choice, dict) else choice, system + texts)


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def body(played: Played, shape: Shape) -> bytes:
    """The turn as a ``message`` object."""
    turn = _one_answer(played)
    message = _envelope(played, shape) | {
        "content": [block for block, _ in _content(played, turn)],
        "stop_reason": _finish(turn),
        "stop_sequence": None,
    }
    if played.turn.usage is not None:
        message["usage"] = _usage(played.turn.usage)
    return framing.write_json(message)


def frames(played: Played, shape: Shape) -> list[bytes]:
    """The turn as the events of a stream, the last of them ``message_stop``."""
    deviations = played.turn.deviations
    events = [
        framing.frame(framing.write_json(wire), deviations, event=str(wire["type"]))
        for wire in _events(played, shape)
    ]
    return framing.commented(events, deviations)


def error(status: int, message: str, code: str | None = None) -> bytes:
    """Anthropic's error object, with the type that the status has, or ``code`` as its type."""
    kind = code or _ERRORS.get(status) or ("invalid_request_error" if status < 500 else "api_error")
    return framing.write_json({"type": "error", "error": {"type": kind, "message": message}})


def _one_answer(played: Played) -> ScriptedChoice:
    if played.turn.choices:
        raise ScriptError("a message is one answer, and this turn has 'choices'")
    if any(call.kind == "custom" for call in played.turn.calls):
        raise ScriptError("a tool_use has an object for its input, and this turn has a custom call")
    return played.turn


def _envelope(played: Played, shape: Shape) -> Json:
    id = f"msg_{played.token('id')[:24]}"
    return {"id": id, "type": "message", "role": "assistant", "model": shape.model}


def _usage(usage: ScriptedUsage) -> Json:
    counts = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": usage.output}
    return {"input_tokens": usage.input, **counts, "service_tier": "standard"}


def _finish(choice: ScriptedChoice) -> str | None:
    said = choice.finish_or("tool_calls" if choice.calls else "stop")
    return _FINISHES.get(said, said) if said is not None else None


def _content(played: Played, turn: ScriptedChoice) -> Iterator[tuple[Json, str]]:
    """The blocks of an answer, each with the text that a stream builds it out of."""
    if turn.reasoning:
        signature = f"sig_{played.token('signature')}"
        yield {"type": "thinking", "thinking": turn.reasoning, "signature": signature}, turn.reasoning
    text = turn.whole_text
    if text:
        yield {"type": "text", "text": text}, text
    for at, call in enumerate(turn.calls):
        id = call.id if call.id is not None else f"toolu_{played.token('call', at)[:24]}"
        block: Json = {"type": "tool_use", "id": id, "name": call.name, "input": _input(call)}
        yield block | call.extra, call.payload


def _input(call: ScriptedCall) -> Any:
    """What the model wrote as an object; text that is none goes out as text, as some servers send it."""
    try:
        value = loads(call.payload)
    except Fault:
        return call.payload
    return value if isinstance(value, dict) else call.payload


def _events(played: Played, shape: Shape) -> Iterator[Json]:
    """The events as Anthropic sends them; the first one counts the input, the last one everything."""
    turn = _one_answer(played)
    start = _envelope(played, shape) | {"content": [], "stop_reason": None, "stop_sequence": None}
    usage = _usage(played.turn.usage) if played.turn.usage is not None else None
    if usage is not None:
        start["usage"] = usage | {"output_tokens": 1}
    yield {"type": "message_start", "message": start}
    yield {"type": "ping"}
    for index, (block, text) in enumerate(_content(played, turn)):
        yield from _block_events(played, index, block, text)
    end: Json = {"type": "message_delta", "delta": {"stop_reason": _finish(turn), "stop_sequence": None}}
    if usage is not None:
        end["usage"] = {"output_tokens": usage["output_tokens"]}
    yield end
    yield {"type": "message_stop"}


def _block_events(played: Played, index: int, block: Json, text: str) -> Iterator[Json]:
    start, delta, key = _begun(block)
    utf16 = "utf16_cuts" in played.turn.deviations
    pieces = framing.cut_text(text, played.turn.chunk_chars, utf16)
    if played.turn.text_chunks is not None and key == "text":
        pieces = [played.turn.text or "word "] * played.turn.text_chunks
    yield {"type": "content_block_start", "index": index, "content_block": start}
    for piece in ["", *pieces] if key == "partial_json" else pieces:
        yield {"type": "content_block_delta", "index": index, "delta": {"type": delta, key: piece}}
    if "signature" in block:
        signed = {"type": "signature_delta", "signature": block["signature"]}
        yield {"type": "content_block_delta", "index": index, "delta": signed}
    yield {"type": "content_block_stop", "index": index}


def _begun(block: Json) -> tuple[Json, str, str]:
    """A block as it begins, and by which delta's key it grows."""
    match block["type"]:
        case "thinking":
            return block | {"thinking": "", "signature": ""}, "thinking_delta", "thinking"
        case "text":
            return block | {"text": ""}, "text_delta", "text"
        case _:
            return block | {"input": {}}, "input_json_delta", "partial_json"
