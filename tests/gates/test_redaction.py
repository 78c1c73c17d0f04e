"""What is taken out of a result, and what is left of it."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.engines.patterns import LinearPatterns
from proxy.gates.redaction import REDACTED, Unreadable, without_named, without_pointers

PATTERNS = LinearPatterns()
# Put together here, so that the text of this file holds no secret of any shape.
SECRETS = {
    "OpenAI": "sk-" + "proj-" + "aB3" * 12,
    "Anthropic": "sk-" + "ant-api03-" + "x" * 80,
    "AWS": "AKIA" + "IOSFODNN7EXAMPLE",
    "GitHub": "ghp_" + "a" * 36,
    "GitHub fine-grained": "github_pat_" + "A1" * 41,
    "GitLab": "glpat-" + "a" * 20,
    "Slack": "xoxb-" + "1234567890-abc",
    "Google": "AIza" + "S" * 35,
    "Stripe": "sk_live_" + "a" * 24,
    "npm": "npm_" + "a" * 36,
    "Hugging Face": "hf_" + "a" * 34,
    "JSON Web Token": "eyJ" + "hbGciOiJIUzI1NiJ9.eyJ" + "zdWIiOiIxMjM0NTY3ODkwIn0.abc_d-e",
    "bearer": "Bearer " + "abcdefghij0123456789",
    "private key": "-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc\n-----END RSA PRIVATE KEY-----",
    "private key, cut": "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk",
}


@pytest.mark.parametrize("kind", SECRETS)
def test_a_secret_is_taken_out(kind: str) -> None:
    assert without_named(f"before {SECRETS[kind]}", ["secrets"], PATTERNS) == f"before {REDACTED}"


@pytest.mark.parametrize("kind", sorted(set(SECRETS) - {"private key, cut"}))
def test_a_secret_is_taken_out_of_json(kind: str) -> None:
    text = orjson.dumps({"a": SECRETS[kind], "b": [1]}).decode()
    assert orjson.loads(without_named(text, ["secrets"], PATTERNS)) == {"a": REDACTED, "b": [1]}


@pytest.mark.parametrize(
    "text",
    [
        "risk-assessment-of-the-whole-company",
        "task-" + "a" * 30,
        "bearer of bad news",
        "the sk- prefix",
        "AKIA",
        "ghost_" + "a" * 40,
        "-----BEGIN CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----",
        "0123456789abcdef0123456789abcdef",
    ],
)
def test_what_only_looks_like_one_stays(text: str) -> None:
    assert without_named(text, ["secrets"], PATTERNS) == text


def test_without_a_name_nothing_is_taken_out() -> None:
    assert without_named(SECRETS["AWS"], [], PATTERNS) == SECRETS["AWS"]


@pytest.mark.parametrize(
    ("pointers", "content", "left"),
    [
        (["/a"], {"a": 1, "b": 2}, {"a": REDACTED, "b": 2}),
        (["/a/b"], {"a": {"b": [1], "c": 2}}, {"a": {"b": REDACTED, "c": 2}}),
        (["/0"], ["x", "y"], [REDACTED, "y"]),
        (["/*/x"], [{"x": 1}, {"y": 2}, 3], [{"x": REDACTED}, {"y": 2}, 3]),
        (["/*/*"], [[1, 2], []], [[REDACTED, REDACTED], []]),
        (["/a", "/b"], {"a": 1, "b": 2}, {"a": REDACTED, "b": REDACTED}),
        (["/a~1b", "/c~0d"], {"a/b": 1, "c~d": 2}, {"a/b": REDACTED, "c~d": REDACTED}),
        (["/*"], {"*": 1, "b": 2}, {"*": REDACTED, "b": 2}),
        ([""], {"a": 1}, REDACTED),
    ],
)
def test_what_a_pointer_leads_to_is_taken_out(pointers: list[str], content: Any, left: Any) -> None:
    assert orjson.loads(without_pointers(orjson.dumps(content).decode(), pointers)) == left


@pytest.mark.parametrize(
    "pointer", ["/none", "/a/none", "/a/0", "/list/9", "/list/x", "/list/-", "/list/00000000009"]
)
def test_a_pointer_that_leads_nowhere_changes_no_byte(pointer: str) -> None:
    text = '{ "a": "text",\n "list": [1, 2.50, 1e2] }'
    assert without_pointers(text, [pointer]) == text


@pytest.mark.parametrize(
    "text",
    ['{"a": 1, "a": 2}', '{"a": 1', 'Result: {"a": 1}', '[NaN, {"a": 1}]', '{"a": 1} trailing', "[" * 5000],
)
def test_what_has_no_one_reading_is_not_let_through(text: str) -> None:
    with pytest.raises(Unreadable):
        without_pointers(text, ["/a"])


@pytest.mark.parametrize("text", ["No such user.", "", "42", '"text"', "null"])
def test_text_that_can_hold_no_member_is_left_alone(text: str) -> None:
    assert without_pointers(text, ["/a"]) == text


values = st.recursive(
    st.none() | st.integers(-(2**60), 2**60) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=15,
)


@given(value=values, parts=st.lists(st.sampled_from(["a", "b", "0", "1", "*"]), min_size=1, max_size=3))
def test_to_take_out_twice_is_to_take_out_once(value: Any, parts: list[str]) -> None:
    pointer = "".join(f"/{part}" for part in parts)
    once = without_pointers(orjson.dumps(value).decode(), [pointer])
    assert without_pointers(once, [pointer]) == once
