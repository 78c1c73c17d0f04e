"""Policies translated to Python: they say what OPA says, or that they cannot tell."""

from __future__ import annotations

import json
import logging
import random
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from time import process_time
from typing import Any

import orjson
import pytest
import regorus
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.engines.evaluating.compiling import translated, translation_of
from proxy.engines.regorus import RegorusEngine
from proxy.engines.sources.policyset import PolicySet
from proxy.engines.translated.builtins import BUILTINS
from proxy.engines.translated.decisions import Translated
from proxy.engines.translated.program import NOTHING, Translation, translate
from proxy.engines.translated.values import Unknown
from tests.engines import test_undefined
from tests.policies.inputs import call_inputs, request_inputs, tools_inputs

POLICIES = Path(__file__).parents[2] / "policies"
UNKNOWN = "unknown"

RULES = """
members contains x if some x in input.xs

members contains "always"

by_key[k] := v if some k, v in input.o

flag if input.t

flag if input.n == 1

picked := "first" if input.n == 1

picked := "second" if input.n == 2

absent contains 1 if data.known.never

absent contains 2 if input.t

gone := 1 if data.known.never

gone := 2 if input.n == 2

both := 1 if input.n == 1

both := 2 if input.t

chained := 1 if {
	input.n == 1
} else := 2 if {
	input.t
} else := 3

each := x if some x in input.ones

default fallback := {"none": []}

fallback := input.o

parts["one"] := input.n

parts["two"] := input.s

double(x) := x * 2

sign(x) := "minus" if x < 0

sign(x) := "plus" if x > 0

kind(x) := "text" if is_string(x)

kind(x) := "number" if is_number(x)

kind(x) := "list" if is_array(x)

default named(_) := "nobody"

named("a") := "alpha"

named("b") := "beta"

pair([x, y]) := x if y == 2

nothing := input.never.there

recursive_free(xs) := count([x | some x in xs; x > 1])
"""

DATA = {
    "known": {
        "v": 1,
        "list": ["a", "b"],
        "map": {"a": {"tools": ["x"]}, "b": {"tools": []}},
        "numbered": {"1": "one"},
    }
}

INPUTS: list[dict[str, Any]] = [
    {},
    {
        "a": {"b": {"c": 5}, "k": "v"},
        "s": "text",
        "n": 1,
        "f": 1.5,
        "z": 0,
        "t": True,
        "no": False,
        "nul": None,
        "xs": [3, 1, 2, 2],
        "ys": ["b", "a"],
        "ones": [1, 1.0],
        "mixed": [1, "a", True, None, [1], {"k": 1}],
        "o": {"k": "v", "l": "w"},
        "deep": {"x": [{"y": 1}, {"y": 2}]},
        "e": [],
        "eo": {},
    },
    {
        "a": "b",
        "s": 7,
        "n": 2,
        "f": "1.5",
        "t": 1,
        "xs": {"q": 3, "r": 1},
        "ys": ["b", 1],
        "ones": [1, 2],
        "mixed": [False, 1.0, 0, "1", [True], {"k": True}],
        "o": ["k", "l"],
        "deep": {"x": {"one": {"y": 2}}},
        "e": "",
    },
    {
        "a": {"b": [5, [6, {"c": 7}]]},
        "s": "Ünï 😀 text",
        "n": 1.0,
        "z": -3,
        "t": "true",
        "nul": "null",
        "xs": [[1], [True], {"k": [1]}],
        "ys": [],
        "ones": [],
        "mixed": [],
        "o": {"": {"k": 1}, "1": 2, "ü": 3},
        "deep": [],
        "e": {},
    },
]

