"""Text that spells the value a parameter wants, turned into that value where the schema leaves no doubt."""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from jsonschema_rs import ValidationError, ValidationErrorKind

from proxy.model import MAX_SAFE_INTEGER, Fault, dumps, loads

MAX_COERCED = 32
"""How many parameters of one call may be coerced."""

Path = tuple[str | int, ...]
Change = tuple[Path, str, Any]
"""Where, to which type, and the new value."""

_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,15}", re.ASCII)
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,15})\.[0-9]{1,15}", re.ASCII)
_BOOLEANS = {"true": True, "false": False}

# On the way to a `type` keyword only these may lie: below any other, the type is not the last word.
# The number is how many further steps of the path belong to the keyword.
_PLAIN = {"properties": 1, "patternProperties": 1, "allOf": 1, "prefixItems": 1}
_PLAIN |= {"additionalProperties": 0, "items": 0, "$ref": 0}


def changes(errors: Iterable[ValidationError]) -> list[Change]:
    """The changes that would mend these errors; empty where any doubt is left."""
    found: dict[Path, tuple[str, Any]] = {}
    for error in errors:
        kind = error.kind
        if not isinstance(kind, ValidationErrorKind.Type):
            continue  # it may follow from a wrong type: whether it vanishes is seen afterwards
        types: list[str] = kind.types
        if len(types) != 1 or not _is_plain(error.evaluation_path) or len(found) == MAX_COERCED:
            return []
        change = types[0], read(error.instance, types[0])
        path = tuple(error.instance_path)
        if change[1] is None or found.get(path, change) != change:
            return []
        found[path] = change
    return [(path, name, value) for path, (name, value) in found.items()]


def _is_plain(path: list[str | int]) -> bool:
    at = 0
    while at < len(path) - 1:
        further = _PLAIN.get(str(path[at]))
        if further is None:
            return False
        at += 1 + further
        if path[at - 1] == "items" and isinstance(path[at], int):
            at += 1  # items as a list, in older drafts
    return path[-1:] == ["type"]


def read(value: Any, type: str) -> Any:
    """The value of ``type`` that a text spells exactly, or None."""
    if not isinstance(value, str):
        return None
    if type == "boolean":
        return _BOOLEANS.get(value)
    if type == "integer":
        return _integer(value)
    if type == "number":
        return _number(value)
    if type in ("object", "array"):
        return _container(value, dict if type == "object" else list)
    return None


def _integer(text: str) -> int | None:
    if not _INTEGER.fullmatch(text):
        return None
    value = int(text)
    return value if abs(value) <= MAX_SAFE_INTEGER else None


def _number(text: str) -> int | float | None:
    if not _NUMBER.fullmatch(text):
        return _integer(text)
    value = float(text)
    # What is forwarded has to be the number that was written, to its last digit.
    return value if Decimal(repr(value)) == Decimal(text) else None


def _container(text: str, kind: type[dict[str, Any]] | type[list[Any]]) -> Any:
    try:
        value = loads(text)
    except Fault:
        return None
    return value if isinstance(value, kind) else None


def applied(arguments: dict[str, Any], found: Iterable[Change]) -> dict[str, Any]:
    """A copy of the arguments with the changes made."""
    copy: dict[str, Any] = loads(dumps(arguments))
    for path, _, value in found:
        holder: Any = copy
        for part in path[:-1]:
            holder = holder[part]
        holder[path[-1]] = value
    return copy
