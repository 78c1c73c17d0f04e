"""What is kept of an answer, and how it is put back into the requests that follow.

Two kinds of requests come back. One brings the conversation in its input: there the hidden items are put
back beside the visible ones that stood next to them. The other names the answer (``previous_response_id``) or
the provider's conversation: there the name is exchanged for that of the last round, the calls that the client
never saw are answered, and what the conversation held so far is told to the guards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from proxy.model import History, Passage, PastCall, Request, ToolResult, Turn, brief, loads_frame
from proxy.wire.codec import Ending, Rounds, Settlement
from proxy.wire.responses import batches, items
from proxy.wire.responses import request as requests
from proxy.wire.responses.building import Item
from proxy.wire.responses.decoder import ResponseTurn
from proxy.wire.responses.events import upstream_id
from proxy.wire.responses.items import Json
from proxy.wire.responses.noting import hiding, noted
from proxy.wire.writing import write_json

_MAX_CALLS = 200
_MAX_CALL_CHARS = 256 * 1024
_MAX_TEXT_CHARS = 64 * 1024
_MAX_WALK_BYTES = 2 * 2**20
_MAX_CALL_HANDLES = 4


def settlement(
    asked: Request, hidden: Rounds, turn: Turn, settled: Sequence[ToolResult], ending: Ending
) -> Settlement | None:
    """What to keep of an answer."""
    told = {result.call_id: result.content for result in settled}
    stored = requests.is_stored(asked.body)
    is_changed = bool(hidden or told)
    if not turn.id or not (stored or is_changed):
        return None
    calls = [item for item in turn.wire.items if item.is_call]
    forwarded = [item.call_id for item in calls if not _is_settled(item, told)][:_MAX_CALL_HANDLES]
    wrappers = {item.call_id: one for item in calls if is_changed and (one := batches.cut(item, told))}
    ids = _answer_ids(asked, hidden, turn, ending) if stored else []
    names = [*ids, requests.conversation(asked.body)] if stored else []
    names += [*forwarded, *(wrappers[id]["parts"][-1][0] for id in forwarded if id in wrappers)]
    if is_changed and not forwarded:
        names.append(_last_visible(hidden, turn))
    walk = write_json(_walk(hidden, turn, told)) if is_changed else b"[]"
    kept = {
        "alias": upstream_id(turn.id),
        "owed": requests.answers_of([item.item for item in calls if _is_settled(item, told)], told),
        "batches": wrappers,
        "walk": loads_frame(walk) if len(walk) <= _MAX_WALK_BYTES else [],
        "history": dump_history(requests.told_history(asked.history, turn, told)),
        "model": asked.model,
        **noted(asked, hidden, turn, told, ending),
    }
    handles = tuple(dict.fromkeys(name for name in names if name))
    owned = tuple(dict.fromkeys(name for name in [*ids, asked.owned] if name))
    return Settlement(handles, write_json(kept), owned=owned) if handles else None


def begun(asked: Request, hidden: Rounds, passage: Passage, ending: Ending) -> Settlement | None:
    """What to keep of an answer whose beginning this is."""
    objects = (read.object or {} for read in passage.frames)
    responses = (wire.get("response") for wire in objects)
    response = next((r for r in responses if isinstance(r, dict) and isinstance(r.get("id"), str)), None)
    if response is None:
        return None
    id, wire = response["id"], ResponseTurn((), None, response, (), True)
    turn = Turn(id, "", (), "", None, None, 1, wire)
    return settlement(asked, hidden, turn, (), replace(ending, rounds=(*ending.rounds, id)))


def _is_settled(item: Item, told: Mapping[str, str]) -> bool:
    """Whether the client sees none of an item's calls."""
    return all(call.id in told for call in item.calls)


def _answer_ids(asked: Request, hidden: Rounds, turn: Turn, ending: Ending) -> list[str]:
    """The ids under which the client may know the answer: that of its first round, and that of its last,
    which the provider tells as what the next answer went on from."""
    heard = ending.rounds or [turn.id for turn, _ in hidden if upstream_id(turn.id) == turn.id]
    first = heard[0] if heard else turn.id
    # A held turn that is released in the answer that held it goes by the id that the provider gave it.
    before = asked.body.get("previous_response_id")
    return [first, *(id for id in (upstream_id(first), upstream_id(turn.id)) if id != before)]


