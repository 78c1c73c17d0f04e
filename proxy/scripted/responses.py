"""OpenAI's Responses: its requests read, and script turns rendered as its bodies and streams.

A stored response is named by the next request. What a provider would have to remember of it (which turn it
was, and which calls wait for an output) its id says itself, so nothing has to be kept here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from proxy.scripted import chat, framing
from proxy.scripted.dialect import BadRequest, Shape
from proxy.scripted.expect import Seen
from proxy.scripted.script import Played, ScriptedCall, ScriptedChoice, ScriptedUsage, ScriptError

PATH: Final = "/responses"

Json = dict[str, Any]

error = chat.error

_STATUS = {"length": ("incomplete", "max_output_tokens"), "content_filter": ("incomplete", "content_filter")}
_CALLS = {"function": "function_call", "custom": "custom_tool_call"}
_TEXT_KEYS = {"function": "arguments", "custom": "input"}
_STEMS = {
    "function": "response.function_call_arguments",
    "custom": "response.custom_tool_call_input",
}


def shape(body: Mapping[str, Any]) -> Shape:
    """How the answer must look; raises BadRequest where a call has no output, or an output no call."""
    model, given = body.get("model"), body.get("input")
    if not isinstance(model, str):
        raise BadRequest("you must provide a model parameter")
    if not isinstance(given, str | list):
        raise BadRequest("'input' must be a text or a list of items")
    _check_outputs(body)
    return Shape(model=model, stream=body.get("stream") is True)


def _check_outputs(body: Mapping[str, Any]) -> None:
    """As OpenAI does: every call needs its output, every output its call, all reasoning what follows it."""
    given = _items(body)
    calls = [*_pending(body.get("previous_response_id"))]
    calls += [str(item.get("call_id")) for item in given if item.get("type") in _CALLS.values()]
    outputs = [str(item.get("call_id")) for item in given if str(item.get("type")).endswith("_output")]
    if body.get("conversation") is None:
        for call in outputs:
            if call not in calls:
                raise BadRequest(f"No tool call found for function call output with call_id {call}.")
    for call in calls:
        if outputs.count(call) != 1:
            raise BadRequest(f"No tool output found for function call {call}.")
    for item, after in zip(given, [*given[1:], {}], strict=False):
        if item.get("type") == "reasoning" and after.get("type") not in (*_CALLS.values(), "message"):
            what = f"Item '{item.get('id')}' of type 'reasoning' was provided"
            raise BadRequest(f"{what} without its required following item.")


def _items(body: Mapping[str, Any]) -> list[Json]:
    given = body.get("input")
    return [{"role": "user", "content": given}] if isinstance(given, str) else list(given or ())


def _pending(id: Any) -> Sequence[str]:
    """The calls of a response that wait for an output."""
    kept = str(id).split("_")[3:] if isinstance(id, str) else []
    return [bytes.fromhex(call).decode() for call in kept]


def answered(body: Mapping[str, Any]) -> int:
    """How many turns of the model the request goes on from: those it names, and those in its input."""
    id = body.get("previous_response_id")
    before = int(str(id).split("_")[1], 16) + 1 if isinstance(id, str) else 0
    given = _items(body)
    own = [_is_models(item) for item in given]
    return before + sum(mine and not (at and own[at - 1]) for at, mine in enumerate(own))


def _is_models(item: Mapping[str, Any]) -> bool:
    kind = str(item.get("type", "message"))
    return item.get("role") == "assistant" or kind == "reasoning" or kind.endswith("_call")


def seen(body: Mapping[str, Any]) -> Seen:
    """What the request says."""
    given = _items(body)
    outputs = (item for item in given if str(item.get("type")).endswith("_output"))
    results = {str(item.get("call_id")): _text(item.get("output")) for item in outputs}
    texts = [_text(item.get("content")) for item in given]
    return Seen(results, body.get("tool_choice"), texts)


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def body(played: Played, shape: Shape) -> bytes:
    """The turn as a ``response`` object."""
    return framing.write_json(_response(played, shape, _output(played)))


def frames(played: Played, shape: Shape) -> list[bytes]:
    """The turn as the events of a stream, numbered, each named as its type."""
    deviations = played.turn.deviations
    events = [
        framing.frame(framing.write_json({**wire, "sequence_number": number}), deviations, str(wire["type"]))
        for number, wire in enumerate(_events(played, shape))
    ]
    if "comments" not in deviations:
        return events
    comment = framing.frames([b""], {"comments"} | deviations)[0]
    return [frame for event in events for frame in (comment, event)]


# -- whole responses


def _choice(played: Played) -> ScriptedChoice:
    if len(played.turn.all_choices) > 1:
        raise ScriptError("a response has one choice, and this turn has several")
    return played.turn.all_choices[0]


def _response(played: Played, shape: Shape, output: list[Json] | None) -> Json:
    """The response with its output; without one, as it is while it is made."""
    turn, finish = played.turn, _choice(played).finish_or("stop")
    status, reason = _STATUS.get(str(finish), ("completed", None))
    pending = [item["call_id"] for item in _output(played) if item["type"] in _CALLS.values()]
    kept = "".join(f"_{call.encode().hex()}" for call in pending)
    done = output is not None
    return {
        "id": f"resp_{played.number:04x}_{played.token('id')}{kept}",
        "object": "response",
        "created_at": chat.CREATED,
        "status": status if done else "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": {"reason": reason} if done and reason else None,
        "instructions": None,
        "max_output_tokens": None,
        "model": shape.model,
        "output": output or [],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": _usage(turn.usage) if done and turn.usage is not None else None,
        "metadata": {},
    }


def _usage(usage: ScriptedUsage) -> Json:
    return {
        "input_tokens": usage.input,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.input + usage.output,
    }


def _output(played: Played) -> list[Json]:
    choice = _choice(played)
    items = []
    if choice.reasoning:
        items.append(_reasoning(played, choice.reasoning))
    if choice.whole_text is not None or not choice.calls:
        items.append(_message(played, choice.whole_text or ""))
    return items + [_call(played, at, call) for at, call in enumerate(choice.calls)]


def _reasoning(played: Played, text: str) -> Json:
    return {
        "id": f"rs_{played.token('reasoning')}",
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": text}],
        "encrypted_content": f"gAAAA{played.token('encrypted')}",
    }


def _message(played: Played, text: str) -> Json:
    part = {"type": "output_text", "annotations": [], "logprobs": [], "text": text}
    head = {"id": f"msg_{played.token('message')}", "type": "message", "status": "completed"}
    return {**head, "content": [part], "role": "assistant"}


def _call(played: Played, at: int, call: ScriptedCall) -> Json:
    id = call.id if call.id is not None else f"call_{played.token('call', at)[:24]}"
    prefix = "ctc" if call.kind == "custom" else "fc"
    return {
        "id": f"{prefix}_{played.token('item', at)}",
        "type": _CALLS[call.kind],
        "status": "completed",
        _TEXT_KEYS[call.kind]: call.payload,
        "call_id": id,
        "name": call.name,
        **call.extra,
    }


# -- streams


def _events(played: Played, shape: Shape) -> Iterator[Json]:
    """The events as OpenAI sends them; bulk text in pieces of its own."""
    begun = _response(played, shape, None)
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    output, choice = _output(played), _choice(played)
    calls = iter(choice.calls)
    for index, item in enumerate(output):
        if item["type"] == "reasoning":
            yield from _reasoning_events(played, item, index)
        elif item["type"] == "message":
            yield from _message_events(played, item, index)
        else:
            yield from _call_events(played, item, index, next(calls))
    done = _response(played, shape, output)
    yield {"type": f"response.{done['status']}", "response": done}


def _added(item: Json, index: int) -> Json:
    return {"type": "response.output_item.added", "output_index": index, "item": item}


def _done(item: Json, index: int) -> Json:
    return {"type": "response.output_item.done", "output_index": index, "item": item}


def _cut(played: Played, text: str) -> list[str]:
    return framing.cut_text(text, played.turn.chunk_chars, "utf16_cuts" in played.turn.deviations)


def _reasoning_events(played: Played, item: Json, index: int) -> Iterator[Json]:
    yield _added({**item, "summary": []}, index)
    here = {"item_id": item["id"], "output_index": index, "summary_index": 0}
    (part,) = item["summary"]
    yield {"type": "response.reasoning_summary_part.added", **here, "part": {**part, "text": ""}}
    for piece in _cut(played, part["text"]):
        yield {"type": "response.reasoning_summary_text.delta", **here, "delta": piece}
    yield {"type": "response.reasoning_summary_text.done", **here, "text": part["text"]}
    yield {"type": "response.reasoning_summary_part.done", **here, "part": part}
    yield _done(item, index)


def _message_events(played: Played, item: Json, index: int) -> Iterator[Json]:
    choice = _choice(played)
    (part,) = item["content"]
    here = {"item_id": item["id"], "output_index": index, "content_index": 0}
    yield _added({**item, "status": "in_progress", "content": []}, index)
    yield {"type": "response.content_part.added", **here, "part": {**part, "text": ""}}
    pieces: Sequence[str] = _cut(played, part["text"])
    if choice.text_chunks is not None:
        pieces = [choice.text or "word "] * choice.text_chunks
    for piece in pieces:
        yield {"type": "response.output_text.delta", **here, "delta": piece, "logprobs": []}
    yield {"type": "response.output_text.done", **here, "text": part["text"], "logprobs": []}
    yield {"type": "response.content_part.done", **here, "part": part}
    yield _done(item, index)


def _call_events(played: Played, item: Json, index: int, call: ScriptedCall) -> Iterator[Json]:
    key, stem = _TEXT_KEYS[call.kind], _STEMS[call.kind]
    here = {"item_id": item["id"], "output_index": index}
    yield _added({**item, "status": "in_progress", key: ""}, index)
    for piece in _cut(played, call.payload):
        yield {"type": f"{stem}.delta", **here, "delta": piece}
    yield {"type": f"{stem}.done", **here, key: call.payload}
    yield _done(item, index)
