"""Runs the tests that are written in Rego: rules named ``test_...``, as ``opa test`` knows them.

A test passes where its rule is true. One with cases (``test_x[case] if { some case, given in {...} ... }``)
passes where each case is. One whose name begins with ``todo_test_`` is skipped. What the embedded engine
could not tell apart (two tests of one name) is an error, and never a pass.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson
import regorus

from proxy.engines.evaluating.compiling import compiled, worded
from proxy.engines.rego.coverage import Coverage, coverage_of
from proxy.engines.rego.text import Body, Mark, WrittenRule, marked_all
from proxy.engines.sources.policyset import PolicySet

Outcome = Literal["pass", "fail", "error", "skip"]

_PREFIX, _LATER = "test_", "todo_test_"
_CASE = "callgate-case "


@dataclass(frozen=True, slots=True)
class TestResult:
    """What became of one test; ``error`` says what failed where it could not even be evaluated."""

    __test__ = False  # not a class of pytest's

    name: str
    place: str
    outcome: Outcome
    error: str | None = None
    cases: tuple[tuple[str, bool], ...] = ()
    """The cases of a test that has some, and whether each passed."""
    printed: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return self.outcome == "pass"


class RegoTests:
    """The tests of a policy set that was loaded with ``tests=True``."""

    def __init__(self, policy_set: PolicySet, coverage: bool = False) -> None:
        """Compile policies and tests together; raises ``PolicyFault``."""
        self._trees = trees = orjson.loads(compiled(policy_set).engine.get_ast_as_json())
        self._tests: dict[str, list[WrittenRule]] = {}
        self._engine = regorus.Engine()
        self._engine.set_gather_prints(True)
        for file, text in marked_all(trees, self._take):
            self._engine.add_policy(file, text)
        self._engine.add_data_json(policy_set.data_json.decode())
        self._engine.set_enable_coverage(coverage)

    def _take(self, rule: WrittenRule) -> Sequence[Mark]:
        if not rule.name[0].startswith((_PREFIX, _LATER)):
            return ()
        self._tests.setdefault(".".join((*rule.package, rule.name[0])), []).append(rule)
        if not rule.indices:
            return ()
        said = f'"{_CASE.strip()}", json.marshal([{", ".join(index.text for index in rule.indices)}])'
        return [Mark(body, said, _bound(rule, body)) for body in rule.bodies]

    @property
    def names(self) -> list[str]:
        """Every test as package and rule (``callgate.call_test.test_viewer_reads``), as they stand."""
        return list(self._tests)

    def run(self, name: str) -> TestResult:
        """Evaluate one test."""
        rules = self._tests[name]
        rule = rules[0]
        if rule.name[0].startswith(_LATER):
            return TestResult(name, rule.place, "skip")
        if error := _no_test(rules):
            return TestResult(name, rule.place, "error", error)
        self._engine.take_prints()
        try:
            result = orjson.loads(self._engine.eval_query_as_json(f"data.{name}")).get("result", [])
        except RuntimeError as exc:
            return TestResult(name, rule.place, "error", worded(exc), printed=self._printed()[1])
        value = result[0]["expressions"][0]["value"] if result else None
        said, printed = self._printed()
        if not rule.indices:
            return TestResult(name, rule.place, "pass" if value is True else "fail", None, (), printed)
        cases = _cases(said, value)
        passed = isinstance(value, dict) and all(held for _, held in cases)
        return TestResult(name, rule.place, "pass" if passed else "fail", None, cases, printed)

    def coverage(self) -> Coverage:
        """Which lines of the policies the tests that ran have reached."""
        return coverage_of(orjson.loads(self._engine.get_coverage_report_as_json()), self._trees)

    def _printed(self) -> tuple[list[Any], tuple[str, ...]]:
        """The cases that were begun, and what policies and tests printed themselves."""
        said, printed = [], []
        for line in self._engine.take_prints():
            _, sign, case = line.partition(f": {_CASE}")
            said.append(orjson.loads(case)) if sign else printed.append(line)
        return said, tuple(printed)


def _bound(rule: WrittenRule, body: Body) -> int:
    """How many statements it takes until the case has a name."""
    wanted = frozenset().union(*(index.names for index in rule.indices))
    for number, statement in enumerate(body.statements, 1):
        wanted -= statement.names
        if not wanted:
            return number
    return len(body.statements)


def _no_test(rules: Sequence[WrittenRule]) -> str | None:
    """Why this is none, though it is named as one."""
    rule = rules[0]
    if rule.kind == "function":
        return "a function is no test: nothing calls it"
    if len(rule.name) > 1:
        return f"{'.'.join(rule.name)} is part of a document: a test is one rule"
    if double := [place for place, count in Counter(one.name[0] for one in rules).items() if count > 1]:
        places = ", ".join(one.place for one in rules)
        return f"{double[0]} is written more than once ({places}): one would hide behind the other"
    return None


def _cases(said: Sequence[Sequence[Any]], value: Any) -> tuple[tuple[str, bool], ...]:
    found: dict[str, bool] = {}
    for case in said:
        held = value
        for part in case:
            held = held.get(part) if isinstance(held, Mapping) and isinstance(part, str) else None
        found["/".join(part if isinstance(part, str) else orjson.dumps(part).decode() for part in case)] = (
            held is True
        )
    return tuple(found.items())
