"""Two decisions on one question: which of them allows less."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.gates.comparing import PACKAGES, Stand, compare, stand
from proxy.ports import Unavailable

CALL, REQUEST, TOOLS, RESULT = PACKAGES
INPUT = {"call": {"id": "c1", "name": "drop", "arguments": {"table": "users"}}}


def call(effect: str, *reasons: str, **obligations: Any) -> dict[str, Any]:
    return {"effect": effect, "reasons": list(reasons), "obligations": obligations}


# package, live, candidate, how the candidate differs
CASES: list[tuple[str, Any, Any, str]] = [
    (CALL, call("allow"), call("allow"), "same"),
    (CALL, call("allow"), {"effect": "allow"}, "same"),
    (CALL, call("allow"), call("allow", arguments={"table": "users"}), "same"),
    (CALL, call("allow"), call("confirm"), "stricter"),
    (CALL, call("confirm"), call("reask"), "stricter"),
    (CALL, call("reask"), call("deny"), "stricter"),
    (CALL, call("deny"), call("confirm"), "looser"),
    (CALL, call("deny", "no"), None, "reworded"),
    (CALL, call("deny", "a", "b"), call("deny", "b", "a"), "same"),
    (CALL, call("deny", "no"), call("deny", "never"), "reworded"),
    (CALL, call("allow"), call("allow", arguments={"table": "t"}), "altered"),
    (CALL, call("allow", mask=["/a"]), call("allow", mask=["/a", "/a"]), "same"),
    (CALL, call("allow", mask=["/a"]), call("allow"), "altered"),
    (CALL, call("allow", cache_ttl_s=5), call("allow", cache_ttl_s=6), "altered"),
    (REQUEST, {"effect": "allow"}, {"effect": "deny"}, "stricter"),
    (REQUEST, {"effect": "deny", "reasons": ["no"]}, {"effect": "deny", "reasons": ["never"]}, "reworded"),
    (TOOLS, {}, {"hosted": {"web_search": "strip"}}, "stricter"),
    (TOOLS, {"hosted": {"mcp": "approve"}}, {"hosted": {"mcp": "strip"}}, "stricter"),
    (TOOLS, {"hosted": {"mcp": "strip"}}, {"hosted": {"mcp": "deny"}}, "stricter"),
    (TOOLS, {"hosted": {"mcp": "deny"}}, {"hosted": {"mcp": "approve"}}, "looser"),
    (TOOLS, {"hosted": {"a": "strip"}}, {"hosted": {"b": "strip"}}, "altered"),
    (TOOLS, {"hide": ["a"]}, {"hosted": {"a": "strip"}}, "altered"),
    (TOOLS, {"hide": [], "reasons": ["a"]}, {"hide": [], "reasons": ["b"]}, "reworded"),
    (TOOLS, {"hide": []}, {"hide": ["drop"]}, "stricter"),
    (TOOLS, {"hide": ["a", "b"]}, {"hide": ["b"]}, "looser"),
    (TOOLS, {"hide": ["a", "b"]}, {"hide": ["b", "a"]}, "same"),
    (TOOLS, {"hide": ["a"]}, {"hide": ["b"]}, "altered"),
    (RESULT, {"effect": "allow"}, {"effect": "redact", "pointers": ["/card"]}, "stricter"),
    (RESULT, {"effect": "replace", "content": ""}, {"effect": "redact", "pointers": ["/card"]}, "looser"),
    (RESULT, {"effect": "replace", "content": "a"}, {"effect": "replace", "content": "b"}, "altered"),
    (RESULT, {"effect": "allow"}, {"effect": "allow", "labels": ["untrusted"]}, "stricter"),
    (RESULT, {"effect": "allow"}, None, "stricter"),
]


@pytest.mark.parametrize(("package", "live", "candidate", "change"), CASES)
def test_decisions_are_compared_as_they_count(package: str, live: Any, candidate: Any, change: str) -> None:
    before, after = stand(package, live, INPUT), stand(package, candidate, INPUT)
    assert compare(before, after) == change
    opposite = {"stricter": "looser", "looser": "stricter"}.get(change, change)
    assert compare(after, before) == opposite


@pytest.mark.parametrize(
    ("package", "document"),
    [
        (CALL, {"effect": "maybe"}),
        (CALL, 5),
        (REQUEST, "allow"),
        (REQUEST, {"effect": "allow", "strip": ["mcp"]}),
        (TOOLS, None),
        (TOOLS, {"hosted": {"mcp": "hide"}}),
        (TOOLS, {"hidden": ["drop"]}),
        (RESULT, {"effect": "redact"}),
    ],
)
def test_what_has_no_meaning_is_not_compared(package: str, document: Any) -> None:
    with pytest.raises(Unavailable):
        stand(package, document, INPUT)


stands = st.builds(
    Stand,
    st.sampled_from(["allow", "confirm", "deny"]),
    st.lists(st.sampled_from("ab"), max_size=2).map(tuple),
    st.just({}),
    st.frozensets(st.sampled_from("xyz")),
)


@given(stands, stands, stands)
def test_stricter_is_an_order(a: Stand, b: Stand, c: Stand) -> None:
    assert compare(a, a) == "same"
    assert (compare(a, b) == "stricter") == (compare(b, a) == "looser")
    if compare(a, b) == compare(b, c) == "stricter":
        assert compare(a, c) == "stricter"
