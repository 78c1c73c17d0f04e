"""Every test that is written in Rego beside the starter policies, each as a test of its own."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from proxy.engines.rego.testing import RegoTests
from proxy.engines.sources.policyset import PolicySet

POLICIES = Path(__file__).parents[2] / "policies"


@cache
def rego_tests() -> RegoTests:
    return RegoTests(PolicySet.load([POLICIES], tests=True))


@pytest.mark.parametrize("name", rego_tests().names)
def test_rego(name: str) -> None:
    result = rego_tests().run(name)
    assert result.passed, f"{result.place}: {result.error or 'not true'}"


@pytest.mark.parametrize("policy", sorted(p for p in POLICIES.glob("*.rego") if "_test" not in p.stem))
def test_every_policy_has_tests(policy: Path) -> None:
    tests = policy.with_name(f"{policy.stem}_test.rego")
    assert tests.exists()
    assert "\ntest_" in tests.read_text()


def test_tests_are_counted_once_each() -> None:
    """A second rule of the same name would hide behind the first."""
    written = [
        line.split()[0]
        for file in POLICIES.glob("*_test.rego")
        for line in file.read_text().splitlines()
        if line.startswith("test_")
    ]
    assert len(rego_tests().names) == len(written)
    assert len(written) > 80


@pytest.mark.parametrize(
    ("body", "passed", "error"),
    [
        ("test_x if 1 == 1", True, None),
        ("test_x if 1 == 2", False, None),
        ("test_x := false", False, None),
        ("test_x := 1", False, None),
        ("test_x if to_number(input.x) == 1", False, None),
        ('test_x if to_number("x") == 1', False, "t_test.rego:3: could not parse string as number"),
    ],
)
def test_a_rego_test_can_fail(body: str, passed: bool, error: str | None) -> None:
    tests = RegoTests(PolicySet.of({"t_test.rego": f"package t_test\n\n{body}\n"}))
    result = tests.run("t_test.test_x")
    assert (result.passed, result.error, result.place) == (passed, error, "t_test.rego:3")