# What the translation can tell, on one input at least.
FORMS = """
input.a.b.c == 5
input.a["b"].c == 5
input.a[input.k]
input["s"] == "text"
input.o[""].k == 1
not data.known.never.there
data.known.never == 1
count([x | some x in data.known.never]) == 0
every x in [1] { data.known.never == x }
input.s == "text"; input.n == 1
input.s != "text"
input.n != 1
input.n == 1.0
input.t == 1
input.t == true
input.no == false
input.no
input.z
input.nul
input.nul == null
input.n < 2; input.n <= 1; input.n > 0; input.n >= 1
input.s < "texu"
input.s >= "s"
input.xs == [3, 1, 2, 2]
input.xs[0] == 3
input.xs[7]
input.xs[-1]
input.xs[i] == 1; i == 1
input.xs[_] == 2
input.o[k] == "w"; k == "l"
input.o.k == "v"
some k; input.o[k] == "w"
some i; input.xs[i] == input.xs[j]; i != j
x := input.n; x == 1
x := input.never
x = input.n; x = 1
1 = x; x == input.n
[x, y] := input.ys; x == "b"; y == "a"
[x, "a"] = input.ys; x == "b"
[_, [x, _]] := input.a.b; x == 6
some x in input.xs; x == 2
some x in input.ys; x == "a"
some i, x in input.xs; i == 2; x == 2
some k, v in input.o; k == "l"; v == "w"
some k, "w" in input.o; k == "l"
some "a" in input.ys
some x in input.e
some x in {1, 2}; x == input.n
1 in input.xs
"a" in input.ys
1 in input.mixed
true in input.mixed
null in input.mixed
[1] in input.mixed
{"k": 1} in input.mixed
"w" in input.o
"k", "v" in input.o
0, 3 in input.xs
"never", "v" in input.o
input.n in {1, 2}
input.s in {"text", "else"}
input.s in ["text", "else"]
not input.s in {"text", "else"}
not 9 in input.xs
not "a" in input.ys
not input.never
not input.no
not input.t
not nothing
not flag
not input.a.b.c == 5
not input.n == 1
every x in input.xs { x > 0 }
every x in input.xs { x > 1 }
every x in input.e { x == "nothing" }
every k, v in input.o { k != v }
every i, x in input.ys { i < 5; x != "z" }
every x in input.xs { some y in input.xs; y >= x }
x := [y | some y in input.xs]; x == [3, 1, 2, 2]
x := [y | some y in input.xs; y > 1]; count(x) == 3
x := {y | some y in input.xs}; count(x) == 3
x := {y | y := input.xs[_]}; x == {1, 2, 3}
x := {k: v | some k, v in input.o}; x == input.o
x := {v: k | some k, v in input.o}; x.w == "l"
x := {"only": v | some v in input.ones}; x.only == 1
x := [k | some k, _ in input.o]; x == ["k", "l"]
x := [y | some y in {3, 1, 2}]; x == [1, 2, 3]
x := [y | some z in input.deep.x; y := z.y]; x == [1, 2]
x := [input.deep.x[i].y | some i, _ in input.deep.x]; x == [1, 2]
count(members) > 1
"always" in members
members["always"]
some m in members; m == 3
members[3]
not members["never"]
by_key.k == "v"
by_key["k"] == "v"
some k, v in by_key; v == "w"; k == "l"
count(by_key) == 0
flag
flag == true
picked == "first"
picked == "second"
chained == 1
absent == {2}
both == 1
both == 2
gone == 2
not gone
chained == 2
chained == 3
each == 1
fallback.k == "v"
fallback.none == []
parts.one == 1
parts.two == "text"
count(parts) == 0
parts == {"one": 1, "two": "text"}
double(2) == 4
double(input.n) == 2
sign(input.z) == "minus"
sign(1) == "plus"
sign(0)
not sign(0)
kind(input.s) == "text"
kind(input.xs) == "list"
kind(null)
named("a") == "alpha"
named(input.s) == "nobody"
pair([5, 2]) == 5
pair([5, 3])
pair(input.s)
recursive_free([1, 2, 3]) == 2
data.known.v == 1
data.known.list[0] == "a"
data.known.list[_] == "b"
"x" in data.known.map.a.tools
data.known.map[input.k].tools
some k in ["a", "b", "c"]; "x" in data.known.map[k].tools
data.known.never
not data.known.never
data.p.flag
data.p.double(3) == 6
data["p"].picked == "first"
count(input.xs) == 4
count(input.s) == 4
count(input.e) == 0
count({1, 2, 2}) == 2
sum(input.xs) == 8
max(input.xs) == 3
min([4, 3]) == 3
abs(input.z) == 3
sort(input.ys) == ["a", "b"]
sort({"b", "a"}) == ["a", "b"]
concat(",", input.ys) == "b,a"
concat(",", {"b", "a"}) == "a,b"
contains(input.s, "ex")
startswith(input.s, "te")
endswith(input.s, "xt")
not startswith("a", "b")
lower("AbC") == "abc"
upper("AbC") == "ABC"
split("a.b.c", ".") == ["a", "b", "c"]
split("", ".") == [""]
replace("a-b-c", "-", "") == "abc"
substring("abcdef", 2, 2) == "cd"
substring("abcdef", 2, -1) == "cdef"
substring(input.s, 4, 1) == "😀"
substring("ab", 5, 1) == ""
array.slice(input.xs, 1, 3) == [1, 2]
array.slice([1], 0, 10) == [1]
array.concat([1], input.ys) == [1, "b", "a"]
object.get(input.o, "k", "d") == "v"
object.get(input.o, "never", "d") == "d"
object.get(input.a, ["b", "c"], 0) == 5
object.get(input.a, ["b", "never"], 0) == 0
object.keys(input.o) == {"k", "l"}
strings.any_prefix_match("mcp__x", ["a", "mcp__"])
strings.any_prefix_match(["b"], {"b", "c"})
strings.any_suffix_match("x.txt", ".txt")
strings.any_prefix_match("a", [])
sprintf("%s-%d-%v", [input.s, 5, "x"]) == "text-5-x"
sprintf("plain", []) == "plain"
is_string(input.s)
is_number(input.n)
is_boolean(input.t)
is_null(input.nul)
is_array(input.xs)
is_object(input.o)
is_set({1})
not is_string(5)
input.n + 1 == 2
input.n - 1 == 0
input.n * 3 == 3
{1, 2} | {2, 3} == {1, 2, 3}
{1, 2} & {2, 3} == {2}
{1, 2} - {2} == {1}
union({{1}, {2}}) == {1, 2}
x := input.n == 1; x == true
x := input.n < 0; x == false
x := 1 in input.xs; x == true
x := {"a": input.n, "b": [input.s]}; x.b[0] == "text"
x := {input.n, "a"}; "a" in x
[input.n, "a"] == [1, "a"]
{"k": input.n} == {"k": 1.0}
input.ones[0] == input.ones[1]
input.mixed[0] == input.mixed[2]
{input.mixed[0], input.mixed[2]} == {1}
count({x | some x in input.mixed}) == 6
count({x | some x in input.ones}) == 1
count({x | some x in input.xs}) == 3
y == 3; y = input.xs[0]
count(y) == 1; y = [z | z := x]; x = input.n
x > 1; x = input.xs[_]
true
false
x := input.xs; y := [1 | some x in ["a"]; x == "a"]; count(y) == 1; count(x) == 4
some x in input.xs; y := {x | some x in input.ys}; count(y) == 2; x == 3
_ = input.no
[_, _] = input.ys
input.o == {"l": "w", "k": "v"}
`raw` == "raw"
1.5 == input.f
""".strip().splitlines()

