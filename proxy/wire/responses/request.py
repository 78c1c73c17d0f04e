"""Reading and extending requests to the Responses API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from proxy.model import History, PastCall, PastResult, Request, ToolResult, Turn
from proxy.wire import parallel
from proxy.wire.changing import rewritten
from proxy.wire.codec import BadRequest, MalformedTurn, are_objects
from proxy.wire.known import KnownTools
from proxy.wire.responses import items
from proxy.wire.responses.items import Json
from proxy.wire.responses.noting import hiding
from proxy.wire.writing import write_request


def check_shape(body: Mapping[str, Any]) -> None:
    """The types on which judging relies; everything else is the provider's to check."""
    model = body.get("model", "")
    # A prompt template may name the model instead.
    if not isinstance(model, str) or not (model or body.get("prompt")):
        raise BadRequest("You must name a model: model must be a non-empty string.", "model")
    if not isinstance(body.get("input"), str | None):
        _list_of_objects(body["input"], "input")
    if body.get("tools") is not None and not isinstance(body["tools"], KnownTools):
        _list_of_objects(body["tools"], "tools")
    if not isinstance(body.get("stream", False), bool | None):
        raise BadRequest("stream must be true or false.", "stream")
    if not isinstance(body.get("previous_response_id"), str | None):
        raise BadRequest("previous_response_id must be a string.", "previous_response_id")
    if body.get("conversation") is not None and not conversation(body):
        raise BadRequest("conversation must be an id, or an object with one.", "conversation")
    for position, item in enumerate(input_items(body)):
        if not isinstance(item.get("type", "message"), str):
            raise BadRequest("The type of an input item must be a string.", f"input[{position}]")
        if item.get("tools") is not None and item.get("type") in TOOL_CARRIERS:
            _list_of_objects(item["tools"], f"input[{position}].tools")


MAX_OPENING_CHARS = 64 * 1024
"""How much of the first user message names the conversation: it is kept with every stored answer."""
TOOL_CARRIERS = ("additional_tools", "tool_search_output")
"""Input items that bring tools into the middle of a conversation."""


def _list_of_objects(value: Any, name: str) -> None:
    if not are_objects(value):
        raise BadRequest(f"{name} must be an array of objects.", name)


def conversation(body: Mapping[str, Any]) -> str:
    """The id of the conversation that the provider keeps; "" for none."""
    value = body.get("conversation")
    id = value.get("id") if isinstance(value, dict) else value
    return id if isinstance(id, str) else ""


def is_stored(body: Mapping[str, Any]) -> bool:
    """Whether the provider keeps the answer."""
    return body.get("store") is not False


def input_items(body: Mapping[str, Any]) -> list[Json]:
    """The input as items; a text is one message of the user's."""
    given = body.get("input")
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    return given if isinstance(given, list) else []


def changed(request: Request, **keys: Any) -> Request:
    """The request with other values for some of its keys; the order of the rest is kept."""
    return with_body(request, {**request.body, **keys})


def with_body(request: Request, body: Json) -> Request:
    """The request with another body."""
    return rewritten(request, body, write_request)


# -- history -------------------------------------------------------------------------------------


def history(body: Mapping[str, Any], pending: Sequence[PastCall] = ()) -> History:
    """What the input tells of the conversation so far.

    ``pending`` are calls that only the provider remembers and the input answers.
    """
    given = input_items(body)
    results = {id: item for item in given if (id := items.answered_id(item))}
    calls = [_answered(call, results, call.turn) for call in pending]
    query = opening = last_answer = ""
    turn = 0
    fresh: set[str] = set()
    for item in given:
        role = item.get("role")
        if role == "user":
            turn += 1
            query = items.text_of(item.get("content"))
            opening = opening or query[:MAX_OPENING_CHARS]
        elif role == "assistant":
            last_answer = items.text_of(item.get("content"))
            fresh.clear()
        elif id := items.answered_id(item):
            fresh.add(id)
        for call in past_calls(item):
            fresh.clear()
            calls.append(_answered(call, results, turn))
    return History(tuple(calls), query, turn, opening, last_answer, frozenset(fresh))


def _answered(call: PastCall, results: Mapping[str, Json], turn: int) -> PastCall:
    """The call with the result that came back for it, or for the batch that it stands in."""
    item = results.get(call.id) or results.get(items.wrapper_id(call.id))
    if item is None:
        return replace(call, turn=turn)
    text, failed, partial = items.result_text(item), items.is_failed(item), items.is_partial(item)
    return PastCall(call.id, call.name, call.arguments_json, text, turn, failed, partial)


def past_calls(item: Json) -> list[PastCall]:
    """The calls that an input item holds, without their results."""
    if (type := item.get("type", "message")) in ("message", "function_call_output"):
        return []  # as in most items of a conversation
    if type == "function_call" and isinstance(text := item.get("arguments"), str):
        name = items.name_of(item)
        if name not in parallel.NAMES:
            # Nothing that was called is judged again: its arguments need no reading.
            return [PastCall(items.call_id(item), name, text or "{}", None, 0)]
    try:
        asked = items.read_calls(item) if item.get("type") and items.is_call(item) else ()
    except MalformedTurn:
        return []  # the provider has to know this kind of item; nothing is known of it here
    return [PastCall(call.id, call.name, call.arguments_json, None, 0) for call in asked]


