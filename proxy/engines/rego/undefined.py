"""Where the embedded engine takes the undefined for false and OPA does not, found before policies serve.

OPA works out what a negated call is given ahead of it: ``not f(input.to)`` is ``x := input.to; not f(x)``,
and without ``input.to`` the rule does not hold. The embedded engine negates the whole, and the rule holds.
``1 in input.xs``, taken as a value, is false to it where OPA has none. What it reads otherwise than OPA does,
so that a rule holds or does not, is found here too.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from proxy.engines.rego.names import Definition, Policies
from proxy.engines.rego.reads import reached
from proxy.engines.rego.references import Path, fixed, parts_of

Node = Mapping[str, Any]

# What the engine's builtins cannot do is an error, and nothing is decided; but of these it is no value.
_PARTIAL = frozenset({"max", "min", "bits.rsh", "walk"})
_COMPREHENSIONS = frozenset({"ArrayCompr", "SetCompr", "ObjectCompr"})
_REFERENCES = frozenset({"Var", "RefDot", "RefBrack"})
_BRACKETS = frozenset({"Array", "Set", "Object"})
_TEXT = re.compile(r'"(?:[^"\\\n]|\\.)*"|`[^`]*`|#[^\n]*')

_SITUATION = frozenset(
    {"principal", "conversation", "model", "protocol", "batch", "history", "approval", "time"}
)
TOLD: Mapping[str, frozenset[str]] = {
    "callgate.call": _SITUATION | {"call", "tool"},
    "callgate.request": _SITUATION | {"hosted", "hosted_tools", "tools"},
    "callgate.tools": _SITUATION | {"hosted", "hosted_tools", "tools"},
    "callgate.result": _SITUATION | {"tool", "result"},
}
"""By package, the members that its input always has (schemas/policy-input.schema.json)."""


def undefined(asts: Sequence[Node], data: Mapping[str, Any], least: Mapping[str, Any]) -> Iterator[str]:
    """The faults of negations, and of ``in``, that may meet the undefined; each names file and line.

    ``least`` is an input that has what every input has, apart from members that only some packages are told.
    """
    policies = Policies(asts, data)
    told, defined = _told(asts), dict[Any, bool]()
    replaced = any(_replaces(ast) for ast in asts)
    for definitions in (*policies.rules.values(), *policies.functions.values()):
        for definition in definitions:
            members = told[definition.module.file]
            known = {name: value for name, value in least.items() if name in members}
            yield from _Checked(policies, definition, known, defined).faults(replaced)


def _told(asts: Sequence[Node]) -> Mapping[str, frozenset[str]]:
    """By file, the members of the input that are there whichever package is asked."""
    modules = dict(zip(TOLD, reached(asts, TOLD), strict=True))
    return {
        ast["source"]["file"]: _SITUATION.union(*TOLD.values()).intersection(
            *(TOLD[package] for package, found in modules.items() if index in found)
        )
        for index, ast in enumerate(asts)
    }


def _replaces(ast: Node) -> bool:
    """Whether policies, other than tests, put something else in the place of input, data or functions."""
    package = fixed(ast["ast"]["package"]["refr"])
    tests = ast["source"]["file"].endswith("_test.rego") or package[-1].endswith("_test")
    return not tests and any(node.get("with_mods") for node in _dicts(ast["ast"]["rules"]))


@dataclass(frozen=True)
class _Checked:
    """A rule as it is written in one place."""

    policies: Policies
    rule: Definition
    known: Mapping[str, Any]
    """What its input always has."""
    defined: dict[Any, bool]
    """Which rules always have a value, as far as that was asked."""

    @cached_property
    def _mentions(self) -> Counter[str]:
        """How often each variable stands in it."""
        return Counter(_mentioned(self._parts))

    @cached_property
    def _quantified(self) -> frozenset[str]:
        """What ``every`` and ``some`` name."""
        return frozenset(self.rule.module.word(span) for span in _quantified(self._parts))

    @property
    def _parts(self) -> list[Any]:
        return [self.rule.args, self.rule.ref, self.rule.key, self.rule.bodies]

    def faults(self, replaced: bool) -> Iterator[str]:
        """All that is wrong with it; nothing but literals and variables is sure where ``replaced``."""
        yield from self._twice(self.rule.args or (), self.rule.ref)
        parts = [self.rule.key, self.rule.assign, *self.rule.indices, *self.rule.bodies]
        yield from self._within(parts, replaced)

    def _within(self, node: Any, replaced: bool) -> Iterator[str]:
        if isinstance(node, list):
            for item in node:
                yield from self._within(item, replaced)
        elif isinstance(node, dict) and "literal" in node:
            yield from self._statement(node, replaced or bool(node.get("with_mods")))
        elif isinstance(node, dict):
            if operands := node.get("Membership"):
                yield from self._membership(operands, replaced)
            yield from self._brackets(node)
            layers = _REFERENCES & node.keys()
            yield from self._layers(node) if layers else ()
            for inner in _indices(node) if layers else node.values():
                yield from self._within(inner, replaced)

    def _statement(self, statement: Node, replaced: bool) -> Iterator[str]:
        ((kind, literal),) = statement["literal"].items()
        if kind == "NotExpr":
            yield from self._negation(literal, replaced)
        if kind == "SomeIn" and literal["key"]:
            yield from self._twice([literal["key"], literal["value"]], literal)
        if kind == "SomeVars":
            yield from self._shadowing(literal)
        if kind == "SomeIn" and _REFERENCES & literal["collection"].keys():
            # To go through nothing is to find nothing.
            literal = {**literal, "collection": list(_indices(literal["collection"]))}
        # That a statement is false or has no value comes to the same.
        expression = literal.get("expr", literal)
        if kind == "Expr" and expression.get("Membership", {}).get("key"):
            yield from self._keyed(expression["Membership"], replaced)
        yield from self._within(expression.get("Membership", expression), replaced)
        yield from self._within([literal.get("query"), statement.get("with_mods")], replaced)

    def _negation(self, literal: Node, replaced: bool) -> Iterator[str]:
        place = self.rule.module.at(literal)
        for name in sorted(self._unbound(literal["expr"])):
            yield f"{place}: {name} has no value outside the negation, which OPA refuses: {_QUANTIFY}"
        sure = _Sure(self, replaced)
        for part in _ahead(literal["expr"]):
            if doubtful := sure.doubtful(part):
                said = self._worded(doubtful)
                yield f"{place}: the negation needs {said}, {_NEGATION.format(said)}"
                return

    def _membership(self, operands: Node, replaced: bool) -> Iterator[str]:
        sure = _Sure(self, replaced)
        if doubtful := sure.doubtful([operands["key"], operands["value"], operands["collection"]]):
            place, said = self.rule.module.at(operands), self._worded(doubtful)
            yield f"{place}: the value of 'in' needs {said}, {_MEMBERSHIP.format(said)}"

    def _keyed(self, operands: Node, replaced: bool) -> Iterator[str]:
        """A key that is not there, and a value that is not there, are alike to the engine."""
        if doubtful := _Sure(self, replaced).doubtful(operands["value"]):
            place, said = self.rule.module.at(operands), self._worded(doubtful)
            yield f"{place}: the value of 'in' needs {said}, {_KEYED.format(said)}"

    def _twice(self, patterns: Sequence[Any], at: Node) -> Iterator[str]:
        """A name for two parts, which have to be alike to OPA."""
        names = Counter(name for pattern in patterns for name in {*_mentioned(pattern)} if name != "_")
        for name in sorted(name for name, times in names.items() if times > 1):
            yield f"{self.rule.module.at(at)}: {name} {_TWICE}"

    def _shadowing(self, some: Node) -> Iterator[str]:
        module = self.rule.module
        for span in some["vars"]:
            name = module.word(span)
            called = (*module.package, name) in self.policies.functions
            if called or name in module.imports or module.has(name):
                yield f"{self.rule.module.at(some)}: {name} {_SHADOWING}"

    def _brackets(self, node: Node) -> Iterator[str]:
        """A union that is all there is in brackets: OPA takes it for a comprehension, the engine does not."""
        for kind in _BRACKETS & node.keys():
            inner = node[kind]
            parts = inner["items"] if "items" in inner else [field[-1] for field in inner["fields"]]
            if len(parts) != 1 or parts[0].get("BinExpr", {}).get("op") != "Union":
                continue
            begin = inner["span"]["start"] + 1
            if kind == "Object":
                ((_, key),) = inner["fields"][0][1].items()
                begin = key["span"]["end"]
            text = self.rule.module.word({"start": begin, "end": inner["span"]["end"] - 1})
            if not _in_parentheses(text.lstrip('": \t\r\n').strip()):
                yield f"{self.rule.module.at(inner)}: {self._worded(node)} {_UNION}"

    def _layers(self, reference: Node) -> Iterator[str]:
        root, *parts = self.resolved(reference)
        if root != "data" or not all(isinstance(part, str) for part in parts):
            return
        if any(_layered(rule) for rule in self.policies.rules.get(tuple(parts), ())):
            yield f"{self.rule.module.at(reference)}: {self._worded(reference)} {_LAYERS}"
        elif self._hollow(tuple(parts)):
            yield f"{self.rule.module.at(reference)}: {self._worded(reference)} {_HOLLOW}"

    def _hollow(self, path: Path) -> bool:
        """Whether all that stands below a name are rules with longer ones, none of which may have a value."""
        below = self.policies.below(path)
        if not below or any(len(rule) <= len(path) for rule in below):
            return False
        definitions = [each for rule in below for each in self.policies.rules[rule]]
        if any(len(path) <= len(each.module.package) for each in definitions):
            return False
        sure = _Sure(self, False)
        return not any(e.gathers or "RefBrack" in e.ref or sure.defines(e.path) for e in definitions)

    def resolved(self, reference: Node) -> tuple[Any, ...]:
        """A reference's parts from ``input`` or ``data`` on; as they stand where it begins with neither."""
        (root, *parts), module = parts_of(reference), self.rule.module
        if not isinstance(root, str) or root in _variables(self.rule.args or ()):
            return (root, *parts)
        if root not in ("input", "data") and root in module.imports:
            return (*module.imports[root], *parts)
        if root not in ("input", "data") and module.has(root):
            return ("data", *module.package, root, *parts)
        return (root, *parts)

    def _unbound(self, expression: Any) -> set[str]:
        """The variables that nothing but this negation mentions."""
        module, inside = self.rule.module, Counter(_variables(expression))
        bound = {"input", "data", *module.imports, *self._quantified}
        return {
            name
            for name, times in inside.items()
            if name not in bound and not module.has(name) and (name == "_" or self._mentions[name] == times)
        }

    def _worded(self, node: Node) -> str:
        ((_, inner),) = node.items()
        return " ".join(self.rule.module.word(inner["span"]).split())[:60]


