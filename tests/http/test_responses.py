"""The official client against a real Callgate on the Responses API: it must not notice it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.http.conftest import Serve
from tests.http.harness import DROP, GET, TOOLS

ClientOf = Callable[..., AsyncOpenAI]

WAYS = ("body", "stream", "helper", "sync", "sync helper")
OFFERED: list[Any] = [{"type": "function", **tool["function"]} for tool in TOOLS]
ONE = ("call_get", "get_user", '{"id":7}')

# What the model does -> what the application sees of it.
CONVERSATIONS: dict[str, tuple[list[dict[str, Any]], tuple[str, list[Any]]]] = {
    "text": ([{"text": "Hello there, world."}], ("Hello there, world.", [])),
    "allowed": ([{"text": "Looking. ", "calls": [GET]}], ("Looking. ", [ONE])),
    "reasoning before an allowed call": ([{"reasoning": "Hm.", "calls": [GET]}], ("", [ONE])),
    "denied": ([{"calls": [DROP]}, {"text": "I may not."}], ("I may not.", [])),
    "reasoning before a denied call": (
        [{"reasoning": "Hm.", "calls": [DROP]}, {"reasoning": "Hm, hm.", "text": "I may not."}],
        ("I may not.", []),
    ),
    "wrong, then right": (
        [{"calls": [GET | {"arguments": {"id": "seven"}}]}, {"calls": [GET]}],
        ("", [ONE]),
    ),
    "repaired": ([{"calls": [GET | {"arguments": {"id": "7"}}]}], ("", [ONE])),
    "mixed": ([{"calls": [DROP, GET]}], ("", [ONE])),
}


def request(**members: Any) -> Any:
    return {"model": "m", "input": "go", "tools": OFFERED} | members


async def respond(client: AsyncOpenAI, way: str, **members: Any) -> Any:
    """The response, asked for in one of the ways that the client offers."""
    asked = request(**members)
    match way:
        case "body":
            return await client.responses.create(**asked)
        case "helper":
            async with client.responses.stream(**asked) as stream:
                return await stream.get_final_response()
        case "stream":
            events = [event async for event in await client.responses.create(**asked, stream=True)]
            return _built(events)
        case _:
            return await asyncio.to_thread(_sync, str(client.base_url), way, asked)


def _sync(url: str, way: str, asked: Any) -> Any:
    with OpenAI(base_url=url, api_key="sk-user", max_retries=0) as client:
        if way == "sync":
            return client.responses.create(**asked)
        with client.responses.stream(**asked) as stream:
            return stream.get_final_response()


def _built(events: list[Any]) -> Any:
    """The last event's response, which must be what the item events come to."""
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type for event in events[:2]] == ["response.created", "response.in_progress"]
    response = events[-1].response
    assert {event.response.id for event in events if hasattr(event, "response")} == {response.id}
    done = [event.item for event in events if event.type == "response.output_item.done"]
    assert [item.to_dict() for item in done] == [item.to_dict() for item in response.output]
    added = [event.output_index for event in events if event.type == "response.output_item.added"]
    assert added == list(range(len(done)))
    return response


def seen(response: Any) -> tuple[str, list[Any]]:
    calls = [(i.call_id, i.name, i.arguments) for i in response.output if i.type == "function_call"]
    return response.output_text, calls


def output_of(call_id: str, text: str = "Ann") -> dict[str, str]:
    return {"type": "function_call_output", "call_id": call_id, "output": text}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CONVERSATIONS)
async def test_every_way_to_ask_gives_the_same(
    serve: Serve, client_of: ClientOf, name: str, way: str
) -> None:
    turns, expected = CONVERSATIONS[name]
    callgate = await serve(*turns)
    response = await respond(client_of(callgate), way)
    assert seen(response) == expected
    assert response.status == "completed"
    assert response.usage.input_tokens == 20 * len(callgate.provider.requests)


