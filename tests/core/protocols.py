"""Every protocol that the cases run on: its codec, its scripted provider, its requests, its strict client."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from proxy.scripted import chat as chat_dialect
from proxy.scripted import messages as messages_dialect
from proxy.scripted import responses as responses_dialect
from proxy.wire.chat import ChatCodec
from proxy.wire.known import KnownTools, ToolsMemo
from proxy.wire.messages import MessagesCodec
from proxy.wire.responses import ResponsesCodec
from tests.core import view, view_messages, view_responses
from tests.core.view import Answer

Json = dict[str, Any]


@dataclass(frozen=True)
class Protocol:
    """One API, as the case runner needs it."""

    name: str
    codec: Any
    dialect: Any
    """The scripted provider's renderer (a module of ``proxy.scripted``)."""
    path: str
    """Below ``/v1``."""
    request: Callable[[Mapping[str, Any], bool], Json]
    """A case's ``request`` as this API writes it, streamed or not."""
    read: Callable[[bytes, bool], Answer]
    """What a strict client makes of an answer."""


def chat_request(given: Mapping[str, Any], stream: bool) -> Json:
    given = dict(given)
    body: Json = {
        "model": "scripted",
        "messages": given.pop("messages", [{"role": "user", "content": "Do it."}]),
        "stream": stream,
    }
    if stream and given.pop("include_usage", True):
        body["stream_options"] = {"include_usage": True}
    given.pop("include_usage", None)
    if "tools" in given:
        body["tools"] = [chat_tool(spec) for spec in given.pop("tools")]
    return body | given


def chat_tool(spec: Any) -> Json:
    """A tool as requests offer it; a bare name takes anything."""
    if isinstance(spec, str):
        spec = {"name": spec, "parameters": {"type": "object"}}
    return spec if "type" in spec else {"type": "function", "function": spec}


def messages_request(given: Mapping[str, Any], stream: bool) -> Json:
    given = {key: value for key, value in given.items() if key != "include_usage"}
    body: Json = {
        "model": "scripted",
        "max_tokens": 1024,
        "messages": given.pop("messages", [{"role": "user", "content": "Do it."}]),
        "stream": stream,
    }
    if "tools" in given:
        body["tools"] = [messages_tool(spec) for spec in given.pop("tools")]
    if isinstance(choice := given.get("tool_choice"), dict) and "function" in choice:
        given["tool_choice"] = {"type": "tool", "name": choice["function"]["name"]}
    return body | given


def messages_tool(spec: Any) -> Json:
    spec = chat_tool(spec)
    if spec.get("type") != "function":
        return dict(spec)
    function = dict(spec["function"])
    return {"input_schema": function.pop("parameters", {"type": "object"}), **function}


def responses_request(given: Mapping[str, Any], stream: bool) -> Json:
    given = {key: value for key, value in given.items() if key != "include_usage"}
    messages = given.pop("messages", [{"role": "user", "content": "Do it."}])
    body: Json = {"model": "scripted", "input": messages, "stream": stream}
    if "tools" in given:
        body["tools"] = [responses_tool(spec) for spec in given.pop("tools")]
    if isinstance(choice := given.get("tool_choice"), dict) and "function" in choice:
        given["tool_choice"] = {"type": "function", "name": choice["function"]["name"]}
    return body | given


def responses_tool(spec: Any) -> Json:
    spec = chat_tool(spec)
    inner = spec.get(spec["type"])
    return {"type": spec["type"], **inner} if isinstance(inner, dict) else dict(spec)


PROTOCOLS: dict[str, Protocol] = {
    "chat": Protocol("chat", ChatCodec(), chat_dialect, "/chat/completions", chat_request, view.read),
    "messages": Protocol(
        "messages", MessagesCodec(), messages_dialect, "/messages", messages_request, view_messages.read
    ),
    "responses": Protocol(
        "responses", ResponsesCodec(), responses_dialect, "/responses", responses_request, view_responses.read
    ),
}


def check_shared_tools() -> None:
    """Fail unless all tools that requests of these codecs share are as they were read."""
    for protocol in PROTOCOLS.values():
        check_memo(protocol.codec.memo)


def check_memo(memo: ToolsMemo) -> None:
    """Fail unless what is remembered, and is shared by all requests, is as it was read."""
    for known in memo:
        parts = [known, *(part for part in known.derived if isinstance(part, KnownTools))]
        assert [orjson.dumps(list(part)) for part in parts] == [part.raw for part in parts]
