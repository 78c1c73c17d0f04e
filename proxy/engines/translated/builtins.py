"""Those of Rego's builtin functions that policies use most. What is not here, the embedded engine knows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from proxy.engines.translated.values import (
    BYTES_A_STEP,
    KINDS,
    UNDEFINED,
    Members,
    State,
    Unknown,
    exact,
    member_at,
    ordered,
    pairs,
    spend,
    spend_on,
)

Builtin = Callable[..., Any]


def _text(value: Any) -> str:
    if type(value) is not str:
        raise Unknown
    return value


def _texts(value: Any) -> list[str]:
    """Texts in the order that they are read in."""
    if type(value) is Members:
        value = ordered(value.values())
    if type(value) is not list or not all(type(item) is str for item in value):
        raise Unknown
    return value


def _ascii(value: Any) -> str:
    """Text whose letters have the same case everywhere."""
    if not _text(value).isascii():
        raise Unknown
    return str(value)


def _numbers(state: State, value: Any) -> list[int]:
    if type(value) is Members:
        value = list(value.values())
    if type(value) is not list:
        raise Unknown
    spend(state, len(value))
    return [exact(number) for number in value]


def _count(state: State, value: Any) -> int:
    if type(value) not in (list, dict, Members, str):
        raise Unknown
    spend_on(state, value)
    if type(value) is str and not value.isascii() and _in_units(value) != len(value):
        raise Unknown  # the engine counts in units, and OPA in characters
    return len(value)


def _in_units(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def _sum(state: State, value: Any) -> Any:
    return exact(sum(_numbers(state, value)))


def _max(state: State, value: Any) -> int:
    return max(_some(_numbers(state, value)))


def _min(state: State, value: Any) -> int:
    return min(_some(_numbers(state, value)))


def _some(numbers: list[int]) -> list[int]:
    if not numbers:
        raise Unknown  # undefined
    return numbers


def _abs(state: State, value: Any) -> Any:
    return abs(exact(value))


def _sort(state: State, value: Any) -> list[Any]:
    if type(value) is Members:
        value = list(value.values())
    if type(value) is not list:
        raise Unknown
    if len(value) > 1:
        spend(state, len(value))
        return ordered(value)
    return value


def _concat(state: State, between: Any, value: Any) -> str:
    spend_on(state, value)
    texts = _texts(value)
    # Before it is made: the same long text many times is longer than anything that is there.
    _spend_bytes(state, sum(map(len, texts)) + len(_text(between)) * len(texts))
    return str(between.join(texts))


def _spend_bytes(state: State, length: int) -> None:
    spend(state, length // BYTES_A_STEP)


def _contains(state: State, text: Any, part: Any) -> bool:
    spend_on(state, text)
    return _text(part) in _text(text)


def _startswith(state: State, text: Any, part: Any) -> bool:
    return _text(text).startswith(_text(part))


def _endswith(state: State, text: Any, part: Any) -> bool:
    return _text(text).endswith(_text(part))


def _lower(state: State, text: Any) -> str:
    spend_on(state, text)
    return _ascii(text).lower()


def _upper(state: State, text: Any) -> str:
    spend_on(state, text)
    return _ascii(text).upper()


def _split(state: State, text: Any, by: Any) -> list[str]:
    if not _text(by):
        raise Unknown
    spend_on(state, text)
    return _text(text).split(by)


def _replace(state: State, text: Any, old: Any, new: Any) -> str:
    if not _text(old):
        raise Unknown
    spend_on(state, text)
    _spend_bytes(state, _text(text).count(old) * len(_text(new)))
    return str(text.replace(old, new))


def _substring(state: State, text: Any, offset: Any, length: Any) -> str:
    if exact(offset) < 0:
        raise Unknown
    spend_on(state, text)
    return _text(text)[offset:] if exact(length) < 0 else _text(text)[offset : offset + length]


def _slice(state: State, value: Any, start: Any, stop: Any) -> list[Any]:
    if type(value) is not list or exact(start) < 0 or exact(stop) < start:
        raise Unknown
    part = value[start:stop]
    spend_on(state, part)
    return part


def _get(state: State, value: Any, key: Any, default: Any) -> Any:
    if type(value) is not dict:
        raise Unknown
    for part in key if type(key) is list else [key]:
        value = member_at(state, value, part)
        if value is UNDEFINED:
            return default
    return value


def _any_match(matches: Callable[[str, tuple[str, ...]], bool]) -> Builtin:
    def check(state: State, texts: Any, parts: Any) -> bool:
        spend_on(state, texts)
        spend_on(state, parts)
        whole = _texts([texts] if type(texts) is str else texts)
        known = tuple(_texts([parts] if type(parts) is str else parts))
        return any(matches(text, known) for text in whole)

    return check


def _sprintf(state: State, form: Any, given: Any) -> str:
    """``%s`` and ``%v`` of texts, ``%d`` and ``%v`` of whole numbers."""
    first, *pieces = _text(form).split("%")
    if type(given) is not list or len(pieces) != len(given):
        raise Unknown
    made = [first]
    for piece, value in zip(pieces, given, strict=True):
        if piece[:1] not in (("s", "v") if type(value) is str else ("d", "v")):
            raise Unknown
        made.append(value if type(value) is str else str(exact(value)))
        made.append(piece[1:])
    _spend_bytes(state, sum(map(len, made)))
    return "".join(made)


def _is(*kinds: type) -> Builtin:
    def check(state: State, value: Any) -> bool:
        found = type(value)
        if found in kinds:
            return True
        if found in KINDS:
            return False
        raise Unknown

    return check


def _keys(state: State, value: Any) -> Members:
    if type(value) is not dict:
        raise Unknown
    return Members((key, key) for key, _ in pairs(state, value))


def _joined_arrays(state: State, a: Any, b: Any) -> list[Any]:
    if type(a) is not list or type(b) is not list:
        raise Unknown
    spend_on(state, a)
    spend_on(state, b)
    return [*a, *b]


def _union(state: State, value: Any) -> Members:
    made: dict[Any, Any] = {}
    for member in _sets(value):
        spend_on(state, member)
        made.update(member)
    return Members(made)


def _sets(value: Any) -> Iterable[Members]:
    if type(value) is not Members or not all(type(member) is Members for member in value.values()):
        raise Unknown
    return value.values()


BUILTINS: Mapping[str, tuple[int, Builtin]] = {
    "abs": (1, _abs),
    "array.concat": (2, _joined_arrays),
    "array.slice": (3, _slice),
    "concat": (2, _concat),
    "contains": (2, _contains),
    "count": (1, _count),
    "endswith": (2, _endswith),
    "is_array": (1, _is(list)),
    "is_boolean": (1, _is(bool)),
    "is_null": (1, _is(type(None))),
    "is_number": (1, _is(int, float)),
    "is_object": (1, _is(dict)),
    "is_set": (1, _is(Members)),
    "is_string": (1, _is(str)),
    "lower": (1, _lower),
    "max": (1, _max),
    "min": (1, _min),
    "object.get": (3, _get),
    "object.keys": (1, _keys),
    "replace": (3, _replace),
    "sort": (1, _sort),
    "split": (2, _split),
    "sprintf": (2, _sprintf),
    "startswith": (2, _startswith),
    "strings.any_prefix_match": (2, _any_match(str.startswith)),
    "strings.any_suffix_match": (2, _any_match(str.endswith)),
    "substring": (3, _substring),
    "sum": (1, _sum),
    "union": (1, _union),
    "upper": (1, _upper),
}
"""By name: how many arguments it takes, and what it does."""
