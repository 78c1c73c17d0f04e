"""Stored responses read back by the official client: as they were given, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import openai
import orjson
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.http.conftest import Serve
from tests.http.harness import DROP, GET, Callgate
from tests.http.storing import AGAIN, BATCH, OFFERED, ask, secrets_in

ClientOf = Callable[..., AsyncOpenAI]
Json = dict[str, Any]

# What the model does in one answer.
ANSWERS: dict[str, list[Json]] = {
    "text": [{"text": "Hello there."}],
    "allowed": [{"text": "Looking. ", "calls": [GET]}],
    "mixed": [{"text": "Both. ", "calls": [DROP, GET]}],
    "denied": [{"text": "Well. ", "calls": [DROP]}, {"text": "I may not."}],
    "denied twice, then allowed": [
        {"reasoning": "Hm.", "calls": [DROP]},
        {"text": "So. ", "calls": [AGAIN]},
        {"reasoning": "Hm, hm.", "text": "Then this.", "calls": [GET]},
    ],
    "repaired": [{"calls": [GET | {"arguments": {"id": "7"}}]}],
    "a batch of which a part may run": [{"calls": [BATCH]}],
    "wrong, then mixed": [{"calls": [GET | {"arguments": {}, "id": "call_wrong"}]}, {"calls": [GET, DROP]}],
}


def request(**members: Any) -> Any:
    return {"model": "m", "input": "go", "tools": OFFERED} | members


def told(events: list[Any]) -> list[Json]:
    return [event.to_dict() for event in events]


async def streamed(stream: Any) -> list[Any]:
    return [event async for event in stream]


@pytest.mark.parametrize("name", ANSWERS)
async def test_an_answer_is_read_back_as_it_was_given(serve: Serve, client_of: ClientOf, name: str) -> None:
    callgate = await serve(*ANSWERS[name], stores=True)
    client = client_of(callgate)
    given = await client.responses.create(**request())
    for _ in range(2):
        again = await client.responses.retrieve(given.id)
        assert again.to_dict() == given.to_dict() | {"tools": OFFERED}
        assert not secrets_in(again.to_dict())
    # Nothing was asked or judged for it that had not been before.
    records = await callgate.records("decision")
    calls = [call for turn in ANSWERS[name] for call in turn.get("calls", ())]
    assert len(records) == sum(2 if call is BATCH else 1 for call in calls)


@pytest.mark.parametrize("name", ANSWERS)
async def test_a_stream_is_resumed_after_any_event(serve: Serve, client_of: ClientOf, name: str) -> None:
    callgate = await serve(*ANSWERS[name], stores=True)
    client = client_of(callgate)
    first = told(await streamed(await client.responses.create(**request(stream=True, background=True))))
    id = first[0]["response"]["id"]
    assert [event["sequence_number"] for event in first] == list(range(len(first)))
    for after in (None, 0, 1, len(first) // 2, len(first) - 2, len(first) - 1, len(first) + 5):
        cursor: Any = {} if after is None else {"starting_after": after}
        rest = told(await streamed(await client.responses.retrieve(id, stream=True, **cursor)))
        expected = first[0 if after is None else after + 1 :]
        assert [_untooled(event) for event in rest] == [_untooled(event) for event in expected]


def _untooled(event: Json) -> Json:
    """The event, without what this provider says of a stored response only."""
    if "response" not in event:
        return event
    left = {key: value for key, value in event["response"].items() if key not in ("tools", "background")}
    return {**event, "response": left}


async def test_the_sync_client_resumes_too(serve: Serve) -> None:
    callgate = await serve(*ANSWERS["denied"], stores=True)

    def during() -> None:
        with OpenAI(base_url=callgate.url, api_key="sk-user", max_retries=0) as client:
            events = list(client.responses.create(**request(stream=True, background=True)))
            id = events[0].response.id
            rest = list(client.responses.retrieve(id, stream=True, starting_after=3))
            assert told(rest)[:-1] == told(events[4:])[:-1]
            with client.responses.stream(response_id=id, starting_after=0) as stream:
                assert stream.get_final_response().output_text == "Well. I may not."

    await asyncio.to_thread(during)


async def test_what_runs_in_the_background_is_judged_when_its_stream_is_resumed(
    serve: Serve, client_of: ClientOf
) -> None:
    """The client leaves at once, so nothing has been judged yet."""
    callgate = await serve({"text": "Both. " * 40, "calls": [DROP, GET], "gap_ms": 5}, stores=True)
    client = client_of(callgate)
    stream = await client.responses.create(**request(stream=True, background=True))
    first = await anext(aiter(stream))
    await stream.close()
    await callgate.provider.disconnected(1)
    for _ in range(2):
        events = await streamed(await client.responses.retrieve(first.response.id, stream=True))
        calls = [item for item in events[-1].response.output if item.type == "function_call"]
        assert [call.call_id for call in calls] == ["call_get"]
        assert not [word for event in told(events) for word in secrets_in(event.get("response", event))]
    output: Any = {"type": "function_call_output", "call_id": "call_get", "output": "Ann"}
    await client.responses.create(**request(input=[output], previous_response_id=first.response.id))
    given = callgate.provider.requests[-1].body["input"]
    assert [item["call_id"] for item in given] == ["call_drop", "call_get"]
    verdicts = [(r["gen_ai.tool.name"], r["effect"]) for r in await callgate.records("decision")]
    assert verdicts[:2] == [("drop_table", "settle"), ("get_user", "forward")]


async def test_a_response_that_was_only_begun_gives_no_calls(serve: Serve, client_of: ClientOf) -> None:
    callgate = await serve({"calls": [DROP, GET]}, stores=True)
    client = client_of(callgate)
    begun = await client.responses.create(**request(background=True))
    kept = callgate.provider.stored.responses[begun.id].whole
    kept["status"] = "in_progress"
    assert (await client.responses.retrieve(begun.id)).output == []
    kept["status"] = "completed"
    # What was looked at too early was not judged for that.
    assert [item.call_id for item in (await client.responses.retrieve(begun.id)).output] == ["call_get"]


# -- what was put in

CONVERSATION: list[Json] = [
    {"calls": [DROP, GET]},
    {"calls": [AGAIN]},
    {"text": "Ann it is."},
]


async def test_input_items_are_what_the_client_put_in(serve: Serve, client_of: ClientOf) -> None:
    callgate = await serve(*CONVERSATION, stores=True)
    client = client_of(callgate)
    first = await client.responses.create(**request())
    output: Any = {"type": "function_call_output", "call_id": "call_get", "output": "Ann"}
    second = await client.responses.create(**request(input=[output], previous_response_id=first.id))
    assert second.output_text == "Ann it is."
    items = [item async for item in await client.responses.input_items.list(second.id, order="asc")]
    assert [item.type for item in items] == ["message", "function_call", "function_call_output"]
    assert {item.call_id for item in items[1:]} == {"call_get"}
    assert items[2].output == "Ann"
    # Over as many pages as it takes, nothing else is there.
    paged = [item async for item in client.responses.input_items.list(second.id, order="asc", limit=1)]
    assert [item.id for item in paged] == [item.id for item in items]
    backwards = [item async for item in client.responses.input_items.list(second.id, limit=2)]
    assert [item.id for item in backwards] == [item.id for item in reversed(items)]
    assert not [word for item in items for word in secrets_in(item.to_dict())]


async def test_a_conversation_that_the_client_keeps_is_listed_as_it_sent_it(
    serve: Serve, client_of: ClientOf
) -> None:
    callgate = await serve(*CONVERSATION, stores=True)
    client = client_of(callgate)
    first = await client.responses.create(**request())
    history: list[Any] = [{"role": "user", "content": "go"}, *(i.to_dict() for i in first.output)]
    history.append({"type": "function_call_output", "call_id": "call_get", "output": "Ann"})
    second = await client.responses.create(**request(input=history))
    sent = callgate.provider.requests[-1].body["input"]
    assert "call_drop" in {item.get("call_id") for item in sent}, "it was put back"
    items = [item async for item in client.responses.input_items.list(second.id, order="asc")]
    assert [getattr(item, "call_id", None) for item in items] == [None, "call_get", "call_get"]


@pytest.mark.parametrize("after", ["fc_of_another", "hidden"])
async def test_a_cursor_tells_nothing(serve: Serve, client_of: ClientOf, after: str) -> None:
    callgate = await serve(*CONVERSATION, stores=True)
    client = client_of(callgate)
    first = await client.responses.create(**request())
    output: Any = {"type": "function_call_output", "call_id": "call_get", "output": "Ann"}
    second = await client.responses.create(**request(input=[output], previous_response_id=first.id))
    context = next(iter(reversed(callgate.provider.stored.responses.values()))).context
    hidden = next(item["id"] for item in context if item.get("call_id") == "call_drop")
    with pytest.raises(openai.NotFoundError, match="given to you"):
        await client.responses.input_items.list(second.id, after=hidden if after == "hidden" else after)


# -- who may

ROUTES = [
    ("GET", "/responses/{}"),
    ("GET", "/responses/{}?stream=true"),
    ("GET", "/responses/{}?include=reasoning.encrypted_content"),
    ("GET", "/responses/{}/input_items"),
    ("POST", "/responses/{}/cancel"),
    ("DELETE", "/responses/{}"),
]


@pytest.mark.parametrize(("method", "route"), ROUTES)
async def test_nobody_reads_what_another_was_given(serve: Serve, method: str, route: str) -> None:
    """Whether it exists, is another's, or was hidden from this very client: the answer is the same."""
    callgate = await serve(*ANSWERS["denied"], stores=True)
    mine = await _post(callgate, "sk-user", request())
    rounds = list(callgate.provider.stored.responses)
    assert mine["id"] == rounds[0]
    asked = len(callgate.provider.requests)
    answers = []
    for key, id in (
        ("sk-other", rounds[0]),
        ("sk-user", rounds[1]),
        ("sk-user", "resp_0"),
        ("sk-user", "go"),
    ):
        answers.append(await ask(callgate, method, route.format(id), key=key))
    assert {answer.status for answer in answers} == {404}
    assert len({answer.body for answer in answers}) == 1
    assert answers[0].error["code"] == "not_found"
    assert len(callgate.provider.requests) == asked, "the provider was not even asked"
    assert list(callgate.provider.stored.responses) == rounds


