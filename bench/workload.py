"""What is sent and what is answered: the same bytes for every server that is measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count
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
    holds: bytes = b""
    """What stands somewhere in it."""

    @property
    def size(self) -> int:
        """Bytes of the request's body."""
        return len(self.body)

    def request(self, number: int) -> bytes:
        """The bytes of the request with this number."""
        return self.head + self.body.replace(_NUMBER, b"%08d" % number, 1)


def exchange(
    name: str,
    request: dict[str, Any],
    ends_with: bytes,
    path: str = "/v1/chat/completions",
    headers: Sequence[str] = (),
    holds: bytes = b"",
) -> Exchange:
    """A request for ``path`` as an official Python client writes it."""
    body = orjson.dumps(request)
    return Exchange(name, _head(path, len(body), headers), body, ends_with, holds)


def _head(path: str, length: int, more: Sequence[str]) -> bytes:
    lines = (
        f"POST {path} HTTP/1.1",
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
        *more,
        f"Content-Length: {length}",
    )
    return "\r\n".join((*lines, "", "")).encode()


def chat(
    name: str,
    model: str,
    messages: list[dict[str, Any]],
    ends_with: bytes,
    stream: bool = False,
    holds: bytes = b"",
) -> Exchange:
    """A chat completion with the ten tools."""
    offered = [
        {
            "type": "function",
            "function": {key: tool[key] for key in ("name", "description", "parameters")},
        }
        for tool in tools()
    ]
    request: dict[str, Any] = {"messages": messages, "model": model, "temperature": 0.2, "tools": offered}
    if stream:
        request["stream"] = True
    return exchange(name, request, ends_with, holds=holds)


SYSTEM = (
    "You are the order desk of a web shop. Look before you change anything, never guess an id, and "
    "answer in the customer's language. If something cannot be done, say so and offer a colleague."
)
_UNNUMBERED = _NUMBER.decode()


def question(ticket: str = _UNNUMBERED) -> str:
    """What the customer asks; without a ticket's number, each request puts in its own."""
    return f"Ticket {ticket}: which of my orders are on their way, and when will they be here?"


def opening(ticket: str = _UNNUMBERED) -> list[dict[str, Any]]:
    """How every chat begins."""
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question(ticket)}]


def body() -> Exchange:
    """A request of about 5 KB with ten tools; the answer is one call."""
    return chat("body", "bench-body", opening(), _ANSWER)


def stream() -> Exchange:
    """The same, streamed: a hundred chunks of text and one call, each frame on its own, as a model speaks."""
    return chat("stream", "bench-stream", opening(), _END, stream=True)


def burst() -> Exchange:
    """The same frames, each in a write of its own, as fast as the connection takes them."""
    return chat("burst", "bench-burst", opening(), _END, stream=True)


def history(size: int) -> Exchange:
    """A conversation of at least ``size`` bytes: questions, calls, results, answers."""
    messages = opening()
    total = 0
    for number in count():
        if total >= size:
            break
        turn = _turn(number, items=24)
        messages += turn
        total += len(orjson.dumps(turn))
    return _asked_again(f"history of {size // 1024} KB", messages)


def past_calls(number: int) -> Exchange:
    """A conversation of so many calls, each with a result of a few lines."""
    messages = opening()
    for past in range(number):
        messages += _turn(past, items=3)
    return _asked_again(f"history of {number} calls", messages)


def _asked_again(name: str, messages: list[dict[str, Any]]) -> Exchange:
    messages.append({"role": "user", "content": "And the parcel from last week?"})
    return chat(name, "bench-body", messages, _ANSWER)


def _turn(number: int, items: int) -> list[dict[str, Any]]:
    call = {"name": "get_order", "arguments": f'{{"order_id":"ord_{number}","with_history":true}}'}
    bought = [{"sku": f"sku-{number}-{i}", "title": "A thing of some kind", "qty": 1} for i in range(items)]
    result = orjson.dumps({"order_id": f"ord_{number}", "status": "shipped", "items": bought}).decode()
    id = f"call_{number:06}"
    return [
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


def completion(content: str | None, calls: Sequence[dict[str, Any]] = ()) -> bytes:
    """The body of a chat answer that says or calls something."""
    message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
    if calls:
        message["tool_calls"] = calls
    finish = "tool_calls" if calls else "stop"
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
    usage = {"prompt_tokens": 1280, "completion_tokens": 31, "total_tokens": 1311}
    return orjson.dumps({**_envelope("chat.completion"), "choices": [choice], "usage": usage})


_ANSWER = completion(None, [_call(ARGUMENTS)])


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
