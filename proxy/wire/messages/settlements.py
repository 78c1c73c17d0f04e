"""What the client does not see of an answer: kept in Anthropic's words, and put back into later requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from proxy.model import ToolResult, Turn, loads_frame
from proxy.wire.codec import Rounds, Settlement
from proxy.wire.messages.blocks import CALL
from proxy.wire.messages.reading import MessagesTurn
from proxy.wire.messages.request import blocks_of, result_block, result_message, sealed
from proxy.wire.writing import write_json

# By these a block that comes back is known again, whatever the client added to it.
_KNOWN_BY = ("type", "text", "thinking", "signature", "data", "id", "tool_use_id")

Message = dict[str, Any]


def settlement(hidden: Rounds, turn: Turn, settled: Sequence[ToolResult]) -> Settlement | None:
    """Keep the hidden rounds as they were, and the calls of the last turn that the client does not run.

    An answer without calls comes back too where it holds thinking: providers check what stands before it.
    """
    if not (hidden or settled):
        return None
    wire: MessagesTurn = turn.wire
    calls = [block for block in wire.content() if block["type"] == CALL]
    answers = {result.call_id: result for result in settled}
    forwarded = [call["id"] for call in calls if call["id"] not in answers]
    rounds = [(earlier.wire.content(), results) for earlier, results in hidden]
    before = [
        message
        for content, results in rounds
        for message in ({"role": "assistant", "content": content}, result_message(content, results))
    ]
    said = [block for content, _ in rounds for block in content if block["type"] != CALL]
    seals = [name for block in said if block["type"] == "thinking" and (name := sealed(block))]
    names = tuple(forwarded + (seals if forwarded or not calls else []))
    kept = {
        "before": before,
        "said": said,
        "calls": calls,
        "results": {id: result_block(_named(calls, id), result) for id, result in answers.items()},
    }
    return Settlement(names, write_json(kept)) if names else None


def _named(calls: Sequence[Message], id: str) -> Message:
    return next((call for call in calls if call["id"] == id), {})


def restored(messages: Sequence[Message], kept: Mapping[str, bytes]) -> list[Message]:
    """The messages with every settlement put back where it was made."""
    out: list[Message] = []
    owed: list[Message] = []
    for message in messages:
        if owed:
            message, owed = _answered(out, message, owed), []
        if message.get("role") == "assistant" and (found := _find(message, kept)) is not None:
            before, message, owed = _put_back(message, found)
            out += before
        out.append(message)
    return [*out, {"role": "user", "content": owed}] if owed else out


def _answered(out: list[Message], message: Message, owed: list[Message]) -> Message:
    """Put results that are owed first into the user message that follows, or into one of their own."""
    if message.get("role") != "user":
        out.append({"role": "user", "content": owed})
        return message
    return {**message, "content": [*owed, *blocks_of(message)]}


def _find(message: Message, kept: Mapping[str, bytes]) -> dict[str, Any] | None:
    for block in blocks_of(message):
        name = block.get("id") if block.get("type") == CALL else sealed(block)
        if isinstance(name, str) and name in kept:
            found: dict[str, Any] = loads_frame(kept[name])
            return found
    return None


def _put_back(message: Message, kept: Mapping[str, Any]) -> tuple[list[Message], Message, list[Message]]:
    """The rounds before a message, the message itself made whole, and the results it is owed."""
    content = _without_said(blocks_of(message), kept["said"])
    ids = (block.get("id") for block in content if block.get("type") == CALL)
    here = {id for id in ids if isinstance(id, str)}
    missing: list[Message] = []
    for call in kept["calls"]:
        if call["id"] in here:
            at = next(i for i, block in enumerate(content) if block.get("id") == call["id"])
            content[at:at] = missing
            missing = []
        elif call["id"] in kept["results"]:
            missing.append(call)
    settled = [result for id, result in kept["results"].items() if id not in here]
    return kept["before"], {**message, "content": [*content, *missing]}, settled


def _without_said(content: Sequence[Message], said: Sequence[Message]) -> list[Message]:
    """What is left of a message when the blocks of hidden rounds, with which it begins, are taken away."""
    rest = list(content)
    for block in said:
        if not rest:
            break
        if _is_same(rest[0], block):
            del rest[0]
        elif rest[0].get("type") == block["type"] == "text":
            # Some clients put the texts of an answer together.
            text = str(rest[0].get("text")).removeprefix(block["text"])
            rest[0] = {**rest[0], "text": text}
    return rest or list(content)


def _is_same(block: Message, other: Message) -> bool:
    return all(block.get(key) == other.get(key) for key in _KNOWN_BY)
