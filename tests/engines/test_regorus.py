"""The embedded engine beyond the contract: what it refuses to serve, because it would get it wrong."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
import regorus

from proxy.engines.regorus import RegorusEngine
from proxy.engines.sources.policyset import PolicyFault, PolicySet
from proxy.ports import Unavailable


def faults_of(modules: dict[str, str], data: dict[str, Any] | None = None) -> list[str]:
    with pytest.raises(PolicyFault) as caught:
        RegorusEngine(PolicySet.of(modules, data))
    return list(caught.value.faults)


def rego(*rules: str, package: str = "callgate.call") -> str:
    return f"package {package}\n\n" + "\n\n".join(rules) + "\n"


NO_FUNCTION = "the embedded engine has no function {}: for OPA's other builtins use engine: opa"


@pytest.mark.parametrize(
    ("rule", "name"),
    [
        ('d := crypto.sha256("a")', "crypto.sha256"),
        ("d := io.jwt.decode(input.token)", "io.jwt.decode"),
        ('d := http.send({"method": "get", "url": "http://127.0.0.1"})', "http.send"),
        ("d := opa.runtime().env", "opa.runtime"),
        ('d if { input.never; not net.lookup_ip_addr("host") }', "net.lookup_ip_addr"),
        ('d := [x | x := rego.parse_module("a", "package a")]', "rego.parse_module"),
        ("d(x) if every y in x { no_such_function(y) }", "no_such_function"),
        ("d contains 1 if data.lib.missing(1)", "data.lib.missing"),
        ("default d := 1\n\nd := 2 if { false } else := 3 if { upper(lower(missing(1))) }", "missing"),
        ("d if input.x with input.y as crypto.md5(input.z)", "crypto.md5"),
    ],
)
def test_a_function_that_it_does_not_have_is_named_wherever_it_is_called(rule: str, name: str) -> None:
    (fault,) = faults_of({"a.rego": rego(rule)})
    place, _, text = fault.partition(": ")
    assert place in ("a.rego:3", "a.rego:5")
    assert text == NO_FUNCTION.format(name)


async def test_functions_are_found_in_packages_and_through_imports() -> None:
    modules = {
        "a.rego": rego(
            "import data.lib",
            "import data.lib.twice as double",
            "decision := [lib.once(1), double(2), data.lib.deep.thrice(3), here(4), count([5])]",
            "here(x) := x",
        ),
        "b.rego": rego("once(x) := x", "twice(x) := 2 * x", "deep.thrice(x) := 3 * x", package="lib"),
    }
    assert await RegorusEngine(PolicySet.of(modules)).decide("callgate.call", {}) == [1, 4, 9, 4, 1]


@pytest.mark.parametrize(
    "rules",
    [
        ("f(x) := f(x)",),
        ("f(x) := 0 if x == 0", "f(x) := f(x - 1) if x > 0"),
        ("f(x) := g(x)", "g(x) := [h(x)]", "h(x) if { every y in x { data.callgate.call.f(y) } }"),
    ],
)
def test_a_function_that_calls_itself_is_refused(rules: tuple[str, ...]) -> None:
    """It would overflow the stack, which ends the process."""
    faults = faults_of({"a.rego": rego("decision := f(1)", *rules)})
    assert "a.rego:5: f calls itself, which Rego does not allow" in faults


FRAGILE = "looks up a value that may be undefined"


@pytest.mark.parametrize(
    "rule",
    [
        'd contains input.a[n] if some n in ["x", "y"]',
        "d contains user.name if some user in input.users",
        'd contains {"id": user.id} if some user in input.users',
        'd contains sprintf("%s", [user.name]) if some user in input.users',
        "d[user.id] := 1 if some user in input.users",
        "d[i] := user.name if some i, user in input.users",
        'd := input.a[n] if some n in ["x", "y"]',
        "d contains f(n) if some n in [1]\n\nf(n) := input.a[n]",
        "d := 1 if { input.x } else := input.a[n] if { some n in [1] }",
        'f(n) if { n == "q" } else := input.z',
        'f(n) if { n == "q" } else := r\n\nr := 1 if input.q',
        "f(n) := n.a if { n.b } else := 2",
        # A local name hides the rule of the same name.
        "d contains user.name if some user in input.users\n\nuser := {}",
    ],
)
def test_a_head_that_may_be_undefined_is_refused(rule: str) -> None:
    (fault,) = faults_of({"a.rego": rego(rule)})
    assert fault.startswith("a.rego:3: ")
    assert FRAGILE in fault


@pytest.mark.parametrize(
    "rule",
    [
        "d contains name if { some user in input.users; name := user.name }",
        'd contains sprintf("%s", [name]) if { some user in input.users; name := user.name }',
        'd contains sprintf("%s", [input.model]) if input.model',
        "d := input.roles if input.roles",
        'd := split(input.model, "-")[0]',
        "d := data.x[input.model]",
        "d[i] := name if { some i, user in input.users; name := user.name }",
        "d := [user.name | some user in input.users]",
        "d := count({user.name | some user in input.users}) if input.users",
        "f(n) := n.a",
        "f(n) := v if { v := n.a } else := 2",
        "f(n) := count([m.x | some m in n]) if { n } else := 2",
        "d := f(other) if other\n\nother := 1\n\nf(x) := x",
        "d := other.x if other\n\nother := {}",
    ],
)
def test_a_head_that_is_safe_is_served(rule: str) -> None:
    policies = PolicySet.of({"a.rego": rego(rule)}, {"x": {}})
    assert RegorusEngine(policies).revision == policies.revision


@pytest.mark.parametrize(
    ("rules", "wrong"),
    [
        ('decision contains input.a[n] if some n in ["x", "y"]', "[]"),
        ('decision := f("a")\n\nf(n) if { n == "q" } else := input.z', "true"),
    ],
)
def test_the_engine_itself_still_gets_these_wrong(rules: str, wrong: str) -> None:
    """The day this fails, the engine is mended, and the check on heads can go."""
    engine = regorus.Engine()
    engine.add_policy("a.rego", rego(rules))
    engine.set_input_json('{"a": {"x": 1}}')
    assert json.loads(engine.eval_rule_as_json("data.callgate.call.decision")) == json.loads(wrong)


@pytest.mark.parametrize(
    ("data", "place"),
    [
        ({"callgate": {"call": {"decision": {"effect": "allow"}}}}, "callgate.call.decision"),
        ({"callgate": {"call": 1}}, "callgate.call"),
        ({"callgate": []}, "callgate"),
    ],
)
def test_data_may_not_stand_where_a_rule_stands(data: dict[str, Any], place: str) -> None:
    (fault,) = faults_of({"a.rego": rego("decision := 1")}, data)
    assert fault == f"a.rego:3: the data define data.{place}, which is this rule's place"


async def test_data_may_stand_beside_rules() -> None:
    data = {"callgate": {"call": {"x": 1}, "roles": {}}}
    engine = RegorusEngine(PolicySet.of({"a.rego": rego("decision := data.callgate.call.x")}, data))
    assert await engine.decide("callgate.call", {}) == 1


@pytest.mark.parametrize("brackets", ["[]", "{}"])
def test_brackets_that_nest_deep_are_refused_before_they_are_parsed(brackets: str) -> None:
    """Parsing takes twice as long with every level."""
    (fault,) = faults_of({"a.rego": rego("x := " + brackets[0] * 200 + "1" + brackets[1] * 200)})
    assert fault == "a.rego:3: brackets nest more than 12 deep: name the inner parts"


def test_an_expression_too_deep_to_be_checked_is_refused() -> None:
    (fault,) = faults_of({"a.rego": rego("x := 1" + " +\n\t1" * 2000)})
    assert "nests too deeply to be checked" in fault
    RegorusEngine(PolicySet.of({"a.rego": rego("x := 1" + " +\n\t1" * 50)}))


async def test_brackets_in_text_and_remarks_do_not_count() -> None:
    opened = "[" * 50
    rules = (f"# {opened}", f'decision := [x, y]\n\nx := "\\"{opened}"', f"y := `\n{opened}`")
    engine = RegorusEngine(PolicySet.of({"a.rego": rego(*rules)}))
    assert await engine.decide("callgate.call", {}) == [f'"{opened}', f"\n{opened}"]


def test_all_faults_are_named_at_once() -> None:
    modules = {
        "a.rego": rego("x := := 1"),
        "b.rego": rego("y := :="),
        "c.rego": rego("z := crypto.md5(1)", "f(x) := f(x)"),
    }
    assert [fault.split(": ")[0] for fault in faults_of(modules)] == ["a.rego:3", "b.rego:3"]
    del modules["a.rego"], modules["b.rego"]
    assert [fault.split(": ")[0] for fault in faults_of(modules)] == ["c.rego:3", "c.rego:5"]


def test_every_decision_is_proven_before_it_serves() -> None:
    modules = {
        "a.rego": rego("decision := 1 / 0"),
        "b.rego": rego("decision := to_number(input.protocol)", package="callgate.tools"),
    }
    assert faults_of(modules) == [
        "policy callgate.call cannot decide: a.rego:3: divide by zero",
        "policy callgate.tools cannot decide: b.rego:3: could not parse string as number",
    ]


async def test_a_rust_panic_makes_the_decision_unavailable() -> None:
    engine = RegorusEngine(PolicySet.of({"a.rego": rego("decision := 1")}))
    with pytest.raises(Unavailable, match=r"callgate\.call cannot decide: the engine failed"):
        # The engine panics on any thread but its own.
        await asyncio.to_thread(asyncio.run, engine.decide("callgate.call", {}))
    assert await engine.decide("callgate.call", {}) == 1
