"""Stored responses read back through a real Callgate: what was not given cannot be fetched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import orjson
import pytest
from openai import AsyncOpenAI

from tests.http.harness import TOOLS, RawProvider, start

ClientOf = Callable[..., AsyncOpenAI]
Json = dict[str, Any]

OFFERED: list[Any] = [{"type": "function", **tool["function"]} for tool in TOOLS]


def call(name: str, id: str) -> Json:
    item = {"type": "function_call", "id": f"fc_{id}", "call_id": id, "name": name, "status": "completed"}
    return {**item, "arguments": '{"id":7}'}


def message(text: str) -> Json:
    part = {"type": "output_text", "text": text, "annotations": []}
    return {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part]}


def response(id: str, *output: Json, status: str = "completed") -> Json:
    return {
        "id": id,
        "object": "response",
        "created_at": 1,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "model": "m",
        "output": list(output),
        "tools": OFFERED,
        "usage": None,
    }


def http(body: Json) -> bytes:
    raw = orjson.dumps(body)
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(raw)}\r\n\r\n"
    return head.encode() + raw


async def test_what_was_made_in_the_background_is_judged_when_it_is_fetched(
    tmp_path: Path, client_of: ClientOf
) -> None:
    done = response("resp_1", call("drop_table", "call_drop"), call("get_user", "call_get"))
    answers = [http(response("resp_1", status="queued")), http(done), http(done), http(response("resp_2"))]
    async with RawProvider(answers, keep=True) as provider:
        callgate = await start(provider, tmp_path)
        try:
            client = client_of(callgate)
            begun = await client.responses.create(model="m", input="go", tools=OFFERED, background=True)
            assert begun.status == "queued"
            for _ in range(2):
                fetched = await client.responses.retrieve("resp_1")
                assert [item.to_dict() for item in fetched.output] == [call("get_user", "call_get")]
            output: Any = {"type": "function_call_output", "call_id": "call_get", "output": "Ann"}
            await client.responses.create(model="m", input=[output], previous_response_id="resp_1")
        finally:
            records = await callgate.records("decision")
    verdicts = [(record["gen_ai.tool.name"], record["effect"]) for record in records]
    # What became of them is known from then on.
    assert verdicts == [("drop_table", "settle"), ("get_user", "forward")]
    given = orjson.loads(provider.requests[-1].partition(b"\r\n\r\n")[2])["input"]
    # The call that was dropped is answered too, once.
    assert [item["call_id"] for item in given] == ["call_drop", "call_get"]


async def test_an_answer_is_fetched_by_the_id_of_its_first_round(tmp_path: Path, client_of: ClientOf) -> None:
    answers = [response("resp_1", call("drop_table", "call_drop")), response("resp_2", message("No."))]
    async with RawProvider([http(a) for a in (*answers, *answers)], keep=True) as provider:
        callgate = await start(provider, tmp_path)
        try:
            client = client_of(callgate)
            first = await client.responses.create(model="m", input="go", tools=OFFERED)
            fetched = await client.responses.retrieve(first.id)
        finally:
            await callgate.stop()
    assert (first.id, fetched.id, fetched.output_text) == ("resp_1", "resp_1", "No.")
    assert provider.requests[-1].startswith(b"GET /v1/responses/resp_2 ")


@pytest.mark.parametrize("key", ["sk-other", "sk-user"])
async def test_only_what_was_given_to_you_can_be_fetched(
    tmp_path: Path, client_of: ClientOf, key: str
) -> None:
    async with RawProvider([http(response("resp_1", message("Secret.")))], keep=True) as provider:
        callgate = await start(provider, tmp_path)
        try:
            given = await client_of(callgate).responses.create(model="m", input="go")
            id = given.id if key == "sk-other" else "resp_2"
            client = client_of(callgate, api_key=key)
            for fetch in (client.responses.retrieve, client.responses.cancel, client.responses.delete):
                with pytest.raises(openai.NotFoundError, match="given to you"):
                    await fetch(id)
        finally:
            await callgate.stop()
    assert len(provider.requests) == 1


async def test_it_can_be_cancelled_and_deleted(tmp_path: Path, client_of: ClientOf) -> None:
    answers = [response("resp_1", status="queued"), response("resp_1", status="cancelled")]
    answers.append({"id": "resp_1", "object": "response", "deleted": True})
    async with RawProvider([http(a) for a in answers], keep=True) as provider:
        callgate = await start(provider, tmp_path)
        try:
            client = client_of(callgate)
            await client.responses.create(model="m", input="go", background=True)
            assert (await client.responses.cancel("resp_1")).status == "cancelled"
            await client.responses.delete("resp_1")
        finally:
            await callgate.stop()
    asked = [request.split(b" HTTP")[0] for request in provider.requests[1:]]
    assert asked == [b"POST /v1/responses/resp_1/cancel", b"DELETE /v1/responses/resp_1"]


@pytest.mark.parametrize("route", ["/responses/resp_1/output", "/responses/resp_1/cancel/x"])
async def test_what_is_not_known_is_refused(tmp_path: Path, client_of: ClientOf, route: str) -> None:
    async with RawProvider([http(response("resp_1", status="queued"))], keep=True) as provider:
        callgate = await start(provider, tmp_path)
        try:
            client = client_of(callgate)
            await client.responses.create(model="m", input="go", background=True)
            with pytest.raises(openai.NotFoundError, match="does not know this route"):
                await client.get(route, cast_to=object)
        finally:
            await callgate.stop()
    assert len(provider.requests) == 1