# -- requests that bring the conversation ---------------------------------------------------------


def _walk(hidden: Rounds, turn: Turn, told: Mapping[str, str]) -> list[Json]:
    """The answer's items as the provider knows them, each either hidden or seen by the client."""
    steps: list[Json] = []
    rounds = [*((t, {r.call_id: r.content for r in results}, True) for t, results in hidden)]
    for one, results, is_hidden in [*rounds, (turn, told, False)]:
        answers: list[Json] = []
        for item in one.wire.items:
            whole = item.item
            if not item.is_call:
                steps.append({"seen": _key(whole), "reasoning": item.type == "reasoning"})
            elif is_hidden or _is_settled(item, results):
                steps.append({"hidden": whole})
                answers += items.outputs(whole, results)
            else:
                steps.append({"seen": _key(whole), "name": items.name_of(whole)} | _or(item, results))
        steps += [{"hidden": answer} for answer in answers]
    return steps


def _or(item: Item, told: Mapping[str, str]) -> Json:
    """Of a wrapper, the calls that some clients have in its place."""
    parts = batches.cut(item, told).get("parts")
    return {"or": [{"seen": f"call:{id}", "name": name} for id, name in parts]} if parts else {}


def _as_sent(step: Json, places: Mapping[str, int]) -> Sequence[Json]:
    """The step, or what stands for it in an input that has it in parts."""
    return step["or"] if "or" in step and step["seen"] not in places else [step]


def _key(item: Mapping[str, Any]) -> str:
    """What a client's input names an item by."""
    if item.get("call_id") and not items.answered_id(item):
        return f"call:{item['call_id']}"
    return f"id:{item.get('id')}" if item.get("id") else ""


def _last_visible(hidden: Rounds, turn: Turn) -> str:
    """The id of the last message, or of the last item, that the client sees."""
    seen = [item for one in [*(t for t, _ in hidden), turn] for item in one.wire.items if not item.is_call]
    said = [item for item in seen if item.type == "message"]
    return next((item.id or str(item.item.get("id") or "") for item in reversed(said or seen)), "")


def _put_back(given: list[Json], walk: Sequence[Json]) -> list[Json]:
    """The input with an answer's hidden items where they stood."""
    places = {key: at for at, item in enumerate(given) for key in _keys(item)}
    walk = [one for step in walk for one in _as_sent(step, places)]
    held = {id for item in given for id in (items.call_id(item), items.answered_id(item)) if id}
    found = {at: step for at, step in enumerate(walk) if _is_seen(given, places, step)}
    if not found:
        return given
    inserted: dict[int, list[Json]] = {}
    place = places[found[min(found)]["seen"]]
    is_whole = True
    for at, step in enumerate(walk):
        if at in found:
            place = places[step["seen"]] + 1
        elif "hidden" not in step:
            is_whole = is_whole and not step.get("reasoning")
        elif not held & {items.call_id(step["hidden"]), items.answered_id(step["hidden"])} - {""}:
            # Without the reasoning that it came from, the provider must not look for it.
            item = step["hidden"] if is_whole else requests.without_id(step["hidden"])
            inserted.setdefault(place, []).append(item)
    out: list[Json] = []
    for at, item in enumerate([*given, None]):
        out += inserted.get(at, ())
        # An empty message stood for what is now put back.
        if item is not None and not (at in inserted and _is_blank(item)):
            out.append(item)
    return out


def _is_blank(item: Mapping[str, Any]) -> bool:
    return item.get("role") == "assistant" and not items.text_of(item.get("content"))


def _keys(item: Mapping[str, Any]) -> list[str]:
    id, called = item.get("id"), item.get("call_id")
    by_call = called and not items.answered_id(item)
    return [*([f"call:{called}"] if by_call else ()), *([f"id:{id}"] if id else ())]


