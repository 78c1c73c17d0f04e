"""Statements: conditions, loops and assignments, each where what it needs has a value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from proxy.engines.translated import expressions
from proxy.engines.translated.frame import Frame, Never, Node, Untranslatable


def query(frame: Frame, statements: Sequence[Node]) -> None:
    """Write a body's statements so that what comes after them stands where all of them hold."""
    ordered = _in_order(frame, statements)
    while True:
        # There may be no next one: that, too, is left to the engine where it is come to.
        with frame.attempt():
            statement = next(ordered, None)
            if statement is None:
                return
            _take(frame, statement)


def _in_order(frame: Frame, statements: Sequence[Node]) -> Iterator[Node]:
    """The statements, each after those that give its names their values: Rego lets them stand anyhow."""
    waiting = list(statements)
    if _early(waiting):
        raise Untranslatable("a name that is mentioned before it is declared")
    given = {id(each): _gives(frame, each) for each in waiting}
    for name in {name for each in waiting for name in _declared(each)}:
        frame.names.pop(name, None)  # another of the same name, from outside
    sure = {name for each in waiting for name in given[id(each)][0]}
    every = sure | {name for each in waiting for name in given[id(each)][1]}
    while waiting:
        for each in waiting:
            own, loops = given[id(each)]
            needs = (_named(each) & every) - own - (loops - sure)
            if needs <= frame.names.keys():
                break
        else:
            raise Untranslatable("names that wait for one another")
        waiting.remove(each)
        yield each


def _gives(frame: Frame, statement: Node) -> tuple[set[str], set[str]]:
    """The names that a statement gives a value, and those that it does so by going through places."""
    if statement.get("with_mods"):
        return set(), set()
    ((kind, literal),) = statement["literal"].items()
    if kind == "SomeIn":
        return set(_names(literal["key"])) | set(_names(literal["value"])), set()
    if kind != "Expr":
        return set(), set()
    own: set[str] = set()
    expr = literal["expr"]
    if "AssignExpr" in expr:
        left, right = expr["AssignExpr"]["lhs"], expr["AssignExpr"]["rhs"]
        own = set(_names(left))
        if expr["AssignExpr"]["op"] != "ColEq":
            own |= set(_names(right))
            own = {name for name in own if not frame.means(name)}
    return own, {name for name in _places(expr) if not frame.means(name)}


def _declared(statement: Node) -> set[str]:
    """The names that a statement makes its own."""
    ((kind, literal),) = statement["literal"].items()
    if kind == "SomeIn":
        return set(_names(literal["key"])) | set(_names(literal["value"]))
    if kind == "Expr" and literal["expr"].get("AssignExpr", {}).get("op") == "ColEq":
        return set(_names(literal["expr"]["AssignExpr"]["lhs"]))
    return set()


def _early(statements: Sequence[Node]) -> set[str]:
    """Names that stand ahead of the statement which makes them the body's own: there they mean others."""
    before, early = set[str](), set[str]()
    for statement in statements:
        ((_, literal),) = statement["literal"].items()
        expr = literal.get("expr", {}).get("AssignExpr", {})
        given = _named([literal.get("collection"), expr.get("rhs")])
        early |= _declared(statement) & (before | given)
        before |= _named(statement)
    return early


def _names(pattern: Any) -> Iterator[str]:
    """The names in a pattern."""
    if pattern is None:
        return
    ((kind, inner),) = pattern.items()
    if kind == "Var" and inner["value"] != "_":
        yield inner["value"]
    elif kind == "Array":
        for item in inner["items"]:
            yield from _names(item)


def _places(node: Any) -> Iterator[str]:
    """Names that stand in brackets, but for those inside comprehensions."""
    if isinstance(node, list):
        for item in node:
            yield from _places(item)
    elif isinstance(node, dict):
        for kind, inner in node.items():
            if kind == "RefBrack" and "Var" in inner["index"] and inner["index"]["Var"]["value"] != "_":
                yield inner["index"]["Var"]["value"]
            if kind not in ("ArrayCompr", "SetCompr", "ObjectCompr"):
                yield from _places(inner)


def _named(node: Any) -> set[str]:
    """Every name in a part of the tree, but for those that a comprehension in it makes its own."""
    if isinstance(node, list):
        return set().union(*map(_named, node)) if node else set()
    if not isinstance(node, dict):
        return set()
    found: set[str] = set()
    for kind, inner in node.items():
        if kind == "Var" and isinstance(inner, dict):
            found.add(inner["value"])
        named = _named(inner)
        if kind in ("ArrayCompr", "SetCompr", "ObjectCompr"):
            statements = inner["query"]["stmts"]
            own = {name for each in statements for name in _declared(each)}
            named -= own - _early(statements)
        found |= named
    return found


