"""Rego's values in Python, and what translated policies do with them.

Objects are dicts with text as keys, arrays are lists, sets are ``Members``. Whatever is anything else, or
would need a rule that is not written here, raises ``Unknown``: then the embedded engine decides.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any, Final


class Unknown(Exception):
    """The translation cannot tell; says nothing of what the decision is."""


class _Undefined:
    def __repr__(self) -> str:
        return "undefined"


UNDEFINED: Final = _Undefined()
"""What has no value. Not false, not null."""

FUEL = 20_000
"""How many steps one decision may take: members gone through, functions called. A few milliseconds."""

# What is read or written by C code counts by the piece.
BYTES_A_STEP, _MEMBERS_A_STEP = 256, 16
_LONG_BYTES = 4096

# What a key in a set is made of: a word, and the value; of a collection also its parts, counted.
_COLLECTION, _MAX_PARTS = 3, 64

State = list[Any]
"""The input, the steps that are left, then the value of each rule that was worked out."""


class Members(dict[Hashable, Any]):
    """A set: each member under a key that is equal for equal values only."""

    __slots__ = ("as_written",)
    as_written: bool
    """Whether OPA goes through its members in the order in which they are written, and twice where they
    are the same."""


COLLECTIONS = frozenset({list, dict, Members})
KINDS = COLLECTIONS | {str, int, float, bool, type(None)}


def spend(state: State, steps: int) -> None:
    """Take steps; raises ``Unknown`` when there are none left."""
    state[1] -= steps
    if state[1] < 0:
        raise Unknown


def spend_on(state: State, value: Any) -> None:
    """Take the steps of one look at all of a text or a collection."""
    kind = type(value)
    if kind is str:
        steps = len(value) // BYTES_A_STEP
    elif kind in COLLECTIONS:
        steps = len(value) // _MEMBERS_A_STEP
    else:
        return
    if steps:
        spend(state, steps)


def key_of(state: State, value: Any) -> Hashable:
    """A member's key in a set. Python's own equality would take 1 for true."""
    kind = type(value)
    if kind is str:
        return value  # type: ignore[no-any-return]
    if kind is int:
        return ("number", value)
    if kind is float:
        if value.is_integer():
            raise Unknown  # as a text or a place, 1.0 is not 1, and a set keeps one of them
        return ("number", value)
    if kind is bool or value is None:
        return (kind, value)
    if kind is list:
        spend(state, len(value))
        keys = [key_of(state, member) for member in value]
        return ("array", _weighed(keys), tuple(keys))
    if kind is dict:
        spend(state, len(value))
        named = {key: key_of(state, member) for key, member in value.items()}
        return ("object", _weighed(named.values()), frozenset(named.items()))
    if kind is Members:
        spend(state, len(value))
        return ("set", _weighed(value), frozenset(value))
    raise Unknown


def _weighed(keys: Iterable[Hashable]) -> int:
    """How many parts a key has. Whatever is done with a set goes through all of them, uncounted."""
    weight = 1 + sum([key[1] if type(key) is tuple and len(key) == _COLLECTION else 1 for key in keys])
    if weight > _MAX_PARTS:
        raise Unknown
    return weight


def equal(state: State, a: Any, b: Any) -> bool:
    """Whether two values are the same, as Rego has it: 1 is 1.0, and true is not 1."""
    kind = type(a)
    if kind is str:
        return type(b) is str and a == b
    if kind is int or kind is float:
        return (type(b) is kind or _are_numbers(a, b)) and a == b
    if kind is bool or a is None:
        return a is b
    if kind not in COLLECTIONS:
        raise Unknown
    if type(b) is not kind or len(a) != len(b):
        return False
    spend(state, len(a))
    if kind is list:
        return all(equal(state, one, other) for one, other in zip(a, b, strict=True))
    if a.keys() != b.keys():
        return False
    return kind is Members or all(equal(state, member, b[key]) for key, member in a.items())


def _are_numbers(a: Any, b: Any) -> bool:
    """Whether a fraction is compared with a whole number; not where Python rounds what OPA does not."""
    whole, fraction = (b, a) if type(a) is float else (a, b)
    if type(whole) is not int or type(fraction) is not float:
        return False
    if not -_EXACT < fraction < _EXACT:
        raise Unknown
    return True


def less(a: Any, b: Any) -> bool:
    """Whether ``a`` comes before ``b``; only among numbers, or among texts."""
    first, second = type(a), type(b)
    if first is str and second is str:
        return a < b  # type: ignore[no-any-return]
    if (first is second and (first is int or first is float)) or _are_numbers(a, b):
        return a < b  # type: ignore[no-any-return]
    raise Unknown


def member_at(state: State, value: Any, key: Any) -> Any:
    """``value[key]``; undefined where there is no such member."""
    kind = type(value)
    if kind is dict:
        return value.get(key, UNDEFINED) if type(key) is str else UNDEFINED
    if kind is list:
        if type(key) is int:
            return value[key] if 0 <= key < len(value) else UNDEFINED
        if type(key) is float:
            raise Unknown  # 1.0 may be a place
        return UNDEFINED
    if kind is Members:
        return value.get(key_of(state, key), UNDEFINED)
    if kind is str or kind is int or kind is float or kind is bool or value is None:
        return UNDEFINED
    raise Unknown


def stored_at(state: State, value: Any, key: Any) -> Any:
    """``member_at`` in a reference into the data, where 1 finds the key "1", and "1" a place."""
    if type(key) is str:
        if type(value) is dict:
            return value.get(key, UNDEFINED)
        if type(value) is list:
            raise Unknown
    elif type(value) is dict and type(key) in (int, float):
        raise Unknown
    return member_at(state, value, key)


def below(state: State, value: Any, key: str) -> Any:
    """``value[key]``, of what may be undefined."""
    return UNDEFINED if value is UNDEFINED else member_at(state, value, key)


def pairs(state: State, value: Any) -> Iterable[tuple[Any, Any]]:
    """Every key or place with its member, in the order in which Rego goes through them."""
    kind = type(value)
    if kind not in COLLECTIONS:
        raise Unknown
    state[1] -= len(value)
    if state[1] < 0:
        raise Unknown
    if kind is list:
        return enumerate(value)
    if kind is dict:
        return value.items() if len(value) < 2 else sorted(value.items(), key=_first)
    if getattr(value, "as_written", False):
        raise Unknown
    return [(member, member) for member in ordered(value.values())]


def _first(pair: tuple[str, Any]) -> str:
    return pair[0]


def members(state: State, value: Any) -> Iterable[Any]:
    """Every member, in the order in which Rego goes through them."""
    if type(value) is list:
        state[1] -= len(value)
        if state[1] < 0:
            raise Unknown
        return value
    return [member for _, member in pairs(state, value)]


def ordered(values: Iterable[Any]) -> list[Any]:
    """Values sorted as Rego sorts them; only numbers among themselves, or texts."""
    found = list(values)
    kinds = set(map(type, found))
    if kinds <= {str} or kinds <= {int} or kinds <= {float}:
        return sorted(found)
    raise Unknown


def within(state: State, value: Any, collection: Any) -> bool:
    """``value in collection``."""
    kind = type(collection)
    if kind is Members:
        return key_of(state, value) in collection
    if kind is list or kind is dict:
        spend_on(state, collection)
        values = collection if kind is list else collection.values()
        if type(value) is str:
            if len(value) > _LONG_BYTES:
                spend(state, len(collection) * (len(value) // _LONG_BYTES))
            return value in values  # a text equals nothing but itself
        spend(state, len(collection))
        return any(equal(state, value, member) for member in values)
    raise Unknown


def within_at(state: State, key: Any, value: Any, collection: Any) -> bool:
    """``key, value in collection``."""
    found = member_at(state, collection, key)
    return found is not UNDEFINED and equal(state, found, value)


def must_be_collection(value: Any) -> None:
    """Raise ``Unknown`` for what has no members."""
    if type(value) not in COLLECTIONS:
        raise Unknown


def must_be_value(value: Any) -> None:
    """Raise ``Unknown`` for what is none of Rego's values."""
    if type(value) not in KINDS:
        raise Unknown


