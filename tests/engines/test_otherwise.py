"""What the engine reads otherwise than OPA does is refused, and the translation says what OPA says."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import regorus

from proxy.engines.evaluating.compiling import compiled, evaluate
from proxy.engines.sources.policyset import PolicyFault, PolicySet
from tests.engines import test_translated as forms

INPUT: dict[str, Any] = {"a": 1, "b": 2, "o": {"k": 5}, "xs": [5, 7]}

REFUSED = """
twin(x, x) := true # allow if twin(input.a, input.b)
twin(x, [x]) := true # allow if twin(input.a, [input.b])
twin(x, {"k": x}) := true # allow if twin(input.a, {"k": input.b})
allow if { some x, x in input.xs }
allow if { some x, [x, _] in {"k": ["l", 1]} }
taken := "k" # allow if { some taken; input.o[taken] == 5 }
taken contains "k" # allow if { some taken; input.xs[taken] == 7 }
taken["a"] := 1 # allow if { some taken; input.o[taken] == 5 }
taken(x) := x # allow if { some taken; input.o[taken] == 5 }
import input.a as taken # allow if count([taken | some taken; input.o[taken]]) == 1
allow if "never", input.m in input.o
allow if 9, input.m in input.xs
allow if input.m, input.m in input.o
allow if { some x in [1]; "never", input.o[x] in input.o }
allow if {{1} | {2} | {3}} == {{1}}
allow if {({1}) | {2} | ({3})} == {{1}}
allow if [{1} | {2} | {3}] == [{1}]
allow if {"k": {1} | {2} | {3}} == {"k": {1}}
parts.k := 1 if input.never # allow if count(parts) == 0
parts.k := 1 if input.never # allow if count(data.p.parts) == 0
parts.k := 1 if input.never # allow if not parts
parts.k.l := 1 if input.never # allow if count(parts.k) == 0
""".strip().splitlines()

SERVED = """
twin([x, x]) := true # allow if twin([input.a, input.b])
twin(_, _) := true # allow if twin(input.a, input.b)
twin(x, y) := true if x == y # allow if twin(input.a, input.b)
allow if { some _, _ in input.xs }
allow if { some i, x in input.xs; i == 1; x == 7 }
taken := "k" # allow if { some other; input.o[other] == 5; other == taken }
allow if { some k; input.o[k] == 5 }
allow if "never", 1 in input.o
allow if { x := input.a; "never", x in input.o }
allow if "k", 5 in input.o
allow if {({1} | {2})} == {{1, 2}}
allow if {(({1} | {2}) | {3})} == {{1, 2, 3}}
allow if [({"("} | {2})] == [{"(", 2}]
allow if {"k": ({1} | {2})} == {"k": {1, 2}}
allow if [{1} | {2}, 1] == [{1, 2}, 1]
allow if count({x | x := {1} | {2}}) == 1
parts["k"] := 1 if input.never # allow if count(parts) == 0
parts.k contains 1 if input.never # allow if count(parts) == 1
parts.k := 1 # parts.l := 1 if input.never # allow if count(parts) == 1
parts.k := 1 if input.never # allow if not parts.k
parts.k := 1 if input.a # allow if parts.k == 1
""".strip().splitlines()


def module(line: str) -> str:
    return "package p\n\n" + "\n\n".join(line.split(" # ")) + "\n\ndecision := 1 if allow\n"


def faults(line: str) -> list[str]:
    try:
        compiled(PolicySet.of({"p.rego": module(line)}))
    except PolicyFault as fault:
        return list(fault.faults)
    return []


def opa_allows(opa: str, line: str, folder: Path) -> bool:
    (folder / "p.rego").write_text(module(line))
    command = [
        opa,
        "eval",
        "--data",
        str(folder),
        "--stdin-input",
        "--format",
        "json",
        "[x | x := data.p.allow]",
    ]
    done = subprocess.run(command, input=json.dumps(INPUT), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return bool(json.loads(done.stdout)["result"][0]["expressions"][0]["value"])


def engine_allows(line: str) -> bool:
    """The engine's own answer, unchecked."""
    engine = regorus.Engine()
    engine.add_policy("p.rego", module(line))
    return evaluate(engine, "p", json.dumps(INPUT)) == "1"


@pytest.mark.parametrize("line", REFUSED)
def test_what_the_engine_reads_otherwise_than_opa_is_refused(line: str, opa: str, tmp_path: Path) -> None:
    assert engine_allows(line) != opa_allows(opa, line, tmp_path), "the engine is mended: a check can go"
    (fault,) = faults(line)
    assert fault.startswith(f"p.rego:{3 + 2 * (' # ' in line and 'twin' not in line)}: ")


@pytest.mark.parametrize("line", SERVED)
def test_what_is_only_like_it_is_served(line: str, opa: str, tmp_path: Path) -> None:
    assert faults(line) == []
    assert engine_allows(line) == opa_allows(opa, line, tmp_path)