# What is left to the engine whatever the input.
LEFT = """
input.n / 2 == 0.5
input.n % 2 == 1
count([x | walk(input.a, [_, x])]) > 0
regex.match("t.*", input.s)
time.parse_rfc3339_ns("2026-01-01T00:00:00Z") > 0
json.marshal(input.a) == "x"
x := {k: 1 | some k in [1, 2]}; count(x) == 2
flag with input.t as true
data["p"] == 1
{"k": x} = input.o
x := {input.s: 1}
lower("Ü") == "ü"
sprintf("%5d", [1]) == "    1"
sprintf("%s", [1]) == "1"
max([]) == 1
1.5 + 1 == 2.5
9007199254740993 + 1 == 9007199254740994
"a" < 1
array.slice([1], -1, 1) == [1]
split("ab", "") == ["a", "b"]
count(5)
1 in 5
some x in 5
every x in 5 { x }
""".strip().splitlines()


def module(index: int, form: str, rules: str = RULES) -> str:
    text = f"package p{index}\n\nallow if {{ {form} }}\n{rules}"
    return text.replace("data.p.", f"data.p{index}.").replace('data["p"]', f'data["p{index}"]')


def translation(form: str, rules: str = RULES, data: Any = None) -> Translated:
    engine = regorus.Engine()
    engine.add_policy("p.rego", module(0, form, rules) + "\ndecision := 1 if allow\n")
    trees = orjson.loads(engine.get_ast_as_json())
    return ready(translate(trees, DATA if data is None else data, frozenset({"p0"})), data)


