"""What the provider stores of responses and conversations, read back: what of it the client was given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from proxy.model import Request, ToolCall, Turn, loads_frame
from proxy.wire.codec import (
    ALL,
    BadRequest,
    Ending,
    Remembered,
    Settlement,
    mark,
    read_object,
    remembered_names,
)
from proxy.wire.responses import items, state
from proxy.wire.responses import request as requests
from proxy.wire.responses.decoder import ResponseTurn
from proxy.wire.responses.events import upstream_id
from proxy.wire.responses.items import Json
from proxy.wire.responses.noting import own_words
from proxy.wire.writing import write_json

_NOBODY = "\0"
_ENDED = ("completed", "incomplete", "cancelled")


def recall(kept: bytes) -> Remembered:
    """What is known of an answer or a conversation."""
    record = loads_frame(kept)
    history = state.load_history(record["history"])
    unseen, hidden = remembered_names(record.get("hidden", ()))
    # With a part of a batch hidden, the one result for all of it is not as the client wrote it.
    hidden |= {items.wrapper_id(id) for id in hidden}
    return Remembered(
        model=record["model"],
        rounds=tuple(record.get("rounds", ())),
        owned=record.get("mine", ""),
        given=frozenset(map(mark, history.calls)) if ALL not in hidden else frozenset(),
        names=frozenset(record.get("hidden", ())),
        unseen=unseen,
        hidden=hidden,
        changed=record.get("changed", {}),
        notices={int(choice): text for choice, text in record.get("notices", {}).items()},
        status=record.get("status", ""),
        history=history,
    )


def recall_answer(kept: bytes) -> Remembered:
    """What is known of an answer's own calls.

    Some servers use their ids again, and a client may bring any call: one from elsewhere in the conversation
    says nothing of a call that the answer makes.
    """
    known = recall(kept)
    return replace(known, given=known.given.intersection(loads_frame(kept).get("made", ())))


def stored_id(id: str) -> str:
    """The id by which the provider knows a turn."""
    return upstream_id(id)


def is_ended(turn: Turn) -> bool:
    """Whether the response has come to an end of which calls may go on."""
    return turn.finish in _ENDED


def asked_body(turn: Turn, known: Remembered) -> Json:
    """A request's body that stands for the one that the turn answered, with the tools that the response says
    it offered."""
    offered = turn.wire.response.get("tools")
    tools = [tool for tool in offered if isinstance(tool, dict)] if isinstance(offered, list) else []
    within = {"conversation": known.owned} if known.owned else {}
    return {"model": known.model, "tools": tools, "input": [], **within}


# -- items ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Listed:
    """An item of a list, and what has to be known before it may be shown."""

    item: Json
    calls: tuple[ToolCall, ...] = ()
    """The calls that it makes: each has to be one that the client may have."""
    answers: str = ""
    """The id of the call that it answers, which has to be one that the client has."""

    @property
    def name(self) -> str:
        """The id by which a result answers it."""
        return items.call_id(self.item)

    def written(self, arguments: Sequence[str | None]) -> Json | None:
        """The item with the arguments that its calls go on with, None for one that does not."""
        return items.written(self.item, self.calls, arguments) if self.calls else self.item


def listed(item: Json, beside: Sequence[Json], known: Remembered) -> Listed:
    """Read an item of a list, of which ``beside`` are the others.

    Raises ``MalformedTurn`` for an unknown kind that might be a call.
    """
    item = {"type": "message", **item} if "role" in item else item
    if _ran_elsewhere(item, beside, known):
        return Listed(item)
    if items.is_call(item):
        return Listed(item, tuple(items.read_calls(item)))
    kind = item["type"]
    if not (kind.endswith("_output") or kind == "mcp_approval_response") or _is_providers(item):
        return Listed(item)
    # A result that does not say of what is nobody's.
    return Listed(item, answers=items.answered_id(item) or _NOBODY)


def _ran_elsewhere(item: Mapping[str, Any], beside: Sequence[Json], known: Remembered) -> bool:
    """Whether the provider ran this call: one that was hidden has the proxy's own result beside it."""
    is_hidden = not known.hidden.isdisjoint((ALL, items.call_id(item)))
    return not is_hidden and items.ran_elsewhere(item, beside)


def _is_providers(item: Mapping[str, Any]) -> bool:
    """Whether a result is of something that the provider runs by itself."""
    kind = item.get("type")
    return kind == "program_output" or (kind == "tool_search_output" and item.get("execution") == "server")


def answerable(known: Remembered, members: Sequence[Json]) -> set[str]:
    """The ids of the calls whose results the client may see: those that it has, and the provider's own."""
    if ALL in known.hidden:
        return set()
    own = {items.call_id(item) for item in members if _ran_elsewhere(item, members, known)}
    return own | {items.wrapper_id(call.id) for call in known.history.calls} - known.hidden


def is_own(item: Mapping[str, Any], known: Remembered) -> bool:
    """Whether the item is the proxy's own words to the model."""
    if item.get("role") not in ("developer", "system"):
        return False
    return not known.hidden.isdisjoint((ALL, own_words(items.text_of(item.get("content")))))


# -- conversations -------------------------------------------------------------------------------


def read_items(raw: bytes, conversation: str, reader: Any) -> tuple[Json, Request]:
    """The body of a request that adds items to a conversation, and the items as a request's input.

    Raises ``BadRequest``.
    """
    body = read_object(raw) if raw.strip() else {}
    given = body.get("items")
    if not isinstance(given, list | None):
        raise BadRequest("items must be an array of objects.", "items")
    asked = {"model": "-", "input": given if given is not None else []}
    if conversation:
        asked["conversation"] = conversation
    requests.check_shape(asked)
    request = Request(
        protocol="responses", raw=raw, body=asked, model="", stream=False, choices=1, reader=reader
    )
    return body, request


def with_items(body: Json, admitted: Request) -> bytes:
    """The request's body with its items as they may be sent."""
    given = {"items": requests.input_items(admitted.body)} if body.get("items") is not None else {}
    return write_json({**body, **given})


def begun_conversation(admitted: Request, id: str) -> Settlement | None:
    """What to keep of a conversation that belongs to the principal, with the items that it now has."""
    asked = replace(admitted, owned=id, body={**admitted.body, "conversation": id})
    nothing = Turn(id, "", (), "", None, None, 1, ResponseTurn((), None, {}, (), True))
    return state.settlement(asked, (), nothing, (), Ending())