# Answers that tell the model nothing of a tool: a person's word, and tools, which are governed as such.
_NOT_TOLD = ("mcp_approval_response", *TOOL_CARRIERS)


def tool_results(body: Mapping[str, Any], pending: Sequence[PastCall] = ()) -> list[PastResult]:
    """Every result in the input, those of ``pending`` calls too."""
    given = input_items(body)
    names = {id: call.name for call in pending for id in (items.wrapper_id(call.id), call.id)}
    tools = {items.call_id(item): call.name for item in given for call in past_calls(item)}
    found: list[PastResult] = []
    for position, item in enumerate(given):
        if (id := items.answered_id(item)) and item.get("type") not in _NOT_TOLD:
            tool = tools.get(id) or names.get(id, "")
            found.append(PastResult(str(position), id, tool, items.result_text(item)))
        elif item.get("type") == "mcp_call" and item.get("output") is not None:
            tool = items.name_of({**item, "type": "mcp_approval_request"})
            found.append(PastResult(str(position), str(item.get("id")), tool, items.result_text(item)))
    return found


def with_results(request: Request, contents: Mapping[str, str]) -> Request:
    """The request with other text in these results."""
    given = list(input_items(request.body))
    for key, text in contents.items():
        given[int(key)] = items.with_result(given[int(key)], text)
    return changed(request, input=given)


def handles(body: Mapping[str, Any]) -> list[str]:
    """The names under which something may have been kept: answers, answered calls, what was said."""
    names = [body.get("previous_response_id"), conversation(body)]
    for item in input_items(body):
        names.append(items.answered_id(item))
        if item.get("role") == "assistant" or item.get("type") in ("reasoning", "item_reference"):
            names.append(item.get("id"))
    return list(dict.fromkeys(name for name in names if isinstance(name, str) and name))


# -- asking again --------------------------------------------------------------------------------


def extended(request: Request, turn: Turn, results: Sequence[ToolResult], relax: bool) -> Request:
    """The request with the turn's output and an answer for each of its calls."""
    body = request.body
    told = {result.call_id: result.content for result in results}
    answers = answers_of(turn.wire.output(), told)
    given = input_items(body)
    request = hiding(request, answers)
    known = {items.answered_id(item) for item in given} - {""}
    relaxed = relaxed_choice(body) if relax else {}
    ids = {items.answered_id(answer) for answer in answers} - {""}
    if ids and ids <= known:
        # What was told of these calls while they waited gives way, where it stood.
        return changed(request, input=_replaced(given, turn.wire.output(), told), **relaxed)
    if conversation(body):
        # The provider has added the input and its own answer to the conversation already.
        earlier = told_history(request.history, turn, told)
        return replace(changed(request, input=answers, **relaxed), earlier=earlier)
    output = resendable(turn.wire.output(), is_stored(body))
    return changed(request, input=[*given, *output, *answers], **relaxed)


def _replaced(given: Sequence[Json], output: Sequence[Json], told: Mapping[str, str]) -> list[Json]:
    """The input with other answers to these output items' calls."""
    by_call = {items.call_id(item): items.outputs(item, told) for item in output if items.is_call(item)}
    out: list[Json] = []
    for item in given:
        out += by_call.get(items.answered_id(item), [item])
    return out


def answers_of(output: Sequence[Json], told: Mapping[str, str]) -> list[Json]:
    """The input items that answer these output items' calls."""
    return [answer for item in output if items.is_call(item) for answer in items.outputs(item, told)]


def resendable(output: Sequence[Json], stored: bool) -> list[Json]:
    """Output items as input: verbatim, but for reasoning that the provider has not kept and cannot read."""
    if stored or all(item.get("encrypted_content") for item in output if item["type"] == "reasoning"):
        return list(output)
    kept = [item for item in output if item["type"] != "reasoning" or item.get("encrypted_content")]
    # An id would make the provider look for the reasoning that belongs to it.
    return [without_id(item) for item in kept]


def without_id(item: Json) -> Json:
    """The item without its id, where another id names it."""
    if item.get("type") in ("message", "mcp_approval_request") or "call_id" not in item:
        return item
    return {key: value for key, value in item.items() if key != "id"}


def told_history(known: History, turn: Turn, told: Mapping[str, str]) -> History:
    """A history with the turn's calls, and the results that the model was told."""
    made = tuple(
        PastCall(call.id, call.name, call.arguments_json, told.get(call.id), known.turn)
        for call in turn.calls
    )
    return replace(known, calls=(*known.calls, *made), last_answer=turn.text or known.last_answer)


def relaxed_choice(body: Mapping[str, Any]) -> Json:
    """``tool_choice`` without the force to call: {} where it has none."""
    choice = body.get("tool_choice")
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        return {"tool_choice": {**choice, "mode": "auto"}}
    return {} if choice in (None, "auto", "none") else {"tool_choice": "auto"}


def forbidden(request: Request, notice: str) -> Request:
    """The request with tools turned off, but still defined: the prompt's prefix, and so its cache, holds."""
    body = request.body
    brings_tools = any(item.get("type") in TOOL_CARRIERS for item in input_items(body))
    off = {"tool_choice": "none"} if body.get("tools") or body.get("prompt") or brings_tools else {}
    said = {"type": "message", "role": "developer", "content": notice}
    return changed(hiding(request, [said]), input=[*input_items(body), said], **off)