_LAYERS = (
    "is a mapping of collections, which has no value in the embedded engine while it is empty: "
    "name one of its keys, or make it by a comprehension"
)
_HOLLOW = (
    "is put together of rules that may all be undefined, and then has no value in the embedded engine: "
    'name one of its keys, or write the rules with brackets (name["key"] := value)'
)
_TWICE = (
    "is named twice, and the embedded engine does not compare what it stands for, as OPA does: "
    "use another name, and == in the body"
)
_SHADOWING = (
    "is also the name of a rule, a function or an import, which the embedded engine takes it for: "
    "use another name"
)
_UNION = (
    "is a comprehension to OPA, and a union to the embedded engine: "
    "put the union in parentheses, or name it in the body of the comprehension"
)
_KEYED = (
    "which may be undefined: the embedded engine then takes it for what an absent key has, and OPA does not: "
    "name it in the body first (value := {})"
)
_QUANTIFY = "bind it in the body first (some ... in ...), or negate a rule that does"
_NEGATION = (
    "which may be undefined: the embedded engine then takes it for true, and OPA does not: "
    "name it in the body first (value := {}), or give it a default with object.get"
)
_MEMBERSHIP = (
    "which may be undefined: the embedded engine then takes it for false, and OPA does not: "
    "name it in the body first (value := {})"
)


