"""The tools of a Messages request: who runs them, and how some are taken out."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from proxy.model import HostedTool, OfferedTool, Request
from proxy.wire import switches
from proxy.wire.codec import BadRequest
from proxy.wire.known import Json, left_of, worked_out
from proxy.wire.messages.request import changed, with_body
from proxy.wire.redefining import Define, defined, definition

# Anthropic defines these, and the application runs them: their calls are judged like any other.
_RUN_BY_CLIENT = ("bash", "text_editor", "computer", "memory")
# One entry offers a whole family of tools, whose calls name it beside the member.
_TOOLSETS = {
    "computer_toolset": "computer",
    "browser_toolset": "browser",
}
_OWN = frozenset({"function", *_RUN_BY_CLIENT, *_TOOLSETS})
_POINTER = (
    *("left_click", "right_click", "middle_click", "double_click", "triple_click", "left_click_drag"),
    *("left_mouse_down", "left_mouse_up", "mouse_move", "scroll", "type", "key", "hold_key", "wait"),
    *("screenshot", "zoom"),
)
_PAGE = (
    *("navigate", "list_tabs", "new_tab", "switch_tab", "close_tab", "read_page", "get_page_text"),
    *("read_console", "read_network", "find", "form_input", "file_upload", "scroll_to", "hover"),
    "javascript_exec",
)
_MEMBERS = {"computer": (*_POINTER, "cursor_position"), "browser": (*_POINTER, *_PAGE)}


def kind_of(tool: Mapping[str, Any]) -> str:
    """A tool's type without the date of its version; an application's own is a ``function``."""
    kind = switches.kind_of(tool)
    return "function" if kind == "custom" or tool.get("type", "") is None else kind


def entries(body: Mapping[str, Any]) -> Iterator[Json]:
    """Every tool that is defined: in ``tools``, and in the middle of the conversation."""
    yield from body.get("tools") or ()
    yield from _all_added(body)


def _all_added(body: Mapping[str, Any]) -> list[Json]:
    """The tools that are defined in the middle of the conversation."""
    return [
        tool
        for message in body["messages"]
        if isinstance(blocks := message.get("content"), list)
        for block in blocks
        if block.get("type") == "tool_addition" and (tool := _added(block)) is not None
    ]


def _added(block: Mapping[str, Any]) -> Json | None:
    tool = block.get("tool") if block.get("type") == "tool_addition" else None
    definition = tool.get("definition") if isinstance(tool, dict) else None
    return definition if isinstance(definition, dict) else None


def offered(body: Mapping[str, Any]) -> dict[str, OfferedTool]:
    """The tools that the application runs, by name; the first of a name counts."""
    tools, added = body.get("tools") or (), _all_added(body)
    return _offered((*tools, *added)) if added else worked_out(tools, _offered)


def _offered(wires: Sequence[Mapping[str, Any]]) -> dict[str, OfferedTool]:
    tools: dict[str, OfferedTool] = {}
    for wire in wires:
        kind = kind_of(wire)
        if family := _TOOLSETS.get(kind):
            for member in _members(family, wire):
                tools.setdefault(member, OfferedTool(member))
        elif (kind == "function" or kind in _RUN_BY_CLIENT) and isinstance(name := wire.get("name"), str):
            description = wire.get("description")
            text = description if isinstance(description, str) else ""
            tools.setdefault(name, OfferedTool(name, wire.get("input_schema"), text))
    return tools


def _members(family: str, wire: Mapping[str, Any]) -> Iterator[str]:
    configs = wire.get("configs")
    for member in _MEMBERS[family]:
        config = configs.get(member) if isinstance(configs, dict) else None
        if not isinstance(config, dict) or config.get("enabled") is not False:
            yield f"{family}.{member}"


def hosted(body: Mapping[str, Any]) -> list[HostedTool]:
    """What the provider runs by itself: its own tools, remote servers by their URL, and skills."""
    found = [HostedTool("mcp", _server_label(server)) for server in body.get("mcp_servers") or ()]
    # Not a set: these names may be anything that JSON can say.
    named = [server.get("name") for server in body.get("mcp_servers") or ()]
    elsewhere = (*worked_out(body.get("tools") or (), _run_elsewhere), *_run_elsewhere(_all_added(body)))
    for kind, wire in elsewhere:
        if kind != "mcp_toolset":
            found.append(HostedTool(kind))
        elif (server := wire.get("mcp_server_name")) not in named:
            found.append(HostedTool("mcp", str(server)))
    found += [HostedTool("skill", str(skill.get("skill_id"))) for skill in _skills(body)]
    found += switches.switched_on(body, but=("mcp_servers",))
    return list(dict.fromkeys(found))


def _run_elsewhere(wires: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, Mapping[str, Any]], ...]:
    """The entries that are no tools of the application's, with their kinds."""
    kinds = ((kind_of(wire), wire) for wire in wires)
    return tuple((kind, wire) for kind, wire in kinds if kind not in _OWN)


