"""Tool definitions on the wire: what the model reads of one, and another put in its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

from proxy.model import OfferedTool

Json = dict[str, Any]

# What else stands in a definition and says nothing to the model. Flags and numbers do not either.
_SETTINGS = frozenset({"type", "name", "cache_control", "allowed_callers"})
_FLAGS = (bool, int, float)
# https://platform.openai.com/docs/guides/structured-outputs: what `strict` can hold a model to.
_STRICT = frozenset(
    {
        *("type", "properties", "required", "additionalProperties", "items", "enum", "const"),
        *("anyOf", "$ref", "$defs", "title", "description", "pattern", "format"),
    }
)
_STRICT_BOUNDS = frozenset(
    {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minItems", "maxItems"}
)
_STRICT_FORMATS = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"}
)


@dataclass(frozen=True)
class Redefinition:
    """What the model is to read of a tool; None leaves what the application says."""

    description: str | None = None
    parameters: Json | None = None

    @cached_property
    def fits_openai_strict(self) -> bool:
        """Whether OpenAI takes the parameters with ``strict: true``: every property has to be required."""
        return self.parameters is None or _is_strict(self.parameters, _STRICT | _STRICT_BOUNDS, True)

    @cached_property
    def fits_anthropic_strict(self) -> bool:
        """Whether Anthropic takes the parameters with ``strict: true``: no bounds of numbers and lists."""
        return self.parameters is None or _is_strict(self.parameters, _STRICT, False)


Define = Callable[[OfferedTool], Redefinition | None]
"""Is told of every definition of a tool that the application runs; None leaves it as it is."""


def definition(
    wire: Mapping[str, Any],
    name: str,
    schema_key: str,
    kind: str = "function",
    around: Mapping[str, Any] = MappingProxyType({}),
) -> OfferedTool:
    """All that the model may read of one definition: ``more`` has what stands beside name, description and
    schema, and what of the object ``around`` it is no setting."""
    said, more = "", {}
    for key, value in wire.items():  # once a tool of every request that is looked at
        if key == "description" and isinstance(value, str):
            said = value
        elif key != schema_key and not _is_setting(key, value):
            more[key] = value
    if outer := {key: value for key, value in around.items() if not _is_setting(key, value)}:
        more["around"] = outer
    return OfferedTool(name, wire.get(schema_key), said, kind, more or None)


def defined(wire: Json, new: Redefinition, schema_key: str, kind: str, fits_strict: bool) -> Json:
    """The definition with what the operator says in its place; the very ``wire`` where that is the same.

    Of the rest, settings stay and texts go. A custom tool has no schema, and keeps its ``format``.
    """
    said: Json = {} if new.description is None else {"description": new.description}
    if new.parameters is not None and kind == "function":
        said[schema_key] = new.parameters
        if wire.get("strict") is True and not fits_strict:
            said["strict"] = False
    kept = {schema_key, "description", *(("format",) if kind == "custom" else ())}
    out = {
        key: said.get(key, value)
        for key, value in wire.items()
        if key in said or key in kept or _is_setting(key, value)
    }
    out |= {key: value for key, value in said.items() if key not in out}
    return wire if out == wire else out


def settings_of(wire: Mapping[str, Any], *kept: str) -> Json:
    """What of an object around a definition says nothing to the model, and the members that are ``kept``."""
    return {key: value for key, value in wire.items() if key in kept or _is_setting(key, value)}


def _is_setting(key: str, value: Any) -> bool:
    return key in _SETTINGS or value is None or isinstance(value, _FLAGS)


def _is_strict(node: Any, known: frozenset[str], all_required: bool) -> bool:
    if not isinstance(node, dict) or not node.keys() <= known:
        return False
    if node.get("format", "date") not in _STRICT_FORMATS:
        return False
    properties, defs, options = node.get("properties", {}), node.get("$defs", {}), node.get("anyOf", [])
    if not (isinstance(properties, dict) and isinstance(defs, dict) and isinstance(options, list)):
        return False
    if node.get("type") == "object" or properties:
        if node.get("additionalProperties") is not False:
            return False
        if all_required and sorted(properties) != sorted(map(str, node.get("required") or ())):
            return False
    below = [*properties.values(), *defs.values(), *options, *([node["items"]] if "items" in node else [])]
    return all(_is_strict(one, known, all_required) for one in below)
