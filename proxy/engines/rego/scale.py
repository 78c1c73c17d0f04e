"""How large an input may be, as far as that is counted before a decision is made on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from proxy.engines.rego.sizes import Size


@dataclass(frozen=True, slots=True)
class Scale:
    """How large an input is: commas and one more, which no collection in it has more members than."""

    whole: float
    call: float
    """Within ``input.call``, which the model writes."""
    roles: float
    references: float
    few_bytes: float
    """Of the caller's roles, and of the tool's references."""

    @property
    def bytes(self) -> float:
        return max_bytes(self.whole)

    @property
    def call_bytes(self) -> float:
        return max_call_bytes(self.call)

    def part(self, path: Sequence[str]) -> Size:
        """How large a part of the input may be."""
        if tuple(path) in _TEXTS:
            return Size(bytes=self.call_bytes if path[0] == "call" else self.bytes)
        match path:
            case ["principal", "roles", *_]:
                return _few(self.roles, self.few_bytes)
            case ["tool", "references", *_]:
                return _few(self.references, self.few_bytes)
            case ["call", *_]:
                return Size(self.call, self.call, self.call_bytes, given=True)
        return Size(self.whole, self.whole, self.bytes, given=True)


def _few(members: float, total: float) -> Size:
    """A collection of few texts."""
    return Size(members, members, total, 0.0, element=Size(bytes=total))


def max_bytes(members: float) -> float:
    """The most bytes that an input of so many members is taken to have."""
    return 16_384 + 128 * members


def max_call_bytes(members: float) -> float:
    """The most bytes that a call of so many members is taken to have."""
    return 2_048 + 128 * members


# What Callgate writes into every input as a text.
_TEXTS = {
    *(("call", name) for name in ("id", "name")),
    *(("tool", name) for name in ("name", "effect")),
    *(("principal", name) for name in ("id", "tenant")),
    *(("conversation", name) for name in ("id", "query")),
    ("model",),
    ("protocol",),
    ("time",),
}
