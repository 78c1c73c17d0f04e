"""Which rules made a decision: told by marked copies of them that decide the same."""

from __future__ import annotations

import asyncio
from functools import cache
from pathlib import Path
from typing import Any

import orjson
import pytest
import regorus
from hypothesis import given, settings

from proxy.engines.rego.mentions import mentions
from proxy.engines.rego.text import Mark, marked, written_rules
from proxy.engines.rego.trace import Explained, Explainer
from proxy.engines.regorus import RegorusEngine
from proxy.engines.sources.policyset import PolicySet
from proxy.ports import Unavailable
from tests.policies.inputs import call_inputs

ROOT = Path(__file__).parents[2]
POLICY = """package p

default calm := true

calm := false if input.a == "loud" # a comment

decision := "no" if {
	input.a == "y" # one more
	count(reasons) > 0
} else := "maybe" if {
	input.a == "y"
	input.b
} else := "else"

reasons contains "because" if {
	calm
	input.c with data.unused as {
		"d": 1,
	}
	# the last line
}

reasons contains reason if {
	some item in input.items
	item > 1
	reason := sprintf("%d is large", [item])
}

twice(x) := y if y := x * 2

unused := twice(3) if input.z
"""


def explained(input: dict[str, Any]) -> Explained:
    return Explainer(PolicySet.of({"p.rego": POLICY})).explain("p", input)


def lines(explained: Explained) -> tuple[list[int], list[int]]:
    fired, stopped = explained.fired, explained.stopped
    return [int(s.place.split(":")[1]) for s in fired], [int(s.place.split(":")[1]) for s in stopped]


@pytest.mark.parametrize(
    ("input", "decision", "fired", "stopped"),
    [
        ({}, "else", [13], [8, 11]),
        ({"a": "y", "c": 1}, "no", [3, 7, 15], [5, 24]),
        ({"a": "y", "b": 1}, "maybe", [3, 10], [5, 9, 17, 24]),
        ({"a": "y"}, "else", [3, 13], [5, 9, 12, 17, 24]),
        ({"a": "y", "items": [1, 2, 3]}, "no", [3, 7, 23], [5, 17]),
        ({"a": "loud", "c": 1}, "else", [13], [8, 11]),
    ],
)
def test_rules_that_applied_are_told_from_those_that_stopped(
    input: dict[str, Any], decision: str, fired: list[int], stopped: list[int]
) -> None:
    found = explained(input)
    assert found.decision == decision
    assert lines(found) == (fired, stopped)


def test_what_a_rule_added_is_shown() -> None:
    step = explained({"a": "y", "items": [1, 2, 3]}).fired[-1]
    assert (step.rule, step.values, step.times) == ("p.reasons", ("2 is large", "3 is large"), 2)
    assert step.text == "reasons contains reason"


def test_an_else_is_named_by_its_own_head() -> None:
    default, step = explained({"a": "y", "b": 1}).fired
    assert default.text == "default calm"
    assert (step.text, step.place) == ('else := "maybe"', "p.rego:10")


def test_what_policies_print_is_kept_apart() -> None:
    policy = 'package p\n\ndecision := 1 if {\n\tprint("hello", input.a)\n}\n'
    found = Explainer(PolicySet.of({"p.rego": policy})).explain("p", {"a": 2})
    assert found.printed == ("p.rego:4: hello 2",)
    assert len(found.fired) == 1


def test_what_cannot_decide_is_said_with_its_place() -> None:
    policy = "package p\n\ndecision := x if x := 1 / input.a\n"
    with pytest.raises(Unavailable, match=r"p\.rego:3: divide by zero"):
        Explainer(PolicySet.of({"p.rego": policy})).explain("p", {"a": 0})


@pytest.mark.parametrize(
    "body",
    [
        "{\n\tinput.a\n}",
        "{ input.a; input.b }",
        'input.a == "x"',
        "input.a == `x`",
        '"x" in input.a',
        "`x` in input.a",
        "{1, 2} == {2, 1}",
        'input.a with input.b as "x"',
        '{ input.a with input.b as "x" } else := 2 if "x" == "x"',
        "{\n\tinput.a == {\n\t\t1: 2,\n\t}\n} else := 3",
        "every x in input.a { x }",
        "not input.a",
        '{\n\tinput.a == "ü" # ü\n}',
    ],
)
def test_marks_change_no_line_and_no_meaning(body: str) -> None:
    text = f"package p\n\nx if {body}\n\ny := 1 # last\n"
    plain = regorus.Engine()
    plain.add_policy("p.rego", text)
    (tree,) = orjson.loads(plain.get_ast_as_json())
    marks = [Mark(inner, '"mark"') for rule in written_rules(tree) for inner in rule.bodies]
    with_marks = marked(text, marks)
    assert with_marks.count("\n") == text.count("\n")
    assert with_marks.count("print(") == len(marks) >= 1
    again = regorus.Engine()
    again.set_gather_prints(True)
    again.add_policy("p.rego", with_marks)
    for input_json in ("{}", '{"a":"x"}', '{"a":["x"]}', '{"a":true,"b":1}', '{"a":[true]}'):
        for engine in (plain, again):
            engine.set_input_json(input_json)
        assert again.eval_query_as_json("data.p") == plain.eval_query_as_json("data.p")


@cache
def starter() -> tuple[RegorusEngine, Explainer]:
    policies = PolicySet.load([ROOT / "policies"])
    return RegorusEngine(policies), Explainer(policies)


@settings(max_examples=100, deadline=None)
@given(document=call_inputs())
def test_the_starter_policies_explain_what_they_decide(document: dict[str, Any]) -> None:
    engine, explainer = starter()
    decision = asyncio.run(engine.decide("callgate.call", document))
    found = explainer.explain("callgate.call", document)
    assert found.decision == decision
    shown = {value for step in found.fired for value in step.values}
    assert {" ".join(reason.split()) for reason in decision["reasons"]} <= {
        " ".join(value.split()) for value in shown
    }
    assert not {(s.rule, s.place) for s in found.fired} & {(s.rule, s.place) for s in found.stopped}


@pytest.mark.parametrize(
    ("rule", "unread", "read"),
    [
        ("a if input.call.arguments.b == 1", "body", "b"),
        ('a if input.call["arguments"].b == 1', "body", "b"),
        ("a if input.call.arguments[input.x] == 1", "body", "x"),
        ("a if is_object(input.call.arguments)", "body", "arguments"),
        ("a if some x in data.names.arguments", "body", "arguments"),
        ("a if data.names[input.x]", "body", "subject"),
    ],
)
def test_what_policies_never_mention_they_do_not_look_up(rule: str, unread: str, read: str) -> None:
    found = mentions(PolicySet.of({"a.rego": f"package a\n\n{rule}\n"}, {"names": {"k": ["subject"]}}))
    assert not found(unread)
    assert found(read)


@pytest.mark.parametrize(
    "rule",
    [
        "a := input.call.arguments",
        'a if input.call["arguments"]',
        "a if some k, v in input.call.arguments",
        "a if { x := input.call.arguments; true }",
        "a if walk(input.call, [p, v])",
        'a if contains(json.marshal(input.call.arguments), "secret")',
    ],
)
def test_those_that_go_through_all_may_look_at_anything(rule: str) -> None:
    assert mentions(PolicySet.of({"a.rego": f"package a\n\n{rule}\n"}))("whatever")