@pytest.mark.parametrize("way", ["body", "helper"])
async def test_a_conversation_that_the_provider_keeps_goes_on_after_a_denied_call(
    serve: Serve, client_of: ClientOf, way: str
) -> None:
    callgate = await serve({"calls": [DROP]}, {"text": "I may not."}, {"text": "Nothing else."})
    client = client_of(callgate)
    first = await respond(client, way)
    second = await respond(client, way, input="And now?", previous_response_id=first.id)
    assert seen(second) == ("Nothing else.", [])
    asked = callgate.provider.requests[-1].body
    assert asked["previous_response_id"] != first.id, "it goes on from the last round"
    assert asked["input"] == "And now?"


@pytest.mark.parametrize("way", ["body", "helper"])
async def test_a_mixed_turn_that_the_provider_keeps_is_answered_whole(
    serve: Serve, client_of: ClientOf, way: str
) -> None:
    callgate = await serve({"calls": [DROP, GET]}, {"text": "Ann it is."})
    client = client_of(callgate)
    first = await respond(client, way)
    second = await respond(client, way, input=[output_of("call_get")], previous_response_id=first.id)
    assert seen(second) == ("Ann it is.", [])
    given = callgate.provider.requests[-1].body["input"]
    assert [item["call_id"] for item in given] == ["call_drop", "call_get"]
    assert "drop_table is not allowed." in given[0]["output"]


@pytest.mark.parametrize("way", ["body", "helper"])
async def test_a_mixed_turn_is_put_back_into_a_conversation_that_the_client_keeps(
    serve: Serve, client_of: ClientOf, way: str
) -> None:
    callgate = await serve(
        {"reasoning": "Hm.", "calls": [DROP]},
        {"reasoning": "So.", "text": "Well. ", "calls": [DROP | {"id": "call_drop_2"}, GET]},
        {"text": "Ann it is."},
    )
    client = client_of(callgate)
    start = [{"role": "user", "content": "go"}]
    first = await respond(client, way, input=start, store=False)
    kept = [item.to_dict() for item in first.output]
    assert "call_drop" not in str(kept)
    second = await respond(client, way, input=[*start, *kept, output_of("call_get")], store=False)
    assert seen(second) == ("Ann it is.", [])
    given = callgate.provider.requests[-1].body["input"]
    assert [item.get("call_id") or item.get("type") for item in given] == [
        None,
        "reasoning",
        "call_drop",
        "call_drop",
        "reasoning",
        "message",
        "call_drop_2",
        "call_get",
        "call_drop_2",
        "call_get",
    ]


async def test_what_the_provider_keeps_is_history_to_the_guards(serve: Serve, client_of: ClientOf) -> None:
    callgate = await serve({"calls": [GET]}, {"calls": [GET | {"id": "call_2"}]}, {"text": "Done."})
    client = client_of(callgate)
    first = await respond(client, "body", input="Who is it?")
    second = await respond(client, "body", input=[output_of("call_get")], previous_response_id=first.id)
    await respond(client, "stream", input=[output_of("call_2")], previous_response_id=second.id)
    records = await callgate.records("exchange")
    assert len({record["conversation_id"] for record in records}) == 1
    assert {record["query"] for record in records} == {"Who is it?"}


async def test_anothers_answer_cannot_be_gone_on_from(serve: Serve, client_of: ClientOf) -> None:
    callgate = await serve({"calls": [DROP, GET]}, {"text": "Fine."})
    first = await respond(client_of(callgate, api_key="sk-ann"), "body")
    asked = len(callgate.provider.requests)
    with pytest.raises(openai.NotFoundError, match="given to you"):
        await respond(
            client_of(callgate, api_key="sk-bob"),
            "body",
            input=[output_of("call_get")],
            previous_response_id=first.id,
        )
    assert len(callgate.provider.requests) == asked, "the provider, who would tell, is not asked"


async def test_an_error_is_raised_in_every_way(serve: Serve, client_of: ClientOf) -> None:
    callgate = await serve({"text": "Hello there.", "fault": {"kind": "cut", "after_frames": 5}})
    for way in ("stream", "helper"):
        with pytest.raises(openai.APIError, match="cut off"):
            await respond(client_of(callgate), way)


# -- approvals ------------------------------------------------------------------------------------

CONFIRM = """
package callgate.call

decision := {"effect": "confirm"} if startswith(input.call.name, "drop")
else := {"effect": "allow"}
"""


