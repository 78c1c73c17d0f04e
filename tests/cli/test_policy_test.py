"""``callgate policy test``: Rego's own tests, with their coverage and a threshold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from proxy.cli import app

POLICIES = Path(__file__).parents[2] / "policies"
POLICY = """package p

allow if input.user == "ann"

deny if {
	input.bad
	input.worse
}
"""
TESTS = """package p_test

test_ann if data.p.allow with input as {"user": "ann"}

test_bob if not data.p.allow with input as {"user": "bob"}
"""


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["policy", "test", *arguments])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "p.rego").write_text(POLICY)
    (tmp_path / "p_test.rego").write_text(TESTS)
    return tmp_path


def test_the_starter_policies_pass() -> None:
    done = run(str(POLICIES), "--coverage", "--threshold", "95")
    assert done.exit_code == 0, done.output
    assert "PASS: " in done.output
    assert "confirmation.rego" in done.output
    assert "_test.rego" not in done.output


def test_only_what_did_not_pass_is_named(folder: Path) -> None:
    (folder / "more_test.rego").write_text(
        "package more\n\ntest_no if false\n\ntodo_test_later if false\n\ntest_broken if 1 / 0 == 1\n"
    )
    done = run(str(folder))
    assert done.exit_code == 1
    place = folder / "more_test.rego"
    assert f"FAIL  data.more.test_no  {place}:3" in done.output
    assert f"SKIP  data.more.todo_test_later  {place}:5" in done.output
    assert f"ERROR  data.more.test_broken  {place}:7\n      {place}:7: divide by zero" in done.output
    assert "test_ann" not in done.output
    assert "PASS: 2/5  FAIL: 1/5  ERROR: 1/5  SKIP: 1/5" in done.output
    assert "PASS  data.p_test.test_ann" in run(str(folder), "--verbose").output


def test_a_skipped_test_fails_nothing(folder: Path) -> None:
    (folder / "more_test.rego").write_text("package more\n\ntodo_test_later if false\n")
    assert run(str(folder)).exit_code == 0


def test_some_are_chosen_by_name(folder: Path) -> None:
    done = run(str(folder), "--run", r"data\.p_test\.test_b", "--verbose")
    assert "PASS: 1/1" in done.output
    none = run(str(folder), "--run", "nothing")
    assert none.exit_code == 1
    assert "Nothing was tested" in none.output
    assert run(str(folder), "--run", "(").exit_code == 2


@pytest.mark.parametrize(("threshold", "exit_code"), [("30", 0), ("33", 0), ("34", 1), ("100", 1)])
def test_below_the_threshold_it_fails(folder: Path, threshold: str, exit_code: int) -> None:
    done = run(str(folder), "--threshold", threshold)
    assert done.exit_code == exit_code, done.output
    assert "6-7" in done.output
    assert ("less than" in done.output) == bool(exit_code)


def test_programs_are_told_all_of_it(folder: Path) -> None:
    done = run(str(folder), "--coverage", "--format", "json")
    file = str(folder / "p.rego")
    assert json.loads(done.stdout) == {
        "tests": [
            {
                "location": {"file": str(folder / "p_test.rego"), "row": row},
                "package": "data.p_test",
                "name": name,
            }
            for row, name in ((3, "test_ann"), (5, "test_bob"))
        ],
        "coverage": {
            "percent": 33.33,
            "files": {file: {"percent": 33.33, "covered": [3], "not_covered": [6, 7]}},
        },
    }


def test_policies_with_faults_are_not_tested(folder: Path) -> None:
    (folder / "q.rego").write_text("package q\n\nx if {\n")
    done = run(str(folder))
    assert done.exit_code == 1
    assert f"{folder / 'q.rego'}:" in done.output
