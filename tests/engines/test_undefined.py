"""What is undefined under ``not`` and ``in``: the embedded engine says what OPA says, or refuses to serve."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import regorus

from proxy.engines.evaluating.compiling import MINIMAL_INPUT, compiled, evaluate
from proxy.engines.rego.undefined import TOLD
from proxy.engines.sources.policyset import PolicyFault, PolicySet

ROOT = Path(__file__).parents[2]

RULES = """
same(x) := x

one(x) if x == 1

seven(_) := 7

small(x) := 1 if { x == 1 } else := 3

default or_nine(_) := 9

or_nine(x) := 1 if x == 1

never := 1 if input.never

default always := 1

always := input.never

thing := {"a": 1}

members contains 1 if input.never

values[x] := 1 if some x in input.never

xs := [1, 2]

grants[user] contains 1 if some user in input.never

deep[x].y := 1 if some x in input.never
"""
DATA = {"known": {"v": 1}}
# The member ``m`` is nowhere.
INPUTS: list[dict[str, Any]] = [
    {},
    {"a": {"b": 5}, "f": False, "nul": None, "n": 1, "z": 0, "s": [1], "xs": [1, 2], "call": {"name": ""}},
]

# Served, the engine would decide otherwise than OPA on one of the inputs.
DIVERGING = """
not same(input.m)
not one(input.m)
not one(input["m"])
not or_nine(input.m)
not data.p.one(input.m)
not startswith(input.m, "x")
not regex.match("x", input.m)
not contains(lower(input.m), "x")
not count(input.m) > 0
not count(input.m) == 0
not sprintf("%s", [input.m]) == "x"
not concat("", ["a", input.m]) == "x"
not time.weekday(input.m) == "Sunday"
not object.get(input.m, "m", false)
not endswith(input.call.arguments.to, "x")
not same(same(input.m))
not same(input.s[0])
not input.m != 1
not input.m > 1
not input.m < input.n
not input.m + 1 == 2
not input.m - input.n
not input.m & {1}
not {1} - input.m
not input.m in xs
not input.m in {1}
not 1 in input.m
not "a", 1 in input.m
not 1 in {1, input.m}
not 1 in [2, same(input.m)]
not "a" in object.keys(input.m)
not never in [1]
not 1 in never
x := {}; not same(x.m)
some x in [{}]; not same(x.m)
some i in [0, 9]; not one(input.s[i])
some k in ["m", "a"]; not same(input[k])
x := 1; not x in input.m
not same(data.m)
not same(data.known.w)
not same([input.m])
not same({"a": input.m})
not same({input.m})
not same([1, {"x": [same(input.m)]}])
not {input.m} == {1}
not [input.m] == [1]
not thing == {"a": input.m}
not {"a": input.m}
not [input.m]
not same(never)
not same(data.p.never)
not same(values.z)
not same(members[3])
not one(2) == true
not same(one(2))
not max([]) > 1
not same(min([]))
not input.a[input.m]
not input.a[input.n]
not input.a[lower(input.m)]
not input.a[never]
not input.a[one(2)] == 1
not input.a[[input.m]] == 1
not thing[input.m]
not xs[input.m]
not members[input.m]
not {"a": 1}[input.m]
not [1][input.m]
not same({})[input.m]
not [x | x := 1][input.m]
not data.known[input.m]
not input[input.m] == 1
not same(input.m == 1)
not input.a == (input.m == 1)
not same(input.a.b) with input.a as {}
not one(input.m) with input as {}
every x in [1] { x == 1; not one(input.m) }
y := [x | some x in [1]; not one(input.m)]; count(y) == 1
x := 1 in input.m; x == false
x := input.m in [1]
x := null in [input.m]; x == false
(1 in input.m) == false
[1 in input.m] == [false]
same(input.m in [1]) == false
some x in [1 in input.m]; x == false
every x in [1 in never] { x == false }
""".strip().splitlines()

# The engine says what OPA says.
SERVED = """
not input.m
not input["m"]
not input.a.m.n
not input.a["m"].b
not input.m == 1
not 1 == input.m
not input.m = 1
not input.m == input.m
not input.m == same(1)
not input.f
not never
not never == 1
not data.known.w
not data.known["w"] == 1
not input.m[lower("M")]
not one(1)
not one(2)
not same(false)
not same(always)
not same(thing)
not same(data.known)
not same(members)
not same(values)
not same(xs)
not 3 in xs
not 3 in members
not same(data.known.v)
not seven(2) == 7
not same(seven(2))
not same(small(2))
not same(or_nine(2))
not or_nine(2) == 1
not abs(1) == 2
not count([y | y := input.m]) == 1
not same([y | y := input.m])
not [y | y := input.m]
not {y: 1 | y := input.m}
not object.get(input, "m", false)
not object.get(input, ["m"], false)
not same(input)
x := input.a; not same(x)
x := input.a.b; not x in [1]
some x in [1]; not one(x)
some k in ["m", "a"]; not input[k]
not grants.a
not deep.a.y
some user, _ in grants; user
some x in grants["a"]; x
x := input.n; not 1 in x
x := input.n; not x[0]
count([x | some x in [1]; input.m == x]) == 0
every x in [1] { x == input.m }
every x in [2] { not one(x) }
1 in input.m
input.m in [1]
not (1 in xs) == false
x := 3 in xs; x == false
""".strip().splitlines()

# A mapping of collections, none of which has anything in it.
LAYERED = """
not grants
not same(grants)
not deep
count(grants) == 0
object.get(grants, "a", 1) == 1
every user, _ in grants { user == 1 }
x := [grants]; count(x) == 1
""".strip().splitlines()

# OPA refuses them too.
UNBOUND = [
    "not input.xs[_] == 1",
    "not same(input.a[_])",
    "not input.a[k] == 1",
    "not 5 in [input.a[_]]",
]


def module(index: int, form: str) -> str:
    text = f"package p{index}\n\nallow if {{ {form} }}\n{RULES}"
    return text.replace("data.p.", f"data.p{index}.")


def refused(modules: Mapping[str, str], data: Any = None) -> list[str]:
    try:
        compiled(PolicySet.of(dict(modules), data))
    except PolicyFault as fault:
        return list(fault.faults)
    return []


def faults_of(form: str) -> list[str]:
    return refused({"p.rego": module(0, form)}, DATA)


def opa_said(opa: str, forms: list[str], input: Mapping[str, Any], folder: Path) -> list[Any]:
    """For each form whether OPA allows."""
    folder.mkdir()
    for index, form in enumerate(forms):
        (folder / f"p{index}.rego").write_text(module(index, form))
    (folder / "data.json").write_text(json.dumps(DATA))
    asked = ",".join(f"[x | x := data.p{index}.allow]" for index in range(len(forms)))
    command = [opa, "eval", "--data", str(folder), "--stdin-input", "--format", "json", f"[{asked}]"]
    done = subprocess.run(command, input=json.dumps(input), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    answers: list[Any] = json.loads(done.stdout)["result"][0]["expressions"][0]["value"]
    return [answer == [True] for answer in answers]


def engine_said(form: str, input: Mapping[str, Any]) -> bool:
    """The engine's own answer, unchecked."""
    engine = regorus.Engine()
    engine.add_policy("p.rego", module(0, form) + "\ndecision := 1 if allow\n")
    engine.add_data_json(json.dumps(DATA))
    return evaluate(engine, "p0", json.dumps(input)) == "1"


