"""What the names in parsed policies mean: rules, functions, imports, and the data that lies beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from proxy.engines.rego.references import Path, fixed, parts_of
from proxy.engines.rego.sizes import Size


class Policies:
    """All modules together with their data."""

    def __init__(self, asts: Sequence[Mapping[str, Any]], data: Mapping[str, Any]) -> None:
        self.data = data
        self.shapes: dict[Path, Size] = {}
        """How large the data are at the places that were looked at."""
        self.rules: dict[Path, list[Definition]] = {}
        self.functions: dict[Path, list[Definition]] = {}
        for module in [ModuleTree(self, ast) for ast in asts]:
            for rule in module.definitions():
                table = self.functions if rule.args is not None else self.rules
                table.setdefault(rule.path, []).append(rule)

    def below(self, path: Path) -> list[Path]:
        """The rules that a reference to ``data.<path>`` leads to, into or over."""
        return [rule for rule in self.rules if rule[: len(path)] == path[: len(rule)]]


class ModuleTree:
    """One module's syntax tree, as ``Engine.get_ast_as_json`` words it."""

    def __init__(self, policies: Policies, ast: Mapping[str, Any]) -> None:
        self.policies = policies
        self.file: str = ast["source"]["file"]
        self._text = ast["source"]["contents"].encode()
        self._ast = ast["ast"]
        self.package = fixed(self._ast["package"]["refr"])
        self.imports = dict(self._aliases())
        self._words = Counter(_variables(self._ast["rules"]))
        self._names = frozenset(
            rule.path[len(self.package)] for rule in self.definitions() if rule.args is None
        )

    def _aliases(self) -> Iterator[tuple[str, Path]]:
        for entry in self._ast["imports"]:
            path, alias = fixed(entry["refr"]), entry.get("as")
            if path[0] in ("data", "input"):
                yield (self.word(alias) if alias else path[-1]), path

    def word(self, span: Mapping[str, int]) -> str:
        """The text that a part of the tree stands for."""
        text: bytes = self._text[span["start"] : span["end"]]
        return text.decode()

    def at(self, node: Any) -> str:
        """File and line of a part of the tree."""
        line = next(_lines(node), None)
        return self.file if line is None else f"{self.file}:{line}"

    def has(self, name: str) -> bool:
        """Whether a rule of this module goes by the name, or begins with it."""
        return name in self._names or any(
            rule[: len(self.package)] == self.package and rule[len(self.package)] == name
            for rule in self.policies.rules
            if len(rule) > len(self.package)
        )

    def mentions(self, name: str) -> int:
        """How often a name stands in the rules of this module."""
        return self._words[name]

    def resolved(self, name: Path) -> Path:
        """The full path of a function that is called by this name."""
        if name[:1] == ("data",):
            return name[1:]
        if name[:1] and name[0] in self.imports:
            return self.imports[name[0]][1:] + name[1:]
        return self.package + name

    def definitions(self) -> Iterator[Definition]:
        """Every rule as often as it is written."""
        for rule in self._ast["rules"]:
            ((kind, spec),) = rule.items()
            if kind == "Default":
                args = spec["args"] or None
                body = {"assign": {"value": spec["value"]}, "query": {"stmts": []}}
                yield Definition(
                    self, self.package + fixed(spec["refr"]), args, spec["refr"], None, None, [body], True
                )
            else:
                ((form, head),) = spec["head"].items()
                yield Definition(
                    self,
                    self.package + fixed(head["refr"]),
                    head["args"] if form == "Func" else None,
                    head["refr"],
                    head.get("key"),
                    head.get("assign"),
                    spec["bodies"] or [{"assign": None, "query": {"stmts": []}}],
                )


@dataclass(frozen=True, slots=True)
class Definition:
    """A rule or a function as it is written in one place."""

    module: ModuleTree
    path: Path
    args: Sequence[Any] | None
    ref: Mapping[str, Any]
    key: Mapping[str, Any] | None
    """The member that it adds to a set."""
    assign: Mapping[str, Any] | None
    bodies: Sequence[Mapping[str, Any]]
    default: bool = False
    """Whether it counts only where none of the others holds."""

    @property
    def place(self) -> str:
        """File and line."""
        return self.module.at(self.ref)

    @property
    def gathers(self) -> bool:
        """Whether all its definitions together make one collection."""
        return self.key is not None or bool(self.indices)

    @property
    def indices(self) -> list[Any]:
        """What a rule's name has in brackets: it makes the rule a mapping."""
        return [part for part in parts_of(self.ref) if not isinstance(part, str)]


def _variables(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for kind, inner in node.items():
            if kind == "Var" and isinstance(inner, dict):
                yield inner["value"]
            yield from _variables(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from _variables(inner)


def _lines(node: Any) -> Iterator[int]:
    if isinstance(node, dict):
        if isinstance(line := node.get("line"), int):
            yield line
        for inner in node.values():
            yield from _lines(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from _lines(inner)
