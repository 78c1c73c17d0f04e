"""Stored answers where something is odd: approvals, Azure, broken streams, faulty providers, lost state."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import openai
import orjson
import pytest
from openai import AsyncAzureOpenAI, AsyncOpenAI

from proxy.ports import Unavailable
from tests.http.conftest import Serve
from tests.http.harness import DROP, GET, RawProvider, scripted, start
from tests.http.storing import AGAIN, OFFERED, ask, secrets_in
from tests.http.test_stored import call, http, message, response

ClientOf = Callable[..., AsyncOpenAI]
Json = dict[str, Any]

CONFIRM = """
package callgate.call

decision := {"effect": "confirm"} if startswith(input.call.name, "drop")
else := {"effect": "allow"}
"""


def request(**members: Any) -> Any:
    return {"model": "m", "input": "go", "tools": OFFERED} | members


async def events_of(stream: Any) -> list[Json]:
    return [event.to_dict() async for event in stream]


@pytest.fixture
def confirming(tmp_path: Any) -> Json:
    """Settings whose policy asks before anything is dropped."""
    policy = tmp_path / "confirm.rego"
    policy.write_text(CONFIRM)
    return {"policies": {"paths": [str(policy)]}}


# -- approvals


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "body"])
async def test_a_question_and_what_was_approved_are_read_back(
    serve: Serve, client_of: ClientOf, confirming: Json, stream: bool
) -> None:
    turns: list[Json] = [{"reasoning": "Hm.", "calls": [DROP]}, {"text": "Dropped."}]
    callgate = await serve(*turns, stores=True, **confirming)
    client = client_of(callgate)
    ways: Json = {"stream": True, "background": True} if stream else {}
    answers: list[Any] = []
    for text in ("go", "yes"):
        within = {"previous_response_id": answers[0]["id"]} if answers else {}
        made = await client.responses.create(**request(input=text, **within, **ways))
        answers.append((await events_of(made))[-1]["response"] if stream else made.to_dict())
    question, released = answers
    assert question["id"] != released["id"]
    for given in answers:
        again = (await client.responses.retrieve(given["id"])).to_dict()
        assert (again["id"], again["output"]) == (given["id"], given["output"])
        if stream:
            resumed = await events_of(await client.responses.retrieve(given["id"], stream=True))
            assert resumed[-1]["response"]["output"] == given["output"]
            assert {e["response"]["id"] for e in resumed if "response" in e} == {given["id"]}
    assert "call_drop" not in orjson.dumps(question).decode()
    assert released["output"][-1]["call_id"] == "call_drop"


async def test_what_an_operator_approves_meanwhile_is_read_back(
    serve: Serve, client_of: ClientOf, confirming: Json
) -> None:
    turn: Json = {"text": "Well. ", "calls": [DROP]}
    approvals = {"wait_s": 20}
    callgate = await serve(turn, stores=True, approvals=approvals, **confirming)
    client = client_of(callgate)
    asked = asyncio.create_task(client.responses.create(**request(stream=True, background=True)))
    stream = await asked
    approved = asyncio.create_task(_approve(callgate.app))
    first = await events_of(stream)
    await approved
    assert first[-1]["response"]["output"][-1]["call_id"] == "call_drop"
    for after in (-1, 4):
        cursor: Any = {} if after < 0 else {"starting_after": after}
        rest = await events_of(
            await client.responses.retrieve(first[0]["response"]["id"], stream=True, **cursor)
        )
        assert [_bare(event) for event in rest] == [_bare(event) for event in first[after + 1 :]]


async def _approve(app: Any) -> None:
    while True:
        for ticket in await app.approvals.list():
            await app.approvals.decide(ticket.code, approve=True)
            return
        await asyncio.sleep(0.01)


def _bare(event: Json) -> Json:
    """An event without what differs between an answer and a stored one with this provider."""
    whole = event.get("response")
    kept = {key: whole[key] for key in ("id", "output", "usage", "status")} if whole else {}
    return {**event, "response": kept}


# -- interrupted between rounds


async def test_a_client_that_left_between_rounds_comes_back(serve: Serve, client_of: ClientOf) -> None:
    turns: list[Json] = [
        {"text": "Well. ", "calls": [DROP]},
        {"text": "So. " * 20, "calls": [AGAIN, GET], "delay_ms": 50, "gap_ms": 5},
    ]
    callgate = await serve(*turns, stores=True)
    client = client_of(callgate)
    stream = await client.responses.create(**request(stream=True, background=True))
    heard: list[Json] = []
    async for event in stream:
        heard.append(event.to_dict())
        if "So. " in str(heard[-1].get("delta")):
            break
    await stream.close()
    await callgate.provider.disconnected(1)
    id, last = heard[0]["response"]["id"], heard[-1]["sequence_number"]
    whole = await events_of(await client.responses.retrieve(id, stream=True))
    rest = await events_of(await client.responses.retrieve(id, stream=True, starting_after=last))
    assert [event["sequence_number"] for event in whole] == list(range(len(whole)))
    assert whole[: last + 1][2:] == heard[2:]
    assert rest == whole[last + 1 :]
    output = whole[-1]["response"]["output"]
    assert [item.get("call_id") for item in output] == [None, None, "call_get"]
    assert not [word for event in whole for word in secrets_in(event.get("response", event))]
    assert (await client.responses.retrieve(id)).to_dict()["output"] == output


async def test_a_background_response_is_judged_with_nothing_heard_of_it(
    serve: Serve, client_of: ClientOf
) -> None:
    """All its calls are refused, so the client hears why; the model is not asked again."""
    callgate = await serve({"calls": [DROP]}, stores=True)
    client = client_of(callgate)
    begun = await client.responses.create(**request(background=True))
    for _ in range(2):
        found = await client.responses.retrieve(begun.id)
        assert found.output_text == "drop_table is not allowed."
        assert [item.type for item in found.output] == ["message"]
    assert [request.method for request in callgate.provider.requests] == ["POST", "GET", "GET"]


# -- Azure


@pytest.mark.parametrize("prefix", ["/openai/v1", "/openai"])
async def test_azures_paths_lead_to_the_same(serve: Serve, prefix: str) -> None:
    callgate = await serve({"text": "Well. ", "calls": [DROP]}, {"text": "I may not."}, stores=True)
    if prefix == "/openai/v1":
        client: Any = AsyncOpenAI(base_url=callgate.root + prefix, api_key="az-user", max_retries=0)
    else:
        client = AsyncAzureOpenAI(
            azure_endpoint=callgate.root, api_version="2025-04-01-preview", api_key="az-user", max_retries=0
        )
    async with client:
        given = await client.responses.create(**request())
        again = await client.responses.retrieve(given.id)
        items = [item async for item in client.responses.input_items.list(given.id)]
    assert again.output_text == "Well. I may not."
    assert [item.type for item in items] == ["message"]
    paths = [sent.path.partition("?")[0] for sent in callgate.provider.requests]
    assert all(path.startswith(f"{prefix}/responses") for path in paths)


async def test_a_deployments_path_stores_nothing(serve: Serve) -> None:
    callgate = await serve({"text": "Hi."}, stores=True)
    answer = await ask(callgate, "GET", "/../openai/deployments/m/chat/completions/chatcmpl-1")
    assert answer.status == 404


# -- providers that fail


async def _kept_then(tmp_path: Any, *answers: bytes, first: Json | None = None) -> Any:
    """A Callgate that gave one answer, before a provider that answers these next."""
    given = first or response("resp_1", message("Hello."), call("get_user", "call_get"))
    provider = RawProvider([http(given), *answers], keep=True)
    await provider.__aenter__()
    return provider, await start(provider, tmp_path, limits={"max_response_bytes": 4096})


def plain(status: str, body: bytes, type: str = "application/json", more: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {type}\r\n{more}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


LIST = b'{"object":"list","data":%b,"has_more":%b}'
FAULTS: dict[str, tuple[str, bytes, int, str | None]] = {
    "not found": ("", plain("404 Not Found", b'{"error":{"message":"resp_1"}}'), 404, "not_found"),
    "an error": ("", plain("500 Oops", b'{"error":{"code":"x","message":"no resp_1"}}'), 500, "x"),
    "no JSON": ("", plain("200 OK", b"<html>"), 502, "upstream_malformed"),
    "a list": ("", plain("200 OK", b"[]"), 502, "upstream_malformed"),
    "two outputs": ("", plain("200 OK", b'{"id":"resp_1","output":[],"output":[]}'), 200, None),
    "encoded": ("", plain("200 OK", b"x", more="Content-Encoding: br\r\n"), 502, "upstream_malformed"),
    "encoded, and then not": (
        "",
        plain("200 OK", b"x", more="Content-Encoding: br\r\nContent-Encoding: identity\r\n"),
        502,
        "upstream_malformed",
    ),
    "larger than may be held": ("", plain("200 OK", b"x" * 5000), 502, "upstream_malformed"),
    "a stream refused at length": ("?stream=true", plain("500 No", b"x" * 5000), 502, "upstream_malformed"),
    "a call twice": (
        "",
        http(response("resp_1", call("get_user", "call_get"), call("drop_table", "call_get"))),
        200,
        None,
    ),
    "an unknown call": (
        "",
        http(response("resp_1", {"type": "magic_call", "call_id": "c"})),
        502,
        "upstream_malformed",
    ),
    "no stream": ("?stream=true", http(response("resp_1")), 502, "upstream_malformed"),
    "a stream refused": ("?stream=true", plain("400 Bad", b'{"error":{"code":"y"}}'), 400, "y"),
    "a stream not found": ("?stream=true", plain("404 No", b"{}"), 404, "not_found"),
    "no list": ("/input_items", http(response("resp_1")), 502, "upstream_malformed"),
    "a list of texts": (
        "/input_items",
        plain("200 OK", LIST % (b'["x"]', b"false")),
        502,
        "upstream_malformed",
    ),
    "no end": (
        "/input_items",
        plain("200 OK", LIST % (b'[{"type":"x"}]', b"true")),
        502,
        "upstream_malformed",
    ),
    "no id": (
        "/input_items",
        plain("200 OK", LIST % (b'[{"id":"a&b"}]', b"true")),
        502,
        "upstream_malformed",
    ),
    "for ever": (
        "/input_items",
        plain("200 OK", LIST % (b'[{"type":"magic_request","id":"a"}]', b"true")),
        502,
        "list_too_long",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_a_fault_of_the_provider_gives_nothing_away(
    tmp_path: Any, client_of: ClientOf, name: str
) -> None:
    rest, answer, status, code = FAULTS[name]
    provider, callgate = await _kept_then(tmp_path, answer)
    try:
        await client_of(callgate).responses.create(**request())
        found = await ask(callgate, "GET", f"/responses/resp_1{rest}")
    finally:
        await callgate.stop()
        await provider.__aexit__()
    assert found.status == status
    told = orjson.loads(found.body)
    assert not secrets_in(told if isinstance(told, dict) else {})
    if code is not None:
        assert found.error["code"] == code


@pytest.mark.parametrize("rest", ["", "?stream=true"])
async def test_what_is_stored_is_told_in_the_charset_that_it_was_read_in(
    tmp_path: Any, client_of: ClientOf, rest: str
) -> None:
    media = "text/event-stream" if rest else "application/json"
    body = b": \n\n" if rest else orjson.dumps(response("resp_1", message("+ACI-")))
    provider, callgate = await _kept_then(tmp_path, plain("200 OK", body, f"{media}; charset=utf-7"))
    try:
        await client_of(callgate).responses.create(**request())
        found = await ask(callgate, "GET", f"/responses/resp_1{rest}")
    finally:
        await callgate.stop()
        await provider.__aexit__()
    assert (found.status, found.headers["content-type"]) == (200, media)


async def test_a_resumed_stream_that_is_cut_ends_in_an_error(serve: Serve, client_of: ClientOf) -> None:
    callgate = await serve({"text": "Well. ", "calls": [GET]}, stores=True)
    client = client_of(callgate)
    first = await events_of(await client.responses.create(**request(stream=True, background=True)))
    id = first[0]["response"]["id"]
    kept = callgate.provider.stored.responses[id]
    del kept.frames[-3:]
    stream = await client.responses.retrieve(id, stream=True, starting_after=2)
    heard = aiter(stream)
    assert (await anext(heard)).sequence_number == 3
    with pytest.raises(openai.APIError, match="No tool call was released"):
        assert "get_user" not in str([event async for event in heard])


async def test_an_error_in_a_stored_stream_goes_on_as_it_is(serve: Serve, client_of: ClientOf) -> None:
    callgate = await serve({"text": "Well. "}, stores=True)
    client = client_of(callgate)
    first = await events_of(await client.responses.create(**request(stream=True, background=True)))
    id = first[0]["response"]["id"]
    failed = b'event: error\ndata: {"type":"error","code":"x","message":"Oops.","sequence_number":3}\n\n'
    callgate.provider.stored.responses[id].frames[3:] = [failed]
    resumed = await events_of(await client.responses.retrieve(id, stream=True, starting_after=1))
    assert [(event["type"], event["sequence_number"]) for event in resumed] == [
        (first[2]["type"], 2),
        ("error", 3),
    ]


# -- a store that fails


class Broken:
    """A store that does not answer."""

    async def get_many(self, *_: Any) -> Any:
        raise Unavailable("gone")

    get = put = put_many = take = get_many


@pytest.mark.parametrize(
    ("method", "route", "body", "status"),
    [
        ("GET", "/responses/{}", None, 404),
        ("GET", "/chat/completions", None, 200),
        ("GET", "/conversations/{}/items", None, 404),
        ("POST", "/responses", request(conversation="conv_1"), 503),
        ("POST", "/responses", request(previous_response_id="resp_1"), 503),
        ("POST", "/responses", request(), 200),
    ],
)
async def test_a_store_that_fails_gives_nothing(
    serve: Serve, client_of: ClientOf, method: str, route: str, body: Json | None, status: int
) -> None:
    callgate = await serve(scripted({"text": "Hi."}, order="arrival"), stores=True)
    client = client_of(callgate)
    given = await client.responses.create(**request())
    await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "go"}], store=True)
    object.__setattr__(callgate.app.proxy._core, "store", Broken())
    found = await ask(callgate, method, route.format(given.id), body)
    assert found.status == status
    if method == "GET" and status == 200:
        assert orjson.loads(found.body)["data"] == []


async def test_a_client_that_leaves_while_it_reads_is_recorded_so(serve: Serve, client_of: ClientOf) -> None:
    callgate = await serve({"text": "word " * 400}, stores=True)
    client = client_of(callgate)
    first = await events_of(await client.responses.create(**request(stream=True, background=True)))
    callgate.provider.stored.pause_s = 60
    stream = await client.responses.retrieve(first[0]["response"]["id"], stream=True)
    await anext(aiter(stream))
    await stream.close()
    await callgate.provider.disconnected(1)
    records = await callgate.records("exchange")
    assert [record["outcome"] for record in records] == ["answered", "cancelled"]
