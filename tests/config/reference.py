"""The tables of docs/configuration.md, made from the settings' JSON Schema.

``python tests/config/reference.py`` writes them anew; a test compares.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from proxy.config import settings_schema

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "configuration.md"
SCHEMA = ROOT / "schemas" / "config.schema.json"
NEEDED = "needed"
BEGIN, END = "<!-- begin reference -->\n", "<!-- end reference -->"

Node = dict[str, Any]
Row = tuple[str, str, str, str]


def tables() -> str:
    """One table a section, in the order of the settings."""
    schema = settings_schema()
    parts = []
    for name, node in schema["properties"].items():
        rows = list(_rows(name, node, schema["$defs"]))
        lines = "\n".join(
            f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows
        )
        parts.append(f"### `{name}`\n\n| key | value | default | meaning |\n|---|---|---|---|\n{lines}\n")
    return "\n".join(parts)


def written(page: str) -> str:
    """The part of the page that stands between the marks."""
    return page.split(BEGIN)[1].split(END)[0]


def _rows(path: str, node: Node, defs: Node) -> Iterator[Row]:
    description, default = node.get("description"), node.get("default", ...)
    node = _resolved(node, defs)
    if section := _section(node, defs):
        if section is not node:
            yield f"`{path}`", "section", "none", description or ""
        for name, below in section["properties"].items():
            needed = {"default": NEEDED} if name in section.get("required", ()) else {}
            yield from _rows(f"{path}.{name}", below | needed, defs)
        return
    kinds = node.get("oneOf", []) if "discriminator" in node else []
    items = _resolved(node.get("items", {}), defs)
    inside = items.get("oneOf", []) if "discriminator" in items else [items] if "properties" in items else []
    if kinds or inside:
        default = default if inside else {"kind": default["kind"]}
        yield f"`{path}`", "list" if inside else "section", _default(path, default), description or ""
    for kind in (*kinds, *inside):
        below = _resolved(kind, defs)
        const = below["properties"].get("kind", {}).get("const")
        place = f"{path}[]" if inside else path
        place = f"{place} ({const})" if const else place
        yield from _rows(place, below, defs)
    if not kinds and not inside:
        yield (
            f"`{path}`",
            _value(node, defs),
            _default(path, default),
            description or node.get("description", ""),
        )
    each = _resolved(node.get("additionalProperties") or {}, defs)
    if "properties" in each:
        yield from _rows(f"{path}.*", each, defs)


def _section(node: Node, defs: Node) -> Node | None:
    """The section that stands here, or may be left out; a reference to a secret is none."""
    choices = [node, *(_resolved(one, defs) for one in node.get("anyOf", ()) if one.get("type") != "null")]
    return next((one for one in choices if "properties" in one and "env" not in one["properties"]), None)


def _resolved(node: Node, defs: Node) -> Node:
    if "$ref" in node:
        return defs[node["$ref"].rsplit("/", 1)[1]] | {k: v for k, v in node.items() if k != "$ref"}
    return node


def _value(node: Node, defs: Node) -> str:
    if "const" in node or "enum" in node:
        return ", ".join(f"`{value}`" for value in node.get("enum", [node.get("const")]))
    for union in ("oneOf", "anyOf"):
        if union in node:
            named = [one for one in node[union] if one.get("type") != "null"]
            return " or ".join(_value(one, defs) for one in named)
    if node.get("$ref", "").endswith("SecretRef") or "env" in node.get("properties", {}):
        return "`{env: NAME}` or `{file: PATH}`"
    if node["type"] == "array":
        return f"list of {_value(node['items'], defs)}"
    if node["type"] == "object":
        return "mapping"
    if node["type"] == "string":
        return "path" if node.get("format") == "path" else "text"
    kind = {"integer": "whole number", "number": "number", "boolean": "`true` or `false`"}[node["type"]]
    return f"{kind}{_bounds(node)}"


def _bounds(node: Node) -> str:
    low, above, high = (node.get(name) for name in ("minimum", "exclusiveMinimum", "maximum"))
    if high is None:
        return ""
    return f", {low:.15g} to {high:.16g}" if low is not None else f", above {above:g}, to {high:.16g}"


def _default(path: str, default: Any) -> str:
    if default is ...:
        return "`{}`"  # made by a factory, which the schema does not run
    if default is None or default is NEEDED:
        return "none" if default is None else "**needed**"
    if isinstance(default, list) and default and isinstance(default[0], dict):
        default = [{key: one[key] for key in ("kind", "name") if key in one} for one in default]
    size = f" ({default / 2**20:g} MiB)" if path.endswith("_bytes") else ""
    return f"`{json.dumps(default)}`{size}"


def write() -> None:
    """Write the tables into the page, and the JSON Schema into its file."""
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(page.split(BEGIN)[0] + BEGIN + tables() + END + page.split(END)[1], encoding="utf-8")
    SCHEMA.write_text(json.dumps(settings_schema(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write()
