"""Policies and data as they stand in files: read whole, checked, and named by a digest."""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from proxy.model import Fault, dumps, loads

try:
    from yaml import CSafeLoader as SafeLoader
except ImportError:  # PyYAML built without libyaml: the same reading, slower
    from yaml import SafeLoader  # type: ignore[assignment]

MAX_REGO_BYTES = 1 << 20
MAX_DATA_BYTES = 16 << 20
# serde_json, which reads the data for the engine, stops at 128.
MAX_DATA_DEPTH = 100
DATA_SUFFIXES = frozenset({".json", ".yaml", ".yml"})


class PolicyFault(ValueError):
    """Policies or data cannot be served; ``faults`` names each with its file and, where known, its line."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = tuple(faults)


@dataclass(frozen=True, slots=True)
class Module:
    """One Rego file. ``name`` is relative to its root, ``path`` is what an operator is shown."""

    name: str
    path: str
    text: str


@dataclass(frozen=True, slots=True)
class PolicySet:
    """Rego modules and the data that they read. ``revision`` is the same wherever the same files lie."""

    modules: tuple[Module, ...]
    data_json: bytes
    revision: str

    @classmethod
    def load(
        cls,
        paths: Iterable[Path],
        *,
        tests: bool = False,
        max_rego_bytes: int = MAX_REGO_BYTES,
        max_data_bytes: int = MAX_DATA_BYTES,
    ) -> PolicySet:
        """Read files and, recursively, directories; raises ``PolicyFault`` naming every fault at once.

        A data file counts at the path of its directory below the root, as in an OPA bundle. Hidden
        entries are skipped, and so are ``*_test.rego`` unless ``tests``.
        """
        reading = _Reading(max_rego_bytes, max_data_bytes)
        for root in paths:
            for name, file in reading.files(root):
                if file.suffix == ".rego" and (tests or not file.name.endswith("_test.rego")):
                    reading.add_module(name, file)
                elif file.suffix in DATA_SUFFIXES:
                    reading.add_data(name, file)
        return reading.finished()

    @classmethod
    def of(cls, modules: Mapping[str, str], data: Mapping[str, Any] | None = None) -> PolicySet:
        """A set of texts that stand in no file, named by their keys."""
        rego = tuple(Module(name, name, text) for name, text in sorted(modules.items()))
        data_json = dumps(data or {})
        contents = [(m.name, m.text.encode()) for m in rego] + [("data.json", data_json)]
        return cls(rego, data_json, _revision(contents))


def _revision(contents: Iterable[tuple[str, bytes]]) -> str:
    digest = hashlib.sha256()
    for name, content in sorted(contents):
        for part in (name.encode(errors="surrogateescape"), content):
            digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


@dataclass
class _Reading:
    """What was read so far, and what was wrong with it."""

    max_rego_bytes: int
    max_data_bytes: int
    modules: list[Module] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)
    origins: dict[tuple[str, ...], Path] = field(default_factory=dict)
    contents: list[tuple[str, bytes]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def files(self, root: Path) -> Iterator[tuple[str, Path]]:
        """The visible files below ``root`` with their names relative to it, in a fixed order."""
        if root.is_file():
            yield root.name, root
        elif root.is_dir():
            yield from self._below(root, root, frozenset())
        else:
            self.faults.append(f"{root}: no such file or directory")

    def _below(self, root: Path, directory: Path, above: frozenset[str]) -> Iterator[tuple[str, Path]]:
        # Symbolic links are followed: that is how a mounted ConfigMap presents both files and directories.
        real = os.path.realpath(directory)
        if real in above:
            self.faults.append(f"{directory}: a symbolic link that leads back to a directory above it")
            return
        for entry in sorted(directory.iterdir()):
            if entry.name.startswith("."):
                continue  # such as the ..data of a mounted ConfigMap: the same files again
            if entry.is_dir():
                yield from self._below(root, entry, above | {real})
            else:
                yield entry.relative_to(root).as_posix(), entry

    def add_module(self, name: str, file: Path) -> None:
        text = self._text(name, file, self.max_rego_bytes)
        if text is not None:
            self.modules.append(Module(name, str(file), text))

    def add_data(self, name: str, file: Path) -> None:
        text = self._text(name, file, self.max_data_bytes)
        if text is None:
            return
        try:
            value = _parse_json(text) if file.suffix == ".json" else _parse_yaml(text)
            _check(value)
            value = loads(dumps(value))  # YAML aliases are one object in two places: merge into neither
        except _At as exc:
            self.faults.append(f"{file}:{exc.line}: {exc}")
        except ValueError as exc:
            self.faults.append(f"{file}: {exc}")
        else:
            self._mount(value, tuple(name.split("/")[:-1]), file)

    def _text(self, name: str, file: Path, max_bytes: int) -> str | None:
        try:
            with file.open("rb") as stream:
                content = stream.read(max_bytes + 1)
            if len(content) > max_bytes:
                raise ValueError(f"larger than {max_bytes} bytes, the most that one such file may have")
            text = content.decode()
        except UnicodeDecodeError:
            self.faults.append(f"{file}: not UTF-8 text")
        except (OSError, ValueError) as exc:
            self.faults.append(f"{file}: {getattr(exc, 'strerror', None) or exc}")
        else:
            self.contents.append((name, content))
            return text
        return None

    def _mount(self, value: dict[str, Any], at: tuple[str, ...], file: Path) -> None:
        for key in reversed(at):
            value = {key: value}
        self._merge(self.data, value, (), file)

    def _merge(self, target: dict[str, Any], value: dict[str, Any], at: tuple[str, ...], file: Path) -> None:
        for key, item in value.items():
            here = (*at, key)
            if key not in target:
                target[key] = item
                self.origins[here] = file
            elif isinstance(target[key], dict) and isinstance(item, dict):
                self._merge(target[key], item, here, file)
            else:
                other = next(
                    self.origins[here[:n]] for n in range(len(here), 0, -1) if here[:n] in self.origins
                )
                self.faults.append(f"{file}: data.{'.'.join(here)} is already defined in {other}")

    def finished(self) -> PolicySet:
        if self.faults:
            raise PolicyFault(self.faults)
        return PolicySet(tuple(self.modules), dumps(self.data), _revision(self.contents))


class _At(ValueError):
    """A fault whose line is known."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


