"""References in parsed policies: ``data.roles[role].tools`` as its parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Path = tuple[str, ...]


def fixed(ref: Mapping[str, Any]) -> Path:
    """The beginning of a reference as far as it is written out: ``a.b[x].c`` is a, b."""
    parts = list(parts_of(ref))
    return tuple(parts[: written(parts)])


def written(parts: Sequence[Any]) -> int:
    """How many parts from the beginning on are written out."""
    return next((at for at, part in enumerate(parts) if not isinstance(part, str)), len(parts))


def parts_of(ref: Mapping[str, Any]) -> Iterator[Any]:
    """A reference from its root on: names as text, what is worked out as the nodes that do so."""
    ((kind, node),) = ref.items()
    if kind == "Var":
        yield node["value"]
    elif kind == "RefDot":
        yield from parts_of(node["refr"])
        yield node["field"][1]
    elif kind == "RefBrack":
        yield from parts_of(node["refr"])
        text = node["index"].get("String")
        yield text["value"] if text else node["index"]
    else:
        yield ref
