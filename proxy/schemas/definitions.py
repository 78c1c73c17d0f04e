"""Tool definitions as files hold them, whatever the shape: Chat Completions, Responses, Messages, MCP."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from proxy.model import OfferedTool
from proxy.tools import ToolEffect, ToolSpec, definition_digest
from proxy.wire.redefining import definition

Json = dict[str, Any]
Shape = Literal["registry", "chat", "responses", "messages", "mcp", "openapi", "log"]

_NAMED = ("function", "custom")
_SENT = ("chat", "responses", "messages", "log")
"""Shapes in which an application sends a definition to a model: their digests can be pinned."""


@dataclass(frozen=True)
class Place:
    """Where something stands."""

    file: str
    pointer: str = ""
    """JSON pointer (RFC 6901) to it in the file."""
    lines: Mapping[str, int] = field(default_factory=dict, repr=False, compare=False)
    """The line of every pointer, where the file is YAML."""

    def at(self, pointer: str) -> str:
        """The place of something below this, as ``file:line`` or ``file#pointer``."""
        whole = self.pointer + pointer
        known = whole
        while known not in self.lines and known:
            known = known.rpartition("/")[0]
        if self.lines:
            return f"{self.file}:{self.lines.get(known, 1)}"
        return f"{self.file}#{whole}" if whole else self.file


@dataclass(frozen=True)
class Definition:
    """One tool as somebody defines it."""

    tool: OfferedTool
    place: Place
    shape: Shape
    effect: ToolEffect | None = None
    """None where nothing says it."""
    effect_from: str = ""
    """What the effect was guessed from; empty where it is not a guess."""
    examples: tuple[Any, ...] = ()
    spec: ToolSpec | None = None
    """What the registry says of it, where it comes from there."""
    source: str = ""
    """Where it comes from, in words, for whoever reads what was made of it."""

    @property
    def name(self) -> str:
        return self.tool.name

    @property
    def schema_key(self) -> str:
        """What its place calls the schema of the arguments."""
        return {"messages": "input_schema", "mcp": "inputSchema"}.get(self.shape, "parameters")

    @cached_property
    def digest(self) -> str | None:
        """What its ``pin`` is, where an application sends it like this to a model."""
        return definition_digest(self.tool) if self.shape in _SENT else None


def read(value: Any, place: Place) -> Iterator[Definition]:
    """Every definition in a JSON document: a request, a list of tools, one tool, or what MCP lists."""
    if isinstance(value, list):
        yield from _tools(value, place, place.pointer)
    elif isinstance(value, dict):
        if isinstance(result := value.get("result"), dict):
            yield from read(result, _below(place, "result"))
        elif _is_tool(value):
            yield from _tool(value, place, place.pointer)
        else:
            yield from _request(value, place)


def _request(body: Json, place: Place) -> Iterator[Definition]:
    """The definitions of a request: those in the middle of its conversation too."""
    for key in ("tools", "functions"):
        yield from _tools(body.get(key), place, f"{place.pointer}/{key}")
    for index, item in enumerate(_list(body.get("input"))):
        if isinstance(item, dict):
            yield from _tools(item.get("tools"), place, f"{place.pointer}/input/{index}/tools")
    for index, message in enumerate(_list(body.get("messages"))):
        for at, block in enumerate(_list(message.get("content")) if isinstance(message, dict) else []):
            tool = block.get("tool") if isinstance(block, dict) else None
            if isinstance(tool, dict) and isinstance(tool.get("definition"), dict):
                pointer = f"{place.pointer}/messages/{index}/content/{at}/tool/definition"
                yield from _tool(tool["definition"], place, pointer)


def _tools(wires: Any, place: Place, pointer: str, namespace: Json | None = None) -> Iterator[Definition]:
    for index, wire in enumerate(_list(wires)):
        if isinstance(wire, dict):
            yield from _tool(wire, place, f"{pointer}/{index}", namespace)


def _tool(wire: Json, place: Place, pointer: str, namespace: Json | None = None) -> Iterator[Definition]:
    kind = str(wire.get("type", "function"))
    if kind == "namespace":
        around = {key: value for key, value in wire.items() if key != "tools"}
        yield from _tools(wire.get("tools"), place, f"{pointer}/tools", around)
        return
    inner, name = wire.get(kind), wire.get("name")
    here = Place(place.file, pointer, place.lines)
    if kind in _NAMED and isinstance(inner, dict) and isinstance(inner.get("name"), str):
        around = {key: value for key, value in wire.items() if key != kind}
        tool = definition(inner, inner["name"], "parameters", kind, around)
        yield Definition(tool, _below(here, kind), "chat")
    elif kind in _NAMED and isinstance(name, str):
        key, shape = _shape(wire)
        full = f"{namespace.get('name')}.{name}" if namespace else name
        tool = definition(wire, full, key, "function" if shape == "messages" else kind, namespace or {})
        effect, guessed = _hinted(wire.get("annotations"))
        yield Definition(tool, here, shape, effect, guessed)


def _shape(wire: Json) -> tuple[str, Shape]:
    if "input_schema" in wire:
        return "input_schema", "messages"
    if "inputSchema" in wire:
        return "inputSchema", "mcp"
    return "parameters", "responses"


def _hinted(annotations: Any) -> tuple[ToolEffect | None, str]:
    """What an MCP server says of its own tool, which is a hint and no more."""
    if not isinstance(annotations, dict):
        return None, ""
    if annotations.get("readOnlyHint") is True:
        return "read", "its readOnlyHint"
    if annotations.get("destructiveHint") is True:
        return "destructive", "its destructiveHint"
    return None, ""


def _is_tool(value: Json) -> bool:
    kind = str(value.get("type", "function"))
    inner = value.get(kind)
    if isinstance(inner, dict) and "name" in inner:
        return True
    known = {"parameters", "input_schema", "inputSchema", "description"}
    return isinstance(value.get("name"), str) and bool(known & value.keys()) and "tools" not in value


def _below(place: Place, key: str) -> Place:
    return Place(place.file, f"{place.pointer}/{key}", place.lines)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def escaped(key: object) -> str:
    """A key as a JSON pointer has it."""
    return str(key).replace("~", "~0").replace("/", "~1")
