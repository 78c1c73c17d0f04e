"""Answers that are not what their content type says: some client would read a call in them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.core.harness import run

BODIES: dict[str, Any] = {
    "chat": {
        "id": "x",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "tool_calls": [
                        {"id": "c", "type": "function", "function": {"name": "drop_table", "arguments": "{}"}}
                    ],
                },
                "finish_reason": "tool_calls",
            }
        ],
    },
    "responses": {
        "id": "resp_x",
        "object": "response",
        "status": "completed",
        "output": [
            {"type": "function_call", "id": "f", "call_id": "c", "name": "drop_table", "arguments": "{}"}
        ],
    },
    "messages": {
        "id": "msg_x",
        "type": "message",
        "role": "assistant",
        "content": [{"type": "tool_use", "id": "c", "name": "drop_table", "input": {}}],
        "stop_reason": "tool_use",
    },
}


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("protocol", BODIES)
async def test_a_body_that_calls_itself_a_stream_releases_nothing(
    protocol: str, stream: bool, indent: int | None
) -> None:
    raw = json.dumps(BODIES[protocol], indent=indent) + "\n\n"
    fault = {"kind": "raw", "raw": raw, "content_type": "text/event-stream"}
    case = {"request": {"tools": ["drop_table"]}, "upstream": [{"fault": fault}]}
    outcome = await run(case, stream, protocol=protocol)
    assert b"drop_table" not in outcome.client.data
    assert outcome.exchange.outcome == "upstream_error"
    assert outcome.decisions == []
