"""What is sent and what is answered: the same bytes for every server that is measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import orjson
import yaml

from proxy.tools import ToolSpec

API_KEY = "cg-bench-7c1d0a52b8e61c3a7d9f20416e5b8c7d"
ROLE = "order-desk"
CUSTOMERS = 10_000
CALL = "search_orders"
ARGUMENTS = '{"customer_id":"cus_04711","status":"shipped","limit":20}'
TEXT_CHUNKS = 100
_NUMBER = b"00000000"
_END = b"data: [DONE]\n\n"
_CREATED = 1_760_000_000


@cache
def tools() -> list[dict[str, Any]]:
    """The ten tools as the operator registers them."""
    specs: list[dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("tools.yaml").read_text())
    return specs


def registered(name: str) -> ToolSpec:
    """One of the tools as the registry reads it."""
    return next(ToolSpec.model_validate(tool) for tool in tools() if tool["name"] == name)


@dataclass(frozen=True, slots=True)
class Exchange:
    """One kind of request, numbered so that no two are the same, and how its answer is known."""

    name: str
    head: bytes
    body: bytes
    ends_with: bytes
    """What the answer's payload ends with."""

    @property
    def size(self) -> int:
        """Bytes of the request's body."""
        return len(self.body)

    def request(self, number: int) -> bytes:
        """The bytes of the request with this number."""
        return self.head + self.body.replace(_NUMBER, b"%08d" % number, 1)


def _exchange(name: str, model: str, messages: list[dict[str, Any]], ends_with: bytes) -> Exchange:
    offered = [
        {
            "type": "function",
            "function": {key: tool[key] for key in ("name", "description", "parameters")},
        }
        for tool in tools()
    ]
    request = {"messages": messages, "model": model, "temperature": 0.2, "tools": offered}
    if model != "bench-body":
        request["stream"] = True
    body = orjson.dumps(request)
    return Exchange(name, _head(len(body)), body, ends_with)


def _head(length: int) -> bytes:
    """The head as the official Python client writes it."""
    lines = (
        "POST /v1/chat/completions HTTP/1.1",
        "Host: 127.0.0.1",
        "Accept-Encoding: gzip, deflate",
        "Connection: keep-alive",
        "Accept: application/json",
        "Content-Type: application/json",
        "User-Agent: OpenAI/Python 2.0.0",
        "X-Stainless-Lang: python",
        "X-Stainless-Package-Version: 2.0.0",
        "X-Stainless-OS: Linux",
        "X-Stainless-Arch: x64",
        "X-Stainless-Runtime: CPython",
        "X-Stainless-Runtime-Version: 3.11.7",
        f"Authorization: Bearer {API_KEY}",
        "X-Stainless-Async: false",
        "x-stainless-retry-count: 0",
        "x-stainless-read-timeout: 600",
        f"Content-Length: {length}",
    )
    return "\r\n".join((*lines, "", "")).encode()


def _opening() -> list[dict[str, Any]]:
    system = (
        "You are the order desk of a web shop. Look before you change anything, never guess an id, and "
        "answer in the customer's language. If something cannot be done, say so and offer a colleague."
    )
    asked = f"Ticket {_NUMBER.decode()}: which of my orders are on their way, and when will they be here?"
    return [{"role": "system", "content": system}, {"role": "user", "content": asked}]


def body() -> Exchange:
    """A request of about 5 KB with ten tools; the answer is one call."""
    return _exchange("body", "bench-body", _opening(), _ANSWER)


def stream() -> Exchange:
    """The same, streamed: a hundred chunks of text and one call, each frame on its own, as a model speaks."""
    return _exchange("stream", "bench-stream", _opening(), _END)


def burst() -> Exchange:
    """The same frames, each in a write of its own, as fast as the connection takes them."""
    return _exchange("burst", "bench-burst", _opening(), _END)


def history(size: int) -> Exchange:
    """A conversation of at least ``size`` bytes: questions, calls, results, answers."""
    messages = _opening()
    total = 0
    for number, turn in enumerate(_turns()):
        if total >= size:
            break
        messages += turn
        total += len(orjson.dumps(turn))
        assert number < 10_000, "a turn has a size"
    messages.append({"role": "user", "content": "And the parcel from last week?"})
    return _exchange(f"history of {size // 1024} KB", "bench-body", messages, _ANSWER)


def _turns() -> Iterator[list[dict[str, Any]]]:
    for number in range(10_001):
        call = {"name": "get_order", "arguments": f'{{"order_id":"ord_{number}","with_history":true}}'}
        items = [{"sku": f"sku-{number}-{i}", "title": "A thing of some kind", "qty": 1} for i in range(24)]
        result = orjson.dumps({"order_id": f"ord_{number}", "status": "shipped", "items": items}).decode()
        id = f"call_{number:06}"
        yield [
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": id, "type": "function", "function": call}],
            },
            {"role": "tool", "tool_call_id": id, "content": result},
            {"role": "assistant", "content": f"Order ord_{number} was shipped yesterday. " * 6},
            {"role": "user", "content": f"Thanks. What about order ord_{number + 1}, please?"},
        ]


# -- the answers ----------------------------------------------------------------------------------


def _envelope(kind: str) -> dict[str, Any]:
    head = {"id": "chatcmpl-bench0001", "object": kind, "created": _CREATED, "model": "bench-1"}
    return head | {"system_fingerprint": "fp_bench"}


def _call(arguments: str) -> dict[str, Any]:
    return {"id": "call_bench0001", "type": "function", "function": {"name": CALL, "arguments": arguments}}


def _answer() -> bytes:
    message = {"role": "assistant", "content": None, "tool_calls": [_call(ARGUMENTS)], "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "tool_calls"}
    usage = {"prompt_tokens": 1280, "completion_tokens": 31, "total_tokens": 1311}
    return orjson.dumps({**_envelope("chat.completion"), "choices": [choice], "usage": usage})


_ANSWER = _answer()


def answer() -> bytes:
    """The body of an answer with one call."""
    return _ANSWER


def frames() -> list[bytes]:
    """The frames of an answer with a hundred chunks of text and one call in eight fragments."""
    deltas: list[tuple[dict[str, Any], str | None]] = [({"role": "assistant", "content": ""}, None)]
    deltas += [({"content": " parcel"}, None)] * TEXT_CHUNKS
    deltas.append(({"tool_calls": [{"index": 0, **_call("")}]}, None))
    step = -(-len(ARGUMENTS) // 8)
    for at in range(0, len(ARGUMENTS), step):
        fragment = {"index": 0, "function": {"arguments": ARGUMENTS[at : at + step]}}
        deltas.append(({"tool_calls": [fragment]}, None))
    deltas.append(({}, "tool_calls"))
    written = [_frame(delta, finish) for delta, finish in deltas]
    return [*written, _END]


def _frame(delta: dict[str, Any], finish: str | None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return b"data: " + orjson.dumps({**_envelope("chat.completion.chunk"), "choices": [choice]}) + b"\n\n"
