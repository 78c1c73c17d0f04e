"""Items as the events that every client reads alike: added, its parts, done."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from proxy.wire.responses.items import TEXT_KEYS, Json, given_id
from proxy.wire.writing import write_json

_STEMS = {
    "function_call": "response.function_call_arguments",
    "custom_tool_call": "response.custom_tool_call_input",
}
HELD = "-held"
"""Ends the id of an answer that releases a held turn: the rest of it is the id that the provider knows."""


def event(wire: Mapping[str, Any]) -> bytes:
    """An event as OpenAI writes it, with its type before it."""
    return b"event: " + str(wire["type"]).encode() + b"\ndata: " + write_json(wire) + b"\n\n"


def message(id: str, text: str) -> Json:
    """A message of the assistant's; without text it has no part, which clients would take for an answer."""
    return {
        "id": id,
        "type": "message",
        "status": "completed",
        "role": "assistant",
        "content": [_part(text)] if text else [],
    }


def _part(text: str) -> Json:
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}


def message_events(item: Json, index: int) -> Iterator[Json]:
    """A message of text, from its beginning to its end."""
    where = {"item_id": item["id"], "output_index": index}
    yield _added({**item, "status": "in_progress", "content": []}, index)
    for at, part in enumerate(item["content"]):
        here = {**where, "content_index": at}
        text = part["text"]
        yield {"type": "response.content_part.added", **here, "part": {**part, "text": ""}}
        yield {"type": "response.output_text.delta", **here, "delta": text, "logprobs": []}
        yield {"type": "response.output_text.done", **here, "text": text, "logprobs": []}
        yield {"type": "response.content_part.done", **here, "part": part}
    yield _done(item, index)


def item_events(item: Json, index: int) -> Iterator[Json]:
    """Any item, from its beginning to its end; the arguments of a call once, in one piece."""
    if item["type"] == "message" and _is_text(item.get("content")):
        yield from message_events(item, index)
        return
    stem = _STEMS.get(item["type"])
    if stem is None:
        yield _added(item, index)
        yield _done(item, index)
        return
    key = TEXT_KEYS[item["type"]]
    text = item[key]
    where = {"item_id": item["id"], "output_index": index}
    status = {"status": "in_progress"} if "status" in item else {}
    yield _added({**item, key: "", **status}, index)
    yield {"type": f"{stem}.delta", **where, "delta": text}
    yield {"type": f"{stem}.done", **where, key: text}
    yield _done(item, index)


def _is_text(content: Any) -> bool:
    return isinstance(content, list) and all(
        isinstance(part, dict) and part.get("type") == "output_text" and isinstance(part.get("text"), str)
        for part in content
    )


def _added(item: Json, index: int) -> Json:
    return {"type": "response.output_item.added", "output_index": index, "item": item}


def _done(item: Json, index: int) -> Json:
    return {"type": "response.output_item.done", "output_index": index, "item": item}


def upstream_id(id: str) -> str:
    """The id under which the provider knows an answer."""
    while id.endswith(HELD):
        id = id.removesuffix(HELD)
    return id


def replayed(held: Mapping[str, Any], stream: bool) -> bytes:
    """The calls of a held turn as a provider would send them; its text was already said."""
    calls = [{**item, "id": given_id(item, held["id"], HELD)} for item in held["calls"]]
    for item, kept in zip(calls, held["calls"], strict=True):
        if item["type"] == "mcp_approval_request":
            item["id"] = kept["id"]  # what the answer to it names
    response = {
        **held["response"],
        "id": f"{upstream_id(held['id'])}{HELD}",
        "object": "response",
        "created_at": int(time.time()),
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "model": held["model"],
        "output": calls,
        "usage": None,
    }
    if not stream:
        return write_json(response)
    begun = {**response, "status": "in_progress", "output": []}
    events: list[Json] = [
        {"type": f"response.{what}", "response": begun} for what in ("created", "in_progress")
    ]
    for index, item in enumerate(calls):
        events += item_events(item, index)
    events.append({"type": "response.completed", "response": response})
    return b"".join(event({**wire, "sequence_number": n}) for n, wire in enumerate(events))
