"""Reading and extending Chat Completions requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from proxy.model import History, OfferedTool, PastCall, PastResult, Request, ToolResult
from proxy.wire.changing import rewritten
from proxy.wire.codec import BadRequest, are_objects, holds_more
from proxy.wire.known import KnownTools, worked_out
from proxy.wire.results import said
from proxy.wire.writing import write_request


def check_shape(body: Mapping[str, Any]) -> None:
    """The types on which judging relies; everything else is the provider's to check."""
    if not isinstance(body.get("model"), str) or not body["model"]:
        raise BadRequest("You must name a model: model must be a non-empty string.", "model")
    _list_of_objects(body, "messages", required=True)
    for key in ("tools", "functions"):
        _list_of_objects(body, key, required=False)
    if not isinstance(body.get("stream", False), bool | None):
        raise BadRequest("stream must be true or false.", "stream")
    n = body.get("n", 1)
    if n is not None and (isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= 128):
        raise BadRequest("n must be an integer from 1 to 128.", "n")
    for position, message in enumerate(body["messages"]):
        if (calls := message.get("tool_calls")) is not None and not are_objects(calls):
            where = f"messages[{position}]"
            raise BadRequest(f"{where}.tool_calls must be an array of objects.", where)


def _list_of_objects(body: Mapping[str, Any], key: str, required: bool) -> None:
    value = body.get(key)
    if (value is None and not required) or isinstance(value, KnownTools):
        return
    if not are_objects(value):
        raise BadRequest(f"{key} must be an array of objects.", key)


def offered_tools(body: Mapping[str, Any]) -> dict[str, OfferedTool]:
    """The tools that the application offers, by name; the first of a name counts."""
    tools = worked_out(body.get("tools") or [], _offered)
    if functions := body.get("functions"):
        tools = {**tools}
        for wire in functions:
            _offer(tools, wire, "function")
    return tools


def _offered(wires: Sequence[Mapping[str, Any]]) -> dict[str, OfferedTool]:
    tools: dict[str, OfferedTool] = {}
    for wire in wires:
        kind = wire.get("type", "function")
        inner = wire.get(kind) if kind in ("function", "custom") else None
        if isinstance(inner, dict):
            _offer(tools, inner, str(kind))
    return tools


def _offer(tools: dict[str, OfferedTool], wire: Mapping[str, Any], kind: str) -> None:
    if isinstance(name := wire.get("name"), str):
        description = wire.get("description")
        offered = OfferedTool(name, wire.get("parameters"), description if description else "", kind)
        tools.setdefault(name, offered)


def text_of(content: Any) -> str:
    """The text of a message's content, which is text or a list of parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    parts = (part.get("text") for part in content if isinstance(part, dict))
    return "\n".join(part for part in parts if isinstance(part, str))


def history(body: Mapping[str, Any]) -> History:
    """What the messages tell of the conversation so far."""
    calls: list[PastCall] = []
    messages = body["messages"]
    results = _results(messages)
    query = opening = last_answer = ""
    turn = 0
    fresh: set[str] = set()
    for message in messages:
        role = message.get("role")
        if role == "user":
            turn += 1
            query = text_of(message.get("content"))
            opening = opening or query
        elif role == "assistant":
            last_answer = text_of(message.get("content"))
            fresh.clear()
        elif role == "tool":
            fresh.add(str(message.get("tool_call_id")))
        if "tool_calls" not in message and "function_call" not in message:
            continue
        for id, name, arguments in calls_of(message):
            given = results.get(id or f"function:{name}")
            result, partial = given.pop(0) if given else (None, False)
            calls.append(PastCall(id, name, arguments, result, turn, False, partial))
    return History(tuple(calls), query, turn, opening, last_answer, frozenset(fresh))


def _results(messages: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[str, bool]]]:
    """The results of each call id, in their order: some providers reuse their ids in every turn.

    With each, whether it is more than its text.
    """
    results: dict[str, list[tuple[str, bool]]] = {}
    for message in messages:
        if (role := message.get("role")) == "tool":
            key = str(message.get("tool_call_id"))
        elif role == "function":
            key = f"function:{message.get('name')}"
        else:
            continue
        content = message.get("content")
        results.setdefault(key, []).append((text_of(content), holds_more(content)))
    return results


def calls_of(message: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The id, the name and the arguments' text of each call in a message."""
    calls: list[tuple[str, str, str]] = []
    for wire in message.get("tool_calls") or ():
        body = wire.get("function") or wire.get("custom")
        if isinstance(body, dict):
            arguments = body.get("arguments", body.get("input"))
            text = arguments if isinstance(arguments, str) else ""
            calls.append((str(wire.get("id") or ""), str(body.get("name") or ""), text))
    if isinstance(legacy := message.get("function_call"), dict):
        calls.append(("", str(legacy.get("name") or ""), str(legacy.get("arguments") or "")))
    return calls