def add(state: State, gathered: Members, value: Any) -> None:
    """Put a value into a set that is being gathered."""
    gathered[key_of(state, value)] = value


def put(state: State, gathered: dict[str, Any], key: Any, value: Any) -> None:
    """Put a member into an object that is being gathered; two values for a key are the engine's to tell."""
    if type(key) is not str:
        raise Unknown
    if key in gathered:
        _must_be_the_same(state, gathered[key], value)
    gathered[key] = value


def _must_be_the_same(state: State, a: Any, b: Any) -> None:
    """Raise ``Unknown`` where two values differ, be it as 1 and 1.0 do: in which of them stays."""
    kind = type(a)
    if kind is not type(b) or not equal(state, a, b):
        raise Unknown
    if kind is list:
        for one, other in zip(a, b, strict=True):
            _must_be_the_same(state, one, other)
    elif kind is dict:
        for key, member in a.items():
            _must_be_the_same(state, member, b[key])


def set_of(state: State, values: Sequence[Any]) -> Members:
    """A set of these values."""
    return Members([(key_of(state, value), value) for value in values])


def written_set_of(state: State, values: Sequence[Any]) -> Members:
    """``set_of``, where some of the values are worked out."""
    made = set_of(state, values)
    made.as_written = len(values) > 1
    return made


