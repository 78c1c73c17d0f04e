"""What a decision may cost at most, found in the parsed policies and their data before they serve.

An evaluation of the embedded engine cannot be interrupted. So only what is known to end soon is evaluated
on the event loop; the rest is asked aside, in a process that can be ended (see ``aside``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from proxy.engines.rego.names import Definition, ModuleTree, Policies
from proxy.engines.rego.references import Path, fixed, parts_of, written
from proxy.engines.rego.scale import Scale
from proxy.engines.rego.sizes import (
    NOTHING,
    SCALAR,
    Size,
    builtin,
    collected,
    combined,
    compared,
    found_in,
    joined,
    limited,
    measured,
    narrowed,
)

Known = dict[str, Size]

# How many parts of policies are looked at: functions are gone through anew for each of their calls.
_FUEL = 200_000
_MAX_DEPTH = 60


class Unproven(Exception):
    """The cost of a policy is not bounded, or not by anything that can be told; says where and why."""


class Costs:
    """The costs of one set of policies, for inputs of one scale."""

    def __init__(self, policies: Policies, scale: Scale) -> None:
        self._of, self.scale = policies, scale
        self._rules: dict[Path, Size | None] = {}
        self._fuel, self._depth = _FUEL, 0
        self.steps = 0.0
        """Everything that was asked for so far, each rule once: the engine keeps its values."""
        self.called = 0.0
        """What the functions cost that were gone through since this was taken."""
        self.dearest = (0.0, "")
        """The most that one body takes, and where it stands."""

    def ask(self, package: str) -> float:
        """The steps of ``data.<package>.decision``; raises ``Unproven``."""
        self.steps += self.scale.whole + self.scale.bytes / 100
        self.rule((*package.split("."), "decision"))
        return self.steps

    def rule(self, path: Path) -> Size:
        """The value of a rule, its cost counted once."""
        definitions = self._of.rules[path]
        if path in self._rules:
            if (known := self._rules[path]) is None:
                raise Unproven(f"{definitions[0].place}: {path[-1]} depends on itself")
            return known
        self._rules[path] = None
        values = [replace(self.defined(definition), chain=None) for definition in definitions]
        gathered = [value for value, each in zip(values, definitions, strict=True) if each.gathers]
        self._rules[path] = found = joined([*values, combined(gathered)] if len(gathered) > 1 else values)
        return found

    def defined(self, definition: Definition, given: Sequence[Size] = ()) -> Size:
        """The value of a rule, or of a function for its arguments, as it is written in one place."""
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise Unproven(f"{definition.place}: rules and functions lead too deep into one another")
        values = [_body(self, definition, body, given) for body in definition.bodies]
        self._depth -= 1
        return joined(values)

    def add(self, steps: float, place: str) -> None:
        """Count what one body costs."""
        self.steps += steps
        if steps > self.dearest[0]:
            self.dearest = (steps, place)

    def spend(self, place: str) -> None:
        self._fuel -= 1
        if self._fuel < 0:
            raise Unproven(f"{place}: the policies are too intricate for their cost to be found")


def _body(costs: Costs, definition: Definition, body: Mapping[str, Any], given: Sequence[Size]) -> Size:
    query = Query(costs, definition.module)
    for pattern, size in zip(definition.args or (), given, strict=False):
        query.bind(pattern, size)
    for statement in body["query"]["stmts"]:
        query.take(statement)
    if definition.key is not None:
        found = collected(query.turns, query.value(definition.key))
        query.steps += 2
    else:
        assign = body["assign"] or definition.assign
        found = query.value(assign["value"]) if assign else SCALAR
    for index in reversed(definition.indices):
        found = collected(query.turns, found, query.value(index), map_=True)
    # What a function costs is its caller's: it is asked as often as the caller turns.
    if definition.args is None:
        costs.add(query.total, definition.place)
    else:
        costs.called += query.total
    return found


@dataclass
class Query:
    """One body: what is known in it, and what all turns of its loops come to.

    The engine orders the statements itself. So every statement counts as if it stood in all loops.
    """

    costs: Costs
    module: ModuleTree
    known: Known = field(default_factory=dict)
    looped: dict[str, float] = field(default_factory=dict)
    steps: float = 0.0
    turns: float = 1.0

    @property
    def total(self) -> float:
        return self.steps * self.turns + self.turns

    def spend(self, steps: float) -> None:
        """Count what is done once in every turn; working out how much may itself count some."""
        self.steps += steps

    def within(self, query: Mapping[str, Any], known: Known | None = None) -> Query:
        """A query inside this one, its statements taken in; what it binds stays in it."""
        inner = Query(self.costs, self.module, {**self.known, **(known or {})}, dict(self.looped))
        for statement in query["stmts"]:
            inner.take(statement)
        return inner

    def take(self, statement: Mapping[str, Any]) -> None:
        """Take in one statement."""
        self.costs.spend(self.module.file)
        if statement.get("with_mods"):
            raise Unproven(f"{self.module.at(statement)}: 'with' asks rules again")
        ((kind, literal),) = statement["literal"].items()
        if kind == "SomeIn":
            self._some(literal["key"], literal["value"], self.value(literal["collection"]))
        elif kind == "Every":
            self._every(literal)
        elif kind == "NotExpr":
            inner = self.within({"stmts": []})
            inner.value(literal["expr"])
            self.steps += inner.total
        elif kind == "Expr":
            self._narrowed(literal["expr"])
            self.value(literal["expr"])
        elif kind != "SomeVars":
            raise Unproven(f"{self.module.at(statement)}: {kind} has no known cost")

    def _some(self, key: Any, value: Any, collection: Size) -> None:
        turns, member = collection.turned()
        self.turns *= max(1.0, turns)
        self.bind(value, member)
        if key is not None:
            self.bind(key, collection.name)

    def _every(self, literal: Mapping[str, Any]) -> None:
        domain = self.value(literal["domain"])
        turns, member = domain.turned()
        names = {self.module.word(literal["value"]): member}
        if literal["key"]:
            names[self.module.word(literal["key"])] = domain.name
        self.spend(max(1.0, turns) * self.within(literal["query"], names).total)

    def _narrowed(self, expr: Mapping[str, Any]) -> None:
        """What a condition says of a name holds for the statements after it."""
        if "Call" in expr and len(expr["Call"]["params"]) == 1:
            name, kind = _word(expr["Call"]["params"][0]), ".".join(fixed(expr["Call"]["fcn"]))
            if name in self.known and kind in ("is_array", "is_object", "is_string"):
                self.known[name] = narrowed(self.known[name], kind)
        elif "BoolExpr" in expr and expr["BoolExpr"]["op"] in ("Lt", "Le"):
            count, most = expr["BoolExpr"]["lhs"].get("Call"), _constant(expr["BoolExpr"]["rhs"])
            if count and fixed(count["fcn"]) == ("count",) and isinstance(most, float):
                name = _word(count["params"][0])
                if name in self.known:
                    self.known[name] = limited(self.known[name], most)

    def bind(self, pattern: Any, value: Size) -> None:
        """Give a pattern's names their value."""
        ((kind, node),) = pattern.items()
        if kind == "Var":
            if node["value"] != "_":
                self.known[node["value"]] = value
        elif kind == "Array":
            for item in node["items"]:
                self.bind(item, value.member)
        elif kind == "Object":
            for _, key, item in node["fields"]:
                self.value(key)
                self.bind(item, value.member)
        else:
            self.spend(compared(self.value(pattern), value))

    def value(self, node: Mapping[str, Any]) -> Size:
        """The size of an expression's value; its cost is added."""
        ((kind, inner),) = node.items()
        self.costs.spend(self.module.file)
        self.steps += 1
        if kind in ("Var", "RefDot", "RefBrack"):
            return self._reference(node)
        way = getattr(self, f"_{kind.lower()}", None)
        if way is None:
            raise Unproven(f"{self.module.at(inner)}: {kind} has no known cost")
        found: Size = way(inner)
        return found

    def _string(self, node: Mapping[str, Any]) -> Size:
        length = float(len(node["value"].encode())) + 2
        return Size(bytes=length, text=length)

    _rawstring = _string

    def _number(self, node: Mapping[str, Any]) -> Size:
        return SCALAR

    _bool = _null = _number

    def _array(self, node: Mapping[str, Any]) -> Size:
        return _literal([self.value(item) for item in node["items"]], maps=False)

    _set = _array

    def _object(self, node: Mapping[str, Any]) -> Size:
        keys = [self.value(key) for _, key, _ in node["fields"]]
        made = _literal([self.value(item) for _, _, item in node["fields"]], maps=True)
        return replace(made, bytes=made.bytes + sum(key.bytes for key in keys))

    def _arraycompr(self, node: Mapping[str, Any]) -> Size:
        inner = self.within(node["query"])
        term = inner.value(node["term"])
        self.steps += inner.total
        return collected(inner.turns, term)

    _setcompr = _arraycompr

    def _objectcompr(self, node: Mapping[str, Any]) -> Size:
        inner = self.within(node["query"])
        key, value = inner.value(node["key"]), inner.value(node["value"])
        self.steps += inner.total
        return collected(inner.turns, value, key, map_=True)

    def _boolexpr(self, node: Mapping[str, Any]) -> Size:
        self.spend(compared(self.value(node["lhs"]), self.value(node["rhs"])))
        return SCALAR

    def _arithexpr(self, node: Mapping[str, Any]) -> Size:
        made = combined((self.value(node["lhs"]), self.value(node["rhs"])))
        self.steps += made.members * 2 + made.bytes / 500
        return made

    _binexpr = _arithexpr

    def _unaryexpr(self, node: Mapping[str, Any]) -> Size:
        return self.value(node["expr"])

    def _membership(self, node: Mapping[str, Any]) -> Size:
        if node["key"] is not None:
            self.value(node["key"])
        value = self.value(node["value"])
        self.spend(found_in(value, self.value(node["collection"])))
        return SCALAR

    def _assignexpr(self, node: Mapping[str, Any]) -> Size:
        left, right = node["lhs"], node["rhs"]
        if node["op"] == "ColEq" or self._unknown(left):
            self.bind(left, self.value(right))
        elif self._unknown(right):
            self.bind(right, self.value(left))
        else:
            self.spend(compared(self.value(left), self.value(right)))
        return SCALAR

    def _unknown(self, node: Any) -> bool:
        """Whether a pattern holds a name that has no value yet."""
        ((kind, inner),) = node.items()
        if kind == "Array":
            return any(self._unknown(item) for item in inner["items"])
        if kind == "Object":
            return any(self._unknown(item) for _, _, item in inner["fields"])
        return kind == "Var" and not self._means(inner["value"])

    def _means(self, name: str) -> bool:
        module = self.module
        return name in self.known or name in ("input", "data") or name in module.imports or module.has(name)

    def _call(self, node: Mapping[str, Any]) -> Size:
        name = fixed(node["fcn"])
        path = self.module.resolved(name)
        if definitions := self.module.policies.functions.get(path):
            given = [self.value(param) for param in node["params"]]
            outer, self.costs.called = self.costs.called, 0.0
            found = joined([self.costs.defined(definition, given) for definition in definitions])
            self.steps += 5 + self.costs.called
            self.costs.called = outer
            return found
        return self._builtin(".".join(name), node)

    def _builtin(self, name: str, node: Mapping[str, Any]) -> Size:
        params = node["params"]
        out = [param for param in params if self._unknown(param)]
        given = [self.value(param) for param in params if param not in out]
        if name == "walk" and given:
            # A turn for every node, each with the path to it.
            self.steps += 20
            self.turns *= max(1.0, given[0].bytes / 2)
            made = replace(given[0], element=None, chain=None)
        else:
            costs = builtin(name, given, [_constant(param) for param in params])
            if costs is None:
                raise Unproven(f"{self.module.at(node)}: nothing bounds what {name} costs")
            steps, made = costs
            self.steps += steps
        for pattern in out:
            self.bind(pattern, made)
        return made

    def _reference(self, node: Mapping[str, Any]) -> Size:
        root, *parts = parts_of(node)
        if not isinstance(root, str):
            value = self.value(root)
        elif root in self.known:
            value = self.known[root]
        else:
            return self._global(root, parts)
        return self._into(value, parts)

    def _into(self, value: Size, parts: Sequence[Any]) -> Size:
        for part in parts:
            self.steps += 1
            value = self._step(value, part)
        return value

    def _step(self, value: Size, part: Any) -> Size:
        if isinstance(part, str):
            return (
                value.member
                if value.at is None
                else replace(self._given((*value.at, part)), chain=value.chain)
            )
        ((kind, inner),) = part.items()
        name = inner["value"] if kind == "Var" else None
        if name is not None and name in self.looped:
            # Either of the two places may be the one that loops.
            self.turns *= max(1.0, value.members / max(1.0, self.looped[name]))
            self.looped[name] = max(self.looped[name], value.members)
            return value.member
        if not self._unknown(part):
            self.value(part)
            return value.member
        turns, member = value.turned()
        self.turns *= max(1.0, turns)
        self.bind(part, value.name)
        if name is not None and name != "_":
            self.looped[name] = value.members
        return member

    def _given(self, path: Sequence[str]) -> Size:
        return replace(self.costs.scale.part(path), at=tuple(path))

    def _global(self, name: str, parts: Sequence[Any]) -> Size:
        module = self.module
        if name in module.imports:
            root, *before = module.imports[name]
        elif name in ("input", "data"):
            root, before = name, []
        elif module.has(name):
            root, before = "data", [*module.package, name]
        elif module.mentions(name) > 1:
            raise Unproven(f"{module.file}: {name} is used before it has a value")
        else:
            return NOTHING  # it will never have one, which the engine says when it is asked
        path = [*before, *parts]
        if root == "input":
            end = written(path)
            return self._into(self._given(path[:end]), path[end:])
        return self._data(path)

    def _data(self, path: Sequence[Any]) -> Size:
        policies, end = self.module.policies, written(path)
        self._entered(tuple(path[:end]))
        found = []
        for rule in policies.below(tuple(path[:end])):
            value = self.costs.rule(rule)
            if len(rule) > end:  # a package, or a part of one: a mapping of its rules
                value = collected(float(len(policies.rules)), value, map_=True)
                value = joined((value, value.member))
            found.append(self._into(value, path[min(len(rule), end) :]))
        found.append(self._dived(path))
        return joined(found)

    def _entered(self, path: Path) -> None:
        """The engine works out every rule of another package as soon as it reads one of them."""
        policies = self.module.policies
        packages = {each.module.package for rule in policies.below(path) for each in policies.rules[rule]}
        for rule, (first, *_) in policies.rules.items():
            if first.module.package in packages - {self.module.package}:
                self.costs.rule(rule)

    def _dived(self, path: Sequence[Any]) -> Size:
        """What the data have at a place, or at any of the places that it may be."""
        places, at = [self.module.policies.data], 0
        while at < len(path) and isinstance(path[at], str):
            places = [place[path[at]] for place in places if isinstance(place, dict) and path[at] in place]
            at += 1
        key = tuple(path[:at])
        shapes = self.module.policies.shapes
        if key not in shapes:
            shapes[key] = measured(places)
        return self._into(shapes[key], path[at:])


def _literal(items: Sequence[Size], *, maps: bool) -> Size:
    count, each = (
        float(len(items)),
        replace(joined(items) if items else NOTHING, chain=None, given=False, at=None),
    )
    total = sum(item.bytes for item in items) + 2 * count + 2
    return Size(
        0.0 if maps else count, count if maps else 0.0, total, 0.0, None if maps else 0.0, element=each
    )


def _word(node: Mapping[str, Any]) -> str:
    return str(node["Var"]["value"]) if "Var" in node else ""


def _constant(node: Mapping[str, Any]) -> str | float | None:
    for kind in ("String", "RawString", "Number"):
        if kind in node:
            value = node[kind]["value"]
            return value if isinstance(value, str) and kind != "Number" else float(value)
    return None
