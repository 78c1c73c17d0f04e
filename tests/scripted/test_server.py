"""Which turn is played to whom, what is remembered, and what is refused."""

import asyncio
import sys
from io import BytesIO

import aiohttp
import pytest

from proxy.model import dumps
from proxy.scripted import Script, ScriptedProvider, ScriptError
from proxy.scripted.__main__ import main

TURNS = [{"text": "first"}, {"text": "second"}, {"text": "third"}]
USER, SAID = {"role": "user", "content": "go"}, {"role": "assistant", "content": "so"}


async def text_of(http, provider, body, path="/chat/completions"):
    async with http.post(provider.url + path, json=body) as response:
        answer = await response.json()
        assert response.status == 200, answer
        return answer["choices"][0]["message"]["content"]


@pytest.mark.parametrize(
    ("answered", "text"), [(0, "first"), (1, "second"), (2, "third"), (3, "third"), (40, "third")]
)
async def test_the_history_tells_which_turn_is_next(serve, http, ask, answered, text):
    provider = await serve(*TURNS)
    for _ in range(2):  # asked again, the same turn comes again
        assert await text_of(http, provider, ask(messages=[USER, SAID] * answered + [USER])) == text


async def test_turns_by_arrival_are_counted_for_each_script(serve, http, ask):
    scripts = [Script.of("m", TURNS, order="arrival"), Script.of("n", TURNS, order="arrival")]
    provider = await serve(scripts=scripts)
    played = [await text_of(http, provider, ask(model=model)) for model in "mmnmm"]
    assert played == ["first", "second", "first", "third", "third"]
    provider.reset()
    assert await text_of(http, provider, ask()) == "first"


async def test_the_star_plays_for_every_other_name(serve, http, ask):
    provider = await serve(scripts=[Script.of("m", TURNS), Script.of("*", [{"text": "other"}])])
    assert await text_of(http, provider, ask()) == "first"
    async with http.post(provider.url + "/chat/completions", json=ask(model="gpt")) as response:
        answer = await response.json()
    assert (answer["model"], answer["choices"][0]["message"]["content"]) == ("gpt", "other")


def test_two_scripts_of_one_name_are_refused():
    with pytest.raises(ScriptError, match="the same model name"):
        ScriptedProvider([Script.of("m", TURNS)] * 2)


@pytest.mark.parametrize(
    "path",
    ["/v1/chat/completions", "/chat/completions", "/openai/deployments/m/chat/completions?api-version=1"],
)
async def test_the_paths_of_chat_completions(serve, http, ask, path):
    provider = await serve(*TURNS)
    async with http.post(provider.url.removesuffix("/v1") + path, json=ask()) as response:
        assert response.status == 200
    assert provider.requests[0].path == path


async def test_requests_are_kept_as_they_came(serve, http, ask):
    provider = await serve(*TURNS, keep_requests=2)
    for number in range(3):
        raw = b'{"model": "m",  "messages": [], "seed": %d}' % number
        async with http.post(provider.url + "/chat/completions", data=raw, headers={"X-A": "b"}) as response:
            assert response.status == 200
    first, last = provider.requests
    assert first.body == {"model": "m", "messages": [], "seed": 1}
    assert last.raw == b'{"model": "m",  "messages": [], "seed": 2}'
    assert (last.method, last.path, last.headers["x-a"]) == ("POST", "/v1/chat/completions", "b")
    await provider.received(3)
    provider.reset()
    assert provider.requests == []


async def test_no_requests_are_kept_for_a_bench(serve, http, ask):
    provider = await serve(*TURNS, keep_requests=0)
    await text_of(http, provider, ask())
    await provider.received(1)
    assert provider.requests == []


async def test_waiting_for_requests_and_for_clients_that_leave(serve, http, ask):
    provider = await serve({"text": "late", "delay_ms": 60_000})
    arrived, left = (asyncio.ensure_future(wait(2)) for wait in (provider.received, provider.disconnected))

    async def request() -> None:
        async with http.post(provider.url + "/chat/completions", json=ask()):
            pass

    async with asyncio.TaskGroup() as group:
        clients = [group.create_task(request()) for _ in range(2)]
        await arrived
        assert not left.done()
        for client in clients:
            client.cancel()
        await left


async def test_a_client_that_had_its_whole_answer_has_not_left(serve, http, ask):
    provider = await serve({"text": "a"}, {"text": "b", "fault": "cut"}, {"fault": {"kind": "stall"}})
    await text_of(http, provider, ask())
    with pytest.raises(aiohttp.ClientPayloadError):
        await text_of(http, provider, ask(messages=[SAID]))
    response = await http.post(provider.url + "/chat/completions", json=ask(messages=[SAID, SAID]))
    waiting = asyncio.ensure_future(provider.disconnected(1))
    await asyncio.sleep(0)
    assert not waiting.done()
    response.close()
    await waiting


