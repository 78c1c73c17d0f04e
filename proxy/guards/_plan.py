"""The places that values can have under a schema, and what judging them there costs at most."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from proxy.guards._patterns import BACKTRACK_LIMIT

BUDGET_NS = 250_000_000
"""How long one validation may take at most, in nanoseconds, by the bound."""
UNIT_NS = 25
"""One keyword on one value, measured."""
_WALK_NS = 400  # to look at one value here, measured

NOTHING, UNKNOWN = 0, -1
"""The number of the place where nothing is applied, and of those that were not worked out."""


@dataclass(slots=True)
class Place:
    """What one value costs here, and which place the values below it have."""

    units: int = 0
    scan_ns: int = 0
    """Nanoseconds for each byte of a string (and of its name) in linear patterns."""
    look_ns: int = 0
    """The same in patterns with look-around, for each time that they start again."""
    named: dict[str | int, int] = field(default_factory=dict)
    key: int = NOTHING
    item: int = NOTHING


@dataclass(frozen=True, slots=True)
class Toll:
    """The work that some arguments can cost: its time, its units, and the most units of one value."""

    ns: int
    units: int
    heaviest: int


@dataclass(frozen=True, slots=True)
class Plan:
    """The places of a schema; ``free_bytes`` of arguments cost less than the budget whatever they are."""

    places: list[Place]
    free_bytes: int

    def toll(self, arguments: Any) -> Toll | None:
        """Bound the work for these arguments; None where it may exceed the budget."""
        ns = units = heaviest = 0
        stack: list[tuple[Any, int, int]] = [(arguments, 1, 0)]
        while stack:
            value, at, length = stack.pop()
            if at == UNKNOWN:
                return None
            place = self.places[at]
            if isinstance(value, str):
                length += len(value.encode())
            units += place.units
            heaviest = max(heaviest, place.units)
            ns += place.units * UNIT_NS + place.scan_ns * length
            ns += place.look_ns * length * min(length, BACKTRACK_LIMIT)
            if at == NOTHING:
                continue
            if isinstance(value, dict | list):
                ns += _WALK_NS * len(value)
            if ns > BUDGET_NS:
                return None
            if isinstance(value, dict):
                named, other = place.named, place.key
                stack.extend((item, named.get(key, other), len(key.encode())) for key, item in value.items())
            elif isinstance(value, list):
                named, other = place.named, place.item
                stack.extend((item, named.get(number, other), 0) for number, item in enumerate(value))
        return Toll(ns, units, heaviest)
