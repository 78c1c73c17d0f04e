"""What the proxy did inside earlier answers: kept beside them, and put back into later requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from proxy.model import Fault, ToolResult, Turn, loads, loads_frame
from proxy.wire.chat.request import result_messages
from proxy.wire.codec import Rounds, Settlement
from proxy.wire.writing import write_json

Json = dict[str, Any]


def settlement(hidden: Rounds, turn: Turn, settled: Sequence[ToolResult]) -> Settlement | None:
    """The hidden rounds as messages, the turn's calls as they were, and the results that were written."""
    if not turn.slots or not (hidden or settled):
        return None
    before: list[Json] = []
    for earlier, results in hidden:
        # The client's own message has the text of all rounds: here it would stand twice.
        message = {**earlier.wire.message(), "content": None}
        before += [message, *result_messages(message, results)]
    answers = {result.call_id: result.content for result in settled}
    calls = [call.wire() for call in turn.wire.wire_calls()]
    # A legacy call has no id to know it by.
    forwarded = tuple(call["id"] for call in calls if call["id"] and call["id"] not in answers)
    kept = write_json({"before": before, "calls": calls, "results": answers})
    return Settlement(forwarded, kept) if forwarded else None


def restored(messages: Sequence[Json], kept: Mapping[str, bytes]) -> list[Json]:
    """The messages with every settlement put back where it was made."""
    places: dict[int, Json] = {}
    for value in dict.fromkeys(kept.values()):
        settled = loads_frame(value)
        if (place := _place(messages, settled)) is not None:
            places[place] = settled
    out: list[Json] = []
    for position, message in enumerate(messages):
        out += _put_back(message, places[position]) if position in places else [message]
    return out


def _place(messages: Sequence[Json], settled: Json) -> int | None:
    """The message that a settlement belongs to, None where none surely is.

    Some providers reuse their ids in every turn. The kept one is the latest; where more than one message
    could be meant, its arguments tell.
    """
    fitting = [position for position, message in enumerate(messages) if _fits(message, settled)]
    if len(fitting) > 1:
        fitting = [position for position in fitting if _has_arguments(messages[position], settled)]
    return fitting[-1] if fitting else None


def _fits(message: Json, settled: Json) -> bool:
    """Whether the message's calls are those that were forwarded, or some of them."""
    ids = [str(call.get("id")) for call in message.get("tool_calls") or []]
    # One that names a settled call already is whole; with an id twice, nothing says which call is meant.
    if len(set(ids)) < len(ids) or not settled["results"].keys().isdisjoint(ids):
        return False
    pairs = _pairs(message, settled)
    return bool(pairs) and all(_body(mine).get("name") == _body(kept)["name"] for mine, kept in pairs)


def _pairs(message: Json, settled: Json) -> list[tuple[Json, Json]]:
    """The message's calls beside the kept ones that were forwarded as them."""
    forwarded = {call["id"]: call for call in settled["calls"] if call["id"] not in settled["results"]}
    calls = ((call, forwarded.get(str(call.get("id")))) for call in message.get("tool_calls") or [])
    return [(mine, kept) for mine, kept in calls if kept is not None]


def _body(call: Json) -> Json:
    body = call.get("function") or call.get("custom")
    return body if isinstance(body, dict) else {}


def _has_arguments(message: Json, settled: Json) -> bool:
    return all(_arguments(mine) == _arguments(kept) for mine, kept in _pairs(message, settled))


def _arguments(call: Json) -> Any:
    """The arguments' value, as clients may write them anew; their text where they have none."""
    body = _body(call)
    text = body.get("arguments", body.get("input"))
    try:
        return loads(text) if isinstance(text, str) else text
    except Fault:
        return text


def _put_back(message: Json, settled: Json) -> list[Json]:
    mine = {str(call.get("id")): call for call in message["tool_calls"]}
    results: dict[str, str] = settled["results"]
    # A forwarded call stands as the client has it; one that the client dropped stays dropped.
    ordered = [
        mine.pop(call["id"], call) for call in settled["calls"] if call["id"] in mine or call["id"] in results
    ]
    full = {**message, "tool_calls": [*ordered, *mine.values()]}
    answers = [{"role": "tool", "tool_call_id": id, "content": content} for id, content in results.items()]
    return [*settled["before"], full, *answers]
