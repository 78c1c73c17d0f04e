"""The regular expressions of a schema: each is weighed before it may be run on what a model wrote."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import jsonschema_rs
from jsonschema_rs import FancyRegexOptions, RegexOptions

MAX_PATTERNS = 512
"""How many distinct patterns one schema may have."""
MAX_PATTERN_BYTES = 1 << 23
"""How much memory the compiled patterns of one schema may take, in bytes."""
BACKTRACK_LIMIT = 1000
"""How often a pattern with look-around may go back, before the value counts as not matching."""

_SIZES = tuple(1 << exponent for exponent in (13, 15, 17, 19, 21, 23))
_LOOK_AROUND_SIZES = tuple(1 << exponent for exponent in (13, 15, 17))

# Below these, a pattern that gives up (and so does not match) could make the whole schema match.
_INVERTING = ("not", "if", "oneOf", "contains", "unevaluatedProperties", "unevaluatedItems")


class Unbounded(ValueError):
    """The patterns cannot be checked in bounded time and memory; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """One regular expression: the size of its automaton, and whether it needs a backtracking engine."""

    size: int
    looks_around: bool


@dataclass(frozen=True, slots=True)
class Patterns:
    """All regular expressions of a schema, weighed."""

    known: dict[str, Pattern]

    @classmethod
    def weigh(cls, texts: Iterable[str]) -> Patterns:
        """Compile each pattern alone to learn its size; raises ``Unbounded``."""
        known: dict[str, Pattern] = {}
        total = 0
        for text in texts:
            if text in known:
                continue
            if len(known) == MAX_PATTERNS:
                raise Unbounded(f"it has more than {MAX_PATTERNS} patterns")
            known[text] = pattern = _weigh(text)
            total += pattern.size
            if total > MAX_PATTERN_BYTES:
                raise Unbounded("its patterns are too large together")
        return cls(known)

    @property
    def size(self) -> int:
        """Bytes of memory that the compiled patterns take at most, all together."""
        return sum(pattern.size for pattern in self.known.values())

    @property
    def looks_around(self) -> bool:
        """Whether any pattern needs the backtracking engine."""
        return any(pattern.looks_around for pattern in self.known.values())

    def options(self) -> RegexOptions | FancyRegexOptions:
        """The engine for all patterns: linear time, unless look-around needs the backtracking one."""
        limit = max((pattern.size for pattern in self.known.values()), default=_SIZES[0])
        if self.looks_around:
            return FancyRegexOptions(backtrack_limit=BACKTRACK_LIMIT, size_limit=limit, dfa_size_limit=limit)
        return RegexOptions(size_limit=limit, dfa_size_limit=limit)

    def refuse_inverted_look_around(self, nodes: Iterable[dict[str, Any]]) -> None:
        """Raise ``Unbounded`` where giving up on a pattern could let a value through."""
        if not self.looks_around:
            return
        for node in nodes:
            for keyword in _INVERTING:
                if keyword in node and self._reaches_look_around(node[keyword]):
                    raise Unbounded(f'a pattern with look-around stands below "{keyword}"')
            patterns = node.get("patternProperties")
            if isinstance(patterns, dict) and any(self._is_look_around(text) for text in patterns):
                raise Unbounded('a name in "patternProperties" has look-around')

    def _is_look_around(self, text: Any) -> bool:
        return isinstance(text, str) and text in self.known and self.known[text].looks_around

    def _reaches_look_around(self, value: Any) -> bool:
        stack = [value]
        while stack:
            value = stack.pop()
            if isinstance(value, dict):
                # A reference may lead to any pattern of the schema.
                if any(word in value for word in ("$ref", "$dynamicRef", "$recursiveRef")):
                    return True
                if self._is_look_around(value.get("pattern")):
                    return True
                stack.extend(value.values())
            elif isinstance(value, list):
                stack.extend(value)
        return False


def _weigh(text: str) -> Pattern:
    for size in _SIZES:
        if _compiles(text, RegexOptions(size_limit=size, dfa_size_limit=size)):
            return Pattern(size, looks_around=False)
    for size in _LOOK_AROUND_SIZES:
        options = FancyRegexOptions(backtrack_limit=BACKTRACK_LIMIT, size_limit=size, dfa_size_limit=size)
        if _compiles(text, options):
            return Pattern(size, looks_around=True)
    raise Unbounded(
        f"the pattern {text[:60]!r} is not a regular expression that can be run here, or too large"
    )


def _compiles(text: str, options: RegexOptions | FancyRegexOptions) -> bool:
    try:
        jsonschema_rs.validator_for({"pattern": text}, pattern_options=options, offline=True)
    except ValueError:  # ValidationError is one
        return False
    return True