@dataclass(frozen=True, slots=True)
class _Sure:
    """What always has a value, seen from one rule."""

    seen: _Checked
    replaced: bool
    within: frozenset[Path] = frozenset()
    """The rules that are being looked at already."""

    def doubtful(self, node: Any) -> Node | None:
        """The first part of an expression that may be undefined; None where all has a value."""
        if isinstance(node, list):
            return next((found for item in node if (found := self.doubtful(item))), None)
        if not isinstance(node, dict):
            return None
        for kind, inner in node.items():
            if kind in _COMPREHENSIONS or kind == "span":
                continue
            if kind in _REFERENCES and isinstance(inner, dict):
                return None if self._reference({kind: inner}) else {kind: inner}
            if found := self._call(inner) if kind == "Call" else self.doubtful(inner):
                return found
        return None

    def _call(self, call: Node) -> Node | None:
        if found := self.doubtful(call["params"]):
            return found
        name = fixed(call["fcn"])
        path = self.seen.rule.module.resolved(name)
        if path in self.seen.policies.functions:
            return None if self._defined(self.seen.policies.functions[path], path) else {"Call": call}
        return {"Call": call} if ".".join(name) in _PARTIAL else None

    def _reference(self, reference: Node) -> bool:
        root, *parts = self.seen.resolved(reference)
        if root not in ("input", "data"):
            return isinstance(root, str) and not parts
        if self.replaced or not all(isinstance(part, str) for part in parts):
            return False
        return _holds(self.seen.known, tuple(parts)) if root == "input" else self._data(tuple(parts))

    def _data(self, path: Path) -> bool:
        policies = self.seen.policies
        if path in policies.rules:
            return self._defined(policies.rules[path], path)
        return not policies.below(path) and _holds(policies.data, path)

    def defines(self, path: Path) -> bool:
        """Whether a rule always has a value."""
        return self._defined(self.seen.policies.rules[path], path)

    def _defined(self, definitions: Sequence[Definition], path: Path) -> bool:
        """Whether a rule, or a function whatever it is given, always has a value."""
        if self.replaced or path in self.within:
            return False
        asked = (path, *self.seen.known)
        if asked not in self.seen.defined:
            self.seen.defined[asked] = any(self._always(definition, path) for definition in definitions)
        return self.seen.defined[asked]

    def _always(self, rule: Definition, path: Path) -> bool:
        if rule.gathers:
            return not _layered(rule)
        if not _takes_anything(rule.args or ()):
            return False
        there = replace(self.seen, rule=rule)
        sure = _Sure(there, self.replaced, self.within | {path})
        return any(
            not body["query"]["stmts"] and not sure.doubtful([rule.assign, body["assign"]])
            for body in rule.bodies
        )