@pytest.mark.parametrize("name", ["call_get", "conv_1"])
async def test_names_of_other_things_are_no_answers(serve: Serve, client_of: ClientOf, name: str) -> None:
    """What is kept under the name of a call leads to no answer."""
    callgate = await serve(*ANSWERS["mixed"], stores=True)
    await client_of(callgate).responses.create(**request())
    for method, route in ROUTES:
        answer = await ask(callgate, method, route.format(name))
        assert (answer.status, answer.error["code"]) == (404, "not_found")
    assert len(callgate.provider.requests) == 1


async def test_what_the_provider_lost_looks_the_same(serve: Serve) -> None:
    callgate = await serve(*ANSWERS["denied"], stores=True)
    mine = await _post(callgate, "sk-user", request())
    callgate.provider.stored.responses.clear()
    lost = await ask(callgate, "GET", f"/responses/{mine['id']}")
    unknown = await ask(callgate, "GET", "/responses/resp_0")
    assert (lost.status, lost.body) == (unknown.status, unknown.body)


async def test_to_delete_an_answer_deletes_every_round(serve: Serve, client_of: ClientOf) -> None:
    callgate = await serve(*ANSWERS["denied twice, then allowed"], stores=True)
    client = client_of(callgate)
    given = await client.responses.create(**request())
    assert len(callgate.provider.stored.responses) == 3
    await client.responses.delete(given.id)
    assert callgate.provider.stored.responses == {}
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(given.id)


