"""Regular expressions that nobody can make slow."""

from __future__ import annotations

from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.engines.patterns import LinearPatterns
from proxy.ports import Unavailable

PATTERNS = LinearPatterns()


@pytest.mark.parametrize(
    ("pattern", "text", "replaced"),
    [
        ("[0-9]+", "a1b22", "aXbX"),
        ("(?i)acme-\\d{3}", "Acme-123 acme-12", "X acme-12"),
        ("k=(\\w+)", "k=v", "X"),
        ("ü+", "füür", "fXr"),
        ("nothing", 'as "it" is\n\x00 \U0001f600', 'as "it" is\n\x00 \U0001f600'),
    ],
)
def test_matches_are_replaced(pattern: str, text: str, replaced: str) -> None:
    assert PATTERNS.fault(pattern) is None
    assert PATTERNS.replace(text, pattern, "X") == replaced


def test_a_replacement_is_taken_as_it_stands() -> None:
    assert PATTERNS.replace("k=v", "k=(\\w+)", "$1 ${1} $$ \\1") == "$1 ${1} $$ \\1"


@given(text=st.text(), by=st.text(max_size=5))
def test_what_does_not_match_is_left_alone(text: str, by: str) -> None:
    assert PATTERNS.replace(text, "\\bnever-there\\b", by) == text


@pytest.mark.parametrize(
    "pattern", ["", "(", "(?=a)", "(?<!a)b", "(a)\\1", "a*", "^", "x?", "\\w{9999}", "a" * 5000, "[z-a]"]
)
def test_a_pattern_that_cannot_be_used_is_named(pattern: str) -> None:
    assert PATTERNS.fault(pattern)


@pytest.mark.parametrize("pattern", ["(", "(?=a)", "(a)\\1", "\\w{9999}"])
def test_to_use_one_all_the_same_fails(pattern: str) -> None:
    with pytest.raises(Unavailable):
        PATTERNS.replace("a" * 100, pattern, "X")
    assert PATTERNS.replace("a", "a", "b") == "b"


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|aa)+$", "(.*)*x", "(a*)*b", "([a-z]+)*[0-9]"])
def test_time_grows_with_the_text_only(pattern: str) -> None:
    text = "a" * 200_000 + "!"
    began = perf_counter()
    PATTERNS.replace(text, pattern, "X")
    assert perf_counter() - began < 2, "a backtracking engine would take longer than the universe lasts"
