"""Which lines of policies their tests reach.

A line counts where an expression, or the value of a rule, begins on it; comments, braces and names alone do
not. A line is covered once some of it was evaluated. Files of tests are not counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import regorus

from proxy.engines.rego.text import package_of

_REACHED = "callgate_reached"


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


def coverage_of(report: Mapping[str, Any], trees: Sequence[Mapping[str, Any]]) -> Coverage:
    """What the engine reports of the policies in ``trees``, without the files of the tests."""
    covered = {file["path"]: frozenset(file["covered"]) for file in report["files"]}
    files = []
    for file, lines in sorted(_counted(trees).items()):
        if not file.endswith("_test.rego"):
            reached = covered.get(file, frozenset()) & lines
            files.append(FileCoverage(file, tuple(sorted(reached)), tuple(sorted(lines - reached))))
    return Coverage(tuple(files))


def _counted(trees: Sequence[Mapping[str, Any]]) -> dict[str, frozenset[int]]:
    """The lines that count in each file.

    The engine tells of a file only once something in it was evaluated: so each is given a rule that can be.
    """
    engine = regorus.Engine()
    engine.set_enable_coverage(True)
    own, packages = {}, set()
    for tree in trees:
        file, text = tree["source"]["file"], tree["source"]["contents"]
        engine.add_policy(file, f"{text}\n\n{_REACHED} := true\n")
        own[file] = text.count("\n") + 3
        packages.add(package_of(tree))
    for package in packages:
        engine.eval_query(f"data.{package}.{_REACHED}")
    report = orjson.loads(engine.get_coverage_report_as_json())["files"]
    return {
        file["path"]: frozenset(file["covered"] + file["not_covered"]) - {own[file["path"]]}
        for file in report
    }


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
