"""Chat Completions as a real client reads them."""

import json

import pytest
from openai import NotFoundError

USER = [{"role": "user", "content": "go"}]
TOOLS = [{"type": "function", "function": {"name": "drop", "parameters": {"type": "object"}}}]
CALL = {"name": "drop", "arguments": {"table": "orders", "really": True}}
PARALLEL = {"calls": [CALL, {"name": "add", "id": "c9", "arguments": '{"a": 1,}'}]}


async def test_text_in_a_body(serve, client_of):
    client = client_of(await serve({"text": "I may not."}))
    answer = await client.chat.completions.create(model="m", messages=USER)
    assert answer.choices[0].message.content == "I may not."
    assert answer.choices[0].finish_reason == "stop"
    assert "tool_calls" not in answer.choices[0].message.model_fields_set
    assert answer.usage.total_tokens == 30


async def test_calls_in_a_body(serve, client_of):
    client = client_of(await serve(PARALLEL))
    answer = await client.chat.completions.create(model="m", messages=USER, tools=TOOLS)
    message = answer.choices[0].message
    assert message.content is None
    assert answer.choices[0].finish_reason == "tool_calls"
    first, second = message.tool_calls
    assert (first.type, first.function.name) == ("function", "drop")
    assert first.function.arguments == '{"table":"orders","really":true}'
    assert first.id.startswith("call_")
    assert (second.id, second.function.arguments) == ("c9", '{"a": 1,}')


async def test_the_stream_that_the_helper_rebuilds_is_the_body(serve, client_of):
    turn = {"text": "Let me see what there is, then.", "calls": [CALL, CALL | {"name": "add"}]}
    client = client_of(await serve(turn))
    body = await client.chat.completions.create(model="m", messages=USER, tools=TOOLS)
    async with client.chat.completions.stream(model="m", messages=USER, tools=TOOLS) as stream:
        streamed = await stream.get_final_completion()

    def view(completion):
        choice = completion.choices[0]
        calls = [(call.id, call.function.name, call.function.arguments) for call in choice.message.tool_calls]
        return completion.id, choice.message.content, choice.finish_reason, calls

    assert view(streamed) == view(body)