def _in_parentheses(text: str) -> bool:
    """Whether a text is one pair of parentheses with all that is in it."""
    text, depth = _TEXT.sub("", text), 0
    for at, character in enumerate(text):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth == 0:
            return character == ")" and at == len(text) - 1
    return False


def _layered(rule: Definition) -> bool:
    """Whether it makes a mapping of collections: as long as it is empty, the engine has no value for it."""
    levels = len(list(parts_of(rule.ref))) + len(rule.module.package) - len(rule.path)
    return rule.gathers and levels + (rule.key is not None) > 1


def _takes_anything(args: Sequence[Node]) -> bool:
    """Whether a function's parameters are variables, each another."""
    names = [arg["Var"]["value"] for arg in args if "Var" in arg]
    others = [name for name in names if name != "_"]
    return len(names) == len(args) and len(set(others)) == len(others)


def _ahead(expression: Node) -> Iterator[Any]:
    """The parts of a negated expression that OPA works out ahead of the negation."""
    ((kind, inner),) = expression.items()
    if kind in _REFERENCES:
        yield from _indices(expression)
    elif (kind, inner.get("op")) in (("BoolExpr", "Eq"), ("AssignExpr", "Eq")):
        for side in (inner["lhs"], inner["rhs"]):
            yield from _ahead(side) if _REFERENCES & side.keys() else [side]
    elif kind == "Call":
        yield inner["params"]
    elif kind not in _COMPREHENSIONS:
        yield inner


def _indices(reference: Node) -> Iterator[Any]:
    """What a reference is worked out from: its brackets, and where it begins."""
    yield from (part for part in parts_of(reference) if not isinstance(part, str))


def _holds(value: Any, path: Path) -> bool:
    for part in path:
        if not isinstance(value, Mapping) or part not in value:
            return False
        value = value[part]
    return True


def _dicts(tree: Any) -> Iterator[Node]:
    """All objects of a syntax tree."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield node
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)


def _mentioned(node: Any) -> Iterator[str]:
    return (var["value"] for found in _dicts(node) if (var := found.get("Var")))


def _quantified(node: Any) -> Iterator[Mapping[str, int]]:
    """Where ``every`` and ``some`` name variables."""
    for found in _dicts(node):
        if every := found.get("Every"):
            yield from (span for span in (every["key"], every["value"]) if span)
        if some := found.get("SomeVars"):
            yield from some["vars"]


def _variables(node: Any) -> Iterator[str]:
    """The variables of an expression, without those of the comprehensions in it and the functions' names."""
    if isinstance(node, list):
        for item in node:
            yield from _variables(item)
    elif isinstance(node, dict):
        for kind, inner in node.items():
            if kind == "Var":
                yield inner["value"]
            elif kind == "Call":
                yield from _variables(inner["params"])
            elif kind not in _COMPREHENSIONS:
                yield from _variables(inner)
