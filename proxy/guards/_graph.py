"""Which parts of a JSON Schema are applied to the same value, and which to the values one step below."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urljoin

Node = dict[str, Any]
Nodes = list[Node]

MAX_DEPTH = 128
"""How deep a schema's JSON may be nested."""

_ONE = ("not", "if", "then", "else")
_MANY = ("allOf", "anyOf", "oneOf")
_BY_NAME = ("dependentSchemas", "dependencies")
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_APPLYING = frozenset((*_ONE, *_MANY, *_BY_NAME, *_REFERENCES))
_DESCENDING = frozenset(
    {
        *(
            "properties",
            "patternProperties",
            "additionalProperties",
            "unevaluatedProperties",
            "propertyNames",
        ),
        *("prefixItems", "items", "additionalItems", "unevaluatedItems", "contains"),
    }
)
# The validator carries the drafts' own meta-schemas; nothing else outside the schema can be reached.
_META_SCHEMAS = ("https://json-schema.org/", "http://json-schema.org/")


class Unclear(ValueError):
    """What the schema refers to cannot be told, or it is nested too deeply."""


@dataclass(slots=True)
class Below:
    """The subschemas for the values one step below, by how a value gets under them."""

    named: dict[str | int, Nodes] = field(default_factory=dict)
    other_keys: Nodes = field(default_factory=list)
    every_key: Nodes = field(default_factory=list)
    other_items: Nodes = field(default_factory=list)
    every_item: Nodes = field(default_factory=list)

    def all(self) -> Nodes:
        """Every one of them."""
        named = [node for nodes in self.named.values() for node in nodes]
        return named + self.other_keys + self.every_key + self.other_items + self.every_item


_NOTHING_BELOW = Below()


class Graph:
    """The subschemas of one schema; errs towards more being applied, never less."""

    def __init__(self, schema: Node) -> None:
        self._ids: dict[str, Nodes] = {"": [schema]}
        self._anchors: dict[str, Nodes] = {}
        self._bases: dict[int, str] = {}
        self._in_place: dict[int, Nodes] = {}
        self._below: dict[int, Below] = {}
        self._id = "id" if "draft-04" in str(schema.get("$schema")) else "$id"
        self._index(schema)

    def _index(self, schema: Node) -> None:
        # Everything that looks like a schema is indexed, wherever it stands: references lead anywhere.
        stack: list[tuple[Any, str, int]] = [(schema, "", 0)]
        while stack:
            value, base, depth = stack.pop()
            if depth > MAX_DEPTH:
                raise Unclear(f"it is nested more than {MAX_DEPTH} levels deep")
            if isinstance(value, dict):
                if depth and "draft-04" in str(value.get("$schema")):
                    raise Unclear("it embeds a schema of another draft")
                base = self._name(value, base)
                self._bases[id(value)] = base
                stack.extend((child, base, depth + 1) for child in value.values())
            elif isinstance(value, list):
                stack.extend((child, base, depth + 1) for child in value)

    def _name(self, node: Node, base: str) -> str:
        for keyword in ("$anchor", "$dynamicAnchor"):
            if isinstance(name := node.get(keyword), str):
                self._anchors.setdefault(name, []).append(node)
        if node.get("$recursiveAnchor") is True:
            self._anchors.setdefault("", []).append(node)
        if isinstance(name := node.get(self._id), str):
            url, _, anchor = _join(base, name).partition("#")
            if anchor:
                self._anchors.setdefault(anchor, []).append(node)
            if not name.startswith("#"):
                self._ids.setdefault(url, []).append(node)
                base = url
        return base

    def in_place(self, node: Node) -> Nodes:
        """The subschemas that are applied to the same value as ``node``; raises ``Unclear``."""
        if (found := self._in_place.get(id(node))) is None:
            applied = [] if _APPLYING.isdisjoint(node) else list(self._applied(node))
            found = self._in_place[id(node)] = applied
        return found

    def _applied(self, node: Node) -> Iterator[Node]:
        for keyword in _ONE:
            yield from _schemas(node.get(keyword))
        for keyword in _MANY:
            yield from _schemas_in_list(node.get(keyword))
        for keyword in _BY_NAME:
            yield from _schemas_in_map(node.get(keyword))
        for keyword in _REFERENCES:
            if isinstance(reference := node.get(keyword), str):
                yield from self._targets(node, reference)

    def _targets(self, node: Node, reference: str) -> Nodes:
        base = self._bases.get(id(node), "")
        url, _, fragment = _join(base, reference).partition("#")
        roots = self._ids.get(url)
        if roots is None:
            # A dynamic anchor of this name would catch the meta-schemas' own references.
            if url.startswith(_META_SCHEMAS) and not {"", "meta"} & self._anchors.keys():
                return []
            raise Unclear(f"the reference {reference[:60]!r} leads outside of it")
        fragment = unquote(fragment)
        if fragment and not fragment.startswith("/"):
            found = list(self._anchors.get(fragment, ()))
        else:
            found = [target for root in roots for target in _schemas(_walk(root, fragment))]
            found += self._anchors.get("", ()) if not fragment else ()
            if not found and any(isinstance(_walk(root, fragment), bool) for root in roots):
                return []
        if not found:
            raise Unclear(f"the reference {reference[:60]!r} leads nowhere")
        return found

    def below(self, node: Node) -> Below:
        """The subschemas that ``node`` applies one step below."""
        if (found := self._below.get(id(node))) is None:
            found = self._below[id(node)] = _below(node)
        return found

    def reachable(self, schema: Node) -> Nodes:
        """Every subschema that some value may meet, ``schema`` first; raises ``Unclear``."""
        found: dict[int, Node] = {}
        stack = [schema]
        while stack:
            node = stack.pop()
            if id(node) not in found:
                found[id(node)] = node
                stack.extend(self.in_place(node))
                stack.extend(self.below(node).all())
        return list(found.values())


