"""What a decision depends on: never too little, whatever way a policy takes to its input."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from proxy.engines.evaluating.compiling import MINIMAL_INPUT
from proxy.engines.regorus import RegorusEngine
from proxy.engines.sources.policyset import PolicySet

STARTER = PolicySet.load([Path(__file__).parents[2] / "policies"])


def reads(*modules: str, package: str = "callgate.tools") -> frozenset[str] | None:
    texts = {f"{index}.rego": text for index, text in enumerate(modules)}
    return RegorusEngine(PolicySet.of(texts)).reads(package)


def rule(body: str, head: str = "") -> str:
    return f"package callgate.tools\n\n{head}\n\ndecision := answer if {{\n\tanswer := {body}\n}}\n"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("1", set()),
        ("input.tools", {"tools"}),
        ('input["tools"]', {"tools"}),
        ("input.principal.roles[_]", {"principal"}),
        ("[input.model, input.protocol]", {"model", "protocol"}),
        ("data.lists[input.model]", {"model"}),
        ("[name | some tool in input.tools; name := tool[input.model]]", {"tools", "model"}),
        ("{input.model: input.time}", {"model", "time"}),
        (
            "count([1 | every tool in input.tools { tool.name == input.conversation.id }])",
            {"tools", "conversation"},
        ),
        ('object.get(input.history, "labels", [])', {"history"}),
        ('sprintf("%s", [input.approval])', {"approval"}),
    ],
)
def test_members_are_found_wherever_they_stand(body: str, expected: set[str]) -> None:
    assert reads(rule(body)) == expected


@pytest.mark.parametrize(
    "body",
    [
        "input",
        "count(input)",
        "input[data.name]",
        "[value | some key, value in input]",
        "[path | walk(input, [path, _])]",
        'object.get(input, ["history"], 0)',
        "time.now_ns()",
        'rand.intn("x", 9)',
        'uuid.rfc4122("x")',
    ],
)
def test_what_cannot_be_told_is_not_told(body: str) -> None:
    assert reads(rule(body)) is None


def test_an_import_of_the_whole_input_cannot_be_told() -> None:
    assert reads(rule("i.model", "import input as i")) is None
    assert reads(rule("m", "import input.model as m")) == {"model"}


LIBRARY = "package lib.inner\n\nroles := input.principal.roles\n\nname(x) := [x, input.model]\n"


@pytest.mark.parametrize(
    "text",
    [
        rule("data.lib.inner.roles"),
        rule('data.lib["inner"].roles'),
        rule("inner.name(1)", "import data.lib.inner"),
        rule("l.inner.roles", "import data.lib as l"),
        rule("data.lib.inner.name(1)"),
        rule("data.lib[input.protocol].roles"),
        rule("roles", "import data.lib.inner.roles"),
        rule("data.middle.roles"),
    ],
)
def test_other_packages_count_too(text: str) -> None:
    middle = "package middle\n\nimport data.lib\n\nroles := lib.inner.roles\n"
    found = reads(text, LIBRARY, middle, "package other\n\nx := input.time\n")
    assert found is not None
    assert {"principal", "model"} <= found
    assert "time" not in found


def test_a_reference_to_all_data_counts_every_package() -> None:
    found = reads(rule("[1 | some x in data.lib[_]]"), LIBRARY, "package other\n\nx := input.time\n")
    assert found == {"principal", "model"}
    assert reads(rule("data[input.model]"), LIBRARY, "package other\n\nx := input.time\n") == {
        "principal",
        "model",
        "time",
    }


def test_a_rule_may_be_written_from_the_package_above() -> None:
    above = "package callgate\n\ntools.decision := answer if {\n\tanswer := input.time\n}\n"
    assert reads(above) == {"time"}


def test_a_package_without_a_decision_reads_nothing() -> None:
    assert reads("package callgate.tools\n\nx := input.model\n") == frozenset()


@cache
def starter() -> RegorusEngine:
    return RegorusEngine(STARTER, timeout_s=None)


def test_the_starter_policies_can_be_kept() -> None:
    assert starter().reads("callgate.tools") == {"principal", "tools", "hosted"}
    assert starter().reads("callgate.request") == {"principal", "model"}


@pytest.mark.parametrize("package", ["callgate.tools", "callgate.request"])
@pytest.mark.parametrize("member", sorted(MINIMAL_INPUT))
async def test_what_is_not_read_changes_nothing(package: str, member: str) -> None:
    found = starter().reads(package)
    assert found is not None
    if member not in found:
        usual = await starter().decide(package, MINIMAL_INPUT)
        for value in (None, "x", 1, [], {"roles": ["admin"]}, ["admin"]):
            assert await starter().decide(package, {**MINIMAL_INPUT, member: value}) == usual
