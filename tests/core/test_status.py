"""What a stream says of the tools that it ends in calls of: before the calls, on every API."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.harness import World, request_body, run
from tests.core.protocols import PROTOCOLS

REGISTRY = [
    {"name": "get_user", "status": "Checking the users"},
    {"name": "get_team", "status": "Checking the teams"},
    {"name": "drop", "status": "Never said"},
]
CALLS = [{"name": name, "arguments": {"n": n}} for n, name in enumerate(["get_user", "drop", "get_team"])]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("text", "stream", "told"),
    [
        ("", True, "Checking the users\nChecking the teams"),
        ("Well.", True, "Well.\n\nChecking the users\nChecking the teams"),
        ("Well.", False, "Well."),
    ],
    ids=["alone", "after text", "body"],
)
async def test_a_stream_says_what_runs(protocol: str, text: str, stream: bool, told: str) -> None:
    case: dict[str, Any] = {
        "status": True,
        "registry": REGISTRY,
        "policy": {"drop": {"effect": "deny"}},
        "request": {"tools": ["get_user", "get_team", "drop"]},
        "upstream": [{"calls": CALLS} | ({"text": text} if text else {})],
    }
    outcome = await run(case, stream, protocol=protocol)
    answer = PROTOCOLS[protocol].read(outcome.client.data, stream)
    assert answer.done
    assert answer.first.text == told
    assert [call["name"] for call in answer.first.calls] == ["get_user", "get_team"]


async def test_what_was_settled_beside_it_is_put_back() -> None:
    world = World()
    case: dict[str, Any] = {
        "status": True,
        "registry": REGISTRY,
        "policy": {"drop": {"effect": "deny"}},
        "request": {"tools": ["get_user", "get_team", "drop"]},
        "upstream": [{"calls": CALLS}, {"text": "Done."}],
    }
    first = await run(case, True, world=world)
    view = PROTOCOLS["chat"].read(first.client.data, True).first
    called = [
        {"id": c["id"], "type": "function", "function": {"name": c["name"], "arguments": c["arguments"]}}
        for c in view.calls
    ]
    body = request_body(case, True)
    body["messages"] += [
        {"role": "assistant", "content": view.text, "tool_calls": called},
        *({"role": "tool", "tool_call_id": c["id"], "content": "ok"} for c in called),
    ]
    second = await run(case, True, world=world, body=body)
    sent = PROTOCOLS["chat"].codec.read(second.upstream.asks[0].body)
    assert sorted(result.tool for result in sent.results) == ["drop", "get_team", "get_user"]