def compared(opa: str, forms: list[str], folder: Path) -> dict[str, list[tuple[bool, bool]]]:
    """For each form, on each input, what OPA and the engine say."""
    said = [opa_said(opa, forms, input, folder / str(index)) for index, input in enumerate(INPUTS)]
    return {
        form: [(said[at][index], engine_said(form, input)) for at, input in enumerate(INPUTS)]
        for index, form in enumerate(forms)
    }


def test_what_is_refused_is_decided_otherwise_by_opa(opa: str, tmp_path: Path) -> None:
    """The day this fails, the engine is mended, and a check can go."""
    answers = compared(opa, DIVERGING + LAYERED, tmp_path)
    assert [form for form, pairs in answers.items() if all(theirs == ours for theirs, ours in pairs)] == []


def test_what_is_served_is_decided_as_opa_does(opa: str, tmp_path: Path) -> None:
    answers = compared(opa, SERVED, tmp_path)
    assert {form: pairs for form, pairs in answers.items() if any(a != b for a, b in pairs)} == {}
    assert {a for pairs in answers.values() for a, _ in pairs} == {True, False}


@pytest.mark.parametrize("form", DIVERGING)
def test_what_may_meet_the_undefined_is_refused(form: str) -> None:
    (fault,) = faults_of(form)
    assert fault.startswith("p.rego:3: the ")
    assert "which may be undefined: the embedded engine" in fault


