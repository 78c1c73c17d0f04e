"""Runs the tests that are written in Rego: rules named ``test_...``, as ``opa test`` knows them."""

from __future__ import annotations

from dataclasses import dataclass

from proxy.engines.policyset import PolicySet
from proxy.engines.regorus import compiled, worded


@dataclass(frozen=True, slots=True)
class TestResult:
    """What became of one test; ``error`` says what failed where it could not even be evaluated."""

    __test__ = False  # not a class of pytest's

    name: str
    place: str
    passed: bool
    error: str | None = None


class RegoTests:
    """The tests of a policy set that was loaded with ``tests=True``."""

    def __init__(self, policy_set: PolicySet) -> None:
        """Compile policies and tests together; raises ``PolicyFault``."""
        self._compiled = compiled(policy_set)
        tests = [rule for rule in self._compiled.rules if rule.path[-1].startswith("test_")]
        self._places = {".".join(rule.path): rule.place for rule in reversed(tests)}

    @property
    def names(self) -> list[str]:
        """Every test as package and rule (``callgate.call_test.test_viewer_reads``)."""
        return sorted(self._places)

    def run(self, name: str) -> TestResult:
        """Evaluate one test: it passes where its rule is true."""
        engine = self._compiled.engine
        engine.set_input_json("{}")
        try:
            value = engine.eval_rule_as_json(f"data.{name}")
        except RuntimeError as exc:
            return TestResult(name, self._places[name], False, worded(exc))
        return TestResult(name, self._places[name], value.strip() == "true")
