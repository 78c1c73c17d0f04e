"""The turn of ``body`` and ``stream`` over the other two protocols: its requests, and its answers."""

from __future__ import annotations

from typing import Any

from bench.workload import ARGUMENTS, CALL, SYSTEM, TEXT_CHUNKS, Exchange, exchange, question, tools
from proxy.scripted import messages, responses
from proxy.scripted.dialect import Dialect, Shape
from proxy.scripted.script import Played, Script

DIALECTS: dict[str, Dialect] = {"responses": responses, "messages": messages}
_FRAGMENT_CHARS = 8
"""As ``workload.frames`` cuts a call's arguments."""


def _played(dialect: Dialect, streamed: bool) -> tuple[Played, Shape]:
    call = {"name": CALL, "arguments": ARGUMENTS, "id": "call_bench0001"}
    turn: dict[str, Any] = {"calls": [call], "chunk_chars": _FRAGMENT_CHARS}
    if streamed:
        turn |= {"text": " parcel", "text_chunks": TEXT_CHUNKS}
    model = model_of(dialect, streamed)
    return Played(Script.of(model, [turn]), 0), Shape(model, streamed, obfuscation=False)


def model_of(dialect: Dialect, streamed: bool) -> str:
    """The model that a request of this kind names."""
    return f"bench-{dialect.PATH.rpartition('/')[2]}-{'stream' if streamed else 'body'}"


def answer(dialect: Dialect) -> bytes:
    """The body of an answer with one call."""
    return dialect.body(*_played(dialect, streamed=False))


def frames(dialect: Dialect) -> list[bytes]:
    """The events of an answer with a hundred chunks of text and one call."""
    return dialect.frames(*_played(dialect, streamed=True))


def of_responses(streamed: bool) -> Exchange:
    """The request over the Responses API."""
    offered = [
        {"type": "function", "strict": False}
        | {key: tool[key] for key in ("name", "description", "parameters")}
        for tool in tools()
    ]
    request = {
        "input": [{"role": "user", "content": question()}],
        "instructions": SYSTEM,
        "model": model_of(responses, streamed),
        "temperature": 0.2,
        "tools": offered,
    }
    return _exchange("responses", responses, request, streamed)


def of_messages(streamed: bool) -> Exchange:
    """The request over the Messages API."""
    offered = [
        {"name": tool["name"], "description": tool["description"], "input_schema": tool["parameters"]}
        for tool in tools()
    ]
    request = {
        "max_tokens": 1024,
        "messages": [{"role": "user", "content": question()}],
        "model": model_of(messages, streamed),
        "system": SYSTEM,
        "temperature": 0.2,
        "tools": offered,
    }
    return _exchange("messages", messages, request, streamed, "anthropic-version: 2023-06-01")


def _exchange(
    name: str, dialect: Dialect, request: dict[str, Any], streamed: bool, *headers: str
) -> Exchange:
    name = f"{name}_{'stream' if streamed else 'body'}"
    if not streamed:
        return exchange(name, request, answer(dialect), f"/v1{dialect.PATH}", headers)
    # The last event of a response holds all of it; that the stream came to its end is what counts.
    ending = b"\n\n"
    holds = frames(dialect)[-1].partition(b"\n")[0]
    return exchange(name, request | {"stream": True}, ending, f"/v1{dialect.PATH}", headers, holds)
