"""Whether policies could look a name up at all: what they do not mention, a decision cannot hang on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import orjson
import regorus

from proxy.engines.sources.policyset import PolicySet

# With these a policy gets at members whose names it does not know.
_WHOLE = frozenset({"walk", "json.filter", "json.remove", "object.filter", "graph.reachable"})
# These look at arguments as a whole, and see no more than what they are.
_GLANCES = frozenset({"is_object", "is_null", "is_array", "is_string", "type_name", "object.keys", "count"})
_ARGUMENTS = "arguments"


def mentions(policy_set: PolicySet) -> Callable[[str], bool]:
    """Says of a name whether policies or their data hold it, as a text, a key or a member.

    Where the policies go through all arguments, or all there is, they may look at any name.
    """
    engine = regorus.Engine()
    for module in policy_set.modules:
        engine.add_policy(module.path, module.text)
    trees = [tree["ast"]["rules"] for tree in orjson.loads(engine.get_ast_as_json())]
    if any(_goes_through_all(tree) for tree in trees):
        return lambda name: True
    names = frozenset((*_texts(trees), *_data_texts(orjson.loads(policy_set.data_json))))
    return names.__contains__


def _texts(node: Any) -> Iterator[str]:
    if isinstance(node, list):
        for item in node:
            yield from _texts(item)
    elif isinstance(node, dict):
        for kind, inner in node.items():
            if kind in ("String", "RawString") and isinstance(inner, dict):
                yield inner["value"]
            elif kind == "RefDot" and isinstance(inner, dict):
                yield inner["field"][1]
            yield from _texts(inner)


def _data_texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from value
        value = value.values()
    elif isinstance(value, str):
        yield value
    if not isinstance(value, str | int | float | None):
        for item in value:
            yield from _data_texts(item)


def _goes_through_all(node: Any) -> bool:
    if isinstance(node, list):
        return any(_goes_through_all(item) for item in node)
    if not isinstance(node, dict):
        return False
    return any(_is_all(kind, inner) for kind, inner in node.items())


def _is_all(kind: str, inner: Any) -> bool:
    if kind == "Call":
        name = ".".join(_name(inner["fcn"]))
        if name in _WHOLE:
            return True
        if name in _GLANCES:
            return any(_goes_through_all(_within(value)) for value in inner["params"])
        return _goes_through_all(inner["params"])
    if kind in ("RefDot", "RefBrack") and isinstance(inner, dict):
        ref = {kind: inner}
        return (_last(kind, inner) == _ARGUMENTS and _root(ref) != "data") or _goes_through_all(_within(ref))
    return _goes_through_all(inner)


def _root(ref: Any) -> Any:
    """The name that a reference begins with."""
    ((kind, node),) = ref.items()
    if kind in ("RefDot", "RefBrack"):
        return _root(node["refr"])
    return node.get("value") if kind == "Var" else None


def _last(kind: str, node: Any) -> Any:
    """The last name of a reference, where it is written out."""
    return node["field"][1] if kind == "RefDot" else node["index"].get("String", {}).get("value")


def _within(ref: Any) -> Any:
    """What a reference is worked out from: to go on from the arguments is not to go through all of them."""
    ((kind, node),) = ref.items()
    if kind not in ("RefDot", "RefBrack"):
        return ref
    below = _within(node["refr"])
    return [below, node["index"]] if kind == "RefBrack" else below


def _name(ref: Any) -> Iterator[str]:
    ((kind, node),) = ref.items()
    if kind == "Var":
        yield node["value"]
    elif kind == "RefDot":
        yield from _name(node["refr"])
        yield node["field"][1]
