"""The tools of a Responses request: which are the application's, which the provider runs by itself."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from proxy.model import HostedTool, OfferedTool, Request
from proxy.wire.codec import BadRequest
from proxy.wire.known import left_of, worked_out
from proxy.wire.redefining import Define, defined, definition
from proxy.wire.responses.items import Json
from proxy.wire.responses.request import TOOL_CARRIERS, changed, input_items, with_body
from proxy.wire.switches import kind_of, switched_on, switches

_FUNCTIONS = ("function", "custom")
_NONE: Mapping[str, Any] = MappingProxyType({})
# Tools whose calls the client runs; their names are those of ``items.TOOL_OF``.
_CLIENT_RUN = {
    "local_shell": "local_shell",
    "shell": "shell",
    "apply_patch": "apply_patch",
    "computer": "computer",
    "computer_use_preview": "computer",
    "tool_search": "tool_search",
}
# Items that may be referred to without bringing in tools: what was said, thought, called.
_PLAIN_REFERENCES = ("msg_", "rs_", "fc_", "ctc_")


class Offered(dict[str, OfferedTool]):
    """The offered tools by name; the tools of a remote server, which alone knows them, by its label."""

    def __init__(self) -> None:
        super().__init__()
        self.servers: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        """The tool of this name."""
        if name in self:
            return self[name]
        server = name.removeprefix("mcp.").rpartition(".")[0]
        if name.startswith("mcp.") and server in self.servers:
            return OfferedTool(name, kind="mcp")
        return default


def offered(body: Mapping[str, Any]) -> Offered:
    """The tools that the application offers, also in the middle of the input."""
    tools = body.get("tools") or ()
    carried = _carried(body)
    return _offered((*tools, *carried)) if carried else worked_out(tools, _offered)


def _offered(wires: Sequence[Json]) -> Offered:
    tools = Offered()
    for wire in wires:
        _offer(tools, wire, "")
    return tools


def _carried(body: Mapping[str, Any]) -> list[Json]:
    """The tools in the middle of the input."""
    return [
        tool
        for item in input_items(body)
        if item.get("type") in TOOL_CARRIERS
        for tool in item.get("tools") or ()
    ]


def _offer(tools: Offered, wire: Mapping[str, Any], namespace: str) -> None:
    kind, name = kind_of(wire), wire.get("name")
    if kind == "namespace":
        for inner in _inner(wire):
            _offer(tools, inner, f"{name}.")
    elif kind == "mcp":
        tools.servers.add(str(wire.get("server_label")))
    elif kind in _FUNCTIONS and isinstance(name, str):
        description = wire.get("description")
        text = description if isinstance(description, str) else ""
        full = f"{namespace}{name}"
        tools.setdefault(full, OfferedTool(full, wire.get("parameters"), text, kind))
    elif kind in _CLIENT_RUN and not _runs_elsewhere(wire):
        tools.setdefault(_CLIENT_RUN[kind], OfferedTool(_CLIENT_RUN[kind], kind=kind))


def _inner(wire: Mapping[str, Any]) -> list[Json]:
    inner = wire.get("tools")
    return [tool for tool in inner if isinstance(tool, dict)] if isinstance(inner, list) else []


def _runs_elsewhere(wire: Mapping[str, Any]) -> bool:
    """Whether the provider runs this tool, which might as well be the client's to run."""
    if wire.get("type") == "tool_search":
        return wire.get("execution") != "client"
    environment = wire.get("environment")
    return isinstance(environment, dict) and environment.get("type") != "local"


def hosted(body: Mapping[str, Any]) -> list[HostedTool]:
    """The tools that the provider runs by itself; a prompt template and a reference may bring in any."""
    found = [*worked_out(body.get("tools") or (), _all_hosted), *_all_hosted(_carried(body))]
    found += switched_on(body)
    if body.get("prompt") is not None:
        found.append(_prompt(body["prompt"]))
    found += [HostedTool("item_reference") for item in input_items(body) if _is_opaque(item)]
    return list(dict.fromkeys(found))


def _all_hosted(wires: Sequence[Json]) -> tuple[HostedTool, ...]:
    return tuple(tool for wire in wires for tool in _hosted(wire))


