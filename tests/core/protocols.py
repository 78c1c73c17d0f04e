"""Every protocol that the cases run on: its codec, its scripted provider, its requests, its strict client."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from proxy.scripted import chat as chat_dialect
from proxy.wire.chat import ChatCodec
from tests.core import view
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


PROTOCOLS: dict[str, Protocol] = {
    "chat": Protocol("chat", ChatCodec(), chat_dialect, "/chat/completions", chat_request, view.read),
}
