"""One Python function while it is being written: its lines, its names, and what it does on failure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol

from proxy.engines.rego.names import ModuleTree
from proxy.engines.rego.references import Path

Node = Mapping[str, Any]

UNKNOWN = "raise Unknown"


class Untranslatable(Exception):
    """A construct that is left to the embedded engine."""


class Never(Exception):
    """What is written from here on would never be come to."""


class Program(Protocol):
    """What a function refers to outside itself: the input, the rules, the functions and the data."""

    def input(self, path: Path) -> str:
        """The member of the input at a path of one or two names, worked out ahead of every decision."""
        ...

    def reference(self, path: Path) -> tuple[str, int, bool] | None:
        """What the beginning of ``data.<path>`` is in Python, how many parts of the path that takes, and
        whether it is the data themselves, no rule.

        None where it is nothing.
        """
        ...

    def function(self, path: Path) -> tuple[str, int] | None:
        """A function's name in Python and how many arguments it takes; None where there is none."""
        ...

    def constant(self, text: str) -> str:
        """The name of a value that is worked out once."""
        ...


@dataclass
class Frame:
    """A function that is being written. Nothing that stands in a policy becomes a name in Python."""

    program: Program
    module: ModuleTree
    lines: list[str] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    """The variables that have a value, and what they are called in Python."""
    fail: str = "return UNDEFINED"
    """The statement for what is undefined or false."""
    depth: int = 1
    loops: int = 0
    negated: bool = False
    """Below a ``not``, what is undefined may be OPA's to tell."""
    _made: int = 0

    def line(self, text: str) -> None:
        self.lines.append(" " * self.depth + text)

    def fresh(self) -> str:
        """A Python name that is not used yet."""
        self._made += 1
        return f"v{self._made}"

    def set(self, text: str) -> str:
        """Give an expression a name."""
        name = self.fresh()
        self.line(f"{name} = {text}")
        return name

    def unless(self, condition: str) -> None:
        """Go on only where the condition does not hold."""
        self.line(f"if {condition}: {self.fail}")

    def defined(self, text: str) -> str:
        """Give an expression a name, and go on only where it has a value."""
        name = self.set(text)
        self.unless(f"{name} is UNDEFINED")
        return name

    def never(self) -> NoReturn:
        """What comes next is known to be undefined; raises ``Never``."""
        if self.fail == UNKNOWN:
            raise Untranslatable("something undefined below a not")
        self.line(self.fail)
        raise Never

    def loop(self, header: str) -> None:
        """Everything that is written from here on stands in this loop."""
        self.line(header)
        self.depth += 1
        self.loops += 1
        self.fail = "continue"

    @contextmanager
    def inside(self, header: str) -> Iterator[None]:
        """A loop of its own: what is named in it is forgotten after it, and to fail is to go on with it."""
        kept = self.names, self.fail, self.depth, self.loops, self.negated
        self.names, self.negated = dict(self.names), False
        self.loop(header)
        with suppress(Never):
            yield
        self.names, self.fail, self.depth, self.loops, self.negated = kept

    @contextmanager
    def ahead(self) -> Iterator[None]:
        """Below a ``not``: what OPA works out ahead of it, and what must not be undefined here."""
        kept, loops = self.fail, self.loops
        if self.negated:
            self.fail = UNKNOWN
        yield
        if self.negated:
            self.fail = kept
            if self.loops != loops:
                raise Untranslatable("a loop below a not")

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """What cannot be translated is taken back, and left to the embedded engine when it is come to."""
        kept = dict(self.names), self.fail, self.depth, self.loops, self.negated, len(self.lines)
        try:
            yield
        except Untranslatable:
            self.names, self.fail, self.depth, self.loops, self.negated, length = kept
            del self.lines[length:]
            self.line(UNKNOWN)
            raise

    def means(self, name: str) -> bool:
        """Whether a name has a value here: of its own, or as what the policies call so."""
        return name in self.names or name in ("input", "data") or self.is_global(name)

    def name(self, name: str, python: str) -> None:
        """Let a variable stand for a value."""
        if name in ("input", "data"):
            raise Untranslatable("a variable in the place of the input or the data")
        self.names[name] = python

    def is_global(self, name: str) -> bool:
        return name in self.module.imports or self.module.has(name)