def _hosted(wire: Mapping[str, Any]) -> Iterator[HostedTool]:
    kind = kind_of(wire)
    if kind == "namespace":
        for inner in _inner(wire):
            yield from _hosted(inner)
    elif kind == "mcp":
        # What it connects to, rather than the label that the request gives it.
        where = wire.get("server_url") or wire.get("connector_id") or wire.get("tunnel_id")
        yield HostedTool(kind, str(where or wire.get("server_label") or ""), approvable=True)
    elif kind not in _FUNCTIONS and (kind not in _CLIENT_RUN or _runs_elsewhere(wire)):
        yield HostedTool(kind)


def _is_among(wire: Mapping[str, Any], hosted: Collection[HostedTool]) -> bool:
    return any(tool in hosted for tool in _hosted(wire))


def _prompt(prompt: Any) -> HostedTool:
    id = prompt.get("id") if isinstance(prompt, dict) else None
    return HostedTool("prompt", str(id or ""))


def _is_opaque(item: Mapping[str, Any]) -> bool:
    """Whether an input item refers to a stored one of unknown kind."""
    return item.get("type") == "item_reference" and not str(item.get("id")).startswith(_PLAIN_REFERENCES)


def without(request: Request, functions: Collection[str], unwanted: Collection[HostedTool]) -> Request:
    """The request without these tools; what is left keeps its order."""
    body = request.body
    tools = body.get("tools") or ()
    wanted = _Filter(functions, unwanted, (*tools, *_carried(body)))
    _check_choice(body.get("tool_choice"), wanted)
    changes: dict[str, Any] = {}
    if tools:
        gone = frozenset(unwanted).intersection(worked_out(tools, _all_hosted))
        changes["tools"] = left_of(tools, _left, functions, gone)
    if isinstance(body.get("input"), list):
        changes["input"] = wanted.input(body["input"])
    changes = {key: value for key, value in changes.items() if value != body[key]}
    dropped = switches(unwanted)
    if body.get("prompt") is not None and _prompt(body["prompt"]) in unwanted:
        dropped.add("prompt")
    if changes.get("tools") == []:
        # An empty list of tools, or a choice without tools, is an error to providers.
        dropped |= {"tools", "tool_choice", "parallel_tool_calls"}
    elif isinstance(choice := body.get("tool_choice"), dict) and choice.get("type") == "allowed_tools":
        left = [tool for tool in _inner(choice) if not wanted.names_unwanted(tool)]
        if len(left) < len(choice.get("tools") or ()):
            if not left and choice.get("mode") == "required":
                raise BadRequest("tool_choice lists only tools that you may not use.", "tool_choice")
            changes["tool_choice"] = {**choice, "tools": left} if left else "none"
    if not changes and not dropped:
        return request
    kept = {key: changes.get(key, value) for key, value in body.items() if key not in dropped}
    return with_body(request, kept)


def _left(tools: Sequence[Json], functions: Collection[str], unwanted: Collection[HostedTool]) -> list[Json]:
    return _Filter(functions, unwanted, ()).tools(tools)


class _Filter:
    """Tells which tools stay."""

    def __init__(
        self, functions: Collection[str], unwanted: Collection[HostedTool], wires: Iterable[Json]
    ) -> None:
        self._functions, self._unwanted = functions, unwanted
        servers = (wire for wire in wires if kind_of(wire) == "mcp")
        # Not a set: a label may be anything that JSON can say.
        self._servers = [wire.get("server_label") for wire in servers if _is_among(wire, unwanted)]

    def tools(self, wires: Sequence[Json], namespace: str = "") -> list[Json]:
        """The tools that stay; of a namespace, those of it that do."""
        kept: list[Json] = []
        for wire in wires:
            if kind_of(wire) == "namespace":
                inner = self.tools(_inner(wire), f"{wire.get('name')}.")
                if inner:
                    kept.append(wire if inner == wire.get("tools") else {**wire, "tools": inner})
            elif not self._takes(wire, namespace):
                kept.append(wire)
        return kept

    def input(self, given: list[Json]) -> list[Json]:
        """The input without what brings in unwanted tools."""
        kept: list[Json] = []
        for item in given:
            if _is_opaque(item) and HostedTool("item_reference") in self._unwanted:
                continue
            if item.get("type") in TOOL_CARRIERS and item.get("tools"):
                left = self.tools(item["tools"])
                item = item if left == item["tools"] else {**item, "tools": left}
            kept.append(item)
        return kept

    def names_unwanted(self, tool: Mapping[str, Any]) -> bool:
        """Whether a ``tool_choice`` names what does not stay."""
        kind, name = kind_of(tool), tool.get("name")
        if kind in _FUNCTIONS:
            full = f"{tool['namespace']}.{name}" if tool.get("namespace") else name
            return isinstance(full, str) and full in self._functions
        if kind == "mcp":
            return tool.get("server_label") in self._servers
        return _CLIENT_RUN.get(kind) in self._functions or HostedTool(kind) in self._unwanted

    def _takes(self, wire: Mapping[str, Any], namespace: str) -> bool:
        kind = kind_of(wire)
        if kind in _FUNCTIONS:
            return f"{namespace}{wire.get('name')}" in self._functions
        if _is_among(wire, self._unwanted):
            return True
        return not _runs_elsewhere(wire) and _CLIENT_RUN.get(kind) in self._functions


