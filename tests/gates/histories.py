"""A conversation so far, in steps (``user``, ``said``, ``call``, ``result``), as each API writes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

Json = dict[str, Any]
Steps = Sequence[Mapping[str, Any]]


def chat(steps: Steps) -> Json:
    messages = []
    for step in steps:
        ((kind, said),) = step.items()
        if kind == "user":
            messages.append({"role": "user", "content": said})
        elif kind == "said":
            messages.append({"role": "assistant", "content": said})
        elif kind == "call":
            function = {"name": said["name"], "arguments": orjson.dumps(said.get("arguments", {})).decode()}
            call = {"id": said["id"], "type": "function", "function": function}
            messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
        else:
            messages.append({"role": "tool", "tool_call_id": said["id"], "content": said["content"]})
    return {"messages": messages}


def messages(steps: Steps) -> Json:
    written = []
    for step in steps:
        ((kind, said),) = step.items()
        if kind == "user":
            written.append({"role": "user", "content": said})
        elif kind == "said":
            written.append({"role": "assistant", "content": said})
        elif kind == "call":
            block = {
                "type": "tool_use",
                "id": said["id"],
                "name": said["name"],
                "input": said.get("arguments", {}),
            }
            written.append({"role": "assistant", "content": [block]})
        else:
            block = {"type": "tool_result", "tool_use_id": said["id"], "content": said["content"]}
            written.append({"role": "user", "content": [block]})
    return {"messages": written}


def responses(steps: Steps) -> Json:
    items: list[Json] = []
    for step in steps:
        ((kind, said),) = step.items()
        if kind == "user":
            items.append({"role": "user", "content": said})
        elif kind == "said":
            items.append({"role": "assistant", "content": said})
        elif kind == "call":
            arguments = orjson.dumps(said.get("arguments", {})).decode()
            call = {"call_id": said["id"], "name": said["name"], "arguments": arguments}
            items.append({"type": "function_call", **call})
        else:
            items.append({"type": "function_call_output", "call_id": said["id"], "output": said["content"]})
    return {"input": items}


HISTORIES: Mapping[str, Callable[[Steps], Json]] = {
    "chat": chat,
    "messages": messages,
    "responses": responses,
}
