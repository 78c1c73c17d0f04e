"""What a schema leaves open that it could close, so that a model has less to guess."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from proxy.schemas.lint.findings import Notes
from proxy.schemas.lint.walking import Node, Parameter, types
from proxy.schemas.lint.wording import told_values

MAX_PARAMETERS = 15
MAX_LEVELS = 3

# The last word of a name that tells a form; a pattern where JSON Schema has no format for it.
_FORMS: Mapping[str, dict[str, str]] = {
    "email": {"format": "email"},
    "mail": {"format": "email"},
    "date": {"format": "date"},
    "birthday": {"format": "date"},
    "datetime": {"format": "date-time"},
    "timestamp": {"format": "date-time"},
    "at": {"format": "date-time"},
    "url": {"format": "uri"},
    "uri": {"format": "uri"},
    "link": {"format": "uri"},
    "webhook": {"format": "uri"},
    "uuid": {"format": "uuid"},
    "guid": {"format": "uuid"},
    "hostname": {"format": "hostname"},
    "ipv4": {"format": "ipv4"},
    "ipv6": {"format": "ipv6"},
    "ip": {"format": "ipv4"},
    "phone": {"pattern": "^\\+[1-9][0-9]{6,14}$"},
    "currency": {"pattern": "^[A-Z]{3}$"},
    "iban": {"pattern": "^[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}$"},
}
_COUNTED = {
    **dict.fromkeys(("limit", "size", "top", "first", "last", "max"), (1, 100)),
    **dict.fromkeys(("page", "offset", "skip", "start"), (0, 10_000)),
    **dict.fromkeys(("count", "quantity", "amount", "number", "total"), (1, 1000)),
    **dict.fromkeys(("percent", "percentage"), (0, 100)),
    **dict.fromkeys(("days", "hours", "minutes", "seconds", "age", "timeout"), (0, 365)),
}
_VAGUE_NAMES = frozenset({"data", "info", "value", "obj", "object", "payload", "params", "args", "x", "tmp"})
_TYPED = frozenset({"type", "enum", "const", "$ref", "anyOf", "oneOf", "allOf", "not", "if"})
_CLOSED = ("enum", "const", "pattern", "format", "maxLength")
_TRUTHS = ({"true", "false"}, {"yes", "no"})
_MAX_TOLD = 30
_WORDY = re.compile(r"[A-Za-z]")


def node(notes: Notes, at: str, one: Node) -> None:
    """What an object says of its members as a whole."""
    schema = one.schema
    properties = schema.get("properties")
    if not isinstance(properties, dict) or not properties:
        if (
            one.depth
            and not isinstance(schema.get("additionalProperties"), dict)
            and "object" in types(schema)
        ):
            message = "An object without properties takes anything: name its members."
            notes.add("free-object", "warning", at, message, {"properties": {"name": {"type": "string"}}})
        if one.depth or not isinstance(properties, dict):
            return
    if not ({"additionalProperties", "unevaluatedProperties"} & schema.keys()):
        message = "Members that it does not name are allowed: a model invents them."
        weight = "hint" if one.depth else "warning"
        notes.add("open-object", weight, at, message, {"additionalProperties": False})  # type: ignore[arg-type]
    required = schema.get("required")
    named = required if isinstance(required, list) else []
    if properties and not named:
        notes.add("missing-required", "hint", at, "Nothing is required: name what no call does without.",
                  {"required": [next(iter(properties))]})  # fmt: skip
    for name in named:
        if isinstance(name, str) and name not in properties:
            message = f"It requires {name!r}, which it does not define: no call can be right."
            notes.add("unknown-required", "error", f"{at}/required", message)


def parameter(notes: Notes, at: str, one: Parameter) -> None:
    """What one parameter leaves open."""
    if not _TYPED & one.schema.keys():
        message = f"The parameter {one.name!r} has no type."
        notes.add("missing-type", "warning", at, message, {one.name: {"type": "string"}})
    if one.depth == 1 and one.name.lower() in _VAGUE_NAMES:
        message = f"The name {one.name!r} does not say what it is: models go by names."
        notes.add("vague-parameter-name", "hint", at, message)
    if "string" in one.types:
        _string(notes, at, one)
    elif one.types & {"integer", "number"}:
        _number(notes, at, one)
    elif "array" in one.types:
        _array(notes, at, one)


def _string(notes: Notes, at: str, one: Parameter) -> None:
    if {"enum", "const"} & one.schema.keys():
        return
    description = one.schema.get("description")
    values = told_values(description) if isinstance(description, str) else []
    if {value.lower() for value in values} in _TRUTHS:
        message = f"The parameter {one.name!r} is true or false: say so by its type."
        notes.add("boolean-as-string", "warning", at, message, {one.name: {"type": "boolean"}})
    elif 1 < len(values) <= _MAX_TOLD and any(map(_WORDY.search, values)) and "pattern" not in one.schema:
        message = f"The description of {one.name!r} lists the values; only an enum holds a model to them."
        notes.add("prose-enum", "warning", at, message, {one.name: {"enum": values}})
    elif (form := _form(one)) and not {"format", "pattern"} & one.schema.keys():
        (key, value), = form.items()  # fmt: skip
        message = f"The name {one.name!r} tells a form that the schema does not: {key} {value}."
        notes.add("missing-format", "warning", at, message, {one.name: form})
    elif not any(key in one.schema for key in _CLOSED):
        message = f"The string {one.name!r} may be of any length."
        notes.add("unbounded-string", "hint", at, message, {one.name: {"maxLength": 200}})


def _form(one: Parameter) -> dict[str, str] | None:
    last = one.words[-1] if one.words else ""
    if last == "at" and len(one.words) < 2:
        return None
    return _FORMS.get(last) or (_FORMS["ip"] if one.words[-2:] == ("ip", "address") else None)


def _number(notes: Notes, at: str, one: Parameter) -> None:
    schema = one.schema
    if {"enum", "const"} & schema.keys():
        return
    has_least = bool({"minimum", "exclusiveMinimum"} & schema.keys())
    has_most = bool({"maximum", "exclusiveMaximum"} & schema.keys())
    if has_least and has_most:
        return
    counted = next((_COUNTED[word] for word in reversed(one.words) if word in _COUNTED), None)
    least, most = counted or (0, 1_000_000)
    fix = {**({} if has_least else {"minimum": least}), **({} if has_most else {"maximum": most})}
    lacks = "range" if not (has_least or has_most) else "upper bound" if has_least else "lower bound"
    message = f"The number {one.name!r} has no {lacks}."
    notes.add("missing-range", "warning" if counted else "hint", at, message, {one.name: fix})


def _array(notes: Notes, at: str, one: Parameter) -> None:
    if not {"items", "prefixItems", "contains"} & one.schema.keys():
        message = f"The list {one.name!r} does not say what is in it."
        notes.add("missing-items", "warning", at, message, {one.name: {"items": {"type": "string"}}})
    if "maxItems" not in one.schema and "enum" not in one.schema:
        message = f"The list {one.name!r} may be of any length."
        notes.add("unbounded-array", "hint", at, message, {one.name: {"maxItems": 100}})


def example_of(schema: Mapping[str, Any], depth: int = 0) -> Any:
    """A value that looks right for a schema; nothing promises that it is valid."""
    for key in ("examples", "enum"):
        if isinstance(given := schema.get(key), list) and given:
            return given[0]
    for key in ("const", "default", "example"):
        if key in schema:
            return schema[key]
    kinds = types(schema)
    if "object" in kinds or isinstance(schema.get("properties"), dict):
        properties, required = schema.get("properties"), schema.get("required")
        if depth > MAX_LEVELS or not isinstance(properties, dict) or not isinstance(required, list):
            return {}
        known = (
            name for name in required if isinstance(name, str) and isinstance(properties.get(name), dict)
        )
        return {name: example_of(properties[name], depth + 1) for name in known}
    if "array" in kinds:
        items = schema.get("items")
        return [example_of(items, depth + 1)] if isinstance(items, dict) and depth <= MAX_LEVELS else []
    if "integer" in kinds or "number" in kinds:
        least = schema.get("minimum", 1)
        return least if isinstance(least, int | float) else 1
    if "boolean" in kinds:
        return True
    return _STRINGS.get(str(schema.get("format")), "text")


_STRINGS = {
    "email": "ann@example.com",
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "time": "12:00:00Z",
    "uri": "https://example.com/",
    "uuid": "123e4567-e89b-12d3-a456-426614174000",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
}