@pytest.fixture
def confirming(tmp_path: Any) -> dict[str, Any]:
    """Settings whose policy asks before anything is dropped."""
    policy = tmp_path / "confirm.rego"
    policy.write_text(CONFIRM)
    return {"policies": {"paths": [str(policy)]}}


@pytest.mark.parametrize("way", ["body", "helper"])
@pytest.mark.parametrize("word", ["approve", "yes"])
async def test_a_held_turn_is_released_where_the_provider_keeps_the_conversation(
    serve: Serve, client_of: ClientOf, confirming: dict[str, Any], way: str, word: str
) -> None:
    callgate = await serve({"reasoning": "Hm.", "calls": [DROP]}, {"text": "Dropped."}, **confirming)
    client = client_of(callgate)
    first = await respond(client, way)
    question, calls = seen(first)
    assert calls == []
    code = question.partition('"approve ')[2][:6]
    answer = f"approve {code}" if word == "approve" else "Yes"
    second = await respond(client, way, input=answer, previous_response_id=first.id)
    assert seen(second) == ("", [("call_drop", "drop_table", '{"id":7}')])
    assert len(callgate.provider.requests) == 1
    assert second.id != first.id
    third = await respond(client, way, input=[output_of("call_drop", "ok")], previous_response_id=second.id)
    assert seen(third) == ("Dropped.", [])
    asked = callgate.provider.requests[-1].body
    assert asked["previous_response_id"] == first.id
    assert asked["input"] == [output_of("call_drop", "ok")]


@pytest.mark.parametrize("way", ["body", "helper"])
async def test_a_declined_turn_is_told_to_the_model_once(
    serve: Serve, client_of: ClientOf, confirming: dict[str, Any], way: str
) -> None:
    callgate = await serve({"calls": [DROP]}, {"text": "As you wish."}, **confirming)
    client = client_of(callgate)
    first = await respond(client, way)
    second = await respond(client, way, input="No.", previous_response_id=first.id)
    assert seen(second) == ("As you wish.", [])
    outputs = [i for i in callgate.provider.requests[-1].body["input"] if "call_id" in i]
    assert [item["call_id"] for item in outputs] == ["call_drop"]
    assert "declined" in outputs[0]["output"]


@pytest.mark.parametrize("way", ["body", "helper"])
async def test_a_held_turn_is_released_into_a_conversation_that_the_client_keeps(
    serve: Serve, client_of: ClientOf, confirming: dict[str, Any], way: str
) -> None:
    callgate = await serve({"reasoning": "Hm.", "calls": [DROP]}, {"text": "Dropped."}, **confirming)
    client = client_of(callgate)
    given: list[Any] = [{"role": "user", "content": "go"}]
    first = await respond(client, way, input=given, store=False)
    given += [*(item.to_dict() for item in first.output), {"role": "user", "content": "yes"}]
    second = await respond(client, way, input=given, store=False)
    assert [call[0] for call in seen(second)[1]] == ["call_drop"]
    given += [*(item.to_dict() for item in second.output), output_of("call_drop", "ok")]
    third = await respond(client, way, input=given, store=False)
    assert seen(third)[0] == "Dropped."


@pytest.mark.parametrize("way", ["body", "helper"])
async def test_a_declined_turn_is_told_in_a_conversation_that_the_client_keeps(
    serve: Serve, client_of: ClientOf, confirming: dict[str, Any], way: str
) -> None:
    callgate = await serve({"reasoning": "Hm.", "calls": [DROP]}, {"text": "As you wish."}, **confirming)
    client = client_of(callgate)
    given: list[Any] = [{"role": "user", "content": "go"}]
    first = await respond(client, way, input=given, store=False)
    given += [*(item.to_dict() for item in first.output), {"role": "user", "content": "no"}]
    second = await respond(client, way, input=given, store=False)
    assert seen(second) == ("As you wish.", [])
    asked = callgate.provider.requests[-1].body["input"]
    assert [item.get("call_id") or item.get("role") or item["type"] for item in asked] == [
        "user",
        "reasoning",
        "call_drop",
        "call_drop",
        "assistant",
        "user",
    ]
    assert "declined" in asked[3]["output"]
