"""What the embedded engine would get wrong without a word, found in the parsed policies before they serve."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from proxy.engines.rego.references import Path, fixed
from proxy.engines.sources.bundles import Roots
from proxy.engines.sources.policyset import Module

# The parser tries a literal as a comprehension first, at every level: its time doubles with each.
MAX_BRACKETS = 12

# Present, but empty shells: http.send is always undefined, opa.runtime is not OPA's.
HOLLOW = frozenset({"http.send", "opa.runtime"})

_QUIET = re.compile(r'"(?:[^"\\\n]|\\.)*"|`[^`]*`|#[^\n]*')


def too_deep(module: Module) -> str | None:
    """The fault of a module whose brackets nest so deep that parsing it would not end in time."""
    text = _QUIET.sub(lambda found: "\n" * found[0].count("\n"), module.text)
    depth = 0
    for found in re.finditer(r"[\[\]{}]", text):
        depth += 1 if found[0] in "[{" else -1
        if depth > MAX_BRACKETS:
            line = text.count("\n", 0, found.start()) + 1
            return f"{module.path}:{line}: brackets nest more than {MAX_BRACKETS} deep: name the inner parts"
    return None


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule's name as far as it is fixed, and where it stands."""

    path: Path
    place: str
    function: bool


@dataclass
class Checked:
    """What the policies define, and what is wrong with them."""

    rules: list[Rule] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def packages(self) -> frozenset[str]:
        """The packages that have a rule ``decision``."""
        decisions = [rule for rule in self.rules if rule.path[-1] == "decision" and not rule.function]
        return frozenset(".".join(rule.path[:-1]) for rule in decisions)


def check(
    asts: Sequence[Mapping[str, Any]],
    data: Mapping[str, Any],
    builtins: Collection[str],
    modules: Sequence[Module] = (),
) -> Checked:
    """Go through the engine's syntax trees. Each fault names file and line, and the way out."""
    checked = Checked()
    trees = [_Tree(ast) for ast in asts]
    for tree in trees:
        checked.rules.extend(tree.rules())
    names = {rule.path for rule in checked.rules}
    functions = {rule.path for rule in checked.rules if rule.function}
    calls: dict[Path, set[Path]] = {}
    roots = {module.path: module.roots for module in modules}
    for tree in trees:
        checked.faults.extend(tree.astray(roots))
        checked.faults.extend(tree.heads(names, builtins))
        checked.faults.extend(tree.calls(functions, builtins, calls))
    checked.faults.extend(_overridden(checked.rules, data))
    checked.faults.extend(_endless(checked.rules, calls))
    return checked


class _Tree:
    """One module's syntax tree, as ``Engine.get_ast_as_json`` words it."""

    def __init__(self, module: Mapping[str, Any]) -> None:
        self._file = module["source"]["file"]
        self._text = module["source"]["contents"].encode()
        self._ast = module["ast"]
        self._package = fixed(self._ast["package"]["refr"])
        self._imports = dict(self._aliases())

    def _aliases(self) -> Iterator[tuple[str, Path]]:
        for entry in self._ast["imports"]:
            path, alias = fixed(entry["refr"]), entry.get("as")
            name = self._text[alias["start"] : alias["end"]].decode() if alias else path[-1]
            yield name, path

    def _at(self, node: Mapping[str, Any]) -> str:
        return f"{self._file}:{node['span']['line']}"

    def astray(self, roots: Mapping[str, Roots | None]) -> Iterator[str]:
        """The fault of a package that lies outside the roots of its bundle."""
        allowed = roots.get(self._file)
        if allowed is not None and not allowed.contain(self._package):
            yield f"{self._file}: package {'.'.join(self._package)} is outside the bundle's roots ({allowed})"

    def rules(self) -> Iterator[Rule]:
        for rule in self._ast["rules"]:
            head = _head(rule)
            yield Rule(self._package + fixed(head["refr"]), self._at(head), bool(head.get("args")))

    def calls(
        self, functions: Collection[Path], builtins: Collection[str], graph: dict[Path, set[Path]]
    ) -> Iterator[str]:
        """The faults of all calls; adds to ``graph`` which function calls which."""
        for rule in self._ast["rules"]:
            caller = self._package + fixed(_head(rule)["refr"])
            for node in _nodes(rule, "Call"):
                name = fixed(node["fcn"])
                if (callee := self._resolved(name)) in functions:
                    graph.setdefault(caller, set()).add(callee)
                elif fault := _builtin_fault(".".join(name), builtins):
                    yield f"{self._at(node)}: {fault}"

    def _resolved(self, name: Path) -> Path:
        if name[:1] == ("data",):
            return name[1:]
        if name[:1] and name[0] in self._imports:
            return self._imports[name[0]][1:] + name[1:]
        return self._package + name

    def heads(self, names: Collection[Path], builtins: Collection[str]) -> Iterator[str]:
        """Heads that look something up.

        Undefined once, such a head ends the loop of its rule's body, and later values are lost; in a
        function that has an else, it may even count as true. What is the same in every turn of the loop is
        safe in a rule, and nothing but names and builtins is in a function with an else.
        """
        known = {name[len(self._package)] for name in names if name[: len(self._package)] == self._package}
        for rule in self._ast["rules"]:
            spec = rule.get("Spec")
            if spec is None:
                continue
            if "Func" not in spec["head"]:
                constant = {"input", "data", *self._imports, *known} - _declared(spec["bodies"])
                looked_up = _LookedUp(builtins, constant=constant)
            elif any(body["is_else"] for body in spec["bodies"]):
                args = {var["value"] for var in _nodes(_head(rule)["args"], "Var")}
                looked_up = _LookedUp(builtins, rules=known - _declared(spec["bodies"]) - args)
            else:
                continue
            for part, values in _valued(spec):
                if any(looked_up.found(value) for value in values):
                    yield f"{self._at(part)}: {_FRAGILE}"