@pytest.mark.parametrize("form", LAYERED)
def test_a_mapping_of_collections_is_not_taken_whole(form: str) -> None:
    assert any(
        fault.startswith("p.rego:3: ") and "mapping of collections" in fault for fault in faults_of(form)
    )


@pytest.mark.parametrize("form", SERVED)
def test_what_cannot_is_served(form: str) -> None:
    assert faults_of(form) == []


@pytest.mark.parametrize("form", UNBOUND)
def test_a_variable_that_nothing_binds_is_refused_as_opa_does(form: str, opa: str, tmp_path: Path) -> None:
    (tmp_path / "p.rego").write_text(module(0, form))
    done = subprocess.run([opa, "check", str(tmp_path)], capture_output=True, text=True, timeout=120)
    name = "k" if "[k]" in form else "_"
    assert f"var {name} is unsafe" in done.stderr
    assert any(f"p.rego:3: {name} has no value outside the negation" in fault for fault in faults_of(form))


def paths(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if path:
        yield path
    for name in value if isinstance(value, dict) else ():
        yield from paths(value[name], (*path, name))


def least(package: str) -> dict[str, Any]:
    """The least input that a package is asked about."""
    return {name: value for name, value in MINIMAL_INPUT.items() if name in TOLD[package]}


ALWAYS_THERE = [(package, path) for package in TOLD for path in paths(least(package))]


@pytest.mark.parametrize(("package", "path"), ALWAYS_THERE)
def test_what_every_input_has_may_be_negated(package: str, path: tuple[str, ...]) -> None:
    text = f"package {package}\n\ndecision if not is_null(input.{'.'.join(path)})\n"
    assert refused({"p.rego": text}) == []


def without(document: Any, path: tuple[str, ...]) -> Any:
    first, rest = path[0], path[1:]
    if not rest:
        return {name: value for name, value in document.items() if name != first}
    return {**document, first: without(document[first], rest)}


@pytest.mark.parametrize("package", TOLD)
def test_the_schema_promises_what_every_input_has(package: str) -> None:
    schema = json.loads((ROOT / "schemas" / "policy-input.schema.json").read_text())
    definition = f"#/$defs/{package.rpartition('.')[2]}_input"
    validator = jsonschema_rs.validator_for({**schema, "$ref": definition})
    assert validator.is_valid(least(package))
    for path in paths(least(package)):
        assert not validator.is_valid(without(least(package), path)), path


FREE = "free(x) if not startswith(input.call.name, x)"


@pytest.mark.parametrize(
    ("modules", "places"),
    [
        pytest.param({"callgate.call": "decision if not is_null(input.result.content)"}, 1, id="of another"),
        pytest.param({"callgate.call": "decision if not is_null(input.call.arguments.to)"}, 1, id="argument"),
        pytest.param({"callgate.call": "decision if not is_null(input.batch[0])"}, 1, id="member of a list"),
        pytest.param({"callgate.call": "decision if data.lib.free(1)", "lib": FREE}, 0, id="shared"),
        pytest.param({"callgate.tools": "decision if data.lib.free(1)", "lib": FREE}, 1, id="lacking"),
        pytest.param(
            {
                "callgate.call": "decision if data.lib.free(1)",
                "callgate.tools": "import data.lib as l\n\ndecision if l.free(1)",
                "lib": FREE,
            },
            1,
            id="lacking in one of two",
        ),
        pytest.param(
            {"callgate.call": "decision if data.lib.free(1) with input as {}", "lib": FREE},
            1,
            id="input replaced",
        ),
        pytest.param(
            {
                "callgate.call": "decision if data.lib.free(1)",
                "lib": FREE,
                "lib_test": "test_a if data.lib.free(1) with input as {}",
            },
            0,
            id="input replaced in a test",
        ),
        pytest.param({"p": "import input.call as c\n\nd if not is_null(c.name)"}, 0, id="import"),
        pytest.param({"p": "import input.call as c\n\nd if not is_null(c.to)"}, 1, id="import of nothing"),
        pytest.param({"p": "import data.q\n\nd if not 1 in q.set", "q": "set contains 1"}, 0, id="set"),
        pytest.param({"p": "import data.q\n\nd if not 1 in q.r", "q": "r := [1] if input.b"}, 1, id="rule"),
        pytest.param({"p": "r := 1 if input.b\n\nd(r) if not is_null(r)"}, 0, id="parameter"),
        pytest.param({"p": "f(x) := x.a\n\nd(x) if not is_null(f(x))"}, 1, id="function of a member"),
        pytest.param({"p": "f({}) := 1\n\nd(x) if not is_null(f(x))"}, 1, id="function of a pattern"),
        pytest.param({"p": "f(x, x) := 1\n\nd(x) if not is_null(f(x, 1))"}, 1, id="function of equals"),
        pytest.param({"p": "r := s\n\ns := [1]\n\nd if not 1 in r"}, 0, id="rule of a rule"),
        pytest.param({"p": "r := s\n\ns := r\n\nd if not 1 in r"}, 1, id="rule of itself"),
        pytest.param({"p": "d := 1 if { true } else := input.m in [1]"}, 1, id="else"),
        pytest.param({"p": "d contains x if x := [1 | not is_null(input.m)]"}, 1, id="comprehension"),
        pytest.param({"p": "d if { every x in [1] { x > 0; not is_null(input.m) } }"}, 1, id="every"),
    ],
)
def test_who_is_asked_and_how_tells_what_is_there(modules: dict[str, str], places: int) -> None:
    faults = refused({f"{name}.rego": f"package {name}\n\n{text}\n" for name, text in modules.items()})
    assert len([fault for fault in faults if "may be undefined" in fault]) == places


def test_data_that_are_there_may_be_negated_until_they_go() -> None:
    modules = {"p.rego": "package p\n\nd(x) if not x in data.lists.known\n"}
    assert refused(modules, {"lists": {"known": []}}) == []
    (fault,) = refused(modules, {"lists": {"others": []}})
    assert fault.startswith("p.rego:3: the negation needs data.lists.known, ")


@pytest.mark.parametrize(
    ("form", "said"),
    [
        (
            "not startswith(input.call.arguments.to, `x`)",
            "p.rego:3: the negation needs input.call.arguments.to, which may be undefined: the embedded"
            " engine then takes it for true, and OPA does not: name it in the body first"
            " (value := input.call.arguments.to), or give it a default with object.get",
        ),
        (
            "x := input.call.arguments.to in xs",
            "p.rego:3: the value of 'in' needs input.call.arguments.to, which may be undefined: the embedded"
            " engine then takes it for false, and OPA does not: name it in the body first"
            " (value := input.call.arguments.to)",
        ),
    ],
)
def test_a_fault_says_the_way_out(form: str, said: str) -> None:
    assert faults_of(form) == [said]


@pytest.mark.parametrize(
    "form",
    [
        "to := input.call.arguments.to; not startswith(to, `x`)",
        "to := object.get(input, `to`, ``); not startswith(to, `x`)",
        "to := input.call.arguments.to; x := to in xs",
    ],
)
def test_the_way_out_is_one(form: str) -> None:
    assert faults_of(form) == []