def ready(found: Translation, data: Any = None) -> Translated:
    assert found is not NOTHING
    made = Translated(found, DATA if data is None else data)
    assert all(step is None for step in made.steps())
    return made


def said(made: Translated, input: Mapping[str, Any]) -> Any:
    try:
        return made.decide("p0", input) == 1
    except Unknown:
        return UNKNOWN


CONFLICT = "conflict"


def opa_said(opa: str, texts: Sequence[str], input: Mapping[str, Any], folder: Path) -> list[Any]:
    """Whether each of the packages p0, p1 … allows, by the real OPA."""
    folder.mkdir()
    for index, text in enumerate(texts):
        (folder / f"p{index}.rego").write_text(text)
    (folder / "data.json").write_text(json.dumps(DATA))
    left, said = list(range(len(texts))), dict.fromkeys(range(len(texts)), CONFLICT)
    while True:
        asked = ",".join(f"[x | x := data.p{index}.allow]" for index in left)
        command = [opa, "eval", "--data", str(folder), "--stdin-input", "--format", "json", f"[{asked}]"]
        done = subprocess.run(command, input=json.dumps(input), capture_output=True, text=True, timeout=120)
        answer = json.loads(done.stdout)
        if done.returncode == 0:
            answers = answer["result"][0]["expressions"][0]["value"]
            said.update(zip(left, [each == [True] for each in answers], strict=True))
            return list(said.values())
        (error,) = answer["errors"]
        assert error["code"] == "eval_conflict_error", done.stdout
        left.remove(int(Path(error["location"]["file"]).stem[1:]))


def differing(opa: str, forms: Sequence[str], folder: Path, rules: str = RULES) -> Iterator[str]:
    """The forms that are translated to something else than what OPA says."""
    made = [translation(form, rules) for form in forms]
    texts = [module(index, form, rules) for index, form in enumerate(forms)]
    for number, input in enumerate(INPUTS):
        theirs = opa_said(opa, texts, input, folder / str(number))
        for form, one, answer in zip(forms, made, theirs, strict=True):
            if said(one, input) not in (answer, UNKNOWN):
                yield f"{form} on input {number}: OPA says {answer}"


def test_what_it_tells_is_what_opa_says(opa: str, tmp_path: Path) -> None:
    assert list(differing(opa, FORMS, tmp_path)) == []


@pytest.mark.parametrize("form", FORMS)
def test_what_policies_are_made_of_is_told(form: str) -> None:
    assert {said(translation(form), input) for input in INPUTS} != {UNKNOWN}


@pytest.mark.parametrize("form", LEFT)
def test_what_is_not_translated_is_left_to_the_engine(form: str) -> None:
    made = translation(form)
    assert said(made, INPUTS[1]) == UNKNOWN


def test_what_the_engine_and_opa_see_differently_is_not_told_otherwise_than_by_opa(
    opa: str, tmp_path: Path
) -> None:
    forms = test_undefined.DIVERGING + test_undefined.SERVED + test_undefined.LAYERED
    assert list(differing(opa, forms, tmp_path, test_undefined.RULES)) == []


