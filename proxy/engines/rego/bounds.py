"""Which decisions may be evaluated on the event loop: those that are known to end soon."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from proxy.engines.rego.cost import Costs, Unproven
from proxy.engines.rego.names import Policies
from proxy.engines.rego.scale import Scale, max_bytes, max_call_bytes
from proxy.model import dumps

log = logging.getLogger("callgate.policies")

MAX_STEPS = 2_000_000
"""The most that is evaluated on the loop, in the worst case: a step takes about 0.2 µs."""

# An input has a few dozen members; a long conversation brings thousands.
_SCALES = (32, 48, 64, 96, 128, 256, 512, 1024, 2048, 4096, 8192)
_CALLS = (8, 32, 128)
MAX_ROLES, MAX_REFERENCES = 32, 3
_FEW_CHARS = 1024


@dataclass(frozen=True, slots=True)
class Box:
    """Inputs up to a size."""

    whole: int
    call: int


@dataclass(frozen=True)
class Bound:
    """Up to where a decision is known to end soon. No box: never."""

    boxes: tuple[Box, ...]
    why: str
    """What its cost grows with first, or why it is not known; with file and line."""

    def written(self) -> dict[str, Any]:
        """It in JSON, as another process tells it."""
        return {"boxes": [[box.whole, box.call] for box in self.boxes], "why": self.why}

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Bound:
        """What ``written`` wrote."""
        return cls(tuple(Box(whole, call) for whole, call in told["boxes"]), told["why"])

    @cached_property
    def _small(self) -> tuple[int, float]:
        """Members and bytes of inputs that need no closer look than at how many roles and references."""
        members = next((box.whole for box in self.boxes if box.whole == box.call), 0)
        return members, max_call_bytes(members) if members else 0.0

    @cached_property
    def _table(self) -> list[tuple[int, float, int, float]]:
        return [(box.whole, max_bytes(box.whole), box.call, max_call_bytes(box.call)) for box in self.boxes]

    def holds(self, input_json: str, input: Mapping[str, Any]) -> bool:
        """Whether the decision on this input is known to end soon. Takes about half a microsecond."""
        members, length = input_json.count(",") + 1, len(input_json)
        most, longest = self._small
        if members <= most and length <= longest:
            return _few(input)
        call: bytes | None = None
        for whole, most_bytes, within, most_call_bytes in self._table:
            if members > whole or length > most_bytes:
                continue
            if call is None:
                if not (_few(input) and _short(input)):
                    return False
                call = dumps(input.get("call"))
            if len(call) <= most_call_bytes and call.count(b",") < within:
                return True
        return False


def _few(input: Mapping[str, Any]) -> bool:
    """Whether the caller has few roles and the tool few references."""
    try:
        return ("principal" not in input or len(input["principal"]["roles"]) <= MAX_ROLES) and (
            "tool" not in input or len(input["tool"]["references"]) <= MAX_REFERENCES
        )
    except (TypeError, KeyError):
        return False  # not an input as Callgate makes it


def _short(input: Mapping[str, Any]) -> bool:
    """Whether the roles and the references are short texts."""
    try:
        roles = input["principal"]["roles"] if "principal" in input else ()
        references = input["tool"]["references"] if "tool" in input else {}
        texts = [*roles, *references, *references.values()]
        return sum(map(len, texts)) <= _FEW_CHARS
    except (TypeError, AttributeError):
        return False


def bounds(
    asts: Sequence[Mapping[str, Any]], data: Mapping[str, Any], packages: frozenset[str]
) -> dict[str, Bound]:
    """By package, up to where its decision may be evaluated on the loop."""
    policies = Policies(asts, data)
    return {package: _bound(policies, package) for package in packages}


def _bound(policies: Policies, package: str) -> Bound:
    try:
        boxes = tuple(_boxes(policies, package))
        return Bound(boxes, _dearest(policies, package, boxes))
    except Unproven as exc:
        return Bound((), str(exc))
    except (KeyError, ValueError, TypeError, AttributeError, IndexError, RecursionError) as exc:
        # A syntax tree that is not as it was when this was written: then nothing is known.
        log.warning("the cost of %s cannot be told", package, exc_info=exc)
        return Bound((), f"package {package}: its cost cannot be told")


def _boxes(policies: Policies, package: str) -> Iterator[Box]:
    small = [_small(size) for size in _SCALES]
    if whole := _largest(policies, package, small):
        yield Box(whole, whole)
    for call in _CALLS:
        longer = [_usual(size, call) for size in _SCALES if size > max(call, whole)]
        if found := _largest(policies, package, longer):
            yield Box(found, call)


def _largest(policies: Policies, package: str, scales: Sequence[Scale]) -> int:
    """The members of the largest input whose decision ends soon; 0 where not even the smallest does."""
    low, high = 0, len(scales)
    while low < high:
        middle = (low + high) // 2
        if Costs(policies, scales[middle]).ask(package) <= MAX_STEPS:
            low = middle + 1
        else:
            high = middle
    return int(scales[low - 1].whole) if low else 0


def _dearest(policies: Policies, package: str, boxes: Sequence[Box]) -> str:
    size = 2 * max((box.whole for box in boxes), default=_SCALES[0])
    costs = Costs(policies, _usual(size, size))
    costs.ask(package)
    return f"{costs.dearest[1]} grows fastest with its input"


def _usual(whole: int, call: int) -> Scale:
    """An input of a caller with few roles, and of a tool with few references."""
    return Scale(whole, call, MAX_ROLES, MAX_REFERENCES, 6 * _FEW_CHARS)


def _small(size: int) -> Scale:
    """An input that is small as a whole; what part of it anything takes is not asked."""
    return Scale(size, size, MAX_ROLES, MAX_REFERENCES, max_call_bytes(size))
