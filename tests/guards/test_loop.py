"""The loop guard: circles are seen, whatever their length; work that goes on is left alone."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.guards._outcomes import is_empty, is_error
from proxy.guards.base import Context, Situation, canonical
from proxy.guards.loop import LoopGuard
from proxy.model import History, PastCall, ToolCall, brief
from proxy.verdicts import Reask, Verdict
from tests.guards.conversations import calling, hidden, past_call, past_calls, situation

CASES = yaml.safe_load((Path(__file__).parent / "cases" / "loop.yaml").read_text())


async def judge(guard: LoopGuard, told: Situation, calls: Sequence[ToolCall]) -> list[Verdict]:
    return [await guard.check(call, Context(told, told.registry(call.name), None)) for call in calls]


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
async def test_case(case: dict[str, Any]) -> None:
    told = situation(past_calls(case.get("past", [])), case.get("registry", []), case.get("choices", 1))
    calls = [calling(*next(iter(call.items())), n) for n, call in enumerate(case["turn"])]
    told.begin_turn(tuple(calls), hidden(past_calls(case.get("rounds", []))))
    verdicts = await judge(LoopGuard(**case.get("guard", {})), told, calls)
    assert [verdict.name for verdict in verdicts] == case["verdicts"]
    if "reason" in case:
        assert case["reason"] in " ".join(verdicts[-1].reasons)


async def test_the_next_query_begins_anew() -> None:
    earlier = [past_call("search", {"q": "a"}, "same", turn=1)] * 30
    (verdict,) = await judge(LoopGuard(), situation(earlier, turn=2), [calling("search", {"q": "a"})])
    assert verdict.name == "Allow"


@pytest.mark.parametrize(("last", "verdict"), [("x" * 999, "Reask"), ("x" * 998 + "y", "Allow")])
async def test_what_the_provider_remembers_is_known_again_in_brief(last: str, verdict: str) -> None:
    told = situation([past_call("search", {"q": "a"}, last, turn=0)], turn=0)
    kept = (past_call("search", {"q": "a"}, brief("x" * 999)),) * 2
    told.request = replace(told.request, earlier=History(kept, "Do it.", 1))
    (said,) = await judge(LoopGuard(), told, [calling("search", {"q": "a"})])
    assert said.name == verdict


async def test_a_person_may_want_the_same_again() -> None:
    told = situation([past_call("drop", {"t": 1}, "same")] * 9)
    call = calling("drop", {"t": 1})
    told.approve({"approved": True}, frozenset({(call.id, "drop", canonical({"t": 1}))}))
    other = calling("drop", {"t": 1}, 2)
    verdicts = await judge(LoopGuard(), told, [call, other])
    assert [verdict.name for verdict in verdicts] == ["Allow", "Reask"]


async def test_what_was_counted_is_a_fact_that_decides_again() -> None:
    told = situation([past_call("search", {"q": "a"}, "same")] * 3)
    context = Context(told, None, None)
    call = calling("search", {"q": "a"})
    verdict = await LoopGuard().check(call, context)
    assert context.facts["loop"] == {
        "calls": 4,
        "identical": 4,
        "similar": 4,
        "hinted": False,
        "told_to_end": False,
    }
    replayed = Context(situation([]), None, None, facts=dict(context.facts))
    assert await LoopGuard().check(call, replayed) == verdict


names = st.sampled_from(["search", "list", "open"])
small = st.dictionaries(st.sampled_from("abc"), st.integers(0, 3), max_size=2)


@settings(max_examples=150, deadline=None)
@given(arguments=st.lists(st.tuples(names, small), max_size=40), registered=st.booleans())
async def test_calls_that_bring_news_never_trip(
    arguments: list[tuple[str, dict[str, int]]], registered: bool
) -> None:
    """Paging and polling: whatever is asked, each answer is another."""
    past = [past_call(name, given_, f"answer {n}") for n, (name, given_) in enumerate(arguments)]
    registry = [{"name": name, "effect": "read"} for name in ("search", "list", "open") if registered]
    guard = LoopGuard(max_calls=1000, max_identical=3, max_similar=5)
    for name in ("search", "list", "open"):
        asked = [given_ for known, given_ in arguments if known == name][-1:] or [{}]
        (verdict,) = await judge(guard, situation(past, registry), [calling(name, asked[0])])
        # Other reads may have come since, but of this tool the last answer was news.
        assert verdict.name == "Allow"


@settings(max_examples=150, deadline=None)
@given(
    cycle=st.lists(st.tuples(names, small), min_size=1, max_size=4),
    limit=st.integers(1, 5),
    effect=st.sampled_from(["read", "write", None]),
    spelling=st.sampled_from([(",", ":"), (", ", ": ")]),
)
async def test_a_circle_always_trips_within_its_bound(
    cycle: list[tuple[str, dict[str, int]]],
    limit: int,
    effect: str | None,
    spelling: tuple[str, str],
) -> None:
    """The same calls with the same results, round and round: hinted, then ended, however long the circle."""
    registry = [{"name": n, "effect": effect} for n in ("search", "list", "open") if effect]
    guard = LoopGuard(max_calls=1000, max_identical=limit, max_similar=1000)
    past: list[PastCall] = []
    said: list[str] = []
    for number, (name, arguments) in enumerate(itertools.cycle(cycle)):
        text = json.dumps(arguments, separators=spelling)
        (verdict,) = await judge(guard, situation(past, registry), [calling(name, text)])
        said.append(verdict.name)
        if verdict.name == "Break":
            break
        result = verdict.content() if isinstance(verdict, Reask) else f"of {name} {sorted(arguments)}"
        past.append(past_call(name, text, result))
        assert number < len(cycle) * (limit + 3), said
    assert "Reask" in said


@pytest.mark.parametrize(
    ("result", "failed", "empty"),
    [
        ("", False, True),
        (" null\n", False, True),
        ("[]", False, True),
        ("{}", False, True),
        ("0", False, False),
        ("Error: no such user", True, False),
        ("  **Error** executing tool", True, False),
        ("Traceback (most recent call last):\n ...", True, False),
        ('{"error": "x"}', True, False),
        ('{"error": null, "rows": [1]}', False, False),
        ('{"error_rate": 0.5}', False, False),
        ('{"errors": [], "data": 1}', False, False),
        ('{"errors": [{"message": "x"}]}', True, False),
        ('{"isError": true, "content": []}', True, False),
        ('{"success": false}', True, False),
        ('{"success": true}', False, False),
        ('{"ok": false, broken', False, False),
        ("[1, 2]", False, False),
        ("The terror of 1793", False, False),
    ],
)
def test_outcomes(result: str, failed: bool, empty: bool) -> None:
    assert (is_error(result), is_empty(result)) == (failed, empty)


async def test_long_histories_and_long_arguments_cost_little() -> None:
    """Far below what a hostile client could otherwise buy: megabytes compared with megabytes."""
    long = "x" * 200_000
    past = [past_call("write", {"text": long + str(n)}, long + str(n % 7)) for n in range(100)]
    began = perf_counter()
    await judge(LoopGuard(max_calls=10_000), situation(past), [calling("write", {"text": long})] * 4)
    assert perf_counter() - began < 2