_FRAGILE = (
    "the head looks up a value that may be undefined, which the embedded engine gets wrong: "
    "look it up in the body (value := ...) and name it in the head"
)


def _valued(spec: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], list[Any]]]:
    """The expressions that a rule's head, and each ``else``, works out."""
    head = _head({"Spec": spec})
    yield head, [*_indices(head["refr"]), head.get("key"), head.get("assign")]
    for body in spec["bodies"]:
        if body["assign"]:
            yield body["assign"], [body["assign"]]


def _indices(ref: Mapping[str, Any]) -> Iterator[Any]:
    ((_, node),) = ref.items()
    if "index" in node:
        yield node["index"]
    if "refr" in node:
        yield from _indices(node["refr"])


def _declared(bodies: Any) -> set[str]:
    """The names that ``some`` and ``:=`` make local to a rule."""
    places = [part for node in _nodes(bodies, "SomeIn") for part in (node["key"], node["value"])]
    places += [node["lhs"] for node in _nodes(bodies, "AssignExpr")]
    return {var["value"] for place in places for var in _nodes(place, "Var")}


@dataclass(frozen=True, slots=True)
class _LookedUp:
    """Whether an expression looks something up, beyond the ``constant`` names and by itself the ``rules``."""

    builtins: Collection[str]
    constant: Collection[str] = frozenset()
    rules: Collection[str] = frozenset()

    def found(self, node: Any) -> bool:
        if isinstance(node, list):
            return any(self.found(item) for item in node)
        if not isinstance(node, dict):
            return False
        return any(self._found(kind, inner) for kind, inner in node.items())

    def _found(self, kind: str, inner: Any) -> bool:
        if kind in _COMPREHENSIONS:
            return False
        if kind == "Var" and isinstance(inner, dict):
            return inner["value"] in self.rules
        if kind == "Call" and ".".join(fixed(inner["fcn"])) in self.builtins:
            return self.found(inner["params"])
        if kind in ("Call", "RefDot", "RefBrack"):
            return bool(_named({kind: inner}) - set(self.constant))
        return self.found(inner)


def _named(node: Any) -> set[str]:
    """The names that an expression is worked out from; those of functions are no values."""
    if isinstance(node, list):
        return {name for item in node for name in _named(item)}
    if not isinstance(node, dict):
        return set()
    if "Call" in node:
        return _named(node["Call"]["params"])
    if "Var" in node:
        return {node["Var"]["value"]}
    return {name for item in node.values() for name in _named(item)}


_COMPREHENSIONS = frozenset({"ArrayCompr", "SetCompr", "ObjectCompr"})


def _head(rule: Mapping[str, Any]) -> Mapping[str, Any]:
    if "Default" in rule:
        default: Mapping[str, Any] = rule["Default"]
        return default
    ((_, head),) = rule["Spec"]["head"].items()
    found: Mapping[str, Any] = head
    return found


def _nodes(tree: Any, kind: str) -> Iterator[Mapping[str, Any]]:
    """Every node of this kind, the tree itself included."""
    if isinstance(tree, dict):
        for name, inner in tree.items():
            if name == kind and isinstance(inner, dict):
                yield inner
            yield from _nodes(inner, kind)
    elif isinstance(tree, list):
        for item in tree:
            yield from _nodes(item, kind)


def _builtin_fault(name: str, builtins: Collection[str]) -> str | None:
    if name in builtins and name not in HOLLOW:
        return None
    return f"the embedded engine has no function {name}: for OPA's other builtins use engine: opa"


def _overridden(rules: Sequence[Rule], data: Mapping[str, Any]) -> Iterator[str]:
    """Data at the place of a rule would answer instead of the rule."""
    for rule in rules:
        value: Any = data
        for depth, part in enumerate(rule.path, 1):
            if part not in value:
                break
            value = value[part]
            if not isinstance(value, Mapping) or depth == len(rule.path):
                place = ".".join(rule.path[:depth])
                yield f"{rule.place}: the data define data.{place}, which is this rule's place"
                break


def _endless(rules: Sequence[Rule], calls: Mapping[Path, set[Path]]) -> Iterator[str]:
    """Functions that call themselves, directly or not: they would take the process down."""
    for place, path in sorted({(rule.place, rule.path) for rule in rules if rule.path in calls}):
        seen: set[Path] = set()
        reached = list(calls[path])
        while reached:
            callee = reached.pop()
            if callee not in seen:
                seen.add(callee)
                reached.extend(calls.get(callee, ()))
        if path in seen:
            yield f"{place}: {path[-1]} calls itself, which Rego does not allow"
