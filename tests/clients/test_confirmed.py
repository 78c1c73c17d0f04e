"""A call that is repaired and then approved: the person is asked about what will run, and that runs once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI

from tests.http.conftest import Serve
from tests.http.harness import DROP, TOOLS

ASKING = """
package callgate.call

decision := {"effect": "confirm", "reasons": ["It cannot be undone."]} if not input.approval.approved
else := {"effect": "allow"}
"""
WRONG = DROP | {"arguments": {"id": "7"}}


async def said(client: AsyncOpenAI, messages: list[Any], stream: bool) -> Any:
    """The assistant's next message, which goes into the conversation too."""
    asked: Any = {"model": "m", "messages": messages, "tools": TOOLS}
    if stream:
        async with client.chat.completions.stream(**asked) as events:
            message: Any = (await events.get_final_completion()).choices[0].message
    else:
        message = (await client.chat.completions.create(**asked)).choices[0].message
    messages.append(message.to_dict())
    return message


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "body"])
async def test_what_was_repaired_is_what_a_person_approves(
    serve: Serve, tmp_path: Path, stream: bool
) -> None:
    policy = tmp_path / "asking.rego"
    policy.write_text(ASKING)
    callgate = await serve({"calls": [WRONG]}, policies={"paths": [str(policy)]})
    messages: list[Any] = [{"role": "user", "content": "go"}]
    async with AsyncOpenAI(base_url=callgate.url, api_key="sk-user", max_retries=0) as client:
        question = await said(client, messages, stream)
        assert not question.tool_calls
        assert "id = 7" in question.content
        code = re.search(r'"approve ([^"]+)"', question.content)
        assert code
        messages.append({"role": "user", "content": f"approve {code[1]}"})
        (call,) = (await said(client, messages, stream)).tool_calls
    assert (call.id, call.function.name, call.function.arguments) == ("call_drop", "drop_table", '{"id":7}')
    assert len(callgate.provider.requests) == 1, "nobody asks the model again for what was approved"
