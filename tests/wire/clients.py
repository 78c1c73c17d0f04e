"""What clients make of an answer's bytes: the openai SDK, and models of how others accumulate calls.

Clients differ in how they cut a stream into events, in what tells two calls apart, and in what they do with
a name or an id that is said again. All of them have to find the same calls in what the proxy sends.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import httpx2
from openai import APIError, OpenAI
from openai.lib.streaming.chat import ChatCompletionStreamState

Json = dict[str, Any]
Calls = dict[int, list[tuple[str | None, str, str]]]
"""By choice, every call: id (None for a legacy one), name, arguments."""


class Failed(Exception):
    """The client reports an error and runs nothing."""


# -- cutting a stream into events ---------------------------------------------------------------


def by_events(data: bytes) -> Iterator[Json]:
    """As the standard says: events end at blank lines, the last one may not be cut short."""
    text = data.decode().removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    for event in text.split("\n\n")[:-1]:
        lines = [line.removeprefix("data:").removeprefix(" ") for line in event.split("\n") if _is_data(line)]
        if lines and lines != ["[DONE]"]:
            yield json.loads("\n".join(lines))


def by_lines(data: bytes) -> Iterator[Json]:
    """As many hand-written clients do: each line is an event."""
    for line in data.decode().removeprefix("\ufeff").replace("\r", "\n").split("\n"):
        if _is_data(line):
            with suppress(ValueError):  # what is no JSON is skipped
                wire = json.loads(line.removeprefix("data:"))
                yield from [wire] if isinstance(wire, dict) else []


def _is_data(line: str) -> bool:
    return line.startswith("data:")


# -- putting calls together ---------------------------------------------------------------------


def _deltas(chunks: Iterator[Json]) -> Iterator[tuple[int, Json]]:
    for chunk in chunks:
        if chunk.get("error"):
            raise Failed(str(chunk["error"]))
        for choice in chunk.get("choices") or []:
            yield choice.get("index", 0), choice.get("delta") or {}


def _empty() -> Json:
    return {"id": "", "name": "", "arguments": ""}


def _legacy(calls: dict[int, dict[Any, Json]], choice: int, delta: Json) -> None:
    if legacy := delta.get("function_call"):
        call = calls.setdefault(choice, {}).setdefault("legacy", _empty() | {"id": None})
        call["name"] += legacy.get("name") or ""
        call["arguments"] += legacy.get("arguments") or ""


def _body(piece: Json) -> Json:
    return piece.get("function") or piece.get("custom") or {}


def _text(piece: Json) -> str:
    return _body(piece).get("arguments", _body(piece).get("input")) or ""


def appending(chunks: Iterator[Json]) -> Calls:
    """By index; every string is appended, names and ids too (openai-python, LangChain)."""
    calls: dict[int, dict[Any, Json]] = {}
    for choice, delta in _deltas(chunks):
        _legacy(calls, choice, delta)
        for piece in delta.get("tool_calls") or []:
            call = calls.setdefault(choice, {}).setdefault(piece["index"], _empty())
            call["id"] += piece.get("id") or ""
            call["name"] += _body(piece).get("name") or ""
            call["arguments"] += _text(piece)
    return _listed(calls)


def assigning(chunks: Iterator[Json]) -> Calls:
    """By index; the last name and id hold."""
    calls: dict[int, dict[Any, Json]] = {}
    for choice, delta in _deltas(chunks):
        _legacy(calls, choice, delta)
        for piece in delta.get("tool_calls") or []:
            call = calls.setdefault(choice, {}).setdefault(piece["index"], _empty())
            call["id"] = piece.get("id") or call["id"]
            call["name"] = _body(piece).get("name") or call["name"]
            call["arguments"] += _text(piece)
    return _listed(calls)


def latest(chunks: Iterator[Json]) -> Calls:
    """An id begins a call, anything else belongs to the latest; only the first piece of a delta is read."""
    calls: dict[int, dict[Any, Json]] = {}
    for choice, delta in _deltas(chunks):
        _legacy(calls, choice, delta)
        for piece in (delta.get("tool_calls") or [])[:1]:
            of_choice = calls.setdefault(choice, {})
            if piece.get("id"):
                of_choice[piece["id"]] = _empty() | {"id": piece["id"], "name": _body(piece)["name"]}
            list(of_choice.values())[-1]["arguments"] += _text(piece)
    return _listed(calls)


def _listed(calls: dict[int, dict[Any, Json]]) -> Calls:
    return {
        choice: [(call["id"], call["name"], call["arguments"]) for call in found.values()]
        for choice, found in calls.items()
    }


# -- the openai SDK -----------------------------------------------------------------------------

_answer = [b"", "text/event-stream"]
_client = OpenAI(
    base_url="http://sdk.invalid/v1",
    api_key="unused",
    max_retries=0,
    http_client=httpx2.Client(
        transport=httpx2.MockTransport(
            lambda request: httpx2.Response(200, content=_answer[0], headers={"content-type": _answer[1]})
        )
    ),
)
_ask = {"model": "m", "messages": [{"role": "user", "content": "x"}]}


def sdk_stream(data: bytes) -> Calls:
    """The SDK's own accumulator over its own event reader."""
    _answer[:] = data, "text/event-stream"
    state = ChatCompletionStreamState()
    chunks = 0
    try:
        for chunk in _client.chat.completions.create(**_ask, stream=True):  # type: ignore[call-overload]
            state.handle_chunk(chunk)
            chunks += 1
    except APIError as exc:
        raise Failed(str(exc)) from exc
    return _of_completion(state.current_completion_snapshot.model_dump()) if chunks else {}


def sdk_body(data: bytes) -> Calls:
    _answer[:] = data, "application/json"
    return _of_completion(_client.chat.completions.create(**_ask).model_dump())  # type: ignore[call-overload]


def plain_body(data: bytes) -> Calls:
    return _of_completion(json.loads(data))


def _of_completion(completion: Json) -> Calls:
    if completion.get("error") and not completion.get("choices"):
        raise Failed(str(completion["error"]))
    return {c.get("index") or 0: list(_of_message(c["message"])) for c in completion["choices"]}


def _of_message(message: Json) -> Iterator[tuple[str | None, str, str]]:
    for call in message.get("tool_calls") or []:
        yield call["id"], _body(call)["name"], _text(call)
    if legacy := message.get("function_call"):
        yield None, legacy["name"], legacy["arguments"]


STREAM_CLIENTS: dict[str, Callable[[bytes], Calls]] = {
    f"{put.__name__} {cut.__name__}": lambda data, put=put, cut=cut: put(cut(data))  # type: ignore[misc]
    for put in (appending, assigning, latest)
    for cut in (by_events, by_lines)
}
BODY_CLIENTS: dict[str, Callable[[bytes], Calls]] = {"plain": plain_body}


def rebuilt(data: bytes, stream: bool, sdk: bool = True) -> dict[str, Calls]:
    """What every client makes of these bytes; choices without a call are left out.

    Raises ``Failed`` where all of them report an error.
    """
    clients = dict(STREAM_CLIENTS if stream else BODY_CLIENTS)
    if sdk:
        clients["sdk"] = sdk_stream if stream else sdk_body
    found: dict[str, Calls] = {}
    failed = []
    for name, client in clients.items():
        try:
            found[name] = {choice: calls for choice, calls in client(data).items() if calls}
        except Failed:
            failed.append(name)
    if failed and not found:
        raise Failed(", ".join(failed))
    assert not failed or not any(found.values()), f"only {failed} reported an error"
    return found
