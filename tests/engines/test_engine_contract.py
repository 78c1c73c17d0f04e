"""What every policy engine promises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.engines.sources.policyset import PolicyFault, PolicySet
from proxy.ports import Unavailable

Start = Callable[..., Any]

ECHO = {"call.rego": "package callgate.call\n\ndecision := input\n"}
ROLES = {
    "call.rego": """package callgate.call

default decision := {"effect": "deny"}

decision := {"effect": "allow"} if {
	some role in input.principal.roles
	input.call.name in data.roles[role]
}
"""
}


async def test_a_package_that_is_not_defined_has_no_say(start: Start) -> None:
    engine = start({"other.rego": "package callgate.other\n\nallow := true\n"})
    assert not engine.defines("callgate.call")
    assert not engine.defines("callgate.other")
    assert await engine.decide("callgate.call", {}) is None
    assert await engine.decide("callgate.other", {}) is None


async def test_what_a_decision_reads_is_not_told_too_little(start: Start) -> None:
    engine = start(
        {"call.rego": "package callgate.call\n\ndecision := [input.a.b, data.lib.x]\n"}
        | {"lib.rego": 'package lib\n\nx := input["c"]\n'}
    )
    told = engine.reads("callgate.call")
    assert told is None or told >= {"a", "c"}
    assert start({"call.rego": "package callgate.call\n\ndecision := input\n"}).reads("callgate.call") is None
    clock = "package callgate.call\n\ndecision := time.now_ns()\n"
    assert start({"call.rego": clock}).reads("callgate.call") is None


async def test_without_any_policy_nothing_has_a_say(start: Start) -> None:
    engine = start({})
    assert not engine.defines("callgate.call")
    assert await engine.decide("callgate.call", {}) is None


async def test_a_decision_that_is_undefined_is_none(start: Start) -> None:
    engine = start({"call.rego": "package callgate.call\n\ndecision := 1 if input.x\n"})
    assert engine.defines("callgate.call")
    assert await engine.decide("callgate.call", {}) is None
    assert await engine.decide("callgate.call", {"x": True}) == 1


async def test_a_default_alone_is_a_decision(start: Start) -> None:
    engine = start({"call.rego": 'package callgate.call\n\ndefault decision := {"effect": "deny"}\n'})
    assert engine.defines("callgate.call")
    assert await engine.decide("callgate.call", {}) == {"effect": "deny"}


async def test_input_and_data_are_what_the_rules_see(start: Start) -> None:
    engine = start(ROLES, {"roles": {"viewer": ["get_user"]}})
    asked = {"principal": {"roles": ["viewer"]}, "call": {"name": "get_user"}}
    assert await engine.decide("callgate.call", asked) == {"effect": "allow"}
    assert await engine.decide("callgate.call", {**asked, "call": {"name": "other"}}) == {"effect": "deny"}
    # Nothing of an earlier input is left.
    assert await engine.decide("callgate.call", {}) == {"effect": "deny"}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    document=st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-(2**53), 2**53) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    )
)
async def test_values_go_in_and_out_unchanged(start: Start, document: Any) -> None:
    # Of the float 1.0 and the integer 1, JSON knows only one.
    assert await start(ECHO).decide("callgate.call", {"value": document}) == {"value": document}


def test_a_revision_is_the_contents(start: Start) -> None:
    first = start(ROLES, {"roles": {}})
    assert len(first.revision) >= 16
    assert first.revision == start(ROLES, {"roles": {}}).revision
    others = [
        start(ROLES, {"roles": {"viewer": []}}),
        start({"call.rego": ROLES["call.rego"] + "\n"}, {"roles": {}}),
        start({"renamed.rego": ROLES["call.rego"]}, {"roles": {}}),
        start({**ROLES, "more.rego": "package more\n"}, {"roles": {}}),
    ]
    assert len({engine.revision for engine in [first, *others]}) == 5


async def test_policies_are_replaced_whole(start: Start) -> None:
    engine = start({**ECHO, "b.rego": "package callgate.tools\n\ndecision := 1\n"}, {"a": 1})
    before = engine.revision
    other = PolicySet.of({"call.rego": "package callgate.call\n\ndecision := [data.b]\n"}, {"b": 2})
    await engine.replace(other)
    assert engine.revision != before
    assert await engine.decide("callgate.call", {}) == [2]
    assert not engine.defines("callgate.tools")
    await engine.replace(
        PolicySet.of({"call.rego": "package callgate.call\n\ndecision := 1 if data.a\n"}, {"b": 2})
    )
    assert await engine.decide("callgate.call", {}) is None


@pytest.mark.parametrize(
    "broken",
    [
        "package callgate.call\n\ndecision := := 1\n",
        "package callgate.call\n\ndecision { true }\n",
        "package callgate.call\n\ndecision := x\n",
        "package callgate.call\n\ndecision := 1\n\ndecision := 2\n",
        "package callgate.call\n\ndecision := no.such(1)\n",
        "package callgate.call\n\ndecision := f(1)\n\nf(x) := f(x)\n",
        "",
    ],
)
async def test_what_cannot_serve_leaves_the_last_good_in_force(start: Start, broken: str) -> None:
    engine = start(ROLES, {"roles": {"viewer": ["get_user"]}})
    before = engine.revision
    with pytest.raises(PolicyFault, match=r"new\.rego:\d+: "):
        await engine.replace(PolicySet.of({"new.rego": broken}))
    assert engine.revision == before
    assert engine.defines("callgate.call")
    asked = {"principal": {"roles": ["viewer"]}, "call": {"name": "get_user"}}
    assert await engine.decide("callgate.call", asked) == {"effect": "allow"}
    with pytest.raises(PolicyFault):
        start({"new.rego": broken})


async def test_a_rule_that_fails_makes_the_decision_unavailable(start: Start) -> None:
    rule = 'decision := object.get({"secret": 1}, lower(input.call.id), 0)'
    source = f"package callgate.call\n\n# a remark\n{rule}\n"
    engine = start({"call.rego": source})
    with pytest.raises(Unavailable) as caught:
        await engine.decide("callgate.call", {"call": {"id": ["hidden-value"]}})
    message = str(caught.value)
    assert "callgate.call" in message
    assert "call.rego:4" in message
    for kept in ("secret", "hidden-value", "remark", "backtrace"):
        assert kept not in message
    assert await engine.decide("callgate.call", {"call": {"id": "SECRET"}}) == 1


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("depth", [200, 900, 5_000, 100_000])
async def test_deep_nesting_is_refused_and_harms_nothing(start: Start, depth: int) -> None:
    engine = start(ECHO)
    with pytest.raises(Unavailable):
        await engine.decide("callgate.call", {"call": {"arguments": nested(depth)}})
    assert await engine.decide("callgate.call", {"x": nested(50)}) == {"x": nested(50)}


@pytest.mark.parametrize("part", ["call", "tool", "batch"])
async def test_half_a_character_in_the_call_makes_the_decision_unavailable(start: Start, part: str) -> None:
    engine = start(ECHO)
    with pytest.raises(Unavailable):
        await engine.decide("callgate.call", {part: {"name": "a\ud800"}})
    assert await engine.decide("callgate.call", {"x": 1}) == {"x": 1}


async def test_half_a_character_in_the_history_does_not_stop_later_calls(start: Start) -> None:
    answer = await start(ECHO).decide("callgate.call", {"call": {"name": "é"}, "history": ["a\udfffb"]})
    assert answer == {"call": {"name": "é"}, "history": ["a?b"]}


@pytest.mark.parametrize(
    "document",
    [
        {"x": "a" * 5_000_000},
        {"x": {str(i): i for i in range(50_000)}},
        {"x": [{"a": "\x00\u2028\U0001f600"}] * 20_000},
        {"x": 10**400},
        {"x": -(10**30)},
    ],
    ids=["long text", "many keys", "many items", "huge number", "large number"],
)
async def test_large_inputs_are_decided_or_refused(start: Start, document: dict[str, Any]) -> None:
    engine = start({"call.rego": "package callgate.call\n\ndecision := count(input)\n"})
    try:
        assert await engine.decide("callgate.call", document) == 1
    except Unavailable:
        assert document["x"] == 10**400
    assert await engine.decide("callgate.call", {}) == 0


async def test_an_answer_without_a_form_in_json_is_unavailable(start: Start) -> None:
    engine = start({"call.rego": "package callgate.call\n\ndecision := input.x * input.x\n"})
    with pytest.raises(Unavailable):
        await engine.decide("callgate.call", {"x": 1e300})
