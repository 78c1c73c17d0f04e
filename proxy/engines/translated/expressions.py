"""Expressions: the Python that works out a value, or goes to where the function fails."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from proxy.engines.rego.names import ModuleTree
from proxy.engines.rego.references import Path, fixed, parts_of, written
from proxy.engines.translated import statements
from proxy.engines.translated.builtins import BUILTINS
from proxy.engines.translated.frame import Frame, Node, Untranslatable

_MAX_PARTS = 200
# In place of a node of the tree: a value that has a name in Python already.
_WORKED_OUT = "Python"


def value(frame: Frame, node: Node) -> str:
    """A Python expression for the value; where it is undefined, what is written before it fails."""
    ((kind, inner),) = node.items()
    if kind in ("Var", "RefDot", "RefBrack"):
        return _reference(frame, node)
    if kind == _WORKED_OUT:
        return str(inner)
    write = _VALUES.get(kind)
    if write is None:
        raise Untranslatable(kind)
    return write(frame, inner)


def literal(module: ModuleTree, node: Node) -> str | None:
    """A scalar that is written out, as Python has it; None for anything else."""
    ((kind, inner),) = node.items()
    if kind == "Number":
        return _number(module.word(inner["span"]))
    if kind in ("String", "RawString", "Bool"):
        return repr(inner["value"])
    return "None" if kind == "Null" else None


_WHOLE = re.compile(r"0|-?[1-9]\d{0,17}", re.ASCII)


def _number(text: str) -> str:
    """A number as it is written: the syntax tree takes 1.0 for 1, and rounds what is large."""
    if _WHOLE.fullmatch(text):
        return text
    found = repr(float(text))
    if Decimal(found) != Decimal(text):
        raise Untranslatable("a number that Python rounds")
    return found


def condition(frame: Frame, node: Node) -> None:
    """Go on only where the expression is neither undefined nor false."""
    ((kind, inner),) = node.items()
    if kind == "BoolExpr":
        _compare(frame, inner)
    elif kind == "AssignExpr":
        statements.assign(frame, inner)
    else:
        found = value(frame, node)
        if kind != "Bool" and literal(frame.module, node) is None:
            frame.unless(f"{found} is False")
        elif found == "False":
            frame.line(frame.fail)


_DIFFERENT = {"Eq": "", "Ne": "not "}
# By operator, what its negation is in words of ``less``.
_ORDER = {
    "Lt": "not less({0}, {1})",
    "Ge": "less({0}, {1})",
    "Gt": "not less({1}, {0})",
    "Le": "less({1}, {0})",
}


def _operands(frame: Frame, *nodes: Node) -> list[str]:
    """The operands of a call or an operator. Below a ``not``, OPA works them out ahead of it."""
    with frame.ahead():
        return [value(frame, node) for node in nodes]


def negated(frame: Frame, node: Node) -> None:
    """``condition``, below a ``not``: only what is negated itself may be undefined, and no part of it."""
    (kind,) = node
    if kind == "AssignExpr":
        raise Untranslatable("an assignment that is negated")
    if kind in ("Var", "RefDot", "RefBrack", "Call", "BoolExpr", "Membership"):
        condition(frame, node)
    else:
        with frame.ahead():
            condition(frame, node)


def _compare(frame: Frame, node: Mapping[str, Any]) -> None:
    frame.unless(_differs(frame, node))


def _differs(frame: Frame, node: Mapping[str, Any]) -> str:
    """The Python condition under which a comparison does not hold."""
    operator = node["op"]
    left, right = _operands(frame, node["lhs"], node["rhs"])
    if operator in _ORDER:
        return _ORDER[operator].format(left, right)
    if operator not in _DIFFERENT:
        raise Untranslatable(operator)
    if any(_is_text(side) for side in (node["lhs"], node["rhs"])):
        # A text equals nothing but itself.
        return f"{left} {'!=' if operator == 'Eq' else '=='} {right}"
    return f"{'not ' if operator == 'Eq' else ''}equal(S, {left}, {right})"


def _is_text(node: Node) -> bool:
    return "String" in node or "RawString" in node


def _boolean(frame: Frame, node: Mapping[str, Any]) -> str:
    return frame.set(f"not ({_differs(frame, node)})")


def _constant(frame: Frame, inner: Mapping[str, Any]) -> str:
    return repr(inner["value"])


def _numeral(frame: Frame, inner: Mapping[str, Any]) -> str:
    return _number(frame.module.word(inner["span"]))


def _null(frame: Frame, inner: Mapping[str, Any]) -> str:
    return "None"


def _items(frame: Frame, nodes: Sequence[Node]) -> str:
    return ", ".join([value(frame, node) for node in nodes])


def _must_be_a_list(nodes: Sequence[Node]) -> None:
    """Raise where the engine takes for one item what OPA takes for a comprehension: ``[x | y | z]``."""
    if len(nodes) == 1 and nodes[0].get("BinExpr", {}).get("op") == "Union":
        raise Untranslatable("a union by itself in brackets")


def _array(frame: Frame, inner: Mapping[str, Any]) -> str:
    _must_be_a_list(inner["items"])
    return frame.set(f"[{_items(frame, inner['items'])}]")


def _set(frame: Frame, inner: Mapping[str, Any]) -> str:
    _must_be_a_list(inner["items"])
    if inner["items"] and all(map(_is_text, inner["items"])):
        texts = [literal(frame.module, item) for item in inner["items"]]
        return frame.program.constant(f"Members({{{', '.join(f'{text}: {text}' for text in texts)}}})")
    worked_out = any(literal(frame.module, item) is None for item in inner["items"])
    make = "written_set_of" if worked_out else "set_of"
    return frame.set(f"{make}(S, [{_items(frame, inner['items'])}])")


def _object(frame: Frame, inner: Mapping[str, Any]) -> str:
    fields = [(key, member) for _, key, member in inner["fields"]]
    _must_be_a_list([member for _, member in fields])
    if not all(_is_text(key) for key, _ in fields):
        raise Untranslatable("an object with keys that are worked out")
    names = [literal(frame.module, key) for key, _ in fields]
    if len(set(names)) < len(names):
        raise Untranslatable("a key that is there twice")
    members = [f"{name}: {value(frame, member)}" for name, (_, member) in zip(names, fields, strict=True)]
    return frame.set(f"{{{', '.join(members)}}}")


def _comprehension(start: str, take: Callable[[Frame, str, Mapping[str, Any]], None]) -> Callable[..., str]:
    def write(frame: Frame, inner: Mapping[str, Any]) -> str:
        gathered = frame.set(start)
        with frame.inside("for _ in ONCE:"):
            statements.query(frame, inner["query"]["stmts"])
            take(frame, gathered, inner)
        return gathered

    return write


def _take_item(frame: Frame, gathered: str, inner: Mapping[str, Any]) -> None:
    frame.line(f"{gathered}.append({value(frame, inner['term'])})")


def _take_member(frame: Frame, gathered: str, inner: Mapping[str, Any]) -> None:
    frame.line(f"add(S, {gathered}, {value(frame, inner['term'])})")


def _take_pair(frame: Frame, gathered: str, inner: Mapping[str, Any]) -> None:
    key = value(frame, inner["key"])
    frame.line(f"put(S, {gathered}, {key}, {value(frame, inner['value'])})")


_OPERATORS = {"Add": "plus", "Sub": "minus", "Mul": "times", "Union": "union", "Intersection": "intersection"}


def _operator(frame: Frame, inner: Mapping[str, Any]) -> str:
    if inner["op"] not in _OPERATORS:
        raise Untranslatable(inner["op"])
    left, right = _operands(frame, inner["lhs"], inner["rhs"])
    return frame.set(f"{_OPERATORS[inner['op']]}(S, {left}, {right})")


def _membership(frame: Frame, inner: Mapping[str, Any]) -> str:
    if inner["key"] is None:
        one, collection = _operands(frame, inner["value"], inner["collection"])
        return frame.set(f"within(S, {one}, {collection})")
    key, one, collection = _operands(frame, inner["key"], inner["value"], inner["collection"])
    return frame.set(f"within_at(S, {key}, {one}, {collection})")


def _call(frame: Frame, inner: Mapping[str, Any]) -> str:
    name = fixed(inner["fcn"])
    if function := frame.program.function(frame.module.resolved(name)):
        python, arity = function
        given = _given(frame, inner["params"], arity)
        return frame.defined(f"{python}(S{given})")
    arity, _ = BUILTINS.get(".".join(name), (-1, None))
    return frame.set(f"BUILTINS[{'.'.join(name)!r}][1](S{_given(frame, inner['params'], arity)})")


def _given(frame: Frame, params: Sequence[Node], arity: int) -> str:
    if len(params) != arity:
        raise Untranslatable("a call")
    return "".join(f", {operand}" for operand in _operands(frame, *params))


def _reference(frame: Frame, node: Node) -> str:
    root, *parts = parts_of(node)
    if len(parts) > _MAX_PARTS or not isinstance(root, str):
        raise Untranslatable("a reference")
    if frame.negated:
        parts = [_ahead(frame, part) for part in parts]
    if root in frame.names:
        return _into(frame, frame.names[root], parts)
    if root == "input":
        return _input(frame, parts)
    if root in frame.module.imports:
        first, *more = frame.module.imports[root]
        return (_input if first == "input" else _global)(frame, [*more, *parts])
    if root == "data":
        return _global(frame, parts)
    if frame.module.has(root):
        return _global(frame, [*frame.module.package, root, *parts])
    raise Untranslatable(f"{root} has no value yet")


def _ahead(frame: Frame, part: Any) -> Any:
    """A part of a negated reference, worked out before anything of it can be found to be undefined."""
    if isinstance(part, str):
        return part
    with frame.ahead():
        return {_WORKED_OUT: frame.set(value(frame, part))}


def _input(frame: Frame, parts: Sequence[Any]) -> str:
    ahead = parts[: min(2, written(parts))]
    found = frame.defined(frame.program.input(tuple(ahead))) if ahead else frame.set("S[0]")
    return _into(frame, found, parts[len(ahead) :])


def _global(frame: Frame, parts: Sequence[Any]) -> str:
    path: Path = tuple(parts[: written(parts)])
    reference = frame.program.reference(path)
    if reference is None:
        frame.never()
    found, taken, stored = reference
    return _into(frame, frame.defined(found), parts[taken:], stored)


def _into(frame: Frame, found: str, parts: Sequence[Any], stored: bool = False) -> str:
    for part in parts:
        found = _step(frame, found, part, stored)
    return found


def _step(frame: Frame, found: str, part: Any, stored: bool) -> str:
    look_up = "stored_at" if stored else "member_at"
    if isinstance(part, str):
        base = found if found.isidentifier() else frame.set(found)
        return frame.defined(
            f"{base}.get({part!r}, UNDEFINED) if type({base}) is dict else {look_up}(S, {base}, {part!r})"
        )
    ((kind, inner),) = part.items()
    if kind == "Var" and not frame.means(inner["value"]):
        return _looped(frame, found, inner["value"])
    return frame.defined(f"{look_up}(S, {found}, {value(frame, part)})")


def _looped(frame: Frame, found: str, name: str) -> str:
    """A name without a value in brackets stands for every place."""
    member = frame.fresh()
    if name == "_":
        frame.loop(f"for {member} in members(S, {found}):")
        return member
    key = frame.fresh()
    frame.loop(f"for {key}, {member} in pairs(S, {found}):")
    frame.names[name] = key
    return member


_VALUES: Mapping[str, Callable[[Frame, Any], str]] = {
    "String": _constant,
    "RawString": _constant,
    "Number": _numeral,
    "Bool": _constant,
    "Null": _null,
    "Array": _array,
    "Set": _set,
    "Object": _object,
    "ArrayCompr": _comprehension("[]", _take_item),
    "SetCompr": _comprehension("Members()", _take_member),
    "ObjectCompr": _comprehension("{}", _take_pair),
    "BoolExpr": _boolean,
    "ArithExpr": _operator,
    "BinExpr": _operator,
    "Membership": _membership,
    "Call": _call,
}