def _take(frame: Frame, statement: Node) -> None:
    if statement.get("with_mods"):
        raise Untranslatable("with")
    ((kind, literal),) = statement["literal"].items()
    if kind == "Expr":
        expressions.condition(frame, literal["expr"])
    elif kind == "NotExpr":
        _not(frame, literal["expr"])
    elif kind == "SomeIn":
        _some_in(frame, literal)
    elif kind == "Every":
        _every(frame, literal)
    elif kind == "SomeVars":
        _declare(frame, literal["vars"])
    else:
        raise Untranslatable(kind)


def _declare(frame: Frame, spans: Sequence[Mapping[str, int]]) -> None:
    for span in spans:
        name = frame.module.word(span)
        if frame.means(name):
            raise Untranslatable("a name for two things")


def _not(frame: Frame, expr: Node) -> None:
    length, holds = len(frame.lines), False
    fails = frame.set("True")
    with frame.inside("for _ in ONCE:"):
        frame.negated = True
        try:
            expressions.negated(frame, expr)
        except Never:
            holds = True
        frame.line(f"{fails} = False")
        frame.line("break")
    if holds:
        del frame.lines[length:]
    else:
        frame.unless(f"not {fails}")


def must_be_once(patterns: Iterable[Any]) -> None:
    """Raise where new names stand for two parts, which have to be alike then."""
    names = [name for pattern in patterns for name in _names(pattern)]
    if len(set(names)) < len(names):
        raise Untranslatable("a name for two parts")


def _some_in(frame: Frame, literal: Mapping[str, Any]) -> None:
    must_be_once([literal["key"], literal["value"]])
    collection = expressions.value(frame, literal["collection"])
    member = frame.fresh()
    if literal["key"] is None:
        frame.loop(f"for {member} in members(S, {collection}):")
    else:
        key = frame.fresh()
        frame.loop(f"for {key}, {member} in pairs(S, {collection}):")
        match(frame, literal["key"], key, new=True)
    match(frame, literal["value"], member, new=True)


def _every(frame: Frame, literal: Mapping[str, Any]) -> None:
    domain = expressions.value(frame, literal["domain"])
    holds, found, key, member = (frame.fresh() for _ in range(4))
    frame.line(f"{holds} = True")
    frame.line(f"must_be_collection({domain})")
    with frame.inside(f"for {key}, {member} in pairs(S, {domain}):"):
        if literal["key"]:
            _name(frame, frame.module.word(literal["key"]), key)
        _name(frame, frame.module.word(literal["value"]), member)
        frame.line(f"{found} = False")
        with frame.inside("for _ in ONCE:"):
            query(frame, literal["query"]["stmts"])
            frame.line(f"{found} = True")
            frame.line("break")
        frame.line(f"if {found}: continue")
        frame.line(f"{holds} = False")
        frame.line("break")
    frame.unless(f"not {holds}")


def _name(frame: Frame, name: str, python: str) -> None:
    if name != "_":
        frame.name(name, python)


def assign(frame: Frame, node: Mapping[str, Any]) -> None:
    """``:=`` and ``=``: give names their values, or compare what has one."""
    left, right = node["lhs"], node["rhs"]
    new = node["op"] == "ColEq"
    if new:
        must_be_once([left])
    if new or _open(frame, left):
        found = expressions.value(frame, right)
        return match(frame, left, found, new)
    if _open(frame, right):
        return match(frame, right, expressions.value(frame, left), new)
    one, other = expressions.value(frame, left), expressions.value(frame, right)
    frame.unless(f"not equal(S, {one}, {other})")


def _open(frame: Frame, pattern: Any) -> bool:
    """Whether a pattern holds a name without a value, or says nothing of a part."""
    ((kind, inner),) = pattern.items()
    if kind == "Array":
        return any(_open(frame, item) for item in inner["items"])
    return kind == "Var" and (inner["value"] == "_" or not frame.means(inner["value"]))


def match(frame: Frame, pattern: Any, found: str, new: bool) -> None:
    """Give a pattern's names the values that they stand for; go on only where the rest is alike."""
    ((kind, inner),) = pattern.items()
    if kind == "Var":
        name = inner["value"]
        if name == "_":
            return
        if new or not frame.means(name):
            if not found.isidentifier():
                found = frame.set(found)
            frame.name(name, found)
            return
    if kind == "Array":
        base = frame.set(found)
        frame.line(f"must_be_value({base})")
        frame.unless(f"type({base}) is not list or len({base}) != {len(inner['items'])}")
        for at, item in enumerate(inner["items"]):
            match(frame, item, frame.set(f"{base}[{at}]"), new)
        return
    if kind == "Object":
        raise Untranslatable("an object as a pattern")
    frame.unless(f"not equal(S, {found}, {expressions.value(frame, pattern)})")
