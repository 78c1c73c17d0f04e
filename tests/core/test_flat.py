"""Servers of Chat Completions that do not know how to turn tools off."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from proxy.scripted import chat
from tests.core.harness import run
from tests.core.protocols import PROTOCOLS
from tests.core.view import read

CALL = {"name": "drop", "arguments": {"n": 1}, "id": "call_n"}


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize("stream", [True, False])
async def test_they_are_asked_once_more_without_tools(
    monkeypatch: pytest.MonkeyPatch, stream: bool, status: int
) -> None:
    outcome = await _finish(monkeypatch, stream, {"fault": {"status": status}}, {"text": "I could not."})
    answer = read(outcome.client.data, stream)
    assert (answer.first.text, answer.first.calls, answer.first.finish) == (
        "Dropping. I could not.",
        [],
        "stop",
    )
    assert outcome.exchange.outcome == "finished"
    asked = orjson.loads(outcome.upstream.asks[-1].body)
    assert asked.keys().isdisjoint({"tools", "tool_choice"})
    assert [message["role"] for message in asked["messages"]] == ["user", "assistant", "user"]
    _, said, result = (message["content"] for message in asked["messages"])
    assert said == 'Dropping. \n[Called the tool drop with {"n":1}]'
    assert "Not for you." in result
    assert "Answer the user now" in result


@pytest.mark.parametrize("stream", [True, False])
async def test_one_that_refuses_that_too_is_not_asked_again(
    monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    outcome = await _finish(monkeypatch, stream, {"fault": {"status": 400}}, {"fault": {"status": 400}})
    assert len(outcome.upstream.asks) == 3
    assert read(outcome.client.data, stream).first.finish == "stop"


async def _finish(monkeypatch: pytest.MonkeyPatch, stream: bool, *turns: dict[str, Any]) -> Any:
    """A denied call with no round left; ``turns`` are what the provider says after it, in order."""
    arrivals = count()
    names = {name: getattr(chat, name) for name in dir(chat)}
    dialect = SimpleNamespace(**names | {"answered": lambda body: next(arrivals)})
    monkeypatch.setitem(PROTOCOLS, "chat", replace(PROTOCOLS["chat"], dialect=dialect))
    case = {
        "max_rounds": 0,
        "request": {"tools": ["drop"], "tool_choice": "auto"},
        "policy": {"drop": {"effect": "deny", "reasons": ["Not for you."]}},
        "upstream": [{"text": "Dropping. ", "calls": [CALL]}, *turns],
    }
    return await run(case, stream)
