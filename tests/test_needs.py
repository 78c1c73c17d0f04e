"""docs/needs.md may name only tests that there are, and must say so where there is none."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/needs.md").read_text()
REFERENCES = sorted(set(re.findall(r"`([^`\s]+\.\w+)::([^`]+)`", PAGE)))
FILES = sorted(set(re.findall(r"`((?:tests|scripts|policies)/[^`:]+)(?:::[^`]+)?`", PAGE)))
ROWS = re.findall(r"^\| (\d+) \|(.+)\|$", PAGE, re.M)


@cache
def names_in(file: str) -> frozenset[str]:
    """What a reference into the file can name: its tests, or its cases."""
    text = (ROOT / file).read_text()
    if file.endswith(".yaml"):
        cases = yaml.safe_load(text)
        return frozenset(cases if isinstance(cases, dict) else (case["name"] for case in cases))
    pattern = r"^(test_\w+)" if file.endswith(".rego") else r"^(?:async )?def (test_\w+)\("
    return frozenset(re.findall(pattern, text, re.M))


def is_named(file: str, name: str) -> bool:
    """Whether the file has the test, and, if one is named in brackets, the test's case."""
    test, bracket, case = name.partition("[")
    if file.endswith(".yaml") or not bracket:
        return name in names_in(file)
    return test in names_in(file) and f'"{case.removesuffix("]")}"' in (ROOT / file).read_text()


@pytest.mark.parametrize("file", FILES)
def test_every_file_that_is_named_is_there(file: str) -> None:
    assert (ROOT / file).is_file()


@pytest.mark.parametrize(("file", "name"), REFERENCES)
def test_every_test_that_is_named_is_there(file: str, name: str) -> None:
    assert is_named(file, name), f"{file} has no {name!r}: mend docs/needs.md or bring the test back"


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("tests/cases/core.yaml", "a stream that is"),
        ("tests/core/test_cases.py", "test_cas"),
        ("tests/wire/responses/test_deviations.py", "test_the_calls_are_found[no such case]"),
        ("policies/access_test.rego", "test_a_role"),
    ],
)
def test_what_is_not_there_is_found_out(file: str, name: str) -> None:
    assert not is_named(file, name)


def test_every_need_has_its_tests_or_says_that_it_has_none() -> None:
    assert [int(number) for number, _ in ROWS] == list(range(1, 21))
    for number, row in ROWS:
        assert "::" in row or "Not covered: " in row, f"need {number} has neither"