@pytest.mark.parametrize("turn", [{"fault": {"kind": "stall"}}, {"text": "a", "delay_ms": 60_000}])
async def test_stopping_leaves_no_client_waiting(http, ask, turn):
    async with asyncio.timeout(5):
        async with ScriptedProvider([Script.of("m", [turn])]) as provider:
            request = asyncio.ensure_future(http.post(provider.url + "/chat/completions", json=ask()))
            await provider.received(1)
        with pytest.raises(aiohttp.ClientError):
            await (await request).read()


async def test_a_provider_starts_again_after_a_stop(http, ask):
    provider = ScriptedProvider([Script.of("m", TURNS)])
    for _ in range(2):
        async with provider:
            assert await text_of(http, provider, ask()) == "first"


@pytest.mark.parametrize(
    ("method", "path", "raw", "status", "message"),
    [
        ("POST", "/chat/completions", b"{", 400, "the request's body cannot be read: not valid JSON"),
        ("POST", "/chat/completions", b'{"a":1,"a":2}', 400, "cannot be read: duplicate key 'a'"),
        ("POST", "/chat/completions", b"[]", 400, "the request must be a JSON object"),
        ("POST", "/chat/completions", b'{"messages":[]}', 400, "you must provide a model"),
        ("POST", "/chat/completions", b'{"model":"m","messages":{}}', 400, "must be a list of objects"),
        ("POST", "/chat/completions", b'{"model":"m","messages":[1]}', 400, "must be a list of objects"),
        ("GET", "/chat/completions", b"", 405, "/chat/completions takes POST"),
        ("POST", "/models", b"", 404, "has no /v1/models"),
        ("POST", "/completions", b"{}", 404, "the scripted provider has no /v1/completions"),
    ],
)
async def test_what_is_not_a_request_is_refused(serve, http, method, path, raw, status, message):
    provider = await serve(*TURNS)
    async with http.request(method, provider.url + path, data=raw) as response:
        answer = await response.json()
    assert response.status == status
    assert message in answer["error"]["message"]
    assert answer["error"].keys() == {"message", "type", "param", "code"}
    assert provider.requests[0].raw == raw


async def test_a_request_that_is_no_json_has_no_body(serve, http):
    provider = await serve(*TURNS)
    async with http.post(provider.url + "/chat/completions", data=b"{"):
        assert provider.requests[0].body is None


async def test_a_long_conversation_is_taken(serve, http, ask):
    provider = await serve(*TURNS)
    request = ask(messages=[{"role": "user", "content": "x" * 3_000_000}])
    async with http.post(provider.url + "/chat/completions", data=BytesIO(dumps(request))) as response:
        assert response.status == 200


async def test_a_legacy_request_for_calls_that_it_cannot_have(serve, http, ask):
    provider = await serve({"calls": [{"name": "a"}, {"name": "b"}]})
    request = ask(functions=[{"name": "a"}])
    async with http.post(provider.url + "/chat/completions", json=request) as response:
        assert response.status == 400
        assert "a legacy function_call can say one" in (await response.json())["error"]["message"]


CONVERSATION = [
    {"role": "user", "content": [{"type": "text", "text": "drop the table"}]},
    {"role": "tool", "tool_call_id": "c1", "content": "denied: not yours"},
    {"role": "function", "name": "old", "content": "fine"},
]


@pytest.mark.parametrize(
    ("expect", "fault"),
    [
        ({"tool_results": {"c1": "denied", "old": "fine"}}, None),
        ({"tool_choice": "none", "messages_contain": ["drop", "not yours"]}, None),
        (
            {"tool_results": {"c1": "done"}},
            "result of call 'c1' to contain 'done'; it is 'denied: not yours'",
        ),
        ({"tool_results": {"c2": ""}}, "a result for call 'c2'; there are results for: 'c1', 'old'"),
        ({"tool_choice": "auto"}, "expected tool_choice 'auto'; it is 'none'"),
        ({"tool_choice": None}, "expected tool_choice None; it is 'none'"),
        ({"messages_contain": ["drop", "nowhere"]}, "a message that contains 'nowhere'"),
    ],
)
async def test_what_a_turn_expects(serve, http, ask, expect, fault):
    provider = await serve({"text": "as expected", "expect": expect})
    request = ask(messages=CONVERSATION, tool_choice="none")
    if fault is None:
        assert await text_of(http, provider, request) == "as expected"
        return
    async with http.post(provider.url + "/chat/completions", json=request) as response:
        assert response.status == 400
        message = (await response.json())["error"]["message"]
    assert message.startswith("turn 1 of script 'm' expected")
    assert fault in message


async def test_the_command_serves_until_it_is_told_to_stop(tmp_path, http, ask):
    path = tmp_path / "scripts.yaml"
    path.write_text("scripts: [{model: m, turns: [{text: first}]}]")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "proxy.scripted", str(path), "--port", "0", stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    url = (await process.stdout.readline()).decode().strip()
    async with http.post(url + "/chat/completions", json=ask()) as response:
        assert response.status == 200
    process.terminate()
    assert await process.wait() == 0


def test_the_command_says_what_is_wrong(tmp_path, capsys):
    assert main([str(tmp_path / "none.yaml")]) == 1
    assert "No such file" in capsys.readouterr().err