def _is_seen(given: Sequence[Json], places: Mapping[str, int], step: Json) -> bool:
    """Whether the step's item is in the input; some servers use their call ids again."""
    key = step.get("seen")
    if not key or key not in places:
        return False
    item = given[places[key]]
    return "name" not in step or items.name_of(item) == step["name"]


# -- restoring ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Restored:
    """A request with what belongs to it."""

    request: Request
    earlier: History | None
    """What was before the conversation that its body tells."""
    pending: tuple[PastCall, ...]
    """Calls that only the provider remembers, and that the body answers."""


def restored(request: Request, kept: Mapping[str, bytes]) -> Restored:
    """Put back what is kept under the request's handles."""
    body = request.body
    named = [body.get("previous_response_id"), requests.conversation(body)]
    name = next((name for name in named if name and name in kept), None)
    if name is not None:
        return _continued(request, loads_frame(kept[name]))
    given = requests.input_items(body)
    whole = given
    records = [loads_frame(value) for value in dict.fromkeys(kept.values())]
    for record in records:
        whole = _put_back(batches.made_whole(whole, record["batches"]), record["walk"])
    if whole is not given:
        request = requests.changed(request, input=whole)
        put_back = [step["hidden"] for record in records for step in record["walk"] if "hidden" in step]
        put_back += [part for record in records for one in record["batches"].values() for part in one["rest"]]
        request = hiding(request, put_back, *(record.get("hidden", ()) for record in records))
    return Restored(request, None, _referred(request, records))


def _continued(request: Request, record: Json) -> Restored:
    """A request that goes on from a kept answer."""
    body, owed = request.body, record["owed"]
    ours = {id for item in owed if (id := items.answered_id(item))}
    theirs = [item for item in requests.input_items(body) if items.answered_id(item) not in ours]
    changes: Json = {}
    if owed or record["batches"]:
        changes["input"] = [*owed, *batches.made_whole(theirs, record["batches"])]
    if body.get("previous_response_id") not in (None, record["alias"]):
        changes["previous_response_id"] = record["alias"]
    if changes:
        request = requests.changed(request, **changes)
    request = hiding(request, owed, record.get("hidden", ()))
    request = replace(
        request,
        model=request.model or record["model"],
        changed=record.get("changed", {}),
        owned=record.get("mine", "") if requests.conversation(body) else "",
    )
    history = load_history(record["history"])
    pending = _answered_in(request, history.calls)
    earlier = replace(history, calls=tuple(call for call in history.calls if call not in pending))
    # Turns are counted from where the body begins.
    return Restored(request, earlier, tuple(replace(c, turn=c.turn - history.turn) for c in pending))


def _referred(request: Request, records: Sequence[Json]) -> tuple[PastCall, ...]:
    """Calls that the input answers but only refers to."""
    here = {call.id for call in requests.history(request.body).calls}
    calls = {call.id: call for record in records for call in load_history(record["history"]).calls}
    elsewhere = [replace(call, turn=0) for id, call in calls.items() if id not in here]
    return tuple(_answered_in(request, elsewhere))


def _answered_in(request: Request, calls: Sequence[PastCall]) -> list[PastCall]:
    """Those of the calls that the request's input answers."""
    answered = {items.answered_id(item) for item in requests.input_items(request.body)}
    return [call for call in calls if answered & {call.id, items.wrapper_id(call.id)}]


def dump_history(history: History) -> Json:
    """A history as it is kept: its latest calls, each with as much of its result as tells it apart."""
    calls: list[list[Any]] = []
    room = _MAX_CALL_CHARS
    for call in reversed(history.calls[-_MAX_CALLS:]):
        room -= len(call.arguments_json)
        if room < 0:
            break
        kept = [call.id, call.name, call.arguments_json, brief(call.result), call.turn]
        calls.append([*kept, call.failed, call.partial])
    return {
        "calls": calls[::-1],
        "query": history.query[:_MAX_TEXT_CHARS],
        "turn": history.turn,
        "opening": history.opening,
        "last_answer": history.last_answer[-_MAX_TEXT_CHARS:],
    }


def load_history(kept: Json) -> History:
    calls = tuple(PastCall(*call) for call in kept["calls"])
    return History(calls, kept["query"], kept["turn"], kept["opening"], kept["last_answer"])