def _parse_json(text: str) -> Any:
    try:
        return loads(text)
    except Fault as exc:
        if found := re.search(r" at character (\d+)$", str(exc)):
            line = text.count("\n", 0, int(found[1]) - 1) + 1
            raise _At(line, str(exc)[: found.start()]) from None
        raise


def _parse_yaml(text: str) -> Any:
    try:
        return yaml.load(text, _JSONLoader)  # noqa: S506 -- a safe loader, narrowed to what JSON can say
    except yaml.MarkedYAMLError as exc:
        line = exc.problem_mark.line + 1 if exc.problem_mark else 1
        raise _At(line, f"not valid YAML: {exc.problem}") from None
    except yaml.YAMLError as exc:
        raise ValueError(f"not valid YAML: {str(exc).splitlines()[0]}") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


class _JSONLoader(SafeLoader):
    """YAML that can also be said in JSON, so that every engine reads the same data."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        self.flatten_mapping(node)
        value: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key, line = self.construct_object(key_node, deep=True), key_node.start_mark.line + 1
            if not isinstance(key, str):
                raise _At(line, f"the key {key!r} is not text: write it in quotes")
            if key in value:
                raise _At(line, f"the key {key!r} is given twice")
            value[key] = self.construct_object(value_node, deep=True)
        return value

    def construct_plain_mapping(self, node: Any) -> dict[Any, Any]:
        return self.construct_mapping(node)

    def refuse_tag(self, node: Any) -> Any:
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        raise _At(node.start_mark.line + 1, f"a {kind} has no form in JSON: write it in quotes")


_JSONLoader.add_constructor("tag:yaml.org,2002:map", _JSONLoader.construct_plain_mapping)
for _tag in ("timestamp", "binary", "set", "omap", "pairs"):
    _JSONLoader.add_constructor(f"tag:yaml.org,2002:{_tag}", _JSONLoader.refuse_tag)


def _check(value: Any) -> None:
    if not isinstance(value, dict):
        raise ValueError("policy data is one mapping")
    _check_item(value, 0)


def _check_item(value: Any, depth: int) -> None:
    if depth > MAX_DATA_DEPTH:
        raise ValueError(f"nested more than {MAX_DATA_DEPTH} deep")
    if isinstance(value, dict):
        value = value.values()
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is not JSON")
    elif isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise ValueError(f"the integer {str(value)[:40]} would lose digits: write it in quotes")
    elif not isinstance(value, list):
        return
    if not isinstance(value, int | float):
        for item in value:
            _check_item(item, depth + 1)
