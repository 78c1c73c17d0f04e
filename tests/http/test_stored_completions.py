"""Stored chat completions: listed, read back, changed and deleted by whom they were given to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import openai
import orjson
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.http.conftest import Serve
from tests.http.harness import DROP, GET, TOOLS, scripted
from tests.http.storing import AGAIN, ask, secrets_in

ClientOf = Callable[..., AsyncOpenAI]
Json = dict[str, Any]

ANSWERS: dict[str, list[Json]] = {
    "text": [{"text": "Hello there."}],
    "allowed": [{"text": "Looking. ", "calls": [GET]}],
    "mixed": [{"text": "Both. ", "calls": [DROP, GET]}],
    "denied": [{"text": "Well. ", "calls": [DROP]}, {"text": "I may not."}],
    "denied twice, then allowed": [{"calls": [DROP]}, {"text": "So. ", "calls": [AGAIN]}, {"calls": [GET]}],
    "repaired": [{"calls": [GET | {"arguments": {"id": "7"}}]}],
    "legacy": [{"calls": [GET], "deviations": ["legacy_function_call"]}],
}


def request(**members: Any) -> Any:
    messages = [{"role": "user", "content": "go"}]
    return {"model": "m", "messages": messages, "tools": TOOLS, "store": True} | members


def given(whole: Json) -> Json:
    """What a completion says; of stored ones this provider says more."""
    return {key: value for key, value in whole.items() if key not in ("tools", "metadata")}


@pytest.mark.parametrize("name", ANSWERS)
async def test_a_completion_is_read_back_as_it_was_given(
    serve: Serve, client_of: ClientOf, name: str
) -> None:
    callgate = await serve(*ANSWERS[name], stores=True)
    client = client_of(callgate)
    first = await client.chat.completions.create(**request(metadata={"about": "ann"}))
    again = await client.chat.completions.retrieve(first.id)
    assert given(again.to_dict()) == given(first.to_dict())
    listed = [one async for one in client.chat.completions.list()]
    assert [given(one.to_dict()) for one in listed] == [given(first.to_dict())]
    assert not secrets_in(again.to_dict())
    decisions = await callgate.records("decision")
    assert len(decisions) == sum(len(turn.get("calls", ())) for turn in ANSWERS[name])


async def test_of_several_choices_each_is_read_back(serve: Serve, client_of: ClientOf) -> None:
    choices = [{"calls": [DROP]}, {"text": "Two. ", "calls": [GET, AGAIN]}, {"text": "Three."}]
    callgate = await serve({"choices": choices}, stores=True)
    client = client_of(callgate)
    first = await client.chat.completions.create(**request(n=3))
    again = await client.chat.completions.retrieve(first.id)
    assert given(again.to_dict()) == given(first.to_dict())
    assert [choice.finish_reason for choice in again.choices] == ["stop", "tool_calls", "stop"]
    assert again.choices[0].message.content == "drop_table is not allowed."


async def test_a_streamed_completion_is_read_back_too(serve: Serve, client_of: ClientOf) -> None:
    callgate = await serve(*ANSWERS["denied twice, then allowed"], stores=True)
    client = client_of(callgate)
    chunks = [chunk async for chunk in await client.chat.completions.create(**request(stream=True))]
    again = await client.chat.completions.retrieve(chunks[0].id)
    assert again.choices[0].message.content == "So. "
    calls = again.choices[0].message.tool_calls
    assert calls is not None
    assert [call.id for call in calls] == ["call_get"]


async def test_messages_are_those_that_the_client_sent(serve: Serve, client_of: ClientOf) -> None:
    callgate = await serve({"calls": [DROP, GET]}, {"text": "Ann it is."}, stores=True)
    client = client_of(callgate)
    first = await client.chat.completions.create(**request())
    history: list[Any] = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "go"},
        first.choices[0].message.to_dict(),
        {"role": "tool", "tool_call_id": "call_get", "content": "Ann"},
    ]
    last = await client.chat.completions.create(**request(messages=history))
    assert b"call_drop" in callgate.provider.requests[-1].raw, "it was put back"
    found = [one async for one in client.chat.completions.messages.list(last.id)]
    assert [one.role for one in found] == ["system", "user", "assistant", "tool"]
    assert [call.id for call in found[2].tool_calls or ()] == ["call_get"]
    assert not [word for one in found for word in secrets_in(one.to_dict())]
    paged = [one.id async for one in client.chat.completions.messages.list(last.id, limit=1)]
    assert paged == [one.id for one in found]
    backwards = [one.id async for one in client.chat.completions.messages.list(last.id, order="desc")]
    assert backwards == paged[::-1]


async def test_a_turn_that_was_wholly_hidden_is_no_message(serve: Serve, client_of: ClientOf) -> None:
    callgate = await serve({"calls": [DROP]}, {"calls": [GET]}, {"text": "Ann it is."}, stores=True)
    client = client_of(callgate)
    first = await client.chat.completions.create(**request())
    history: list[Any] = [
        {"role": "user", "content": "go"},
        first.choices[0].message.to_dict(),
        {"role": "tool", "tool_call_id": "call_get", "content": "Ann"},
    ]
    last = await client.chat.completions.create(**request(messages=history))
    assert len(callgate.provider.requests[-1].body["messages"]) == 5
    found = [one async for one in client.chat.completions.messages.list(last.id)]
    assert [one.role for one in found] == ["user", "assistant", "tool"]


async def test_guidance_is_not_the_clients_message(serve: Serve, client_of: ClientOf) -> None:
    guidance = [{"models": ["*"], "text": "Ask before you act."}]
    callgate = await serve({"text": "Fine."}, stores=True, guidance=guidance)
    client = client_of(callgate)
    first = await client.chat.completions.create(**request())
    assert b"Ask before you act." in callgate.provider.requests[-1].raw
    assert [one.role async for one in client.chat.completions.messages.list(first.id)] == ["user"]


async def test_everyone_lists_their_own(serve: Serve, client_of: ClientOf) -> None:
    scripts = [scripted(*ANSWERS[name], model=name) for name in ("text", "mixed", "denied")]
    callgate = await serve(*scripts, stores=True)
    ann, bob = client_of(callgate), client_of(callgate, api_key="sk-bob")
    mine = [await ann.chat.completions.create(**request(model=name)) for name in ("text", "denied")]
    theirs = await bob.chat.completions.create(**request(model="mixed"))
    unkept = await ann.chat.completions.create(**request(model="mixed", store=False))
    assert unkept.id == theirs.id, "this provider gives the same ids again"
    assert len(callgate.provider.stored.completions) == 4
    assert [one.id async for one in ann.chat.completions.list()] == [one.id for one in mine]
    assert [one.id async for one in bob.chat.completions.list()] == [theirs.id]
    assert [one.id async for one in ann.chat.completions.list(limit=1)] == [one.id for one in mine]
    nobody = await client_of(callgate, api_key="sk-nobody").chat.completions.list()
    assert (nobody.data, nobody.has_more) == ([], False)
    with pytest.raises(openai.NotFoundError):
        await ann.chat.completions.list(after=theirs.id)


ROUTES: list[tuple[str, str, Json | None]] = [
    ("GET", "/chat/completions/{}", None),
    ("GET", "/chat/completions/{}/messages", None),
    ("POST", "/chat/completions/{}", {"metadata": {"mine": "now"}}),
    ("DELETE", "/chat/completions/{}", None),
]


@pytest.mark.parametrize(("method", "route", "body"), ROUTES)
async def test_nobody_reads_what_another_was_given(
    serve: Serve, client_of: ClientOf, method: str, route: str, body: Json | None
) -> None:
    callgate = await serve(*ANSWERS["denied"], stores=True)
    mine = await client_of(callgate).chat.completions.create(**request())
    first, second = callgate.provider.stored.completions
    assert mine.id == first
    asked = len(callgate.provider.requests)
    before = orjson.dumps([kept.whole for kept in callgate.provider.stored.completions.values()])
    answers = [
        await ask(callgate, method, route.format(id), body, key)
        for key, id in (("sk-other", first), ("sk-user", second), ("sk-user", "chatcmpl-never"))
    ]
    assert {answer.status for answer in answers} == {404}
    assert len({answer.body for answer in answers}) == 1
    assert len(callgate.provider.requests) == asked
    assert before == orjson.dumps([kept.whole for kept in callgate.provider.stored.completions.values()])


async def test_metadata_is_changed_and_nothing_else(serve: Serve, client_of: ClientOf) -> None:
    callgate = await serve(*ANSWERS["denied"], stores=True)
    client = client_of(callgate)
    first = await client.chat.completions.create(**request())
    changed = await client.chat.completions.update(first.id, metadata={"about": "bob"})
    assert given(changed.to_dict()) == given(first.to_dict())
    assert changed.to_dict()["metadata"] == {"about": "bob"}
    refused = await ask(callgate, "POST", f"/chat/completions/{first.id}", {"metadata": {}, "messages": []})
    assert (refused.status, refused.error["param"]) == (400, "messages")


async def test_to_delete_a_completion_deletes_every_round(serve: Serve, client_of: ClientOf) -> None:
    callgate = await serve(*ANSWERS["denied twice, then allowed"], stores=True)
    client = client_of(callgate)
    first = await client.chat.completions.create(**request())
    deleted = await client.chat.completions.delete(first.id)
    assert (deleted.id, deleted.deleted) == (first.id, True)
    assert callgate.provider.stored.completions == {}
    with pytest.raises(openai.NotFoundError):
        await client.chat.completions.retrieve(first.id)


async def test_what_the_provider_changed_is_judged(serve: Serve, client_of: ClientOf) -> None:
    """Another call under the id of one that was given is not that call."""
    callgate = await serve(*ANSWERS["allowed"], stores=True)
    client = client_of(callgate)
    first = await client.chat.completions.create(**request())
    kept = callgate.provider.stored.completions[first.id].whole["choices"][0]["message"]
    kept["tool_calls"][0]["function"]["name"] = "drop_table"
    again = await client.chat.completions.retrieve(first.id)
    assert again.choices[0].message.tool_calls is None
    assert again.choices[0].finish_reason == "stop"
    kept["tool_calls"][0]["function"] |= {"name": "get_user", "arguments": '{"id":8}'}
    assert (await client.chat.completions.retrieve(first.id)).choices[0].message.tool_calls
    decisions = await callgate.records("decision")
    assert [(r["gen_ai.tool.name"], r["verdict"]) for r in decisions] == [
        ("get_user", "Allow"),
        ("drop_table", "Deny"),
        ("get_user", "Allow"),
    ]


async def test_the_sync_client_lists_too(serve: Serve) -> None:
    callgate = await serve(*ANSWERS["denied"], stores=True)

    def during() -> None:
        with OpenAI(base_url=callgate.url, api_key="sk-user", max_retries=0) as client:
            first = client.chat.completions.create(**request())
            assert [one.id for one in client.chat.completions.list()] == [first.id]
            assert [one.role for one in client.chat.completions.messages.list(first.id)] == ["user"]

    await asyncio.to_thread(during)