def test_statements_in_any_order_and_company(opa: str, tmp_path: Path) -> None:
    """Bodies put together of the forms, each with names of its own, their statements shuffled."""
    chance = random.Random(20260101)
    alone = [form for form in FORMS if "{" not in form and ";" not in form and ":=" not in form]
    bodies = []
    for _ in range(150):
        picked = chance.sample(alone, 3)
        loops = [
            "v1 = input.o[k1]",
            "v1 != input.never",
            "x1 = [y | some y in input.xs; y != v1]",
            "count(x1) >= 0",
            "not k1 in x1",
            'z1 = {"of": k1, "at": i1}',
            "w1 = input.ys[i1]",
            "w1 != z1.of",
        ]
        statements = chance.sample(loops, len(loops)) if chance.random() < 0.6 else []
        mixed = [*statements, *picked[: chance.randint(0, 3)]] or picked
        chance.shuffle(mixed)
        if statements and "v1 != input.never" in mixed:
            mixed.remove("v1 != input.never")
        bodies.append("; ".join(mixed))
    assert list(differing(opa, bodies, tmp_path)) == []


@settings(max_examples=300, deadline=None)
@given(text=st.text(), other=st.text())
def test_no_text_of_a_policy_is_anything_but_text(text: str, other: str) -> None:
    """Quotes, backslashes and new lines in constants, keys and paths stay what they are."""
    other = f"k{other}"  # not the package itself
    constant, key = json.dumps(text), json.dumps(other)
    try:
        made = translation(
            f"input[{key}] == {constant}; data[{key}][{constant}]; {{{constant}}}", "", {other: {text: 1}}
        )
    except RuntimeError:
        return  # not a text that Rego takes
    assert said(made, {other: text}) is True
    assert said(made, {other: text + "'"}) is False


STARTER = PolicySet.load([POLICIES])
ENGINE = RegorusEngine(STARTER)
TRANSLATED = translated(STARTER)


@pytest.mark.parametrize(
    ("package", "inputs"),
    [
        ("callgate.call", call_inputs()),
        ("callgate.tools", tools_inputs),
        ("callgate.request", request_inputs),
    ],
)
def test_the_starter_policies_decide_as_the_engine_does(
    package: str, inputs: st.SearchStrategy[dict[str, Any]]
) -> None:
    told = []

    @settings(max_examples=400, deadline=None)
    @given(inputs)
    def check(input: dict[str, Any]) -> None:
        before = orjson.dumps(input)
        try:
            found = TRANSLATED.decide(package, input)
        except Unknown:
            return
        told.append(1)
        assert orjson.dumps(input) == before
        engine = ENGINE._in_force
        theirs = regorus_said(engine.engine, package, input)
        assert orjson.dumps(found, option=orjson.OPT_SORT_KEYS) == orjson.dumps(
            theirs, option=orjson.OPT_SORT_KEYS
        )

    check()
    assert len(told) > 100, "most can be told"


def regorus_said(engine: Any, package: str, input: Mapping[str, Any]) -> Any:
    engine.set_input_json(orjson.dumps(input).decode())
    return orjson.loads(engine.eval_rule_as_json(f"data.{package}.decision"))


def test_all_of_the_starter_policies_is_translated_but_what_only_the_engine_knows() -> None:
    """A rule that becomes nothing but a question to the engine should be seen when it is written."""
    left = [text for text in translation_of(STARTER).functions if text.endswith(":\n raise Unknown")]
    assert left == []


HOSTILE = {
    "a product of lists": "count([1 | some a in input.xs; some b in input.xs; a < b; b < a]) == 0",
    "texts that double": "\n".join(
        ["t0 := input.long", *(f't{n + 1} := concat("", [t{n}, t{n}])' for n in range(40)), "t40 != 1"]
    ),
    "one long text many times": 'concat("", [input.long | some a in input.xs; some b in input.xs]) != 1',
    "values that double": "\n".join(
        ["t0 := [1]", *(f"t{n + 1} := [t{n}, t{n}]" for n in range(40)), "t40 == t40"]
    ),
    "functions that call one another": "f9(input.xs) > 0",
    "sorting again and again": "count([y | some a in input.xs; y := sort(input.xs)]) > 0",
    "replacing": 'count(replace(input.long, "a", input.long)) > 0',
}
CALLING = "f0(xs) := 1\n" + "\n".join(
    f"f{n + 1}(xs) := x if {{ x := " + " + ".join(f"f{n}(xs)" for _ in range(9)) + " }" for n in range(9)
)


