"""Reading and extending Messages requests."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from proxy.model import History, PastCall, PastResult, Request, ToolResult, dumps
from proxy.wire.changing import rewritten
from proxy.wire.codec import BadRequest, are_objects, holds_more
from proxy.wire.known import KnownTools
from proxy.wire.messages.blocks import CALL
from proxy.wire.results import said
from proxy.wire.writing import write_json

# How the contents of a refusal begin (``Refusal.content``): providers are told that such a call failed.
_REFUSAL = '{"error":'


def check_shape(body: Mapping[str, Any]) -> None:
    """The types on which judging relies; everything else is the provider's to check."""
    if not isinstance(body.get("model"), str) or not body["model"]:
        raise BadRequest("You must name a model: model must be a non-empty string.", "model")
    _objects(body, "messages", "messages", required=True)
    for key in ("tools", "mcp_servers"):
        _objects(body, key, key, required=False)
    if not isinstance(body.get("stream", False), bool | None):
        raise BadRequest("stream must be true or false.", "stream")
    if not isinstance(body.get("tool_choice"), dict | None):
        raise BadRequest("tool_choice must be an object.", "tool_choice")
    if body.get("thread") is not None:
        raise BadRequest("Callgate cannot judge a conversation that the provider keeps: thread.", "thread")
    _text_or_objects(body, "system", "system")
    for message in body["messages"]:
        _text_or_objects(message, "content", "messages.content")


def _text_or_objects(holder: Mapping[str, Any], key: str, where: str) -> None:
    if not isinstance(holder.get(key), str | None):
        _objects(holder, key, where, required=False)


def _objects(holder: Mapping[str, Any], key: str, where: str, required: bool) -> None:
    value = holder.get(key)
    if (value is None and not required) or isinstance(value, KnownTools):
        return
    if not are_objects(value):
        raise BadRequest(f"{where} must be an array of objects.", where)


