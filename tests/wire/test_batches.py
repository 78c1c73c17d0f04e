"""Batches: the client gets the calls that may run, and the model later sees its turn whole."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.record import DecisionRecord
from tests.core.harness import Outcome, World, run
from tests.core.protocols import PROTOCOLS

Json = dict[str, Any]

WRAPPER = "multi_tool_use.parallel"
DENIED = "Not for you."
POLICY = {"drop": {"effect": "deny", "reasons": [DENIED]}}
TOOLS = ["look", "drop"]
STREAM_OR_BODY = pytest.mark.parametrize("stream", [True, False], ids=["stream", "body"])


def batch(*names: str, id: str = "call_b", name: str = WRAPPER) -> Json:
    """A wrapper as the model writes it, its calls numbered."""
    uses = [{"recipient_name": f"functions.{one}", "parameters": {"n": n}} for n, one in enumerate(names)]
    return {"name": name, "id": id, "arguments": {"tool_uses": uses}}


def text_of(call: Json) -> str:
    return json.dumps(call["arguments"], separators=(",", ":"))


async def ask(
    protocol: str, stream: bool, world: World, *turns: Json, store: bool = True, **members: Any
) -> Outcome:
    request = {"tools": TOOLS, **members} | ({} if store else {"store": False})
    case = {"request": request, "policy": POLICY, "upstream": list(turns)}
    return await run(case, stream, world=world, protocol=protocol)


def seen(outcome: Outcome, protocol: str, stream: bool) -> list[Json]:
    return PROTOCOLS[protocol].read(outcome.client.data, stream).first.calls


def effects(outcome: Outcome) -> list[tuple[str, str]]:
    records = [record for record in outcome.records if isinstance(record, DecisionRecord)]
    return [(record.tool, record.effect) for record in records]


@pytest.mark.parametrize("name", [WRAPPER, "parallel"])
@STREAM_OR_BODY
async def test_on_responses_the_wrapper_is_whole_again_in_the_next_input(name: str, stream: bool) -> None:
    world, asked = World(), batch("drop", "look", name=name)
    first = await ask("responses", stream, world, {"calls": [asked]}, store=False)
    (call,) = seen(first, "responses", stream)
    assert json.loads(call["arguments"]) == {"tool_uses": [asked["arguments"]["tool_uses"][1]]}
    given = [
        {"role": "user", "content": "Do it."},
        {"type": "function_call", "call_id": "call_b", "name": name, "arguments": call["arguments"]},
        {"type": "function_call_output", "call_id": "call_b", "output": "fine"},
    ]
    turns = [{"text": "Unplayed."}, {"text": "Done."}]
    after = await ask("responses", stream, world, *turns, store=False, messages=given)
    _, wrapper, output = json.loads(after.upstream.asks[0].body)["input"]
    assert wrapper == {**given[1], "arguments": text_of(asked)}
    said, _, more = output["output"].partition("\n")
    assert said == "fine"
    (told,) = json.loads(more)
    assert (told["recipient_name"], json.loads(told["result"])["error"]["message"]) == ("drop", DENIED)
    assert after.exchange.restored == 1


@STREAM_OR_BODY
async def test_on_responses_a_client_may_have_taken_the_wrapper_apart(stream: bool) -> None:
    world = World()
    hidden = {"calls": [{"name": "drop", "id": "call_a", "arguments": {}}]}
    await ask("responses", stream, world, hidden, {"calls": [batch("drop", "look", "look")]}, store=False)

    def call(id: str, name: str, arguments: str = "{}") -> Json:
        return {"type": "function_call", "call_id": id, "name": name, "arguments": arguments}

    def output(id: str) -> Json:
        return {"type": "function_call_output", "call_id": id, "output": "fine"}

    mine = [call("call_b_0", "look"), call("call_b_1", "look")]
    given = [{"role": "user", "content": "Do it."}, *mine, output("call_b_0"), output("call_b_1")]
    turns = [{"text": "Unplayed."}, {"text": "Unplayed."}, {"text": "Done."}]
    after = await ask("responses", stream, world, *turns, store=False, messages=given)
    sent = json.loads(after.upstream.asks[0].body)["input"]
    calls = [item for item in sent if item.get("type") == "function_call"]
    assert [(item["call_id"], item["name"]) for item in calls] == [
        *[("call_a", "drop"), ("call_b_0", "look"), ("call_b_1", "look"), ("call_b_2", "drop")]
    ]
    assert calls[-1]["arguments"] == '{"n":0}'
    told = {item["call_id"]: item["output"] for item in sent if "output" in item}
    assert list(told.values()).count("fine") == 2
    assert DENIED in told["call_b_2"]
    assert DENIED in told["call_a"]
    again = await ask("responses", stream, world, *turns, store=False, messages=sent)
    assert json.loads(again.upstream.asks[0].body)["input"] == sent, "once is enough"


@STREAM_OR_BODY
async def test_on_responses_what_only_the_provider_remembers_is_told_whole(stream: bool) -> None:
    world = World()
    first = await ask("responses", stream, world, {"calls": [batch("look", "drop", "look")]})
    (id,) = PROTOCOLS["responses"].read(first.client.data, stream).ids
    parts = [{"type": "input_text", "text": "fine"}]
    output = {"type": "function_call_output", "call_id": "call_b", "output": parts}
    turns = [{"text": "Unplayed."}, {"text": "Done."}]
    after = await ask("responses", stream, world, *turns, messages=[output], previous_response_id=id)
    (sent,) = json.loads(after.upstream.asks[0].body)["input"]
    first_part, more = sent["output"]
    assert first_part == parts[0]
    assert [told["recipient_name"] for told in json.loads(more["text"])] == ["drop"]
    assert PROTOCOLS["responses"].read(after.client.data, stream).first.text == "Done."


@STREAM_OR_BODY
async def test_what_the_store_has_lost_still_has_one_result(stream: bool) -> None:
    first = await ask("responses", stream, World(), {"calls": [batch("look", "drop")]})
    (id,) = PROTOCOLS["responses"].read(first.client.data, stream).ids
    output = {"type": "function_call_output", "call_id": "call_b", "output": "fine"}
    turns = [{"text": "Unplayed."}, {"text": "Done."}]
    # The scripted provider refuses a call without its output, and an output without its call.
    after = await ask("responses", stream, World(), *turns, messages=[output], previous_response_id=id)
    assert after.client.status == 200
    assert PROTOCOLS["responses"].read(after.client.data, stream).first.text == "Done."


@STREAM_OR_BODY
async def test_an_id_that_another_tool_has_now_is_left_alone(stream: bool) -> None:
    world = World()
    await ask("responses", stream, world, {"calls": [batch("look", "drop")]}, store=False)
    given = [
        {"role": "user", "content": "Do it."},
        {"type": "function_call", "call_id": "call_b", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "call_b", "output": "fine"},
    ]
    turns = [{"text": "Unplayed."}, {"text": "Done."}]
    after = await ask("responses", stream, world, *turns, store=False, messages=given)
    assert json.loads(after.upstream.asks[0].body)["input"] == given


@STREAM_OR_BODY
async def test_on_chat_the_calls_stand_for_the_batch_from_then_on(stream: bool) -> None:
    world = World()
    first = await ask("chat", stream, world, {"calls": [batch("drop", "look")]})
    (call,) = seen(first, "chat", stream)
    back = {"id": call["id"], "type": "function", "function": {"name": "look", "arguments": '{"n":1}'}}
    messages = [
        {"role": "user", "content": "Do it."},
        {"role": "assistant", "content": None, "tool_calls": [back]},
        {"role": "tool", "tool_call_id": call["id"], "content": "fine"},
    ]
    turns = [{"text": "Unplayed."}, {"text": "Done."}]
    after = await ask("chat", stream, world, *turns, messages=messages)
    sent = json.loads(after.upstream.asks[0].body)["messages"]
    assert [one["function"]["name"] for one in sent[1]["tool_calls"]] == ["drop", "look"]
    told = {message["tool_call_id"]: message["content"] for message in sent[2:]}
    assert told["call_b_1"] == "fine"
    assert DENIED in told["call_b_0"]


@STREAM_OR_BODY
async def test_on_chat_a_wrapper_without_a_reading_is_sent_back_by_a_name_that_is_taken(stream: bool) -> None:
    broken = {"name": WRAPPER, "id": "call_b", "arguments": '{"tool_uses":[{'}
    outcome = await ask("chat", stream, World(), {"calls": [broken]}, {"text": "ok"})
    *_, turn, _ = json.loads(outcome.upstream.asks[1].body)["messages"]
    assert [call["function"]["name"] for call in turn["tool_calls"]] == ["parallel"]
    assert effects(outcome) == [(WRAPPER, "settle")]


@STREAM_OR_BODY
async def test_on_chat_what_a_provider_signed_stays_with_the_first_call(stream: bool) -> None:
    signed = {**batch("look", "look"), "extra": {"extra_content": {"signature": "s"}}}
    outcome = await ask("chat", stream, World(), {"calls": [signed]})
    assert outcome.client.data.count(b'"extra_content":{"signature":"s"}') == 1


NAMES = st.lists(st.sampled_from(TOOLS), min_size=1, max_size=4)


@pytest.mark.parametrize("protocol", ["chat", "responses"])
@STREAM_OR_BODY
@settings(max_examples=40, deadline=None)
@given(turn=st.lists(NAMES, min_size=1, max_size=3), cuts=st.lists(st.integers(0, 2**20), max_size=6))
async def test_the_client_runs_what_the_records_say_is_forwarded(
    protocol: str, stream: bool, turn: list[list[str]], cuts: list[int]
) -> None:
    asked = [batch(*names, id=f"call_{n}") for n, names in enumerate(turn)]
    case = {"request": {"tools": TOOLS}, "policy": POLICY, "upstream": [{"calls": asked}, {"text": "No."}]}
    outcome = await run(case, stream, cuts, protocol=protocol)
    ran: list[str] = []
    for call in seen(outcome, protocol, stream):
        uses = json.loads(call["arguments"]).get("tool_uses")
        ran += [call["name"]] if uses is None else [u["recipient_name"].split(".")[1] for u in uses]
    assert "drop" not in ran
    assert [name for name, effect in effects(outcome) if effect == "forward"] == ran
    assert [name for name, _ in effects(outcome)] == [name for names in turn for name in names]
