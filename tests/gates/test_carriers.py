"""Whatever shape an API lets a tool result have, what it says is inspected."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from proxy.engines.patterns import LinearPatterns
from proxy.gates.results import ResultsGate
from proxy.tools import ResultRule
from tests.core.protocols import PROTOCOLS
from tests.gates.conftest import CountingEngine, Records, situation_of

S = "the SECRET"
TEXT = {"type": "text", "text": S}
PICTURE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}

CONTENTS: list[Any] = [
    S,
    [TEXT],
    [TEXT, TEXT],
    [PICTURE, TEXT],
    [{**TEXT, "cache_control": {"type": "ephemeral"}}],
    [{"type": "text", "text": "fine", "citations": [{"cited_text": S}]}],
    [{"type": "search_result", "source": "s", "title": S, "content": []}],
    [{"type": "search_result", "source": "s", "title": "t", "content": [TEXT]}],
    [{"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": S}}],
    [{"type": "document", "title": S}],
    [{"type": "refusal", "refusal": S}],
    [{"type": "made_up_tomorrow", "words": [S]}],
    [{"type": "text", "text": {"words": S}}],
    [S],
    {"words": S},
]
ITEMS: list[dict[str, Any]] = [
    *({"type": "function_call_output", "call_id": "c", "output": content} for content in CONTENTS),
    {"type": "custom_tool_call_output", "call_id": "c", "output": S},
    {"type": "local_shell_call_output", "id": "c", "output": S},
    {
        "type": "shell_call_output",
        "call_id": "c",
        "output": [{"stdout": S, "stderr": S, "outcome": {"type": "timeout"}}],
    },
    {"type": "apply_patch_call_output", "call_id": "c", "status": "failed", "output": S},
    {"type": "mcp_call", "id": "c", "server_label": "s", "name": "n", "arguments": "{}", "output": S},
]


def requests() -> list[Any]:
    user = {"role": "user", "content": "hi"}
    found = []
    for content in CONTENTS:
        tool = {"role": "tool", "tool_call_id": "c", "content": content}
        function = {"role": "function", "name": "f", "content": content}
        block = {"type": "tool_result", "tool_use_id": "c", "content": content}
        found.append(("chat", {"messages": [user, tool, tool, function]}))
        found.append(
            ("messages", {"max_tokens": 9, "messages": [{"role": "user", "content": [block, block]}]})
        )
    for item in ITEMS:
        found.append(("responses", {"input": [user, item, item]}))
    return [pytest.param(name, body, id=f"{name}-{at}") for at, (name, body) in enumerate(found)]


def gate_of(decision: str) -> ResultsGate:
    engine = CountingEngine({"result.rego": f"package callgate.result\n\ndecision := {decision}\n"})
    return ResultsGate(engine, LinearPatterns(), Records(), ResultRule())


@pytest.mark.parametrize(("name", "body"), requests())
async def test_what_a_result_says_is_inspected(name: str, body: dict[str, Any]) -> None:
    codec = PROTOCOLS[name].codec
    request = codec.read(orjson.dumps({"model": "m", **body}))
    admitted = await gate_of('{"effect": "redact", "patterns": ["SECRET"]}').admit(
        request, situation_of(request)
    )
    assert b"SECRET" in request.raw
    assert b"SECRET" not in admitted.raw
    assert codec.read(admitted.raw).results == admitted.results
    denied = await gate_of('{"effect": "deny"}').admit(request, situation_of(request))
    assert b"the " not in denied.raw


async def test_a_picture_that_is_denied_gives_way_to_an_empty_one() -> None:
    shown = {"type": "computer_screenshot", "image_url": "data:image/png;base64,SECRET"}
    item = {"type": "computer_call_output", "call_id": "c", "output": shown}
    request = PROTOCOLS["responses"].codec.read(orjson.dumps({"model": "m", "input": [item]}))
    denied = await gate_of('{"effect": "deny"}').admit(request, situation_of(request))
    assert b"SECRET" not in denied.raw


async def test_how_a_command_ended_is_told_as_it_was() -> None:
    part = {"stdout": S, "stderr": "", "outcome": {"type": "exit", "exit_code": 3}}
    item = {"type": "shell_call_output", "call_id": "c", "output": [part]}
    request = PROTOCOLS["responses"].codec.read(orjson.dumps({"model": "m", "input": [item]}))
    gate = gate_of('{"effect": "redact", "patterns": ["SECRET"]}')
    (sent,) = (await gate.admit(request, situation_of(request))).body["input"]
    assert sent["output"] == [{**part, "stdout": "the [redacted]"}]


async def test_a_person_s_word_on_a_hosted_tool_is_no_result() -> None:
    item = {"type": "mcp_approval_response", "approval_request_id": "a", "approve": False, "reason": S}
    request = PROTOCOLS["responses"].codec.read(orjson.dumps({"model": "m", "input": [item]}))
    assert await gate_of('{"effect": "deny"}').admit(request, situation_of(request)) is request
