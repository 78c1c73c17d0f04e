"""Chat Completions: its requests read, and script turns rendered as its bodies and streams."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import zip_longest
from typing import Any, Final

from proxy.scripted import framing
from proxy.scripted.chat_deviations import deviate_body, deviate_call, deviate_chunks
from proxy.scripted.dialect import BadRequest, Shape
from proxy.scripted.expect import Seen
from proxy.scripted.script import Played, ScriptedCall, ScriptedChoice, ScriptedUsage, ScriptError

PATH: Final = "/chat/completions"
CREATED = 1_750_000_000

Json = dict[str, Any]

_ERRORS = {
    401: ("invalid_request_error", "invalid_api_key"),
    403: ("invalid_request_error", None),
    404: ("invalid_request_error", "model_not_found"),
    429: ("requests", "rate_limit_exceeded"),
}


def shape(body: Mapping[str, Any]) -> Shape:
    """How the answer must look; raises BadRequest."""
    model, messages = body.get("model"), body.get("messages")
    if not isinstance(model, str):
        raise BadRequest("you must provide a model parameter")
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise BadRequest("'messages' must be a list of objects")
    options = body.get("stream_options")
    options = options if isinstance(options, dict) else {}
    return Shape(
        model=model,
        stream=body.get("stream") is True,
        legacy="functions" in body and "tools" not in body,
        usage=options.get("include_usage") is True,
        obfuscation=options.get("include_obfuscation") is not False,
    )


def answered(body: Mapping[str, Any]) -> int:
    """How many assistant messages the request holds."""
    return sum(message.get("role") == "assistant" for message in body["messages"])


def seen(body: Mapping[str, Any]) -> Seen:
    """What the request says; the result of a legacy ``function`` message goes by the function's name."""
    messages = body["messages"]
    results = {}
    for message in messages:
        key = {"tool": "tool_call_id", "function": "name"}.get(str(message.get("role")))
        if key is not None:
            results[str(message.get(key))] = _text(message.get("content"))
    texts = [_text(message.get("content")) for message in messages]
    return Seen(results, body.get("tool_choice", body.get("function_call")), texts)


def body(played: Played, shape: Shape) -> bytes:
    """The turn as a ``chat.completion`` object."""
    turn = played.turn
    legacy = shape.legacy or "legacy_function_call" in turn.deviations
    choices = [_whole_choice(played, at, choice, legacy) for at, choice in enumerate(turn.all_choices)]
    completion = _envelope(played, shape, "chat.completion") | {"choices": choices}
    if turn.usage is not None:
        completion["usage"] = _usage(turn.usage)
    completion["service_tier"] = completion.pop("service_tier")
    completion["system_fingerprint"] = completion.pop("system_fingerprint")
    deviate_body(completion, turn.deviations)
    return framing.write_json(completion)


def frames(played: Played, shape: Shape) -> list[bytes]:
    """The turn as the events of a stream, the last of them ``[DONE]``."""
    deviations = played.turn.deviations
    payloads = [framing.write_json(chunk) for chunk in deviate_chunks(_chunks(played, shape), deviations)]
    if "no_done" not in deviations:
        payloads.append(b"[DONE]")
    return framing.frames(payloads, deviations)


def error(status: int, message: str, code: str | None = None) -> bytes:
    """OpenAI's error object, with the type and code that the status usually has."""
    default = ("server_error", None) if status >= 500 else ("invalid_request_error", None)
    kind, usual_code = _ERRORS.get(status, default)
    fault = {"message": message, "type": kind, "param": None, "code": code or usual_code}
    return framing.write_json({"error": fault})


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _envelope(played: Played, shape: Shape, kind: str) -> Json:
    return {
        "id": f"chatcmpl-{played.token('id')[:29]}",
        "object": kind,
        "created": CREATED,
        "model": shape.model,
        "service_tier": "default",
        "system_fingerprint": f"fp_{Played(played.script, 0).token('fingerprint')[:10]}",
    }


def _usage(usage: ScriptedUsage) -> Json:
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _finish(choice: ScriptedChoice, legacy: bool) -> str | None:
    with_calls = "function_call" if legacy else "tool_calls"
    return choice.finish_or(with_calls if choice.calls else "stop")


def _legacy_call(choice: ScriptedChoice) -> ScriptedCall | None:
    if len(choice.calls) > 1 or any(call.kind != "function" for call in choice.calls):
        raise ScriptError("a legacy function_call can say one function call, and this turn has others")
    return choice.calls[0] if choice.calls else None