def past_call_ids(body: Mapping[str, Any]) -> list[str]:
    """The ids of the calls that assistant messages hold."""
    return [
        id
        for message in body["messages"]
        for wire in message.get("tool_calls") or []
        if isinstance(id := wire.get("id"), str) and id
    ]


def changed(request: Request, **keys: Any) -> Request:
    """The request with other values for some of its keys; the order of the rest is kept."""
    return with_body(request, {**request.body, **keys})


def with_body(request: Request, body: dict[str, Any]) -> Request:
    """The request with another body."""
    return rewritten(request, body, write_request)


def tool_results(body: Mapping[str, Any]) -> list[PastResult]:
    """Every tool result in the messages, with the tool whose call it answers."""
    tools: dict[str, str] = {}
    results: list[PastResult] = []
    taken: set[str] = set()
    for position, message in enumerate(body["messages"]):
        if (role := message.get("role")) == "tool":
            id = str(message.get("tool_call_id"))
            key = _key(message, position, taken)
            results.append(PastResult(key, id, tools.get(id, ""), said(message.get("content"))))
        elif role == "function":
            key, name = _key(message, position, taken), str(message.get("name"))
            results.append(PastResult(key, "", name, said(message.get("content"))))
        elif "tool_calls" in message or "function_call" in message:
            for id, name, _ in calls_of(message):
                tools[id] = name
    return results


def _key(message: Mapping[str, Any], position: int, taken: set[str]) -> str:
    """A tool result's own key, which is its call's id where no other has it; ``taken`` are those before."""
    id = message.get("tool_call_id")
    key = id if isinstance(id, str) and id else f"message {position}"
    while key in taken:
        key += "'"
    taken.add(key)
    return key


def with_contents(messages: Sequence[dict[str, Any]], contents: Mapping[str, str]) -> list[dict[str, Any]]:
    """The messages with other text in the tool results that ``contents`` has by their keys."""
    taken: set[str] = set()
    return [
        {**message, "content": contents[key]}
        if message.get("role") in ("tool", "function") and (key := _key(message, position, taken)) in contents
        else message
        for position, message in enumerate(messages)
    ]


def result_messages(message: Mapping[str, Any], results: Sequence[ToolResult]) -> list[dict[str, Any]]:
    """The tool results in the words that answer this assistant message."""
    if legacy := message.get("function_call"):
        return [{"role": "function", "name": legacy["name"], "content": r.content} for r in results]
    return [{"role": "tool", "tool_call_id": r.call_id, "content": r.content} for r in results]


def with_notice(messages: Sequence[dict[str, Any]], notice: str) -> list[dict[str, Any]]:
    """The messages with the proxy's own words to the model at their end.

    They stand in the latest tool result where there is one: many chat templates, and Mistral's API, refuse
    a system message anywhere but first.
    """
    last = messages[-1] if messages else {}
    if last.get("role") in ("tool", "function") and isinstance(content := last.get("content"), str):
        return [*messages[:-1], {**last, "content": f"{content}\n\n{notice}"}]
    return [*messages, {"role": "system", "content": notice}]


def relaxed_choice(body: Mapping[str, Any]) -> dict[str, Any]:
    """``tool_choice`` without the force to call: {} where it has none."""
    relaxed: dict[str, Any] = {}
    choice = body.get("tool_choice")
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        allowed = choice.get("allowed_tools")
        if isinstance(allowed, dict):
            relaxed["tool_choice"] = {**choice, "allowed_tools": {**allowed, "mode": "auto"}}
    elif choice not in (None, "auto", "none"):
        relaxed["tool_choice"] = "auto"
    if isinstance(body.get("function_call"), dict):
        relaxed["function_call"] = "auto"
    return relaxed