def _below(node: Node) -> Below:
    if _DESCENDING.isdisjoint(node):
        return _NOTHING_BELOW
    below = Below()
    if isinstance(properties := node.get("properties"), dict):
        below.named.update((name, list(_schemas(schema))) for name, schema in properties.items())
    if isinstance(patterns := node.get("patternProperties"), dict):
        # A name is matched at the place of its value: what reads names is counted there.
        below.every_key += [{"pattern": pattern} for pattern in patterns]
        below.every_key += _schemas_in_map(patterns)
    below.every_key += _schemas(node.get("propertyNames"))
    below.every_key += _schemas(node.get("unevaluatedProperties"))
    below.other_keys += _schemas(node.get("additionalProperties"))
    for keyword in ("prefixItems", "items"):
        if isinstance(prefix := node.get(keyword), list):
            below.named.update((place, list(_schemas(schema))) for place, schema in enumerate(prefix))
    below.other_items += _schemas(node.get("items"))
    below.other_items += _schemas(node.get("additionalItems"))
    below.every_item += _schemas(node.get("contains"))
    below.every_item += _schemas(node.get("unevaluatedItems"))
    return below


def _schemas(value: Any) -> Iterator[Node]:
    if isinstance(value, dict):
        yield value


def _schemas_in_list(value: Any) -> Iterator[Node]:
    if isinstance(value, list):
        yield from (item for item in value if isinstance(item, dict))


def _schemas_in_map(value: Any) -> Iterator[Node]:
    if isinstance(value, Mapping):
        yield from (item for item in value.values() if isinstance(item, dict))


def _join(base: str, reference: str) -> str:
    if reference.startswith("#"):
        return base + reference
    try:
        return urljoin(base, reference)
    except ValueError:
        raise Unclear(f"the reference {reference[:60]!r} is not a URI") from None


def _walk(value: Any, pointer: str) -> Any:
    for part in pointer.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict):
            value = value.get(name)
        elif isinstance(value, list) and name.isascii() and name.isdigit() and int(name[:9]) < len(value):
            value = value[int(name[:9])]
        else:
            return None
    return value
