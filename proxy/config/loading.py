"""Read the settings: the YAML file, then the environment; every fault at once, each with its path."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from proxy.config.environment import overrides
from proxy.config.faults import worded
from proxy.config.settings import Settings
from proxy.config.values import ConfigFault


def load(path: Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """The settings in ``path`` (none: the defaults), overridden by ``environ`` (none: the process's own).

    Relative paths in them are taken from the file's folder. Raises ``ConfigFault`` naming every fault.
    """
    faults: list[str] = []
    content = _read(path, faults) if path is not None else {}
    from_environment, origins = overrides(os.environ if environ is None else environ, faults)
    content = _merged(content, from_environment)
    settings = None
    try:
        settings = Settings.model_validate(content)
    except ValidationError as exc:
        faults.extend(worded(exc, content, origins))
    if faults or settings is None:
        raise ConfigFault(faults) from None
    return settings.within(path.parent if path is not None else Path())


def _read(path: Path, faults: list[str]) -> dict[str, Any]:
    """The file's content; what keeps it from being read at all is raised, duplicate keys are added."""
    try:
        text = path.read_bytes().decode()
    except OSError as exc:
        raise ConfigFault([f"{path}: {exc.strerror or exc} (name a file that can be read)"]) from None
    except UnicodeDecodeError as exc:
        raise ConfigFault([f"{path}: not UTF-8 text at byte {exc.start} (save it as UTF-8)"]) from None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        duplicates = list(_duplicates(node, set())) if node else []
        content = loader.construct_document(node) if node else None
    except yaml.MarkedYAMLError as exc:
        cure = " (indent with spaces)" if "'\\t'" in (exc.problem or "") else ""
        raise ConfigFault([f"{path}{_line(exc)}: not valid YAML: {exc.problem}{cure}"]) from None
    except yaml.reader.ReaderError as exc:
        raise ConfigFault([f"{path}: character {exc.position} is not allowed in YAML (remove it)"]) from None
    except RecursionError:
        raise ConfigFault([f"{path}: nested too deeply (flatten it)"]) from None
    if content is not None and not isinstance(content, dict):
        raise ConfigFault([f"{path}: not a mapping (write the settings as key: value)"])
    faults.extend(f"{path}, {duplicate}" for duplicate in duplicates)
    return content or {}


def _line(exc: yaml.MarkedYAMLError) -> str:
    # The mark's own text quotes the line, which may hold a secret: only its number is told.
    mark = exc.problem_mark or exc.context_mark
    return f", line {mark.line + 1}" if mark else ""


def _duplicates(node: yaml.Node, seen: set[int]) -> Iterator[str]:
    """Keys that one mapping names twice, below ``node``; YAML itself would keep the last in silence."""
    if id(node) in seen:
        return
    seen.add(id(node))
    children = list(node.value) if isinstance(node, yaml.SequenceNode) else []
    if isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode):
                if key.value in lines:
                    yield f"line {line}: {key.value}: already on line {lines[key.value]} (keep one)"
                lines.setdefault(key.value, line)
            children.append(value)
    for child in children:
        yield from _duplicates(child, seen)


class _Loader(yaml.SafeLoader):
    """YAML 1.2's plain values: ``yes``, ``off``, dates and ``1:30`` are text, as they were meant."""


def _read_as_1_2() -> None:
    kept = {f"tag:yaml.org,2002:{name}" for name in ("null", "merge")}
    _Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag in kept]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    truth = re.compile(r"(?:true|True|TRUE|false|False|FALSE)$")
    integer = re.compile(r"[-+]?(?:0|[1-9][0-9]*)$")
    number = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?$")
    _Loader.add_implicit_resolver("tag:yaml.org,2002:bool", truth, list("tTfF"))
    _Loader.add_implicit_resolver("tag:yaml.org,2002:int", integer, list("-+0123456789"))
    _Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+.0123456789"))


_read_as_1_2()


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings are merged key by key; of everything else, what is above counts."""
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        both = isinstance(value, Mapping) and isinstance(under, Mapping)
        merged[key] = _merged(under, value) if both else value  # type: ignore[arg-type]
    return merged
