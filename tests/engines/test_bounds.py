"""What a decision may cost: which are known to end soon, and what becomes of the others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from proxy.engines.evaluating.compiling import MINIMAL_INPUT, bounds_of, compiled
from proxy.engines.evaluating.pace import SLOW_S, Pace
from proxy.engines.regorus import RegorusEngine
from proxy.engines.sources.policyset import PolicyFault, PolicySet
from proxy.model import dumps
from proxy.ports import Unavailable

STARTER = Path(__file__).parents[2] / "policies"
TIMEOUT_S = 0.5

Asking = Mapping[str, Any]


def call(arguments: Any, **others: Any) -> dict[str, Any]:
    """The input of a decision on a call."""
    return {**MINIMAL_INPUT, "call": {"id": "1", "name": "get_user", "arguments": arguments}, **others}


def deciding(*lines: str) -> str:
    """A policy that decides by these rules."""
    return "\n".join(["package callgate.call", "", *lines, ""])


# name -> (policy, the input on which it explodes); none is known to end soon.
EXPLOSIONS: dict[str, tuple[str, Any]] = {
    "a range of 10^12": (
        deciding(
            'decision := big if input.call.name == "get_user"',
            "big := count(numbers.range(1, 1000000000000))",
        ),
        {},
    ),
    "a range as long as the model says": (
        deciding("decision := count(numbers.range(1, input.call.arguments.limit))"),
        {"limit": 10**12},
    ),
    "a loop over a range": (
        deciding(
            "decision if {",
            "    some i in numbers.range(1, 100000)",
            "    some j in numbers.range(1, 100000)",
            "    i * j < 0",
            "}",
        ),
        {},
    ),
    "a product of large sets": (
        deciding(
            "xs := input.call.arguments.xs",
            "decision := count({1 | some a in xs; some b in xs; some c in xs; some d in xs; a + b < c + d})",
        ),
        {"xs": list(range(200))},
    ),
    "a product by index": (
        deciding(
            "xs := input.call.arguments.xs", "decision := count({1 | xs[a] + xs[b] + xs[c] + xs[d] < 0})"
        ),
        {"xs": list(range(200))},
    ),
    "a walk in a walk": (
        deciding(
            "decision := count([1 |",
            "    walk(input, [p, _]); walk(input, [q, _]); walk(input, [_, r]); p == q; q == r])",
        ),
        {"xs": list(range(500))},
    ),
    "a text that doubles": (
        deciding(
            "t0 := input.call.arguments.text",
            *(f't{n + 1} := concat("", [t{n}, t{n}])' for n in range(40)),
            "decision := count(t40)",
        ),
        {"text": "x" * 100},
    ),
    "a format that is wide": (
        deciding(
            'decision := count(wide) if input.call.name == "get_user"',
            'wide := sprintf("%2000000000d", [1])',
        ),
        {},
    ),
    "an array of arrays of arrays": (
        deciding(
            "xs := input.call.arguments.xs",
            "decision := count([[[[a, b, c] | some c in xs] | some b in xs] | some a in xs; some _ in xs])",
        ),
        {"xs": list(range(150))},
    ),
    "every in every": (
        deciding(
            "xs := input.call.arguments.xs",
            "decision if every a in xs { every b in xs { every c in xs { every d in xs { a + b >= 0 } } } }",
        ),
        {"xs": list(range(200))},
    ),
    "a function of a function": (
        deciding(
            "xs := input.call.arguments.xs",
            "f(n) := count([1 | some x in xs; g(x + n) < 0])",
            "g(n) := count([1 | some x in xs; h(x + n) < 0])",
            "h(n) := count([1 | some x in xs; some y in xs; x + y + n < 0])",
            "decision := f(0)",
        ),
        {"xs": list(range(200))},
    ),
    "a pattern in a loop": (
        deciding(
            "decision := count([1 |",
            "    some text in input.call.arguments.texts",
            "    some pattern in input.call.arguments.texts",
            "    some other in input.call.arguments.texts",
            "    regex.match(pattern, concat(text, [other, other]))",
            "])",
        ),
        {"texts": [f"(a{n}|b)*c" * 5 for n in range(300)]},
    ),
}


@pytest.fixture
async def serving() -> AsyncIterator[Callable[..., RegorusEngine]]:
    """Makes engines, and closes them."""
    engines: list[RegorusEngine] = []

    def made(text: str, data: Mapping[str, Any] | None = None, timeout_s: float = TIMEOUT_S) -> RegorusEngine:
        engines.append(RegorusEngine(PolicySet.of({"call.rego": text}, data), timeout_s))
        return engines[-1]

    yield made
    for engine in engines:
        await engine.close()


async def longest_stall_s(work: asyncio.Future[Any]) -> float:
    """How long the event loop was kept from its work until this was done."""
    longest, last = 0.0, time.perf_counter()
    while not work.done():
        await asyncio.sleep(0.002)
        longest, last = max(longest, time.perf_counter() - last), time.perf_counter()
    return longest


@pytest.mark.parametrize("name", EXPLOSIONS)
async def test_what_explodes_is_ended_at_the_deadline(
    serving: Callable[..., RegorusEngine], name: str
) -> None:
    text, arguments = EXPLOSIONS[name]
    engine = serving(text)
    # What is told of it to the operator names the place.
    why = engine.asked_aside.get("callgate.call")
    assert why is None or why.startswith("call.rego:")
    asked = asyncio.ensure_future(engine.decide("callgate.call", call(arguments)))
    begun = time.perf_counter()
    stall_s = await longest_stall_s(asked)
    with pytest.raises(Unavailable, match=r"callgate\.call"):
        asked.result()
    assert time.perf_counter() - begun < TIMEOUT_S + 0.5
    assert stall_s < 0.1
    assert engine.counts.outcomes.total() == 1


async def test_who_explodes_is_followed_by_others(serving: Callable[..., RegorusEngine]) -> None:
    text = deciding("decision := count(numbers.range(1, input.call.arguments.limit))")
    engine = serving(text, timeout_s=5.0)
    await engine.start()
    exploding = [
        asyncio.ensure_future(engine.decide("callgate.call", call({"limit": 10**12}))) for _ in range(3)
    ]
    assert await engine.decide("callgate.call", call({"limit": 7})) == 7
    for task in exploding:
        with pytest.raises(Unavailable):
            await task
    assert await engine.decide("callgate.call", call({"limit": 8})) == 8
    assert engine.counts.outcomes["callgate.call", "ended"] == 3


# What costs no more than its input is long, or no more than a few times a few: asked where it is fastest.
BOUNDED = {
    "a list of names": 'decision := {"effect": "allow"} if input.call.name in data.names',
    "a look at the history": "decision if { some c in input.history.calls; c.name == input.call.name }",
    "what lies in the history": "decision if { some c in input.history.calls; some l in c.labels; l == `x` }",
    "what lies there by index": "decision if input.history.calls[_].labels[_] == `x`",
    "roles and grants": "decision if { some r in input.principal.roles; input.call.name in data.grants[r] }",
    "a pattern": "decision if regex.match(`^get_.*$`, input.call.name)",
    "a range that is written out": "decision if input.call.arguments.n in numbers.range(1, 100)",
    "a comprehension": "decision := count({c.name | some c in input.history.calls})",
    "an else": "decision := 1 if input.call.name == `a` else := 2",
    "a walk": "decision if { walk(input.call.arguments, [_, v]); v == `secret` }",
}


@pytest.mark.parametrize("name", BOUNDED)
async def test_what_is_known_to_end_soon_is_decided_on_the_loop(
    serving: Callable[..., RegorusEngine], name: str
) -> None:
    engine = serving(deciding(BOUNDED[name]), {"names": ["a"], "grants": {"admin": ["a", "b"]}})
    assert not engine.asked_aside
    await engine.decide("callgate.call", call({"n": 3, "to": ["a", "b"]}))
    assert not engine.counts.outcomes


def usual(calls: int) -> dict[str, Any]:
    """A call late in a conversation of so many calls."""
    asked = {
        "id": "7",
        "name": "deploy_service",
        "arguments": {"service": "checkout", "environment": "staging"},
    }
    past = [
        {"id": str(n), "name": "get_user", "arguments": {"user_id": n, "fields": ["a"]}} for n in range(calls)
    ]
    return {
        **MINIMAL_INPUT,
        "principal": {"id": "u", "roles": ["developer", "viewer"], "tenant": "t", "claims": {}},
        "call": asked,
        "batch": [asked],
        "history": {"calls": past, "labels": ["untrusted"], "counts": {"get_user": calls}},
        "tool": {
            "registered": True,
            "name": "deploy_service",
            "effect": "write",
            "labels": ["deployment"],
            "references": {"service": "reference.services"},
            "tags": [],
        },
    }


@pytest.mark.parametrize("calls", [0, 3, 100, 500])
def test_the_starter_policies_are_decided_on_the_loop(calls: int) -> None:
    limits, input = bounds_of(PolicySet.load([STARTER])), usual(calls)
    for package in ("callgate.call", "callgate.request"):
        assert limits[package].holds(dumps(input).decode(), input), (package, limits[package])
    tools = {**MINIMAL_INPUT, "tools": [input["tool"]] * 20}
    assert limits["callgate.tools"].holds(dumps(tools).decode(), tools)


def test_a_call_that_the_starter_policies_would_take_long_over_is_asked_aside() -> None:
    bound = bounds_of(PolicySet.load([STARTER]))["callgate.call"]
    input = usual(3)
    input["call"] = {**input["call"], "arguments": {"service": [f"x{n}" for n in range(3000)]}}
    assert not bound.holds(dumps(input).decode(), input)


def test_no_input_is_worse_than_the_bound_says() -> None:
    """The largest calls that are judged on the loop, made as dear as they can be."""
    policy_set = PolicySet.load([STARTER])
    bound, engine = bounds_of(policy_set)["callgate.call"], compiled(policy_set).engine
    for box in bound.boxes:
        names = [f"{'billing' * 3}{n}" for n in range(box.call - 8)]
        input = usual((box.whole - box.call) // 4 if box.whole > box.call else 0)
        input["call"] = {"id": "7", "name": "deploy_service", "arguments": {"service": names}}
        if not bound.holds(dumps(input).decode(), input):
            continue
        engine.set_input_json(dumps(input).decode())
        begun = time.thread_time()
        engine.eval_rule_as_json("data.callgate.call.decision")
        assert time.thread_time() - begun < 0.4, box


# Each is asked in a loop, of the largest texts and lists that are decided on the loop.
BUILTINS = [
    "lower(x)",
    "contains(x, y)",
    "split(x, `,`)",
    "replace(x, `a`, `bb`)",
    "regex.find_n(`a`, x, -1)",
    "regex.split(`a`, x)",
    "regex.match(`(a|b)*c`, x)",
    "glob.match(`*a*b`, [], x)",
    "sprintf(`%s%v`, [x, y])",
    "json.marshal(x)",
    "indexof(x, `zz`)",
    "strings.any_prefix_match(x, y)",
    "sort(x)",
    "object.union(x, y)",
    "x in y",
]


@pytest.mark.parametrize("expression", BUILTINS)
def test_no_builtin_is_worse_than_its_bound(expression: str) -> None:
    given = "some i in input.l; x := input.x; y := input.y"
    decision = f"decision := count([1 | {given}; v := [1 | _ = {expression}]; v])"
    policy_set = PolicySet.of({"call.rego": deciding(decision)})
    bound = bounds_of(policy_set)["callgate.call"]
    engine = compiled(policy_set, only_bounded=True).engine
    asked = 0
    for box in bound.boxes:
        half, text = box.whole * 2 // 5, "a," * (box.whole // 5)
        for x, y in ((text + "a" * 64 * box.whole, "a" * half), ([f"a{n}" for n in range(half)],) * 2):
            input = {"x": x, "y": y, "l": list(range(box.whole // 5 - 8))}
            if not bound.holds(input_json := dumps(input).decode(), input):
                continue
            asked += 1
            engine.set_input_json(input_json)
            begun = time.thread_time()
            with suppress(RuntimeError):  # not what the builtin takes
                engine.eval_rule_as_json("data.callgate.call.decision")
            assert time.thread_time() - begun < 0.5, (box, input_json[:50])
    assert asked or not bound.boxes


async def test_policies_that_explode_on_anything_do_not_start() -> None:
    engine = RegorusEngine(
        PolicySet.of({"call.rego": deciding("decision := count(numbers.range(1, 1000000000000))")}), TIMEOUT_S
    )
    with pytest.raises(PolicyFault, match="cannot be proven"):
        await engine.start()
    await engine.close()


def test_what_proves_slow_is_asked_aside_for_a_while() -> None:
    pace = Pace()
    pace.took("callgate.call", SLOW_S / 2)
    assert pace.clock is time.perf_counter
    # Once may be the machine. From then on the processor's time is what counts.
    pace.took("callgate.call", SLOW_S * 2)
    assert pace.clock is time.thread_time
    pace.took("callgate.call", SLOW_S / 2)
    assert not pace.is_slow("callgate.call")
    pace.took("callgate.call", SLOW_S * 2)
    assert pace.is_slow("callgate.call")
    assert not pace.is_slow("callgate.tools")


async def test_a_slow_package_goes_on_deciding(serving: Callable[..., RegorusEngine]) -> None:
    engine = serving(deciding("decision := input.call.name"), timeout_s=5.0)
    for _ in range(2):
        engine._in_force.pace.took("callgate.call", 1.0)
    assert await engine.decide("callgate.call", call({})) == "get_user"
    assert engine.counts.outcomes == {("callgate.call", "decided"): 1}
