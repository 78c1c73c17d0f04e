"""What a decision depends on, found in the parsed policies: so that one need not be asked for twice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from proxy.engines.rego.references import Path, fixed, parts_of, written

# Builtins whose value is not told by what they are given.
_UNSTEADY = frozenset({"time.now_ns", "uuid.rfc4122", "opa.runtime", "http.send", "net.lookup_ip_addr"})
_UNSTEADY_PREFIX = "rand."


def reads(asts: Sequence[Mapping[str, Any]], package: str) -> frozenset[str] | None:
    """The members of ``input`` that ``data.<package>`` may depend on, directly or through other packages.

    None where that cannot be told (``input`` as a whole, ``input[name]``), or where it depends on the
    clock, on chance or on another system. Never too few: a package counts whole, and so does every
    package that a reference may lead into.
    """
    modules = [_module(ast) for ast in asts]
    found = [modules[index] for index in _reached(modules, package)]
    if any(module.unsteady for module in found):
        return None
    return frozenset().union(*(module.input for module in found))


def reached(asts: Sequence[Mapping[str, Any]], packages: Iterable[str]) -> list[set[int]]:
    """For each package, the modules (by their places among ``asts``) that it may depend on."""
    modules = [_module(ast) for ast in asts]
    return [_reached(modules, package) for package in packages]


def _reached(modules: Sequence[_Module], package: str) -> set[int]:
    found: set[int] = set()
    waiting: list[Path] = [tuple(package.split("."))]
    while waiting:
        path = waiting.pop()
        for index, module in enumerate(modules):
            if index not in found and _meet(module.package, path):
                found.add(index)
                waiting.extend(module.data)
    return found


def _meet(package: Path, reference: Path) -> bool:
    shorter = min(len(package), len(reference))
    return package[:shorter] == reference[:shorter]


@dataclass
class _Module:
    """What one module refers to."""

    package: Path
    input: set[str] = field(default_factory=set)
    data: set[Path] = field(default_factory=set)
    unsteady: bool = False

    def take(self, node: Any) -> None:
        """Go through a part of the syntax tree."""
        if isinstance(node, list):
            for item in node:
                self.take(item)
        elif isinstance(node, dict):
            for kind, inner in node.items():
                if kind in ("Var", "RefDot", "RefBrack") and isinstance(inner, dict):
                    self._take_reference({kind: inner})
                else:
                    self.take(inner)

    def _take_reference(self, ref: Mapping[str, Any]) -> None:
        parts = list(parts_of(ref))
        for part in parts:
            if not isinstance(part, str):
                self.take(part)
        path = tuple(parts[: written(parts)])
        if path[:1] == ("input",):
            if len(path) > 1:
                self.input.add(path[1])
            else:
                self.unsteady = True
        elif path[:1] == ("data",):
            self.data.add(path[1:])
        elif (name := ".".join(path)) in _UNSTEADY or name.startswith(_UNSTEADY_PREFIX):
            self.unsteady = True


def _module(ast: Mapping[str, Any]) -> _Module:
    tree = ast["ast"]
    module = _Module(fixed(tree["package"]["refr"]))
    module.take(tree["imports"])
    module.take(tree["rules"])
    return module
