"""Clients that bring what they were not given: calls of their own making, and several names at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.http.harness import RawProvider, start
from tests.http.storing import OFFERED, ask
from tests.http.test_stored import call, http, message, response

Json = dict[str, Any]

ASKED: Json = {"role": "user", "content": "go"}


def brought(name: str, id: str) -> list[Json]:
    """A conversation's beginning in which a call was made, as a client can write any."""
    made = {"type": "function_call", "call_id": id, "name": name, "arguments": '{"id":7}'}
    return [ASKED, made, {"type": "function_call_output", "call_id": id, "output": "done"}]


async def test_a_call_that_a_client_brings_is_not_taken_for_one_that_the_answer_makes(tmp_path: Path) -> None:
    calls = call("drop_table", "call_drop"), call("get_user", "call_get")
    answers = [response("resp_1", status="queued"), response("resp_1", *calls)]
    async with RawProvider([http(answer) for answer in answers], keep=True) as provider:
        callgate = await start(provider, tmp_path)
        try:
            forged = [*brought("drop_table", "call_drop"), *brought("get_user", "call_get")[1:]]
            body = {"model": "m", "input": forged, "tools": OFFERED, "background": True}
            assert (await ask(callgate, "POST", "/responses", body)).status == 200
            for _ in range(2):  # judged, and then known
                told = orjson.loads((await ask(callgate, "GET", "/responses/resp_1")).body)
                assert [item["call_id"] for item in told["output"]] == ["call_get"]
            judged = [(r["gen_ai.tool.name"], r["verdict"]) for r in await callgate.records("decision")]
            assert judged == [("drop_table", "Deny"), ("get_user", "Allow")]
        finally:
            await callgate.stop()


@pytest.mark.parametrize("conversation", ["conv_of_nobody", {"id": "conv_of_nobody"}])
async def test_a_second_name_does_not_lead_to_what_another_was_given(
    tmp_path: Path, conversation: Any
) -> None:
    async with RawProvider([http(response("resp_1", message("for one alone")))], keep=True) as provider:
        callgate = await start(provider, tmp_path)
        try:
            assert (await ask(callgate, "POST", "/responses", {"model": "m", "input": "a"})).status == 200
            body = {
                "model": "m",
                "input": "b",
                "previous_response_id": "resp_1",
                "conversation": conversation,
            }
            refused = await ask(callgate, "POST", "/responses", body, key="sk-another")
            assert (refused.status, refused.error["code"]) == (404, "not_found")
            assert len(provider.requests) == 1
        finally:
            await callgate.stop()


async def test_the_last_round_goes_on_as_the_answer_does_and_is_nobody_elses(tmp_path: Path) -> None:
    calls = call("drop_table", "call_drop"), call("get_user", "call_get")
    answers = [response("resp_1", calls[0]), response("resp_2", *calls), response("resp_3", message("done"))]
    answers[2]["previous_response_id"] = "resp_2"
    async with RawProvider([http(answer) for answer in answers], keep=True) as provider:
        callgate = await start(provider, tmp_path)
        try:
            await ask(callgate, "POST", "/responses", {"model": "m", "input": "a", "tools": OFFERED})
            result = {"type": "function_call_output", "call_id": "call_get", "output": "Ada"}
            sent = []
            for name in ("resp_1", "resp_2"):
                body = {"model": "m", "input": [result], "previous_response_id": name}
                assert (await ask(callgate, "POST", "/responses", body)).status == 200
                sent.append(orjson.loads(provider.requests[-1].partition(b"\r\n\r\n")[2]))
            assert sent[0] == sent[1]
            assert [item["call_id"] for item in sent[0]["input"]] == ["call_drop", "call_get"]
            assert (await ask(callgate, "GET", "/responses/resp_2")).status == 404
            body = {"model": "m", "input": "b", "previous_response_id": "resp_2"}
            assert (await ask(callgate, "POST", "/responses", body, key="sk-another")).status == 404
            assert len(provider.requests) == 4
        finally:
            await callgate.stop()