def blocks_of(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A message's content as blocks; a text is a block of its own."""
    content = message.get("content")
    if isinstance(content, list):
        return content
    return [{"type": "text", "text": content}] if content else []


def text_of(content: Any) -> str:
    """The text of some content, which is text or a list of blocks."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    parts = [block.get("text") for block in content if isinstance(block, dict)]
    return "\n".join([part for part in parts if isinstance(part, str)])


def all_blocks(body: Mapping[str, Any], role: str, kind: str) -> list[dict[str, Any]]:
    """The blocks of one type, which is no text, in the messages of one role."""
    return [
        block
        for message in body["messages"]
        if message.get("role") == role and isinstance(content := message.get("content"), list)
        for block in content
        if block.get("type") == kind
    ]


def history(body: Mapping[str, Any]) -> History:
    """What the messages tell of the conversation so far.

    A user message that brings results goes on with the turn that asked for them, whatever text an
    application adds to it: to begin a new turn would lift the limits of the last one.
    """
    results = {str(block.get("tool_use_id")): block for block in all_blocks(body, "user", "tool_result")}
    calls: list[PastCall] = []
    query = opening = last_answer = ""
    turn = 0
    fresh: set[str] = set()
    for message in body["messages"]:
        if (role := message.get("role")) == "user":
            blocks = blocks_of(message)
            brought = [str(b.get("tool_use_id")) for b in blocks if b.get("type") == "tool_result"]
            fresh.update(brought)
            if not brought:
                turn += 1
                query = text_of(blocks)
                opening = opening or query
        elif role == "assistant":
            blocks = blocks_of(message)
            last_answer = text_of(blocks)
            fresh.clear()
            calls += [_past(block, results, turn) for block in blocks if block.get("type") == CALL]
    return History(tuple(calls), query, turn, opening, last_answer, frozenset(fresh))


def _past(block: Mapping[str, Any], results: dict[str, dict[str, Any]], turn: int) -> PastCall:
    id = str(block.get("id") or "")
    arguments = dumps(block.get("input") or {}).decode()
    result = results.pop(id, None)
    if result is None:
        return PastCall(id, _full_name(block), arguments, None, turn)
    content, failed = result.get("content"), result.get("is_error") is True
    return PastCall(id, _full_name(block), arguments, text_of(content), turn, failed, holds_more(content))


def _full_name(block: Mapping[str, Any]) -> str:
    name, toolset = str(block.get("name") or ""), block.get("toolset_name")
    return f"{toolset}.{name}" if toolset else name


def handles(body: Mapping[str, Any]) -> list[str]:
    """The ids of the calls that assistant messages hold, and the names of their signed thinking."""
    calls = (block.get("id") for block in all_blocks(body, "assistant", CALL))
    thinking = all_blocks(body, "assistant", "thinking")
    names = [*(id for id in calls if isinstance(id, str) and id), *map(sealed, thinking)]
    return [name for name in dict.fromkeys(names) if name]


def sealed(block: Mapping[str, Any]) -> str:
    """The name of a thinking block by its signature; empty where it has none."""
    signature = block.get("signature")
    if not isinstance(signature, str) or not signature:
        return ""
    return "thinking:" + hashlib.sha256(signature.encode(errors="replace")).hexdigest()[:32]


def changed(request: Request, **keys: Any) -> Request:
    """The request with other values for some of its keys; the order of the rest is kept."""
    return with_body(request, {**request.body, **keys})


def with_body(request: Request, body: dict[str, Any]) -> Request:
    """The request with another body."""
    return rewritten(request, body, write_json)


def result_message(content: Sequence[Mapping[str, Any]], results: Sequence[ToolResult]) -> dict[str, Any]:
    """The user message that answers every call of an assistant message."""
    calls = {block["id"]: block for block in content if block["type"] == CALL}
    return {"role": "user", "content": [result_block(calls.get(r.call_id, {}), r) for r in results]}


def result_block(call: Mapping[str, Any], result: ToolResult) -> dict[str, Any]:
    """One result; a refusal is marked as an error."""
    block = {"type": "tool_result", "tool_use_id": result.call_id, "content": result.content}
    if toolset := call.get("toolset_name"):
        block["toolset_name"] = toolset
    return block | ({"is_error": True} if result.content.startswith(_REFUSAL) else {})


def relaxed_choice(body: Mapping[str, Any]) -> dict[str, Any]:
    """``tool_choice`` without the force to call: {} where it has none."""
    choice = body.get("tool_choice")
    if not isinstance(choice, dict) or choice.get("type") not in ("any", "tool"):
        return {}
    kept = {key: value for key, value in choice.items() if key not in ("type", "name")}
    return {"tool_choice": {"type": "auto", **kept}}


def in_container(body: Mapping[str, Any], container: str | None) -> dict[str, Any]:
    """Name the container in which the provider waits for results; {} where there is none."""
    if container is None:
        return {}
    given = body.get("container")
    return {"container": {**given, "id": container} if isinstance(given, dict) else container}


def with_system(request: Request, text: str) -> Request:
    """Add an instruction after those that the request has: what may be cached stays as it is."""
    system = request.body.get("system")
    added = {"type": "text", "text": text}
    if not system:
        return changed(request, system=text)
    before = [{"type": "text", "text": system}] if isinstance(system, str) else system
    return changed(request, system=[*before, added])


def with_notice(request: Request, notice: str) -> Request:
    """Tell the model something after the results that it was just given."""
    messages = request.body["messages"]
    last = messages[-1] if messages else {}
    text = {"type": "text", "text": notice}
    if last.get("role") != "user":
        return changed(request, messages=[*messages, {"role": "user", "content": [text]}])
    if _answers_code(messages):
        # To calls that running code made, a user message may bring results and nothing else.
        return with_system(request, notice)
    told = {**last, "content": [*blocks_of(last), text]}
    return changed(request, messages=[*messages[:-1], told])


def _answers_code(messages: Sequence[Mapping[str, Any]]) -> bool:
    if len(messages) < 2 or messages[-2].get("role") != "assistant":
        return False
    callers = (block.get("caller") for block in blocks_of(messages[-2]) if block.get("type") == CALL)
    return any(isinstance(caller, dict) and caller.get("type") != "direct" for caller in callers)


def tool_results(body: Mapping[str, Any]) -> list[PastResult]:
    """Every tool result in the messages, with the tool whose call it answers."""
    tools: dict[str, str] = {}
    results: list[PastResult] = []
    for block, key in _keyed(body["messages"]):
        if key is None:
            tools[str(block.get("id"))] = _full_name(block)
        else:
            id = str(block.get("tool_use_id"))
            results.append(PastResult(key, id, tools.get(id, ""), said(block.get("content"))))
    return results


def _keyed(messages: Sequence[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], str | None]]:
    """Every call, and every result with a key of its own: its call's id where no other has it."""
    taken: set[str] = set()
    for position, message in enumerate(messages):
        if not isinstance(content := message.get("content"), list):
            continue
        for at, block in enumerate(content):
            if (kind := block.get("type")) == CALL:
                yield block, None
            elif kind == "tool_result":
                id = block.get("tool_use_id")
                key = id if isinstance(id, str) and id and id not in taken else f"block {position}.{at}"
                while key in taken:
                    key += "'"
                taken.add(key)
                yield block, key


def with_results(messages: Sequence[dict[str, Any]], contents: Mapping[str, str]) -> list[dict[str, Any]]:
    """The messages with other text in the results that ``contents`` has by their keys."""
    told = {
        id(block): contents[key] for block, key in _keyed(messages) if key is not None and key in contents
    }
    return [
        {**message, "content": [_told(block, told) for block in message["content"]]}
        if isinstance(message.get("content"), list)
        else message
        for message in messages
    ]


def _told(block: dict[str, Any], told: Mapping[int, str]) -> dict[str, Any]:
    return {**block, "content": told[id(block)]} if id(block) in told else block
