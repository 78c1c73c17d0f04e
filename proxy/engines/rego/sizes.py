"""How large a value may get and what a builtin may cost, as upper bounds: the arithmetic behind regocost."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from proxy.model import dumps

# A step is about 0.2 µs. In one step a text is scanned or copied so far, or built by character so far.
_SCANNED_PER_STEP = 500
_BUILT_PER_STEP = 50
_PIECES_PER_STEP = 3
_CALL = 4


@dataclass(slots=True)
class Chain:
    """One turn of a loop over a part of the input.

    All turns together see no more than the whole part. So one use whose cost is linear in the turn's
    member costs the whole loop no more than the part is large: its size counts once, not once a turn.
    """

    turns: float
    scanned: bool = False
    descended: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Size:
    """The most that a value may be; never too little."""

    lists: float = 0.0
    """Its members, where it is an array or a set."""
    maps: float = 0.0
    """Its members, where it is an object."""
    bytes: float = 32.0
    """All of it, written as JSON."""
    text: float | None = None
    """Its bytes, where it is itself a text; None: up to all of them."""
    key: float | None = None
    """The bytes of each of its keys, where it is an object; None: up to all of them."""
    element: Size | None = None
    """Each of its members; without one, they may be as large as it is itself."""
    given: bool = False
    """A part of the input as it came, nothing that was made of it."""
    at: tuple[str, ...] | None = None
    """Where in the input it lies, where it is a certain part of it."""
    chain: Chain | None = None

    @property
    def members(self) -> float:
        return max(self.lists, self.maps)

    @property
    def member(self) -> Size:
        """Whatever lies directly in it."""
        return self.element if self.element is not None else replace(self, at=None)

    @property
    def name(self) -> Size:
        """What its members go by: keys, places in an array, or, of a set, the members themselves."""
        member, length = self.member, self.bytes if self.key is None else self.key
        if not self.lists:
            return Size(bytes=length)
        return Size(member.lists, member.maps, max(member.bytes, length))

    def turned(self) -> tuple[float, Size]:
        """How often a loop over it turns, and a member in each turn."""
        if not self.given:
            return self.members, replace(self.member, chain=None)
        turns = self.members
        if self.chain is not None and not (self.chain.descended or self.chain.scanned):
            self.chain.descended = True
            turns = 1.0
        return turns, replace(self, at=None, chain=Chain(self.members))

    def read(self) -> float:
        """The bytes of one look at it as a text."""
        return self.scanned() if self.text is None else self.text

    @property
    def length(self) -> float:
        """The most bytes that it has as a text."""
        return self.bytes if self.text is None else self.text

    def scanned(self) -> float:
        """The bytes of one look at all of it."""
        return self._shared(self.bytes)

    def counted(self) -> float:
        """The members of one look at each of them."""
        return self._shared(self.members)

    def _shared(self, amount: float) -> float:
        if self.chain is None or self.chain.descended:
            return amount
        self.chain.scanned = True
        return amount / max(1.0, self.chain.turns)


NOTHING = Size(bytes=0.0)
SCALAR = Size()


def joined(sizes: Iterable[Size]) -> Size:
    """One that is any of them."""
    found = list(sizes)
    if len(found) == 1:
        return found[0]
    elements = [size.member for size in found] if any(size.element for size in found) else []
    return Size(
        max((size.lists for size in found), default=0.0),
        max((size.maps for size in found), default=0.0),
        max((size.bytes for size in found), default=0.0),
        max((size.length for size in found), default=0.0),
        max((size.bytes if size.key is None else size.key for size in found), default=0.0),
        element=joined(elements) if elements else None,
    )


def anywhere(size: Size) -> Size:
    """One that lies in it, however deep."""
    return size if size.element is None else joined((size.element, anywhere(size.element)))


def narrowed(size: Size, kind: str) -> Size:
    """One of which it is known that it ``is_array``, ``is_object`` or ``is_string``."""
    whole = replace(size, element=size.member)
    if kind == "is_array":
        return replace(whole, maps=0.0, text=0.0)
    if kind == "is_object":
        return replace(whole, lists=0.0, text=0.0)
    return replace(whole, lists=0.0, maps=0.0)


def limited(size: Size, most: float) -> Size:
    """One that has at most so many members."""
    return replace(size, lists=min(size.lists, most), maps=min(size.maps, most), element=size.member)


def measured(places: Sequence[Any]) -> Size:
    """One of these values, which are known."""
    lists = [place for place in places if isinstance(place, list)]
    maps = [place for place in places if isinstance(place, dict)]
    texts = max((len(place) for place in places if isinstance(place, str)), default=0)
    total = max((len(dumps(place)) for place in [*lists, *maps]), default=6 * texts + 32)
    inside = [member for place in lists for member in place]
    inside += [member for place in maps for member in place.values()]
    longest = max(map(len, lists), default=0), max(map(len, maps), default=0)
    keys = max((len(key) for place in maps for key in place), default=0)
    element = measured(inside) if inside else None
    return Size(*longest, total, 6.0 * texts + 32, 6.0 * keys + 2, element=element)


def compared(left: Size, right: Size) -> float:
    """The steps of one comparison, which ends where the smaller one ends."""
    smaller = min((left, right), key=lambda size: size.bytes)
    return 1 + smaller.scanned() / _SCANNED_PER_STEP


def found_in(value: Size, collection: Size) -> float:
    """The steps of ``value in collection``, which looks at every member."""
    return 1 + collection.counted() / 10 + min(value.bytes, collection.bytes) / _SCANNED_PER_STEP


def collected(turns: float, member: Size, key: Size = NOTHING, *, map_: bool = False) -> Size:
    """What a comprehension or a partial rule gathers in so many turns."""
    chain = member.chain
    if member.given and chain is not None and not chain.descended and turns <= chain.turns and not map_:
        # Each of the members at most once: together no more than what they were taken from.
        return replace(member, lists=turns, maps=0.0, at=None, chain=None)
    each = replace(member, chain=None, given=False, at=None)
    total = turns * (each.bytes + key.bytes + 2)
    lists, maps = (0.0, turns) if map_ else (turns, 0.0)
    return Size(lists, maps, total, 0.0, key.bytes if map_ else 0.0, element=each)


def combined(sizes: Iterable[Size]) -> Size:
    """All of them in one."""
    found = list(sizes)
    return Size(
        sum(size.lists for size in found),
        sum(size.maps for size in found),
        sum(size.bytes for size in found) + 2,
        sum(size.length for size in found) + 32,
        element=joined(size.member for size in found) if found else None,
    )


Costs = tuple[float, Size]


def _looked(args: Sequence[Size]) -> Costs:
    return _CALL, SCALAR


def _scanned(args: Sequence[Size]) -> Costs:
    return _CALL + sum(size.read() for size in args) / _SCANNED_PER_STEP, SCALAR


def _searched(args: Sequence[Size]) -> Costs:
    return _CALL + sum(size.read() for size in args) / _BUILT_PER_STEP, SCALAR


def _begun(args: Sequence[Size]) -> Costs:
    """The beginnings or the ends of texts are compared."""
    tried = max(1.0, args[0].counted()) * max(1.0, args[1].members)
    shortest = min(max(size.length, size.member.length) for size in args)
    return _CALL + tried * (0.2 + shortest / _SCANNED_PER_STEP), SCALAR


def _each(args: Sequence[Size]) -> Costs:
    """Every member is looked at, and it comes to one number."""
    return _CALL + sum(size.counted() for size in args), SCALAR


def _part(args: Sequence[Size]) -> Costs:
    return _CALL + args[1].members, joined((anywhere(args[0]), args[2]))


def _member(args: Sequence[Size]) -> Costs:
    return _CALL + sum(size.members for size in args), args[0].member


def _gathered(args: Sequence[Size]) -> Costs:
    """A collection of the members of the arguments, or of the members of those."""
    made = combined(args)
    turns = sum(size.members * max(1.0, size.member.members) for size in args)
    element = joined((made.member, anywhere(made.member)))
    return _CALL + 3 * turns, replace(made, lists=turns, maps=turns, element=element)


def _ordered(args: Sequence[Size]) -> Costs:
    size = args[0]
    return _CALL + 3 * size.counted(), replace(size, lists=size.members, maps=0.0, chain=None, at=None)


def _appended(args: Sequence[Size]) -> Costs:
    made = combined(args)
    return _CALL + 2 * made.lists, made


def _named(args: Sequence[Size]) -> Costs:
    size = args[0]
    return _CALL + 3 * size.members, Size(size.members, 0.0, size.bytes, 0.0, element=size.name)


def _sliced(args: Sequence[Size]) -> Costs:
    """No more than the first argument is."""
    return _CALL + args[0].members, replace(args[0], chain=None, given=False, at=None, element=args[0].member)


def _merged(args: Sequence[Size]) -> Costs:
    made = combined(args)
    return _CALL + 3 * sum(size.members + size.scanned() / _SCANNED_PER_STEP for size in args), made


def _same(args: Sequence[Size]) -> Costs:
    """A text that is part of the first."""
    return _CALL + args[0].read() / _BUILT_PER_STEP, Size(bytes=args[0].length)


def _cased(args: Sequence[Size]) -> Costs:
    """Some letters have three times the bytes in the other case."""
    return _CALL + args[0].read() / 100, Size(bytes=3 * args[0].length)


def _text(args: Sequence[Size]) -> Costs:
    """A text no longer than six times the arguments: what escapes most is a control character in JSON."""
    total = sum(size.scanned() for size in args)
    return _CALL + total / _BUILT_PER_STEP, Size(bytes=6 * sum(size.bytes for size in args) + 32)


def _written(args: Sequence[Size]) -> Costs:
    """The same, copied by the line and not built by the character."""
    steps, made = _text(args)
    return _CALL + (steps - _CALL) / 4, made


def _pieces(args: Sequence[Size]) -> Costs:
    """Texts that are parts of the text."""
    total, read = args[0].length, args[0].read()
    return _CALL + read / _PIECES_PER_STEP, Size(
        total + 1, 0.0, 4 * total + 4, 0.0, 0.0, element=Size(bytes=total)
    )


def _found(args: Sequence[Size]) -> Costs:
    """Pieces of the second argument, by the pattern that is the first."""
    steps, made = _pieces(args[1:])
    return steps + 5 * _CALL + args[0].read() / 10, made


def _matched(args: Sequence[Size]) -> Costs:
    # A pattern that is not written out is compiled anew, which the engine bounds: 100 KB of it.
    return 5 * _CALL + sum(size.read() for size in args) / 10, SCALAR


def _parsed(args: Sequence[Size]) -> Costs:
    size = args[0]
    return _CALL + size.scanned() / 20, Size(size.bytes, size.bytes, size.bytes)


def _replaced(args: Sequence[Size]) -> Costs:
    text, _, by = args
    # Between any two characters, at worst; a text has two quotes that do not count.
    times = max(1.0, by.length - 2)
    made = (text.length + 1) * times
    return _CALL + (text.read() + 1) * times / _BUILT_PER_STEP, Size(bytes=made)


def _concatenated(args: Sequence[Size]) -> Costs:
    between, texts = args
    made = texts.bytes + texts.members * between.length
    return _CALL + texts.members + made / _SCANNED_PER_STEP, Size(bytes=made)


def _table(
    entries: Iterable[tuple[Callable[[Sequence[Size]], Costs], str]],
) -> dict[str, Callable[..., Costs]]:
    return {name: cost for cost, names in entries for name in names.split()}


_BUILTINS = _table(
    [
        (
            _looked,
            "is_array is_boolean is_null is_number is_object is_set is_string type_name abs ceil floor "
            "round time.now_ns time.clock time.date time.weekday time.diff time.add_date uuid.rfc4122 "
            "bits.and bits.or bits.negate bits.xor bits.rsh format_int print trace rand.intn",
        ),
        (
            _scanned,
            "count contains semver.compare semver.is_valid to_number "
            "time.parse_rfc3339_ns time.parse_ns time.parse_duration_ns time.format units.parse "
            "units.parse_bytes net.cidr_contains net.cidr_is_valid base64.is_valid json.is_valid uuid.parse "
            "regex.is_valid",
        ),
        (_searched, "indexof strings.count"),
        (_begun, "startswith endswith strings.any_prefix_match strings.any_suffix_match"),
        (_each, "sum"),
        (_member, "max min"),
        (_part, "object.get"),
        (
            _gathered,
            "union intersection __builtin_sets.union __builtin_sets.intersection",
        ),
        (_ordered, "sort"),
        (_appended, "array.concat"),
        (_named, "object.keys"),
        (_sliced, "array.slice array.reverse object.remove object.filter"),
        (_merged, "object.union object.subset"),
        (_same, "trim trim_left trim_right trim_space trim_prefix trim_suffix substring strings.reverse"),
        (_cased, "lower upper"),
        (
            _text,
            "base64.encode base64.decode base64url.encode base64url.encode_no_pad "
            "base64url.decode hex.encode hex.decode urlquery.encode urlquery.decode glob.quote_meta",
        ),
        (_written, "json.marshal"),
        (_pieces, "split"),
        (_found, "regex.split regex.find_n"),
        (_matched, "regex.match glob.match"),
        (_parsed, "json.unmarshal"),
        (_replaced, "replace"),
        (_concatenated, "concat"),
    ]
)

# What a long pattern compiles to is bounded, but not by its length; of some the engine breaks.
_PATTERNED = frozenset({"regex.match", "regex.find_n", "regex.split", "glob.match"})
_MAX_PATTERN_BYTES = 4096

# A width or a precision of three digits is as far as a format may go unseen.
_WIDE = re.compile(r"%[^a-zA-Z%]*(?:\d{4}|\*)")


def builtin(name: str, args: Sequence[Size], constants: Sequence[str | float | None]) -> Costs | None:
    """The steps and the result of one call; None for a builtin whose cost its arguments do not bound."""
    if name == "sprintf":
        return _formatted(args, constants[0])
    if name in ("numbers.range", "numbers.range_step"):
        return _ranged(constants)
    if name == "substring" and len(args) == 3 and isinstance(end := constants[2], float) and end >= 0:
        return _CALL + end / 10, Size(bytes=min(args[0].length, 6 * end + 2))
    if name in _PATTERNED and (not args or args[0].length > _MAX_PATTERN_BYTES):
        return None
    cost = _BUILTINS.get(name)
    try:
        return cost(args) if cost is not None else None
    except (ValueError, IndexError):
        return None  # not the number of arguments that it takes


def _formatted(args: Sequence[Size], template: str | float | None) -> Costs | None:
    if not isinstance(template, str) or _WIDE.search(template) or len(args) != 2:
        return None
    steps, text = _written(args)
    return steps + template.count("%"), replace(text, bytes=text.bytes + 1000 * template.count("%"))


def _ranged(constants: Sequence[str | float | None]) -> Costs | None:
    numbers = [bound for bound in constants if isinstance(bound, float) and math.isfinite(bound)]
    if len(numbers) != len(constants) or len(numbers) < 2:
        return None
    turns = abs(numbers[1] - numbers[0]) + 1
    return _CALL + turns, Size(lists=turns, bytes=20 * turns, element=SCALAR)
