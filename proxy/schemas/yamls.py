"""YAML read with the line of everything in it, and written for people to read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from proxy import strict_yaml
from proxy.schemas.definitions import escaped
from proxy.strict_yaml import YamlFault

_WIDTH = 108
_MAX_DEPTH = 200


class _Dumper(yaml.SafeDumper):
    """Writes everything out: the same object twice is no reference to it."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


class _Plain(_Dumper):
    """Texts in the one style that holds whatever they are."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None
    if "\n" in text.strip("\n"):
        style = "|"
    elif len(text) > _WIDTH - 20 and " " in text and "\n" not in text:
        style = ">"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _list(dumper: yaml.SafeDumper, items: list[Any]) -> yaml.SequenceNode:
    is_short = (
        all(isinstance(one, str | int | float | None) for one in items) and len(str(items)) < _WIDTH - 30
    )
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=is_short)


# Text that is a number to Callgate alone is put in quotes too.
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", strict_yaml.NUMBER, list("-+.0123456789"))
_Dumper.add_representer(str, _text)
_Dumper.add_representer(list, _list)
_Plain.add_representer(str, yaml.SafeDumper.represent_str)


def lines(text: str) -> dict[str, int]:
    """The line of every JSON pointer in a YAML text, from 1."""
    try:
        node = yaml.compose(text, yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError):
        return {}
    return {} if node is None else dict(_lines(node, "", 0)) | {"": 1}


def _lines(node: yaml.Node, pointer: str, depth: int) -> Iterator[tuple[str, int]]:
    yield pointer, node.start_mark.line + 1
    if depth > _MAX_DEPTH:
        return
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            below = f"{pointer}/{escaped(key.value)}"
            yield from _lines(value, below, depth + 1)
            # A block stands below its key: the key is what one looks for.
            yield below, key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _lines(value, f"{pointer}/{index}", depth + 1)


def _reads(text: str) -> tuple[Any, Any]:
    """What others read in a text, and what Callgate does."""
    return yaml.safe_load(text), strict_yaml.load(text)


def dump(value: Any) -> str:
    """``value`` as YAML that reads back as exactly it; raises ``ValueError`` where there is none.

    What people would not see, such as a zero-width space, is escaped.
    """
    for dumper, unicode in ((_Dumper, True), (_Dumper, False), (_Plain, False)):
        try:
            text = str(yaml.dump(value, Dumper=dumper, sort_keys=False, allow_unicode=unicode, width=_WIDTH))
            if text.replace("\n", "").isprintable() and _reads(text) == (value, value):
                return text
        except (yaml.YAMLError, YamlFault, RecursionError):
            continue
    raise ValueError("cannot be written as YAML: nested too deeply, or no JSON")
