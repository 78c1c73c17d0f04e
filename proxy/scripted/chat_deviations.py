"""How other providers' Chat Completions differ from OpenAI's, each as one change to a normal answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from copy import deepcopy
from itertools import zip_longest
from typing import Any

Json = dict[str, Any]
Chunks = list[Json]

_FILTERED = {
    "hate": {"filtered": False, "severity": "safe"},
    "self_harm": {"filtered": False, "severity": "safe"},
    "sexual": {"filtered": False, "severity": "safe"},
    "violence": {"filtered": False, "severity": "safe"},
}
PROMPT_FILTER = [{"prompt_index": 0, "content_filter_results": _FILTERED}]


def deviate_call(call: Json, deviations: Set[str]) -> Json:
    """Change a call where it is first (or wholly) written."""
    payload = _payload(call)
    if "missing_id" in deviations:
        del call["id"]
    elif "empty_id" in deviations:
        call["id"] = ""
    elif "null_id" in deviations:
        call["id"] = None
    if "missing_type" in deviations:
        del call["type"]
    if "missing_arguments" in deviations:
        payload.pop("arguments", None)
    elif "null_arguments" in deviations and "arguments" in payload:
        payload["arguments"] = None
    return call


def deviate_body(completion: Json, deviations: Set[str]) -> None:
    """Change a whole response where it can show the deviation; others are for streams only."""
    for choice in completion["choices"]:
        if "finish_null" in deviations:
            choice["finish_reason"] = None
        elif "finish_stop" in deviations:
            choice["finish_reason"] = "stop"
        _add_empty_calls(choice["message"], deviations)
    if "azure_prompt_filter_first" in deviations:
        completion["prompt_filter_results"] = PROMPT_FILTER


def deviate_chunks(chunks: Chunks, deviations: Set[str]) -> Chunks:
    """Change a normal stream, always in the order of the table below, whatever order a script has."""
    for name, change in _CHANGES.items():
        if name in deviations:
            chunks = change(chunks)
    return chunks


def _payload(call: Json) -> Json:
    payload: Json = call["custom"] if "custom" in call else call["function"]
    return payload


def _add_empty_calls(delta: Json, deviations: Set[str]) -> None:
    if "tool_calls_null" in deviations:
        delta.setdefault("tool_calls", None)
        delta.setdefault("refusal", None)
    elif "empty_tool_calls_list" in deviations:
        delta.setdefault("tool_calls", [])


# -- views of the chunks; up to the arrangement, a chunk has one choice and at most one call


def _choices(chunks: Chunks) -> Iterator[Json]:
    for chunk in chunks:
        yield from chunk["choices"]


def _calls(chunks: Chunks) -> Iterator[Json]:
    for choice in _choices(chunks):
        yield from choice["delta"].get("tool_calls") or ()


def _call_of(chunk: Json) -> tuple[tuple[int, int], Json] | None:
    """The chunk's call, with its place: the choice's index and its own."""
    for choice in chunk["choices"]:
        for call in choice["delta"].get("tool_calls") or ():
            return (choice["index"], call["index"]), call
    return None


def _later(chunks: Chunks) -> Iterator[tuple[Json, Json]]:
    """Every later delta of a call, with the first."""
    firsts: dict[tuple[int, int], Json] = {}
    for chunk in chunks:
        if found := _call_of(chunk):
            place, call = found
            if place in firsts:
                yield firsts[place], call
            else:
                firsts[place] = call


# -- names and ids of later deltas


def _name_repeated(chunks: Chunks) -> Chunks:
    for first, call in _later(chunks):
        _payload(call)["name"] = _payload(first)["name"]
    return chunks


def _name_in_pieces(chunks: Chunks) -> Chunks:
    for first, call in _later(chunks):
        name = _payload(first)["name"]
        if "halved" not in first:
            first["halved"] = True
            half = (len(name) + 1) // 2
            _payload(first)["name"], _payload(call)["name"] = name[:half], name[half:]
    for call in _calls(chunks):
        call.pop("halved", None)
    return chunks


def _empty_name_later(chunks: Chunks) -> Chunks:
    for first, call in _later(chunks):
        _payload(call)["name"] = ""
        call["type"] = first.get("type", "function")
    return chunks


def _empty_id_later(chunks: Chunks) -> Chunks:
    for first, call in _later(chunks):
        call["id"] = ""
        call["type"] = first.get("type", "function")
    return chunks


# -- arrangement


def _role_with_first_call(chunks: Chunks) -> Chunks:
    roles = {
        c["choices"][0]["index"]: c for c in chunks if c["choices"] and "role" in c["choices"][0]["delta"]
    }
    merged: Chunks = []
    for chunk in chunks:
        if (found := _call_of(chunk)) and (role := roles.pop(found[0][0], None)):
            chunk["choices"][0]["delta"] = role["choices"][0]["delta"] | chunk["choices"][0]["delta"]
            merged.remove(role)
        merged.append(chunk)
    return merged


def _whole_call_one_delta(chunks: Chunks) -> Chunks:
    later = [id(call) for _, call in _later(chunks)]
    for first, call in _later(chunks):
        for key, text in _payload(call).items():
            if key != "name":
                _payload(first)[key] += text
    return [chunk for chunk in chunks if not (found := _call_of(chunk)) or id(found[1]) not in later]


def _two_calls_one_delta(chunks: Chunks) -> Chunks:
    kept: Chunks = []
    together: dict[int, list[Json]] = {}
    for chunk in _whole_call_one_delta(chunks):
        found = _call_of(chunk)
        if found and found[0][0] in together:
            together[found[0][0]].append(found[1])
            continue
        if found:
            together[found[0][0]] = chunk["choices"][0]["delta"]["tool_calls"]
        kept.append(chunk)
    return kept


def _interleaved(chunks: Chunks) -> Chunks:
    """Deal the call chunks of each choice anew over the places that they have: a, b, a, b."""
    by_choice: dict[int, dict[int, Chunks]] = {}
    for chunk in chunks:
        if found := _call_of(chunk):
            (choice, index), _ = found
            by_choice.setdefault(choice, {}).setdefault(index, []).append(chunk)
    dealt = {
        choice: iter([chunk for row in zip_longest(*calls.values()) for chunk in row if chunk])
        for choice, calls in by_choice.items()
    }
    return [next(dealt[found[0][0]]) if (found := _call_of(chunk)) else chunk for chunk in chunks]


# -- indexes


def _reindexed(change: Callable[[Json], Any]) -> Callable[[Chunks], Chunks]:
    def changed(chunks: Chunks) -> Chunks:
        for call in _calls(chunks):
            change(call)
        return chunks

    return changed


# -- the end of the answer


def _refinished(reason: str | None) -> Callable[[Chunks], Chunks]:
    def changed(chunks: Chunks) -> Chunks:
        for choice in _choices(chunks):
            if not choice["delta"]:
                choice["finish_reason"] = reason
        return chunks

    return changed


def _finish_with_last_delta(chunks: Chunks) -> Chunks:
    last: dict[int, Json] = {}
    kept: Chunks = []
    for chunk in chunks:
        for choice in chunk["choices"]:
            if not choice["delta"] and choice["index"] in last:
                last[choice["index"]]["finish_reason"] = choice["finish_reason"]
                break
            last[choice["index"]] = choice
        else:
            kept.append(chunk)
    return kept


def _two_finishes(chunks: Chunks) -> Chunks:
    doubled: Chunks = []
    for chunk in chunks:
        doubled.append(chunk)
        if chunk["choices"] and chunk["choices"][0]["finish_reason"] is not None:
            again = deepcopy(chunk)
            again["choices"][0] |= {"delta": {}, "finish_reason": "stop"}
            doubled.append(again)
    return doubled


def _usage_in_finish_chunk(chunks: Chunks) -> Chunks:
    if chunks[-1].get("usage"):
        *chunks, usage = chunks
        chunks[-1]["usage"] = usage["usage"]
    return chunks


def _usage_without_choices(chunks: Chunks) -> Chunks:
    if not chunks[-1]["choices"]:
        del chunks[-1]["choices"]
    return chunks


# -- members that say nothing


def _with_empty_calls(name: str) -> Callable[[Chunks], Chunks]:
    def changed(chunks: Chunks) -> Chunks:
        for chunk in chunks:
            for choice in chunk.get("choices", ()):
                _add_empty_calls(choice["delta"], {name})
        return chunks

    return changed


def _azure_prompt_filter_first(chunks: Chunks) -> Chunks:
    nothing = {"id": "", "object": "", "created": 0, "model": "", "choices": []}
    return [nothing | {"prompt_filter_results": PROMPT_FILTER}, *chunks]


_CHANGES: dict[str, Callable[[Chunks], Chunks]] = {
    # While a call's first delta can still be told from later ones, and each has its own index.
    "name_repeated": _name_repeated,
    "name_in_pieces": _name_in_pieces,
    "empty_name_later": _empty_name_later,
    "empty_id_later": _empty_id_later,
    "role_with_first_call": _role_with_first_call,
    "interleaved": _interleaved,
    "whole_call_one_delta": _whole_call_one_delta,
    "two_calls_one_delta": _two_calls_one_delta,
    # From here on, indexes need not tell calls apart.
    "missing_index": _reindexed(lambda call: call.pop("index")),
    "null_index": _reindexed(lambda call: call.update(index=None)),
    "negative_index": _reindexed(lambda call: call.update(index=-1)),
    "index_from_one": _reindexed(lambda call: call.update(index=call["index"] + 1)),
    "all_index_zero": _reindexed(lambda call: call.update(index=0)),
    # While a finish chunk can still be told by its empty delta, and the usage chunk by its place.
    "finish_stop": _refinished("stop"),
    "finish_null": _refinished(None),
    "finish_with_last_delta": _finish_with_last_delta,
    "two_finishes": _two_finishes,
    "usage_in_finish_chunk": _usage_in_finish_chunk,
    "usage_without_choices": _usage_without_choices,
    "tool_calls_null": _with_empty_calls("tool_calls_null"),
    "empty_tool_calls_list": _with_empty_calls("empty_tool_calls_list"),
    "azure_prompt_filter_first": _azure_prompt_filter_first,
}
