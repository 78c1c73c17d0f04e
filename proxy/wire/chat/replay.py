"""A turn that was held for a person, as a provider would send it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from proxy.wire.chat.rewriting import without_calls
from proxy.wire.chat.stream import DONE, write_event
from proxy.wire.writing import write_json


def replayed(held: Mapping[str, Any], stream: bool) -> bytes:
    """A held message as an answer of its own. Its text was already said with the question."""
    message = {**held["message"], "content": None}
    finish = "function_call" if "function_call" in message else "tool_calls"
    head = {"id": held["id"], "created": int(time.time()), "model": held["model"]}
    if stream:
        return _streamed(head, message, finish)
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
    return write_json({**head, "object": "chat.completion", "choices": [choice]})


def _streamed(head: Mapping[str, Any], message: Mapping[str, Any], finish: str) -> bytes:
    deltas = [without_calls(message)]
    if "function_call" in message:
        deltas.append({"function_call": message["function_call"]})
    calls = message.get("tool_calls", [])
    deltas += [{"tool_calls": [{"index": index, **call}]} for index, call in enumerate(calls)]
    choices: list[dict[str, Any]] = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": finish})
    chunk = {**head, "object": "chat.completion.chunk"}
    return b"".join([*(write_event({**chunk, "choices": [choice]}) for choice in choices), DONE])