def agreed(state: State, found: Any, value: Any) -> Any:
    """The value of a rule that is worked out more than once; where they differ, the engine tells."""
    if found is UNDEFINED or value is UNDEFINED:
        return value if found is UNDEFINED else found
    _must_be_the_same(state, found, value)
    return found


def union(state: State, a: Any, b: Any) -> Members:
    """``a | b``."""
    _both_sets(state, a, b)
    return Members({**a, **b})


def intersection(state: State, a: Any, b: Any) -> Members:
    """``a & b``."""
    _both_sets(state, a, b)
    return Members([(key, member) for key, member in a.items() if key in b])


def _both_sets(state: State, a: Any, b: Any) -> None:
    if type(a) is not Members or type(b) is not Members:
        raise Unknown
    spend(state, len(a) + len(b))


_EXACT = 1 << 53


def exact(number: Any) -> Any:
    """A whole number that every engine holds alike."""
    if type(number) is not int or not -_EXACT < number < _EXACT:
        raise Unknown
    return number


def plus(state: State, a: Any, b: Any) -> Any:
    """``a + b``, of whole numbers."""
    return exact(exact(a) + exact(b))


def minus(state: State, a: Any, b: Any) -> Any:
    """``a - b``, of whole numbers or of sets."""
    if type(a) is not Members and type(b) is not Members:
        return exact(exact(a) - exact(b))
    _both_sets(state, a, b)
    return Members([(key, member) for key, member in a.items() if key not in b])


def times(state: State, a: Any, b: Any) -> Any:
    """``a * b``, of whole numbers."""
    return exact(exact(a) * exact(b))


def plain(state: State, value: Any) -> Any:
    """A value as JSON has it, and nobody else's: sets are sorted arrays."""
    kind = type(value)
    if kind is str:
        if not value.isascii():
            must_be_text(value)
        return value
    if kind is int or kind is float or kind is bool or value is None:
        return value
    if kind not in COLLECTIONS:
        raise Unknown
    # What is put together of the same part many times costs what it comes to.
    spend(state, len(value))
    if kind is dict:
        return {plain(state, key): plain(state, member) for key, member in value.items()}
    return [plain(state, member) for member in (value if kind is list else ordered(value.values()))]


def must_be_text(value: str) -> None:
    """Raise ``Unknown`` for half a character: it cannot be written anywhere."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Unknown from None


def at(data: Any, path: Sequence[str]) -> Any:
    """The data below a path; undefined where there are none."""
    for part in path:
        data = data.get(part, UNDEFINED) if type(data) is dict else UNDEFINED
    return data