async def test_a_store_that_forgot_gives_nothing(serve: Serve, client_of: ClientOf) -> None:
    callgate = await serve(*ANSWERS["mixed"], stores=True)
    client = client_of(callgate)
    given = await client.responses.create(**request())
    for key in await callgate.app.store.keys("settled:"):
        await callgate.app.store.take(key)
    with pytest.raises(openai.NotFoundError, match="no longer known"):
        await client.responses.retrieve(given.id)


@pytest.mark.parametrize(
    "query",
    [
        "stream=maybe",
        "stream=true&starting_after=x",
        "stream=true&starting_after=-2",
        "stream=true&stream=false",
    ],
)
async def test_a_query_with_no_reading_is_refused(serve: Serve, query: str) -> None:
    callgate = await serve(*ANSWERS["text"], stores=True)
    mine = await _post(callgate, "sk-user", request())
    answer = await ask(callgate, "GET", f"/responses/{mine['id']}?{query}")
    assert (answer.status, answer.error["code"]) == (400, "invalid_request")


async def test_every_read_leaves_a_record(serve: Serve, client_of: ClientOf) -> None:
    callgate = await serve(*ANSWERS["denied"], stores=True)
    client = client_of(callgate)
    given = await client.responses.create(**request())
    await client.responses.retrieve(given.id)
    await streamed(await client.responses.retrieve(given.id, stream=True))
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve("resp_0")
    records = await callgate.records("exchange")
    assert [(r["outcome"], r["status"], r["rounds"]) for r in records] == [
        ("answered", 200, 2),
        ("answered", 200, 2),
        ("answered", 200, 2),
        ("refused", 404, 0),
    ]


async def _post(callgate: Callgate, key: str, body: Json) -> Json:
    answer = await ask(callgate, "POST", "/responses", body, key)
    assert answer.status == 200
    found: Json = orjson.loads(answer.body)
    return found