def _server_label(server: Mapping[str, Any]) -> str:
    return str(server.get("url") or server.get("name") or "")


def _skills(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    container = body.get("container")
    skills = container.get("skills") if isinstance(container, dict) else None
    return [skill for skill in skills if isinstance(skill, dict)] if isinstance(skills, list) else []


def without(request: Request, functions: Collection[str], hosted: Collection[HostedTool]) -> Request:
    """The request without these tools; what is left keeps its order."""
    body = request.body
    taken = _Taken(body, functions, hosted)
    taken.check_choice(body)
    left: dict[str, Any] = {
        "mcp_servers": [s for s in body.get("mcp_servers") or () if not taken.server(s)],
        "tools": taken.left(body.get("tools") or ()),
        "messages": [taken.message(message) for message in body["messages"]],
    }
    if taken.skills:
        skills = [skill for skill in _skills(body) if str(skill.get("skill_id")) not in taken.skills]
        left["container"] = {**body["container"], "skills": skills}
    changes = {key: value for key, value in left.items() if value != (body.get(key) or [])}
    dropped = {key for key in changes if key in ("tools", "mcp_servers") and not changes[key]}
    if "tools" in dropped:
        dropped.add("tool_choice")
    dropped |= switches.switches(hosted)
    if not (changes or dropped):
        return request
    kept = {key: changes.get(key, value) for key, value in body.items() if key not in dropped}
    return with_body(request, kept)


class _Taken:
    """What is taken out of a request."""

    def __init__(
        self, body: Mapping[str, Any], functions: Collection[str], hosted: Collection[HostedTool]
    ) -> None:
        self._functions = frozenset(functions)
        self._kinds = frozenset(tool.type for tool in hosted if not tool.label)
        self._servers = {tool.label for tool in hosted if tool.type == "mcp"}
        self.skills = {tool.label for tool in hosted if tool.type == "skill"}
        taken = (server.get("name") for server in body.get("mcp_servers") or () if self.server(server))
        self._names = [*taken, *self._servers]

    def check_choice(self, body: Mapping[str, Any]) -> None:
        """Raise ``BadRequest`` where ``tool_choice`` names a tool that is taken out."""
        choice = body.get("tool_choice") or {}
        name = choice.get("name") if choice.get("type") == "tool" else None
        gone = (tool.get("name") for tool in entries(body) if self.reduced(tool) is None)
        if name is not None and (self._is_taken(name) or name in gone):
            raise BadRequest(f"tool_choice names {name!r}, which you may not use.", "tool_choice")

    def _is_taken(self, name: Any) -> bool:
        return isinstance(name, str) and name in self._functions

    def server(self, server: Mapping[str, Any]) -> bool:
        return _server_label(server) in self._servers

    def reduced(self, tool: Json) -> Json | None:
        """A tool, or what is left of a family of tools; None where nothing is."""
        kind = kind_of(tool)
        if kind in self._kinds or self._is_taken(tool.get("name")):
            return None
        if kind == "mcp_toolset" and tool.get("mcp_server_name") in self._names:
            return None
        if (family := _TOOLSETS.get(kind)) is None:
            return tool
        off = [name for name in _members(family, tool) if name in self._functions]
        if not off:
            return tool
        configs = tool.get("configs") or {}
        if not isinstance(configs, dict):
            raise BadRequest("The configs of a tool must be an object.", "tools")
        return {**tool, "configs": {**configs, **{n.partition(".")[2]: {"enabled": False} for n in off}}}

    def left(self, tools: Sequence[Json]) -> Sequence[Json]:
        """The tools that stay."""
        if self._names:
            return self.reduced_all(tools)
        return left_of(tools, _left, self._functions, self._kinds & worked_out(tools, _kinds))

    def reduced_all(self, tools: Sequence[Json]) -> list[Json]:
        """Each of the tools, or what is left of it."""
        return [left for tool in tools if (left := self.reduced(tool)) is not None]

    def message(self, message: dict[str, Any]) -> dict[str, Any]:
        """A message without the definitions of tools that are taken out."""
        blocks = message.get("content")
        if not isinstance(blocks, list):
            return message
        if not any([block.get("type") == "tool_addition" for block in blocks]):
            return message
        kept = [b for b in blocks if (tool := _added(b)) is None or self.reduced(tool) is not None]
        return message if len(kept) == len(blocks) else {**message, "content": kept}


def _left(tools: Sequence[Json], functions: frozenset[str], kinds: frozenset[str]) -> list[Json]:
    return _Taken({}, functions, [HostedTool(kind) for kind in kinds]).reduced_all(tools)


def _kinds(tools: Sequence[Json]) -> frozenset[str]:
    return frozenset(map(kind_of, tools))


def redefined(request: Request, define: Define) -> Request:
    """The request with other definitions of its functions, in ``tools`` and in the middle of its messages."""
    body = request.body
    changes: dict[str, Any] = {}
    if given := body.get("tools"):
        pairs = zip(given, worked_out(given, _definitions), strict=True)
        new = [_redefined(tool, told, define) for tool, told in pairs]
        if any(one is not tool for one, tool in zip(new, given, strict=True)):
            changes["tools"] = new
    messages = [_redefined_message(message, define) for message in body["messages"]]
    if any(one is not message for one, message in zip(messages, body["messages"], strict=True)):
        changes["messages"] = messages
    return changed(request, **changes) if changes else request


def _definitions(tools: Sequence[Json]) -> tuple[OfferedTool | None, ...]:
    return tuple(map(_definition, tools))


def _definition(tool: Json) -> OfferedTool | None:
    if kind_of(tool) != "function" or not isinstance(name := tool.get("name"), str):
        return None
    return definition(tool, name, "input_schema")


def _redefined(tool: Json, told: OfferedTool | None, define: Define) -> Json:
    if told is None or (new := define(told)) is None:
        return tool
    return defined(tool, new, "input_schema", "function", new.fits_anthropic_strict)


def _redefined_message(message: dict[str, Any], define: Define) -> dict[str, Any]:
    blocks = message.get("content")
    if not isinstance(blocks, list) or not any(block.get("type") == "tool_addition" for block in blocks):
        return message
    new = [_redefined_block(block, define) for block in blocks]
    same = all(one is block for one, block in zip(new, blocks, strict=True))
    return message if same else {**message, "content": new}


def _redefined_block(block: dict[str, Any], define: Define) -> dict[str, Any]:
    if _added(block) is None:
        return block
    tool = block["tool"]
    new = _redefined(tool["definition"], _definition(tool["definition"]), define)
    return block if new is tool["definition"] else {**block, "tool": {**tool, "definition": new}}
