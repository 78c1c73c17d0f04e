"""Policies and data as they stand in files and bundles: read whole, checked, and named by a digest."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from proxy.engines.sources.bundles import SUFFIX, Archive, Bundle, Roots, overlapping
from proxy.engines.sources.datafiles import DATA_SUFFIXES, MAX_DATA_BYTES, FaultAt, parsed
from proxy.engines.sources.faults import PolicyFault
from proxy.model import dumps

__all__ = ["Module", "PolicyFault", "PolicySet"]

MAX_REGO_BYTES = 1 << 20
MAX_SET_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Module:
    """One Rego file. ``name`` is relative to its root, ``path`` is what an operator is shown."""

    name: str
    path: str
    text: str
    roots: Roots | None = None
    """The paths below which its bundle says that its package lies; None outside a bundle."""


@dataclass(frozen=True, slots=True)
class PolicySet:
    """Rego modules and the data that they read. ``revision`` is the same wherever the same files lie."""

    modules: tuple[Module, ...]
    data_json: bytes
    revision: str
    labels: tuple[tuple[str, str], ...] = ()
    """The bundles in it, each with the revision that its own manifest names, for people to read."""

    @classmethod
    def load(
        cls,
        sources: Iterable[Path | Archive],
        *,
        tests: bool = False,
        max_rego_bytes: int = MAX_REGO_BYTES,
        max_data_bytes: int = MAX_DATA_BYTES,
        max_set_bytes: int = MAX_SET_BYTES,
    ) -> PolicySet:
        """Read files, directories (recursively) and bundles; raises ``PolicyFault`` naming every fault.

        A data file counts at the path of its directory below the root, as in an OPA bundle. In a directory,
        hidden entries are skipped. ``*_test.rego`` is skipped unless ``tests``. A path that ends in
        ``.tar.gz`` is a bundle.
        """
        reading = _Reading(tests, max_rego_bytes, max_data_bytes, max_set_bytes)
        for source in sources:
            if isinstance(source, Archive):
                reading.add_archive(source)
            elif source.name.endswith(SUFFIX) and not source.is_dir():
                reading.add_archive(Archive(str(source), source))
            else:
                reading.add_tree(source)
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

    tests: bool
    max_rego_bytes: int
    max_data_bytes: int
    max_set_bytes: int
    modules: list[Module] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)
    origins: dict[tuple[str, ...], str] = field(default_factory=dict)
    contents: list[tuple[str, bytes]] = field(default_factory=list)
    size: int = 0
    bundles: list[Bundle] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def add_tree(self, root: Path) -> None:
        """A file, or all visible ones below a directory."""
        for name, file in self._files(root):
            if limit := self._limit(name):
                content = self._content(file, limit)
                if content is not None:
                    self._add(name, str(file), content)

    def add_archive(self, archive: Archive) -> None:
        """The files of a bundle that is what it should be, whole."""
        try:
            bundle = archive.read()
        except PolicyFault as exc:
            self.faults += exc.faults
            return
        self.faults += [fault for other in self.bundles if (fault := overlapping(other, bundle))]
        self.bundles.append(bundle)
        for name, content in bundle.served():
            if limit := self._limit(name):
                place = f"{bundle.label}/{name}"
                if len(content) > limit:
                    self.faults.append(f"{place}: {_too_large(limit)}")
                else:
                    self._add(name, place, content, bundle.roots)

    def _limit(self, name: str) -> int:
        """How many bytes a file of this name may have; 0 for one that is not read."""
        path = PurePosixPath(name)
        if path.suffix == ".rego":
            return self.max_rego_bytes if self.tests or not path.name.endswith("_test.rego") else 0
        return self.max_data_bytes if path.suffix in DATA_SUFFIXES else 0

    def _add(self, name: str, place: str, content: bytes, roots: Roots | None = None) -> None:
        self.size += len(content)
        if self.size > self.max_set_bytes:
            all_of_it = f"the policies and their data together: larger than {self.max_set_bytes} bytes"
            raise PolicyFault([*self.faults, f"{all_of_it}, counted up to {place}"])
        try:
            text = content.decode()
        except UnicodeDecodeError:
            self.faults.append(f"{place}: not UTF-8 text")
            return
        self.contents.append((name, content))
        if name.endswith(".rego"):
            self.modules.append(Module(name, place, text, roots))
        else:
            self._add_data(name, place, text, roots)

    def _add_data(self, name: str, place: str, text: str, roots: Roots | None) -> None:
        at = tuple(name.split("/")[:-1])
        try:
            value = parsed(text, json=name.endswith(".json"))
            if not at and not isinstance(value, dict):
                raise ValueError("policy data is one mapping")
            for key in reversed(at):
                value = {key: value}
            if roots is not None:
                roots.check_data(value)
        except FaultAt as exc:
            self.faults.append(f"{place}:{exc.line}: {exc}")
        except ValueError as exc:
            self.faults.append(f"{place}: {exc}")
        else:
            self._merge(self.data, value, (), place)

    def _files(self, root: Path) -> Iterator[tuple[str, Path]]:
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

    def _content(self, file: Path, limit: int) -> bytes | None:
        try:
            with file.open("rb") as stream:
                content = stream.read(limit + 1)
        except OSError as exc:
            self.faults.append(f"{file}: {exc.strerror or exc}")
            return None
        if len(content) > limit:
            self.faults.append(f"{file}: {_too_large(limit)}")
            return None
        return content

    def _merge(self, target: dict[str, Any], value: dict[str, Any], at: tuple[str, ...], place: str) -> None:
        for key, item in value.items():
            here = (*at, key)
            if key not in target:
                target[key] = item
                self.origins[here] = place
            elif isinstance(target[key], dict) and isinstance(item, dict):
                self._merge(target[key], item, here, place)
            else:
                other = next(
                    self.origins[here[:n]] for n in range(len(here), 0, -1) if here[:n] in self.origins
                )
                self.faults.append(f"{place}: data.{'.'.join(here)} is already defined in {other}")

    def finished(self) -> PolicySet:
        """All of it; raises ``PolicyFault`` if anything was wrong."""
        if self.faults:
            raise PolicyFault(self.faults)
        labels = tuple((bundle.label, bundle.revision) for bundle in self.bundles)
        return PolicySet(tuple(self.modules), dumps(self.data), _revision(self.contents), labels)


def _too_large(limit: int) -> str:
    return f"larger than {limit} bytes, the most that one such file may have"
