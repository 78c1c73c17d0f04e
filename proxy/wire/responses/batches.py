"""A ``parallel`` wrapper of which the client may have some calls and not others, in the requests that follow.

Clients come back with it in two ways. One sends the wrapper as it got it, and one result for it: what was
told of the calls that it does not have is added to that, and the wrapper is made whole again. The other
(Vercel's) sends each call as one of its own, named after the wrapper: the others are put beside
them in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from proxy.model import ToolCall
from proxy.wire import parallel
from proxy.wire.responses import items
from proxy.wire.responses.building import Item
from proxy.wire.responses.items import Json


def cut(item: Item, told: Mapping[str, str]) -> Json:
    """What to keep of a wrapper, where ``told`` has results for the calls that the client does not have.

    Empty where the item is none, or the client has none of its calls.
    """
    kept = [call for call in item.calls if call.id not in told]
    if not kept or not items.is_batch(item.item, item.calls):
        return {}
    settled = [call for call in item.calls if call.id in told]
    rest = [
        part
        for at, call in enumerate(settled, len(kept))
        for part in _as_own(call, f"{item.call_id}_{at}", told[call.id])
    ]
    return {
        "whole": item.item["arguments"],
        "more": items.told_of(settled, told) if settled else "",
        "parts": [[f"{item.call_id}_{at}", call.name] for at, call in enumerate(kept)],
        "rest": rest,
    }


def _as_own(call: ToolCall, id: str, result: str) -> list[Json]:
    """A call as one of its own, and its result."""
    namespace, _, name = call.name.rpartition(".")
    place = {"namespace": namespace} if namespace else {}
    asked = {"type": "function_call", "call_id": id, "name": name, "arguments": call.arguments_json, **place}
    return [asked, {"type": "function_call_output", "call_id": id, "output": result}]


def made_whole(given: list[Json], kept: Mapping[str, Json]) -> list[Json]:
    """The input with what the client does not have of these wrappers, by their ids."""
    for id, one in kept.items():
        if one["rest"]:
            at = _place_of_part(given, one)
            given = _with_rest(given, at, one["rest"]) if at is not None else _whole(given, id, one)
    return given


def _place_of_part(given: Sequence[Json], one: Json) -> int | None:
    """Where the input has the last of a wrapper's calls as one of its own; None where it has not."""
    id, name = one["parts"][-1]
    places = (at for at, item in enumerate(given) if items.call_id(item) == id)
    return next((at for at in places if _is_call_of(given[at], (name,))), None)


def _is_call_of(item: Mapping[str, Any], names: Sequence[str]) -> bool:
    return item.get("type") == "function_call" and items.name_of(item) in names


def _with_rest(given: list[Json], at: int, rest: Sequence[Json]) -> list[Json]:
    known = {items.call_id(item) for item in given}
    is_here = items.call_id(rest[0]) in known
    return given if is_here else [*given[: at + 1], *rest, *given[at + 1 :]]


def _whole(given: list[Json], id: str, one: Json) -> list[Json]:
    """The input with the wrapper whole, where it is there; and with one result for all of its calls."""
    shown = [item for item in given if items.call_id(item) == id and not items.answered_id(item)]
    # Some servers use their call ids again, and what is whole already has its result.
    if any(not _is_call_of(s, parallel.NAMES) or s.get("arguments") == one["whole"] for s in shown):
        return given
    out: list[Json] = []
    for item in given:
        if items.answered_id(item) == id:
            item = items.with_more(item, one["more"])
        elif items.call_id(item) == id:
            item = {**item, "arguments": one["whole"]}
        out.append(item)
    return out
