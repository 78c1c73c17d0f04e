"""The parameters of a schema, wherever they stand in it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from proxy.schemas.definitions import escaped

MAX_DEPTH = 32
MAX_PARAMETERS = 2000

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")


@dataclass(frozen=True, slots=True)
class Parameter:
    """One named member of an object."""

    name: str
    pointer: str
    """From the schema's root."""
    schema: Mapping[str, Any]
    """With what a reference within the schema leads to."""
    depth: int
    """1 for the tool's own parameters."""
    is_required: bool

    @property
    def words(self) -> tuple[str, ...]:
        """The name's words in lower case, however it is spelled."""
        return words(self.name)

    @property
    def types(self) -> frozenset[str]:
        return types(self.schema)


@dataclass(frozen=True, slots=True)
class Node:
    """An object schema, which has parameters."""

    pointer: str
    schema: Mapping[str, Any]
    depth: int


def words(name: str) -> tuple[str, ...]:
    """The words of a snake_case, kebab-case or camelCase name, in lower case."""
    return tuple(word.lower() for word in _WORD.findall(name))


def types(schema: Mapping[str, Any]) -> frozenset[str]:
    """The types that a schema names."""
    given = schema.get("type")
    if isinstance(given, str):
        return frozenset({given})
    return frozenset(one for one in given if isinstance(one, str)) if isinstance(given, list) else frozenset()


def walk(root: Mapping[str, Any]) -> tuple[list[Node], list[Parameter]]:
    """Every object of the schema, and every parameter, in their order; so many at most."""
    nodes: list[Node] = []
    parameters: list[Parameter] = []
    for node in _objects(root, root, "", 0):
        nodes.append(node)
        parameters += _members(root, node)
        if len(parameters) > MAX_PARAMETERS:
            break
    return nodes, parameters


def _objects(root: Mapping[str, Any], schema: Any, pointer: str, depth: int) -> Iterator[Node]:
    if not isinstance(schema, dict) or depth > MAX_DEPTH:
        return
    if pointer == "" or "object" in types(schema) or isinstance(schema.get("properties"), dict):
        yield Node(pointer, schema, depth)
    for key, below in _below(schema):
        deeper = key.startswith("properties/") or key == "items"
        yield from _objects(root, below, f"{pointer}/{key}", depth + deeper)


def _below(schema: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key in ("properties", "$defs", "definitions", "patternProperties"):
        if isinstance(named := schema.get(key), dict):
            yield from ((f"{key}/{escaped(name)}", below) for name, below in named.items())
    for key in ("anyOf", "oneOf", "allOf", "prefixItems"):
        if isinstance(listed := schema.get(key), list):
            yield from ((f"{key}/{index}", below) for index, below in enumerate(listed))
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield key, schema[key]


def _members(root: Mapping[str, Any], node: Node) -> Iterator[Parameter]:
    properties = node.schema.get("properties")
    required = node.schema.get("required")
    needed = set(map(str, required)) if isinstance(required, list) else set()
    for name, schema in (properties if isinstance(properties, dict) else {}).items():
        pointer = f"{node.pointer}/properties/{escaped(name)}"
        whole = _whole(root, schema) if isinstance(schema, dict) else {}
        yield Parameter(str(name), pointer, whole, node.depth + 1, name in needed)


def _whole(root: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """A schema with what it refers to within the same document."""
    ref = schema.get("$ref")
    if not isinstance(ref, str) or not ref.startswith("#/"):
        return schema
    target: Any = root
    for part in ref[2:].split("/"):
        key = part.replace("~1", "/").replace("~0", "~")
        target = target.get(key) if isinstance(target, dict) else None
    return {**target, **schema} if isinstance(target, dict) else schema