@pytest.mark.parametrize("form", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_explodes_is_left_to_the_engine_soon(form: str) -> None:
    made = translation(form, CALLING)
    began = process_time()
    assert said(made, {"xs": list(range(3000)), "long": "a" * 100_000}) == UNKNOWN
    assert process_time() - began < 0.25


def test_deep_values_are_left_to_the_engine() -> None:
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    assert (
        said(translation("input.a == input.b"), {"a": deep, "b": json.loads("[" * 500 + "]" * 500)})
        == UNKNOWN
    )


ALLOWING = 'package callgate.call\n\ndecision := {"effect": "allow"} if input.call.name == "x"\n'


def lying(decision: Any) -> Translation:
    """A translation with a fault."""
    return Translation(
        (), (f"def rule0(S):\n return {decision!r}",), {"callgate.call": "rule0"}, 2, NOTHING.inputs
    )


async def test_a_translation_that_decides_otherwise_is_found_out(caplog: pytest.LogCaptureFixture) -> None:
    engine = RegorusEngine(PolicySet.of({"a.rego": ALLOWING}))
    made = ready(lying({"effect": "allow"}))
    object.__setattr__(engine._in_force, "translated", made)
    with caplog.at_level(logging.ERROR, "callgate.policies"):
        assert await engine.decide("callgate.call", {"call": {"name": "x"}}) == {"effect": "allow"}
        assert not caplog.records
        assert await engine.decide("callgate.call", {"call": {"name": "y"}}) is None
    assert "callgate.call decides otherwise than the engine" in caplog.text
    with pytest.raises(Unknown):
        made.decide("callgate.call", {"call": {"name": "x"}})
    assert await engine.decide("callgate.call", {"call": {"name": "y"}}) is None


async def test_a_translation_is_looked_at_now_and_then_for_as_long_as_it_serves() -> None:
    made = translated(PolicySet.of({"a.rego": ALLOWING}))
    doubted = []
    for number in range(1, 1100):
        made.decide("callgate.call", {"call": {"name": "x"}})
        if made.is_doubted("callgate.call"):
            doubted.append(number)
    assert doubted == [*range(1, 33), 512, 1024]


def test_what_it_can_never_tell_is_tried_seldom() -> None:
    tried: list[Any] = []

    def decide(state: list[Any]) -> Any:
        tried.append(state)
        raise Unknown

    made = ready(lying(None))
    made._deciding["callgate.call"].decide = decide
    for _ in range(64 * 11):
        with pytest.raises(Unknown):
            made.decide("callgate.call", {})
    assert len(tried) == 64 + 10


def test_a_decision_is_nobody_elses() -> None:
    """What a caller does to a decision changes neither the data nor the next decision."""
    text = 'package callgate.call\n\ndecision := {"effect": "allow", "obligations": data.list}\n'
    made = translated(PolicySet.of({"a.rego": text}, {"list": {"mask": ["/a"]}}))
    first = made.decide("callgate.call", {})
    first["obligations"]["mask"].append("/b")
    assert made.decide("callgate.call", {})["obligations"] == {"mask": ["/a"]}


def test_what_is_not_a_syntax_tree_as_expected_is_left_to_the_engine() -> None:
    assert translate([{"source": {}, "ast": {}}], {}, frozenset({"p"})) is NOTHING


def test_it_can_be_told_to_another_process() -> None:
    found = translation_of(STARTER)
    assert Translation.of(json.loads(json.dumps(found.written()))) == found


def test_the_guide_names_the_builtins_that_are_translated() -> None:
    guide = (POLICIES.parent / "docs" / "policies.md").read_text()
    section = guide.partition("## What decides fast")[2].partition("\n## ")[0]
    named = section.partition("these builtins:")[2].partition(",\n\nand")[0]
    assert re.findall(r"`([a-z_.]+)`", named) == sorted(BUILTINS)


def test_large_data_are_held_once() -> None:
    large = PolicySet.of({"a.rego": ALLOWING}, {"list": ["x" * 1000] * 10_000})
    assert translation_of(large) is NOTHING
