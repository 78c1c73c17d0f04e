"""What a lint finds, and the grade that comes of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from proxy.model import dumps
from proxy.schemas import yamls
from proxy.schemas.definitions import Definition

Severity = Literal["error", "warning", "hint"]
Grade = Literal["A", "B", "C", "D", "F"]

GRADES: tuple[Grade, ...] = ("A", "B", "C", "D", "F")
_COST = {"error": 50, "warning": 8, "hint": 2}
_AT_LEAST: tuple[tuple[int, Grade], ...] = ((90, "A"), (80, "B"), (65, "C"), (50, "D"))
# What leaves a model nothing to go by weighs more than its kind.
_COST_OF = {"missing-description": 25, "invalid-schema": 100, "unusable-schema": 100}
# The tenth parameter without a description says no more than the fourth did.
_COUNTED_A_CODE = 4
_MAX_SNIPPET_CHARS = 1500


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that can be better, where, and how."""

    code: str
    severity: Severity
    tool: str
    """Empty for what is wrong with the tools together."""
    place: str
    """``file:line``, or ``file#pointer`` in JSON."""
    message: str
    fix: str = ""
    """What to write there: YAML where the file is YAML, else JSON."""

    def fields(self) -> dict[str, str]:
        """The finding as one JSON object."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Graded:
    """One tool with what was found of it."""

    name: str
    place: str
    findings: tuple[Finding, ...]

    @property
    def score(self) -> int:
        return score(self.findings)

    @property
    def grade(self) -> Grade:
        return grade(self.score)


@dataclass(frozen=True, slots=True)
class Report:
    """All tools, and what is wrong with them together."""

    tools: tuple[Graded, ...]
    together: tuple[Finding, ...] = ()

    @property
    def score(self) -> int:
        """The mean of the tools', less what they lose together."""
        mean = sum(tool.score for tool in self.tools) / len(self.tools) if self.tools else 100
        return max(0, round(mean) - (100 - score(self.together)))

    @property
    def grade(self) -> Grade:
        return grade(self.score)

    @property
    def findings(self) -> list[Finding]:
        """All of them, each tool's together."""
        return [one for tool in self.tools for one in tool.findings] + list(self.together)

    def passes(self, at_least: Grade | None) -> bool:
        """Whether nothing is an error and no grade, of a tool or overall, is below this one."""
        if any(one.severity == "error" for one in self.findings):
            return False
        worst = max(GRADES.index(one) for one in (self.grade, *(tool.grade for tool in self.tools)))
        return at_least is None or worst <= GRADES.index(at_least)

    def fields(self) -> dict[str, Any]:
        """The report as one JSON object."""
        return {
            "grade": self.grade,
            "score": self.score,
            "tools": [
                {
                    "name": tool.name,
                    "place": tool.place,
                    "grade": tool.grade,
                    "score": tool.score,
                    "findings": [one.fields() for one in tool.findings],
                }
                for tool in self.tools
            ],
            "together": [one.fields() for one in self.together],
        }


def score(findings: Iterable[Finding]) -> int:
    """100 less what the findings cost: an error 50, a warning 8, a hint 2, and some more than their kind."""
    counted: Counter[str] = Counter()
    left = 100
    for one in findings:
        counted[one.code] += 1
        if counted[one.code] <= _COUNTED_A_CODE:
            left -= _COST_OF.get(one.code, _COST[one.severity])
    return max(0, left)


def grade(points: int) -> Grade:
    """The letter for a score."""
    return next((letter for least, letter in _AT_LEAST if points >= least), "F")


class Notes:
    """Collects the findings of one tool."""

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        self.findings: list[Finding] = []

    def add(self, code: str, severity: Severity, pointer: str, message: str, fix: Any = None) -> None:
        """Something found at ``pointer`` below the definition; ``fix`` is what to write, as JSON has it."""
        place = self.definition.place.at(pointer)
        text = "" if fix is None else snippet(fix, self.definition.shape == "registry")
        self.findings.append(Finding(code, severity, self.definition.name, place, message, text))


def snippet(fix: Any, as_yaml: bool) -> str:
    """A piece of YAML or JSON to copy."""
    if as_yaml:
        try:
            return yamls.dump(fix).rstrip()[:_MAX_SNIPPET_CHARS]
        except ValueError:
            pass
    return dumps(fix).decode()[:_MAX_SNIPPET_CHARS]


def sorted_by_weight(findings: Sequence[Finding]) -> list[Finding]:
    """Errors before warnings before hints, else in their order."""
    return sorted(findings, key=lambda one: list(_COST).index(one.severity))
