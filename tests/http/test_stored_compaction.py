"""Routes beside the stored ones: what makes a conversation shorter, and what counts its tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import openai
import orjson
import pytest
from openai import AsyncOpenAI

from tests.http.conftest import Serve
from tests.http.harness import DROP, GET, RawProvider, start
from tests.http.storing import OFFERED, ask, secrets_in
from tests.http.test_stored import call, http, message, response

ClientOf = Callable[..., AsyncOpenAI]

DENYING = """
package callgate.request

decision := {"effect": "deny", "reasons": ["Not today."]} if {
	input.model == "forbidden"
} else := {"effect": "allow"}
"""


async def test_a_conversation_is_compacted_past_the_gates(
    serve: Serve, client_of: ClientOf, tmp_path: Any
) -> None:
    policy = tmp_path / "request.rego"
    policy.write_text(DENYING)
    policies = {"paths": [str(tmp_path / "0" / "policy.rego"), str(policy)]}
    callgate = await serve({"calls": [DROP, GET]}, {"text": "Ann it is."}, stores=True, policies=policies)
    client = client_of(callgate)
    given: Any = [{"role": "user", "content": "go"}]
    compacted = await client.responses.compact(model="m", input=given)
    assert [item.type for item in compacted.output] == ["message", "compaction"]
    assert compacted.usage.total_tokens == 12
    with pytest.raises(openai.PermissionDeniedError, match="Not today"):
        await client.responses.compact(model="forbidden", input=given)
    assert len(callgate.provider.requests) == 1


async def test_what_is_compacted_is_what_the_provider_knows(serve: Serve, client_of: ClientOf) -> None:
    """It goes on from the last round, and the calls that the client never saw are answered."""
    callgate = await serve({"calls": [DROP, GET]}, stores=True)
    client = client_of(callgate)
    first = await client.responses.create(model="m", input="go", tools=OFFERED)
    output: Any = {"type": "function_call_output", "call_id": "call_get", "output": "Ann"}
    compacted = await client.responses.compact(model="m", input=[output], previous_response_id=first.id)
    sent = callgate.provider.requests[-1].body["input"]
    assert [item["call_id"] for item in sent] == ["call_drop", "call_get"]
    assert not secrets_in(compacted.to_dict())


async def test_a_call_in_what_was_compacted_is_judged(tmp_path: Any, client_of: ClientOf) -> None:
    body = response("resp_1", message("go"), call("drop_table", "call_drop"))
    async with RawProvider([http(body)], keep=True) as provider:
        callgate = await start(provider, tmp_path)
        try:
            compacted = await client_of(callgate).responses.compact(model="m", input="go")
        finally:
            await callgate.stop()
    assert not secrets_in(compacted.to_dict())


async def test_tokens_are_counted_as_they_are(serve: Serve, client_of: ClientOf) -> None:
    callgate = await serve({"text": "Fine."}, stores=True)
    counted = await client_of(callgate).responses.input_tokens.count(model="m", input="go")
    assert counted.input_tokens == 11
    (request,) = callgate.provider.requests
    assert orjson.loads(request.raw) == {"model": "m", "input": "go"}


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("route", ["/responses/compact", "/responses/input_tokens"])
async def test_neither_is_an_answer_to_be_read(serve: Serve, method: str, route: str) -> None:
    callgate = await serve({"text": "Fine."}, stores=True)
    answer = await ask(callgate, method, route)
    assert (answer.status, answer.error["code"]) == (405, "method_not_allowed")
    assert callgate.provider.requests == []