async def test_a_stream_has_the_frames_of_openai(serve, http, ask):
    provider = await serve({"calls": [CALL | {"id": "c1"}], "chunk_chars": 20})
    request = ask(stream=True, stream_options={"include_usage": True, "include_obfuscation": False})
    async with http.post(provider.url + "/chat/completions", json=request) as response:
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        events = (await response.read()).decode().split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
    assert len({tuple(chunk[key] for key in list(chunk)[:6]) for chunk in chunks}) == 1
    assert list(chunks[0])[:4] == ["id", "object", "created", "model"]
    assert [chunk["usage"] for chunk in chunks[:-1]] == [None] * 5
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["total_tokens"] == 30
    assert [choice for chunk in chunks for choice in chunk["choices"]] == [
        {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        for delta, finish in [
            ({"role": "assistant", "content": None, "refusal": None}, None),
            (_call(id="c1", type="function", function={"name": "drop", "arguments": ""}), None),
            (_call(function={"arguments": '{"table":"orders","r'}), None),
            (_call(function={"arguments": 'eally":true}'}), None),
            ({}, "tool_calls"),
        ]
    ]


def _call(**members):
    return {"tool_calls": [{"index": 0, **members}]}


@pytest.mark.parametrize(
    ("options", "usage", "noise"),
    [
        (None, False, True),
        ({"include_usage": True}, True, True),
        ({"include_usage": False, "include_obfuscation": False}, False, False),
    ],
)
async def test_usage_and_obfuscation_come_as_asked(serve, client_of, options, usage, noise):
    client = client_of(await serve({"text": "Yes.", "usage": {"input": 3, "output": 4}}))
    more = {} if options is None else {"stream_options": options}
    stream = await client.chat.completions.create(model="m", messages=USER, stream=True, **more)
    chunks = [chunk async for chunk in stream]
    assert [chunk.usage.total_tokens for chunk in chunks if chunk.usage] == ([7] if usage else [])
    assert all(bool(chunk.to_dict().get("obfuscation")) == noise for chunk in chunks)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_turn_without_usage_says_none(serve, client_of, stream):
    client = client_of(await serve({"text": "Yes.", "usage": None}))
    options = {"stream_options": {"include_usage": True}} if stream else {}
    answer = await client.chat.completions.create(model="m", messages=USER, stream=stream, **options)
    answers = [chunk async for chunk in answer] if stream else [answer]
    assert [one.usage for one in answers] == [None] * len(answers)


async def test_custom_calls(serve, client_of):
    call = {"kind": "custom", "name": "sql", "input": "DROP TABLE orders;", "id": "c1"}
    client = client_of(await serve({"calls": [call], "chunk_chars": 10}))
    answer = await client.chat.completions.create(model="m", messages=USER)
    (whole,) = answer.choices[0].message.tool_calls
    assert (whole.type, whole.custom.name, whole.custom.input) == ("custom", "sql", "DROP TABLE orders;")
    stream = await client.chat.completions.create(model="m", messages=USER, stream=True)
    deltas = [(chunk.choices[0].delta.tool_calls or [None])[0] async for chunk in stream]
    customs = [delta.model_extra["custom"] for delta in deltas if delta]
    assert customs == [{"name": "sql", "input": ""}, {"input": "DROP TABLE"}, {"input": " orders;"}]


async def test_several_choices_come_side_by_side(serve, client_of):
    choices = [{"text": "one", "finish": "end"}, {"calls": [CALL]}, {"text": "three"}]
    client = client_of(await serve({"choices": choices, "chunk_chars": 2}))
    body = await client.chat.completions.create(model="m", messages=USER, n=3)
    assert [choice.finish_reason for choice in body.choices] == ["end", "tool_calls", "stop"]
    async with client.chat.completions.stream(model="m", messages=USER, n=3) as stream:
        order = [
            event.chunk.choices[0].index
            async for event in stream
            if event.type == "chunk" and event.chunk.choices
        ]
        whole = await stream.get_final_completion()
    assert order[:6] == [0, 1, 2, 0, 1, 2]
    assert [choice.message.content for choice in whole.choices] == ["one", None, "three"]
    ids = [choice.message.tool_calls[0].id for choice in (whole.choices[1], body.choices[1])]
    assert ids[0] == ids[1]


@pytest.mark.parametrize("asked", [{"functions": [{"name": "drop"}]}, {}])
async def test_legacy_functions_get_legacy_calls(serve, client_of, asked):
    deviations = [] if asked else ["legacy_function_call"]
    client = client_of(await serve({"calls": [CALL], "deviations": deviations}))
    body = await client.chat.completions.create(model="m", messages=USER, **asked)
    message = body.choices[0].message
    assert (message.function_call.name, message.tool_calls) == ("drop", None)
    assert body.choices[0].finish_reason == "function_call"
    stream = await client.chat.completions.create(model="m", messages=USER, stream=True, **asked)
    parts = [chunk.choices[0] async for chunk in stream]
    calls = [part.delta.function_call for part in parts if part.delta.function_call]
    assert [call.name for call in calls] == ["drop"] + [None] * (len(calls) - 1)
    assert "".join(call.arguments for call in calls) == message.function_call.arguments
    assert parts[-1].finish_reason == "function_call"


async def test_tools_beside_functions_get_tool_calls(serve, client_of):
    client = client_of(await serve({"calls": [CALL]}))
    asked = {"functions": [{"name": "drop"}], "tools": TOOLS}
    body = await client.chat.completions.create(model="m", messages=USER, **asked)
    assert body.choices[0].message.tool_calls


async def test_reasoning_and_further_members_of_a_call(serve, client_of):
    extra = {"extra_content": {"google": {"thought_signature": "c2ln"}}}
    client = client_of(await serve({"reasoning": "Better look first.", "calls": [CALL | {"extra": extra}]}))
    message = (await client.chat.completions.create(model="m", messages=USER)).choices[0].message
    assert message.reasoning_content == "Better look first."
    assert message.tool_calls[0].extra_content == extra["extra_content"]
    stream = await client.chat.completions.create(model="m", messages=USER, stream=True)
    deltas = [chunk.choices[0].delta async for chunk in stream]
    assert "".join(delta.model_extra.get("reasoning_content", "") for delta in deltas) == "Better look first."
    assert deltas[3].tool_calls[0].extra_content == extra["extra_content"]


@pytest.mark.parametrize("finish", [None, "", "length", "content_filter"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_finish_reason_of_the_script(serve, client_of, finish, stream):
    client = client_of(await serve({"text": "Yes.", "finish": finish}))
    answer = await client.chat.completions.create(model="m", messages=USER, stream=stream)
    last = [chunk async for chunk in answer][-1] if stream else answer
    assert last.choices[0].finish_reason == finish


async def test_bulk_text_comes_in_as_many_frames(serve, client_of):
    client = client_of(await serve({"text": "ab ", "text_chunks": 300}))
    body = await client.chat.completions.create(model="m", messages=USER)
    assert body.choices[0].message.content == "ab " * 300
    stream = await client.chat.completions.create(model="m", messages=USER, stream=True)
    texts = [chunk.choices[0].delta.content async for chunk in stream]
    assert texts[1:-1] == ["ab "] * 300


async def test_the_models_are_the_scripts(serve, client_of):
    client = client_of(await serve({"text": "Yes."}))
    assert [model.id async for model in client.models.list()] == ["m"]
    with pytest.raises(NotFoundError, match="no script is named 'gpt'; there are: m"):
        await client.chat.completions.create(model="gpt", messages=USER)
