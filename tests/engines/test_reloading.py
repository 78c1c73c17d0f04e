"""Policies that change while decisions are made: compiled elsewhere, put together in steps, swapped whole."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from proxy.engines.evaluating.compiling import MINIMAL_INPUT, _pieces
from proxy.engines.regorus import RegorusEngine
from proxy.engines.sources.policyset import PolicySet

STARTER = Path(__file__).parents[2] / "policies"
ROLES, VALUES = 1_000, 10_000


def large(grant: str) -> PolicySet:
    """The starter policies with the data of a large house."""
    starter = PolicySet.load([STARTER])
    data = orjson.loads(starter.data_json)
    for number in range(ROLES):
        data["callgate"]["roles"][f"role{number}"] = {
            "tools": [f"tool{number}_{n}" for n in range(20)],
            "effects": ["read"],
        }
    data["callgate"]["roles"]["flipped"] = {"tools": [grant], "effects": ["read"]}
    data["reference"]["users"] = {f"user-{number:05d}": True for number in range(VALUES)}
    return replace(starter, data_json=orjson.dumps(data), revision=grant)


@pytest.fixture
async def engine() -> AsyncIterator[RegorusEngine]:
    engine = RegorusEngine(large("a"))
    yield engine
    await engine.close()


ASKED: dict[str, Any] = {
    **MINIMAL_INPUT,
    "principal": {"id": "u", "roles": ["flipped"], "tenant": "", "claims": {}},
    "call": {"id": "1", "name": "a", "arguments": {}},
    "batch": [{"id": "1", "name": "a", "arguments": {}}],
    "tool": {"registered": True, "name": "a", "effect": "read", "labels": [], "references": {}, "tags": []},
}


async def test_decisions_go_on_while_policies_are_put_together(engine: RegorusEngine) -> None:
    """None waits for long, and each is the one of the revision that was in force when it was made."""
    wanted = {"a": "allow", "b": "deny"}
    longest = 0.0
    decided = []
    for grant in ("b", "a", "b"):
        replacing = asyncio.ensure_future(engine.replace(large(grant)))
        # This thread's own time: what other processes take of the machine is not the engine's doing.
        last = time.thread_time()
        while not replacing.done():
            decision = await engine.decide("callgate.call", ASKED)
            assert decision["effect"] == wanted[engine.revision]
            decided.append(engine.revision)
            await asyncio.sleep(0.001)
            longest, last = max(longest, time.thread_time() - last), time.thread_time()
        await replacing
        assert engine.revision == grant
    assert len(decided) > 20
    assert longest < 0.05


async def test_a_decision_that_others_overtake_is_made_by_them() -> None:
    def deciding(word: str) -> PolicySet:
        lines = (f'decision := "{word}" if count(numbers.range(1, input.call.arguments.n)) > 0',)
        return PolicySet.of({"call.rego": "\n".join(["package callgate.call", "", *lines, ""])}, {})

    engine = RegorusEngine(deciding("before"), timeout_s=10.0)
    await engine.start()
    asked = {**MINIMAL_INPUT, "call": {"id": "1", "name": "a", "arguments": {"n": 100}}}
    seen = set()

    async def ask() -> None:
        while "after" not in seen:
            decision = await engine.decide("callgate.call", asked)
            assert engine.revision == deciding(decision).revision
            seen.add(decision)

    asking = asyncio.gather(*(ask() for _ in range(8)))
    while "before" not in seen:
        await asyncio.sleep(0.01)
    await engine.replace(deciding("after"))
    await asking
    await engine.close()


@pytest.mark.parametrize("size", [0, 1, 5_000, 40_000])
def test_the_pieces_of_data_come_to_the_data(size: int) -> None:
    data = {
        "flat": {f"name-{n:06d}": n for n in range(size)},
        "deep": {"a": {"b": {f"name-{n:06d}": {"c": [n]} for n in range(size)}}, "list": list(range(size))},
        "empty": {},
    }
    pieces = [orjson.loads(piece) for piece in _pieces(data)]
    merged: dict[str, Any] = {}
    for piece in pieces:
        _merge(merged, piece)
    assert merged == data
    assert len(pieces) == 1 or size > 1


def _merge(target: dict[str, Any], value: dict[str, Any]) -> None:
    for name, item in value.items():
        if isinstance(item, dict) and name in target:
            _merge(target[name], item)
        else:
            assert name not in target, name
            target[name] = item