def _check_choice(choice: Any, wanted: _Filter) -> None:
    if isinstance(choice, dict) and choice.get("type") != "allowed_tools" and wanted.names_unwanted(choice):
        name = choice.get("server_label") or choice.get("name") or choice.get("type")
        raise BadRequest(f"tool_choice names {name!r}, which you may not call.", "tool_choice")


def with_approval(request: Request, watched: Collection[HostedTool]) -> Request:
    """The request with these remote servers' tools made to wait for an approval at each use."""

    def ask(wire: Json) -> Json:
        if kind_of(wire) == "namespace":
            return {**wire, "tools": [ask(tool) for tool in _inner(wire)]}
        is_watched = kind_of(wire) == "mcp" and _is_among(wire, watched)
        return {**wire, "require_approval": "always"} if is_watched else wire

    return _mapped(request, ask)


def _mapped(request: Request, change: Callable[[Json], Json]) -> Request:
    body = request.body
    changes: dict[str, Any] = {}
    if body.get("tools"):
        changes["tools"] = [change(tool) for tool in body["tools"]]
    if isinstance(body.get("input"), list):
        changes["input"] = [
            {**item, "tools": [change(tool) for tool in item["tools"]]}
            if item.get("type") in TOOL_CARRIERS and item.get("tools")
            else item
            for item in body["input"]
        ]
    return changed(request, **changes)


def redefined(request: Request, define: Define) -> Request:
    """The request with other definitions of its functions, in ``tools`` and in the middle of its input."""
    body = request.body
    changes: dict[str, Any] = {}
    if given := body.get("tools"):
        tools = _redefined(given, worked_out(given, _definitions), define)
        if tools is not given:
            changes["tools"] = tools
    if isinstance(items := body.get("input"), list):
        new = [_redefined_item(item, define) for item in items]
        if any(one is not item for one, item in zip(new, items, strict=True)):
            changes["input"] = new
    return changed(request, **changes) if changes else request


_Told = OfferedTool | tuple["_Told", ...] | None
"""What the model may read of an entry: of a namespace, of each of its own; None where that is not told."""


def _definitions(wires: Sequence[Json], namespace: Mapping[str, Any] = _NONE) -> tuple[_Told, ...]:
    return tuple(_definition(wire, namespace) for wire in wires)


def _definition(wire: Json, namespace: Mapping[str, Any]) -> _Told:
    kind, name = kind_of(wire), wire.get("name")
    if kind == "namespace":
        # What is said of a namespace is said of each of its tools.
        return _definitions(_inner(wire), {key: value for key, value in wire.items() if key != "tools"})
    if kind not in _FUNCTIONS or not isinstance(name, str):
        return None
    full = f"{namespace.get('name')}.{name}" if namespace else name
    return definition(wire, full, "parameters", kind, namespace)


def _redefined(wires: Sequence[Json], told: Sequence[_Told], define: Define) -> Sequence[Json]:
    """The tools with what changes of them; the very list where nothing does."""
    new = [_redefined_tool(wire, one, define) for wire, one in zip(wires, told, strict=True)]
    return wires if all(one is wire for one, wire in zip(new, wires, strict=True)) else new


def _redefined_tool(wire: Json, told: _Told, define: Define) -> Json:
    if isinstance(told, tuple):
        inner = _inner(wire)
        new = _redefined(inner, told, define)
        return wire if new is inner else {**wire, "tools": new}
    if told is None or (redefinition := define(told)) is None:
        return wire
    return defined(wire, redefinition, "parameters", told.kind, redefinition.fits_openai_strict)


def _redefined_item(item: Json, define: Define) -> Json:
    if item.get("type") not in TOOL_CARRIERS or not (given := item.get("tools")):
        return item
    new = _redefined(given, _definitions(given), define)
    return item if new is given else {**item, "tools": new}
