"""Which lines of policies their tests reach.

A line counts where an expression, or the value of a rule, begins on it; comments, braces and names alone do
not. A line is covered once some of it was evaluated. Files of tests are not counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class FileCoverage:
    """One file's lines, by number."""

    file: str
    covered: tuple[int, ...]
    uncovered: tuple[int, ...]

    @property
    def percent(self) -> float:
        return _percent(len(self.covered), len(self.uncovered))

    def gaps(self) -> Iterator[tuple[int, int]]:
        """The uncovered lines as stretches, each from its first line to its last."""
        counted = sorted((*self.covered, *self.uncovered))
        yield from _stretches(self.uncovered, counted)


@dataclass(frozen=True, slots=True)
class Coverage:
    """All policies' lines."""

    files: tuple[FileCoverage, ...]

    @property
    def covered(self) -> int:
        return sum(len(file.covered) for file in self.files)

    @property
    def uncovered(self) -> int:
        return sum(len(file.uncovered) for file in self.files)

    @property
    def percent(self) -> float:
        """Of all lines that count; 100 where none does."""
        return _percent(self.covered, self.uncovered)


def coverage_of(report: Mapping[str, Any]) -> Coverage:
    """The engine's report, without the files of the tests."""
    files = []
    for file in report["files"]:
        if not file["path"].endswith("_test.rego"):
            covered = frozenset(file["covered"])
            files.append(
                FileCoverage(
                    file["path"], tuple(sorted(covered)), tuple(sorted({*file["not_covered"]} - covered))
                )
            )
    return Coverage(tuple(sorted(files, key=lambda file: file.file)))


def _percent(covered: int, uncovered: int) -> float:
    return 100 * covered / (covered + uncovered) if covered + uncovered else 100.0


def _stretches(wanted: Sequence[int], counted: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Runs of lines with no other line that counts between them."""
    first = last = None
    for line in counted:
        if line in wanted:
            first, last = first or line, line
        elif first is not None and last is not None:
            yield first, last
            first = last = None
    if first is not None and last is not None:
        yield first, last
