"""Data files, JSON or YAML, read in the one way that every engine shares."""

from __future__ import annotations

import math
import re
from typing import Any

import yaml

from proxy.model import Fault, dumps, loads

try:
    from yaml import CSafeLoader as SafeLoader
except ImportError:  # PyYAML built without libyaml: the same reading, slower
    from yaml import SafeLoader  # type: ignore[assignment]

MAX_DATA_BYTES = 16 << 20
# serde_json, which reads the data for the engine, stops at 128.
MAX_DATA_DEPTH = 100
DATA_SUFFIXES = frozenset({".json", ".yaml", ".yml"})


class FaultAt(ValueError):
    """A fault whose line is known."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


def parsed(text: str, json: bool) -> Any:
    """What a data file says, as JSON or else as YAML; raises ``ValueError`` for what JSON cannot say."""
    value = _parse_json(text) if json else parse_yaml(text)
    _Checking(MAX_DATA_BYTES).check(value)
    # YAML aliases are one object in two places: merge into neither.
    return value if json else loads(dumps(value))


def _parse_json(text: str) -> Any:
    try:
        return loads(text)
    except Fault as exc:
        if found := re.search(r" at character (\d+)$", str(exc)):
            line = text.count("\n", 0, int(found[1]) - 1) + 1
            raise FaultAt(line, str(exc)[: found.start()]) from None
        raise


def parse_yaml(text: str) -> Any:
    """A YAML text that can also be said in JSON; raises ``ValueError``."""
    try:
        _check_depth(text)
        return yaml.load(text, _JSONLoader)  # noqa: S506 -- a safe loader, narrowed to what JSON can say
    except yaml.MarkedYAMLError as exc:
        line = exc.problem_mark.line + 1 if exc.problem_mark else 1
        raise FaultAt(line, f"not valid YAML: {exc.problem}") from None
    except yaml.YAMLError as exc:
        raise ValueError(f"not valid YAML: {str(exc).splitlines()[0]}") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _check_depth(text: str) -> None:
    """Raise before the reader is let in: libyaml's goes down with the process where the nesting is deep."""
    depth = 0
    for event in yaml.parse(text, Loader=SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DATA_DEPTH:
                raise ValueError(f"nested too deeply: more than {MAX_DATA_DEPTH} deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


class _JSONLoader(SafeLoader):
    """YAML that can also be said in JSON, so that every engine reads the same data."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        self.flatten_mapping(node)
        value: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key, line = self.construct_object(key_node, deep=True), key_node.start_mark.line + 1
            if not isinstance(key, str):
                raise FaultAt(line, f"the key {key!r} is not text: write it in quotes")
            if key in value:
                raise FaultAt(line, f"the key {key!r} is given twice")
            value[key] = self.construct_object(value_node, deep=True)
        return value

    def construct_plain_mapping(self, node: Any) -> dict[Any, Any]:
        return self.construct_mapping(node)

    def refuse_tag(self, node: Any) -> Any:
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        raise FaultAt(node.start_mark.line + 1, f"a {kind} has no form in JSON: write it in quotes")


_JSONLoader.add_constructor("tag:yaml.org,2002:map", _JSONLoader.construct_plain_mapping)
for _tag in ("timestamp", "binary", "set", "omap", "pairs"):
    _JSONLoader.add_constructor(f"tag:yaml.org,2002:{_tag}", _JSONLoader.refuse_tag)


class _Checking:
    """A walk over a value that ends when it has seen more than ``left`` characters and items."""

    def __init__(self, left: int) -> None:
        self._left = left

    def check(self, value: Any, depth: int = 0) -> None:
        if depth > MAX_DATA_DEPTH:
            raise ValueError(f"nested more than {MAX_DATA_DEPTH} deep")
        self._spend(1)
        if isinstance(value, dict):
            for key, item in value.items():
                self._spend(len(key))
                self.check(item, depth + 1)
        elif isinstance(value, list):
            for item in value:
                self.check(item, depth + 1)
        elif isinstance(value, str):
            self._spend(len(value))
        else:
            _check_number(value)

    def _spend(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise ValueError(f"larger than {MAX_DATA_BYTES} bytes when its aliases are written out")


def _check_number(value: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is not JSON")
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise ValueError(f"the integer {str(value)[:40]} would lose digits: write it in quotes")
