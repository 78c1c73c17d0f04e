"""The tools of a Chat Completions request: which the provider runs by itself, and how some are taken out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from proxy.model import HostedTool, OfferedTool, Request
from proxy.wire.chat.request import changed, with_body
from proxy.wire.codec import BadRequest
from proxy.wire.known import Json, left_of, worked_out
from proxy.wire.redefining import Define, defined, definition, settings_of
from proxy.wire.switches import kind_of, switched_on, switches

_FUNCTIONS = ("function", "custom")


def hosted(body: Mapping[str, Any]) -> list[HostedTool]:
    """The hosted tools: members of the request, and tools of any type that is not the application's own."""
    return [*switched_on(body), *worked_out(body.get("tools") or (), _hosted)]


def _hosted(tools: Sequence[Mapping[str, Any]]) -> tuple[HostedTool, ...]:
    kinds = dict.fromkeys(map(kind_of, tools))
    return tuple(HostedTool(kind) for kind in kinds if kind not in _FUNCTIONS)


def without(request: Request, functions: Collection[str], hosted: Collection[HostedTool]) -> Request:
    """The request without these tools; what is left keeps its order."""
    body = request.body
    kinds = frozenset(tool.type for tool in hosted if not tool.label)
    _check_choice(body, functions, kinds)
    changes: dict[str, Any] = {}
    for key in ("tools", "functions"):
        if body.get(key):
            left = left_of(body[key], _left, functions, kinds)
            if left is not body[key]:
                changes[key] = left
    dropped = switches(hosted)
    # An empty list of tools, or a choice without tools, is an error to providers.
    dropped |= {key for key, left in changes.items() if not left}
    if not (changes.get("tools") or ("tools" not in changes and body.get("tools"))):
        dropped |= {"tool_choice", "parallel_tool_calls"}
    elif (allowed := _allowed(body.get("tool_choice"), functions, kinds)) is not None:
        changes["tool_choice"] = allowed
    if not (changes.get("functions") or ("functions" not in changes and body.get("functions"))):
        dropped.add("function_call")
    kept = {key: changes.get(key, value) for key, value in body.items() if key not in dropped}
    return request if kept.keys() == body.keys() and not changes else with_body(request, kept)


def _left(tools: Sequence[Json], functions: Collection[str], kinds: Collection[str]) -> list[Json]:
    return [tool for tool in tools if not _is_among(tool, functions, kinds)]


def _is_among(tool: Mapping[str, Any], functions: Collection[str], kinds: Collection[str]) -> bool:
    kind = kind_of(tool)
    inner = tool.get(kind) if isinstance(tool.get(kind), dict) else tool
    name = (inner or {}).get("name")
    return kind in kinds or (isinstance(name, str) and name in functions)


def _check_choice(body: Mapping[str, Any], functions: Collection[str], kinds: Collection[str]) -> None:
    for key in ("tool_choice", "function_call"):
        choice = body.get(key)
        if isinstance(choice, dict) and _is_among(choice, functions, kinds):
            kind = kind_of(choice)
            inner = choice.get(kind)
            name = (inner if isinstance(inner, dict) else choice).get("name") or kind
            raise BadRequest(f"{key} names {name!r}, which you may not use.", key)


def _allowed(choice: Any, functions: Collection[str], kinds: Collection[str]) -> Any:
    """A choice among listed tools without those taken out; None where it stays as it is."""
    if not isinstance(choice, dict) or choice.get("type") != "allowed_tools":
        return None
    listed = choice.get("allowed_tools")
    tools = listed.get("tools") if isinstance(listed, dict) else None
    if not isinstance(listed, dict) or not isinstance(tools, list):
        return None
    left = [tool for tool in tools if not (isinstance(tool, dict) and _is_among(tool, functions, kinds))]
    if len(left) == len(tools):
        return None
    if left:
        return {**choice, "allowed_tools": {**listed, "tools": left}}
    if listed.get("mode") == "required":
        raise BadRequest("tool_choice lists only tools that you may not use.", "tool_choice")
    # Nothing that was allowed is left: no choice at all would allow the rest.
    return "none"


def redefined(request: Request, define: Define) -> Request:
    """The request with other definitions of its functions, in ``tools`` and in the legacy ``functions``."""
    changes: dict[str, Any] = {}
    for key, told, redo in (
        ("tools", _definitions, _redefined_tool),
        ("functions", _legacy_definitions, _redefined_function),
    ):
        if given := request.body.get(key):
            pairs = zip(given, worked_out(given, told), strict=True)
            new = [redo(wire, one, define) if one is not None else wire for wire, one in pairs]
            if any(one is not wire for one, wire in zip(new, given, strict=True)):
                changes[key] = new
    return changed(request, **changes) if changes else request


def _definitions(wires: Sequence[Json]) -> tuple[OfferedTool | None, ...]:
    return tuple(map(_definition, wires))


def _definition(wire: Json) -> OfferedTool | None:
    kind = str(wire.get("type", "function"))
    inner = wire.get(kind) if kind in _FUNCTIONS else None
    if not isinstance(inner, dict) or not isinstance(name := inner.get("name"), str):
        return None
    # What stands around the definition is for the provider, and some of them may show it to the model.
    around = {key: value for key, value in wire.items() if key != kind}
    return definition(inner, name, "parameters", kind, around)


def _legacy_definitions(wires: Sequence[Json]) -> tuple[OfferedTool | None, ...]:
    names = (wire.get("name") for wire in wires)
    return tuple(
        definition(wire, name, "parameters") if isinstance(name, str) else None
        for wire, name in zip(wires, names, strict=True)
    )


def _redefined_tool(wire: Json, told: OfferedTool, define: Define) -> Json:
    if (new := define(told)) is None:
        return wire
    kind = told.kind
    body = defined(wire[kind], new, "parameters", kind, new.fits_openai_strict)
    out = {**settings_of(wire, kind), kind: body}
    return wire if body is wire[kind] and len(out) == len(wire) else out


def _redefined_function(wire: Json, told: OfferedTool, define: Define) -> Json:
    new = define(told)
    return wire if new is None else defined(wire, new, "parameters", "function", new.fits_openai_strict)