RULES = """
limits["a"] := 1

limits[k] := v if some k, v in input.o

twice(x, x) := 1

nested(x, [x]) := 1

shadowed(y) := z if z := [a | a := y; y := 2]
"""

# What the translation said otherwise than OPA does.
TRANSLATED = """
ys := [y | some y in input.xs]; some y in ys; y == 2
x := {z | some y in input.ys; z := y}; some y in x; y == "a"
y := 1; x := [z | z := y; y := 2]; x == [1]
shadowed(1) == [1]
limits.a == 1
limits == {"a": 1}
count(limits) == 3
some k, _ in limits; k == "a"
twice(1, 2)
nested(1, [2])
count([x | some x, x in input.xs]) == 4
count([x | some x, [x] in [[0], [0]]]) == 2
count([1 | some input in [1]]) == 1
x := {"a": input.never, "a": 1}; x.a == 1
x := {"a": data.known.never, "a": 1}; x.a == 1
input.xs[1.0] == 1
input.xs[1e0] == 1
18446744073709551617 == 18446744073709551616
9007199254740993.0 == 9007199254740992
0.1000000000000000055 == 0.1
sprintf("%v", [1.0]) == "1"
sprintf("%v", [-0]) == "0"
s := {y | some y in [input.f, 1.0, 1]}; some z in s; sprintf("%v", [z]) == "1"
s := {1.0, input.n}; some z in s; sprintf("%v", [z]) == "1"
data.known.list["1"] == "b"
some k in ["1"]; data.known.list[k] == "b"
not data.known.list["1"]
data.known.numbered[1] == "one"
some k in [1]; data.known.numbered[k] == "one"
data.known.numbered[input.n] == "one"
x := input.n; not data.known.numbered[x]
count([1 | input.s | input.never]) == 0
count([x | some x in {input.n, 1}]) == 1
[x | some x in {input.n, 0}] == [0, 1]
[x | some x in {input.s, "a"}] == ["a", "text"]
count([1 | some 1 in {sum([1]), input.n}]) == 1
{{1} | {2} | {3}} == {{1}}
{"k": {1} | {2} | {3}} == {"k": {1}}
""".strip().splitlines()


def test_the_translation_says_what_opa_says(opa: str, tmp_path: Path) -> None:
    assert list(forms.differing(opa, TRANSLATED, tmp_path, RULES)) == []


@pytest.mark.parametrize("form", TRANSLATED[:2])
def test_names_that_comprehensions_use_as_well_are_told(form: str) -> None:
    """And not taken for names that wait for one another, which would be a rule that never holds."""
    assert forms.said(forms.translation(form, RULES), forms.INPUTS[1]) is True


def test_statements_that_wait_for_one_another_are_left_to_the_engine() -> None:
    made = forms.translation("x = [y | some z in [y]]; y = [x | some z in [x]]", "")
    assert forms.said(made, {}) == forms.UNKNOWN


@pytest.mark.parametrize(
    ("form", "input"),
    [
        ("input.a == input.b", {"a": 1e30, "b": 10**30}),
        ("input.a <= input.b", {"a": 1e30, "b": 10**30}),
        ("count({x | some x in [input.a, input.b]}) == 1", {"a": 1e30, "b": 10**30}),
        ("sort([input.a, input.b])[0] == 1", {"a": 1.0, "b": 1}),
        ('x := {k: v | some k in ["k"]; some v in [input.a, input.b]}; x.k', {"a": [1.0], "b": [1]}),
        (
            'x := {k: v | some k in ["k"]; some v in [input.a, input.b]}; x.k',
            {"a": {"k": 1}, "b": {"k": 1.0}},
        ),
        ("count(input.a) == 1", {"a": "😀"}),
    ],
)
def test_what_python_or_the_engine_holds_otherwise_is_not_told(form: str, input: dict[str, Any]) -> None:
    assert forms.said(forms.translation(form, ""), input) == forms.UNKNOWN


SLOW = {
    "sets in sets": "s := {input.long}; t := {s}; count([1 | some i in input.xs; s in t]) >= 0",
    "sets together": "s := {input.long}; count([1 | some i in input.xs; union({s}) == s]) >= 0",
    "parts of lists": "count([1 | some i in input.xs; array.slice(input.long, 0, 4000) == []]) == 0",
    "texts of one length": "count([1 | some text in input.texts; text in input.texts]) >= 0",
}


@pytest.mark.parametrize("form", SLOW.values(), ids=SLOW.keys())
def test_what_python_takes_long_for_is_left_to_the_engine(form: str) -> None:
    made = forms.translation(form, "")
    texts = ["x" * 16_000 + f"{number:03}" for number in range(500)]
    input = {"xs": list(range(4000)), "long": list(range(4000)), "texts": texts}
    assert forms.said(made, input) == forms.UNKNOWN