def _wire_call(played: Played, choice: int, at: int, call: ScriptedCall, payload: str) -> Json:
    text_key = "input" if call.kind == "custom" else "arguments"
    wire = {
        "id": call.id if call.id is not None else f"call_{played.token('call', choice, at)[:24]}",
        "type": call.kind,
        call.kind: {"name": call.name, text_key: payload},
    }
    return wire | call.extra


# -- whole bodies


def _whole_choice(played: Played, at: int, choice: ScriptedChoice, legacy: bool) -> Json:
    message: Json = {"role": "assistant", "content": choice.whole_text}
    if choice.whole_text is None and not choice.calls:
        message["content"] = ""
    if choice.reasoning:
        message["reasoning_content"] = choice.reasoning
    if legacy and (call := _legacy_call(choice)):
        message["function_call"] = {"name": call.name, "arguments": call.payload}
    elif choice.calls:
        calls = [_wire_call(played, at, n, call, call.payload) for n, call in enumerate(choice.calls)]
        message["tool_calls"] = [deviate_call(call, played.turn.deviations) for call in calls]
    message |= {"refusal": None, "annotations": []}
    finish = _finish(choice, legacy)
    return {"index": at, "message": message, "logprobs": None, "finish_reason": finish}


# -- streams


def _chunks(played: Played, shape: Shape) -> list[Json]:
    """The chunks as OpenAI sends them: a role, the deltas, a finish for each choice, then the usage."""
    turn, envelope = played.turn, _envelope(played, shape, "chat.completion.chunk")
    legacy = shape.legacy or "legacy_function_call" in turn.deviations
    lanes = [_lane(played, at, choice, legacy) for at, choice in enumerate(turn.all_choices)]
    # Providers send several choices side by side, not one after the other.
    choices = [choice for row in zip_longest(*lanes) for choice in row if choice is not None]
    no_usage = {"usage": None} if shape.usage else {}
    chunks = [envelope | {"choices": [choice]} | no_usage for choice in choices]
    forced = {"usage_in_finish_chunk", "usage_without_choices"} & turn.deviations
    if turn.usage is not None and (shape.usage or forced):
        chunks.append(envelope | {"choices": [], "usage": _usage(turn.usage)})
    if shape.obfuscation:
        for at, chunk in enumerate(chunks):
            noise = played.token("obfuscation", at)
            chunk["obfuscation"] = noise[: 1 + int(noise[0], 16)]
    return chunks


def _lane(played: Played, at: int, choice: ScriptedChoice, legacy: bool) -> Iterator[Json]:
    for delta in _deltas(played, at, choice, legacy):
        yield {"index": at, "delta": delta, "logprobs": None, "finish_reason": None}
    yield {"index": at, "delta": {}, "logprobs": None, "finish_reason": _finish(choice, legacy)}


def _deltas(played: Played, at: int, choice: ScriptedChoice, legacy: bool) -> Iterator[Json]:
    size, utf16 = played.turn.chunk_chars, "utf16_cuts" in played.turn.deviations
    has_text = choice.whole_text is not None or not choice.calls
    yield {"role": "assistant", "content": "" if has_text else None, "refusal": None}
    for piece in framing.cut_text(choice.reasoning, size, utf16):
        yield {"reasoning_content": piece}
    if choice.text_chunks is not None:
        yield from ({"content": choice.text or "word "} for _ in range(choice.text_chunks))
    else:
        yield from ({"content": piece} for piece in framing.cut_text(choice.text or "", size, utf16))
    if legacy and (call := _legacy_call(choice)):
        yield {"function_call": {"name": call.name, "arguments": ""}}
        for piece in framing.cut_text(call.payload, size, utf16):
            yield {"function_call": {"arguments": piece}}
        return
    for index, call in enumerate(choice.calls):
        for delta in _call_deltas(played, at, index, call):
            yield {"tool_calls": [{"index": index} | delta]}


def _call_deltas(played: Played, at: int, index: int, call: ScriptedCall) -> Iterator[Json]:
    turn = played.turn
    yield deviate_call(_wire_call(played, at, index, call, ""), turn.deviations)
    if {"null_arguments", "missing_arguments"} & turn.deviations and call.kind == "function":
        return
    text_key = "input" if call.kind == "custom" else "arguments"
    for piece in framing.cut_text(call.payload, turn.chunk_chars, "utf16_cuts" in turn.deviations):
        yield {call.kind: {text_key: piece}}
