"""Tests written in Rego: the embedded engine and ``opa test`` say the same of each."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from proxy.engines.rego.testing import RegoTests
from proxy.engines.sources.policyset import PolicySet

ROOT = Path(__file__).parents[2]
POLICY = """package p

default allow := false

allow if {
	input.user == "alice"
	some role in data.roles
	role == "admin"
}

allow if input.user == "bob"

deny contains reason if {
	input.bad
	reason := sprintf("%s is bad", [input.user])
}

limit := 10 if input.vip

else := 5 if input.member

else := 1
"""
# name in ``package t_test`` -> its text, and what becomes of it here and in OPA
TESTS: dict[str, tuple[str, str, str]] = {
    "test_holds": ('test_holds if data.p.allow with input as {"user": "bob"}', "pass", "pass"),
    "test_fails": ('test_fails if data.p.allow with input as {"user": "eve"}', "fail", "fail"),
    "test_false": ("test_false := false", "fail", "fail"),
    "test_number": ("test_number := 1", "fail", "fail"),
    "test_set": ("test_set contains 1", "fail", "fail"),
    "test_no_input": ("test_no_input if not input", "pass", "pass"),
    "test_else": ('test_else if data.p.limit == 5 with input as {"member": true}', "pass", "pass"),
    "todo_test_later": ("todo_test_later if false", "skip", "skip"),
    "test_cases": (
        'test_cases[name] if {\n\tsome name, n in {"one": 1, "two": 2}\n\tn == 1\n}',
        "fail",
        "fail",
    ),
    "test_good_cases": (
        'test_good_cases[name] if {\n\tn := 1\n\tsome name, m in {"one": 1, "two": 1}\n\tm == n\n}',
        "pass",
        "pass",
    ),
    "test_nested_cases": (
        'test_nested_cases[a][b] if {\n\tsome a, inner in {"x": {"u": 1, "v": 2}, "y": {"u": 1}}\n'
        "\tsome b, n in inner\n\tn == 1\n}",
        "fail",
        "fail",
    ),
    "test_no_cases": ("test_no_cases[name] if {\n\tsome name, n in {}\n\tn == 1\n}", "pass", "pass"),
    # What the one engine calls a failure the other may call an error: neither passes.
    "test_error": ("test_error if 1 / (1 - 1) == 1", "error", "fail"),
    "test_function": ("test_function(x) if x", "error", "error"),
    "test_part": ("test_part.of.it if true", "error", "fail"),
}


@pytest.fixture(scope="module")
def opa() -> str:
    """The binary; without one, this fails and says where to get it."""
    found = subprocess.run([str(ROOT / "scripts/opa")], capture_output=True, text=True, timeout=600)
    assert found.returncode == 0, found.stderr
    return found.stdout.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("policies")
    (made / "p.rego").write_text(POLICY)
    (made / "t_test.rego").write_text("\n\n".join(["package t_test", *(test[0] for test in TESTS.values())]))
    return made


def ask_opa(opa: str, *options: str) -> Any:
    found = subprocess.run([opa, "test", *options], capture_output=True, text=True, timeout=60)
    assert found.stdout, found.stderr
    return json.loads(found.stdout)


def outcome(test: dict[str, Any]) -> str:
    return next((word for word in ("error", "fail", "skip") if test.get(word)), "pass")


def here(folder: Path) -> RegoTests:
    return RegoTests(PolicySet.load([folder], tests=True), coverage=True)


def test_each_test_comes_to_what_it_should(folder: Path) -> None:
    tests = here(folder)
    assert {name.removeprefix("t_test."): tests.run(name).outcome for name in tests.names} == {
        name: ours for name, (_, ours, _) in TESTS.items()
    }


def test_opa_says_the_same(opa: str, folder: Path) -> None:
    found = ask_opa(opa, "--format", "json", str(folder))
    assert {test["name"]: outcome(test) for test in found} == {
        name: theirs for name, (_, _, theirs) in TESTS.items()
    }


def test_opa_finds_the_same_cases(opa: str, folder: Path) -> None:
    def flat(sub_results: dict[str, Any], at: str = "") -> dict[str, bool]:
        cases: dict[str, bool] = {}
        for name, result in sub_results.items():
            inner = result.get("sub_results")
            cases |= flat(inner, f"{at}{name}/") if inner else {f"{at}{name}": not result.get("fail")}
        return cases

    tests = here(folder)
    found = ask_opa(opa, "--format", "json", str(folder))
    theirs = {test["name"]: flat(test["sub_results"]) for test in found if test.get("sub_results")}
    assert theirs == {name: dict(tests.run(f"t_test.{name}").cases) for name in theirs}
    assert len(theirs) == 3


def test_a_second_test_of_the_same_name_hides_nothing() -> None:
    """Two rules of one name are one to the engine, which would pass where either does."""
    tests = RegoTests(PolicySet.of({"t_test.rego": "package t\n\ntest_a if false\n\ntest_a if true\n"}))
    result = tests.run("t.test_a")
    assert result.outcome == "error"
    assert result.error is not None
    assert "t_test.rego:3, t_test.rego:5" in result.error


def test_what_is_printed_is_shown() -> None:
    tests = RegoTests(
        PolicySet.of({"t_test.rego": 'package t\n\ntest_a if {\n\tprint("seen", 7)\n\tfalse\n}\n'})
    )
    assert tests.run("t.test_a").printed == ("t_test.rego:4: seen 7",)


def test_the_starter_policies_are_reached_alike(opa: str) -> None:
    """Both count lines on which something begins; OPA also those of heads, and fewer of long expressions."""
    tests = here(ROOT / "policies")
    assert all(tests.run(name).passed for name in tests.names)
    theirs = ask_opa(opa, "--coverage", str(ROOT / "policies"))
    ours = {Path(file.file).name: file for file in tests.coverage().files}
    for path, file in theirs["files"].items():
        name = Path(path).name
        assert ("_test" in name) == (name not in ours)
        if name in ours:
            assert ours[name].percent == pytest.approx(file["coverage"], abs=5)
    assert tests.coverage().percent > 99


def test_what_no_test_reaches_is_found_alike(opa: str, tmp_path: Path) -> None:
    folder = tmp_path
    (folder / "p.rego").write_text(POLICY)
    (folder / "t_test.rego").write_text(
        f"package t_test\n\n{TESTS['test_holds'][0]}\n\n{TESTS['test_else'][0]}\n"
    )
    tests = here(folder)
    for name in tests.names:
        tests.run(name)
    (ours,) = tests.coverage().files
    rows = ask_opa(opa, "--coverage", str(folder))["files"][str(folder / "p.rego")]["not_covered"]
    theirs = {line for row in rows for line in range(row["start"]["row"], row["end"]["row"] + 1)}
    assert {8, 14, 15} <= theirs & set(ours.uncovered)
    # OPA counts heads too, and does not reach what its index rules out.
    assert set(ours.uncovered) <= theirs | {7}
    assert set(ours.covered) & theirs <= {3, 5, 6, 18, 22}
    assert list(ours.gaps()) == [(7, 8), (13, 15)]


def test_coverage_begins_with_nothing() -> None:
    tests = RegoTests(PolicySet.of({"p.rego": POLICY, "t_test.rego": "package t\n\ntest_a if true\n"}), True)
    tests.run("t.test_a")
    assert tests.coverage().percent == 0
