"""Reading requests: what they say, what has no reading, and how they are changed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.model import PastCall, Request
from proxy.wire.codec import BadRequest
from tests.core.view import read
from tests.wire.answers import CODEC, Read, body, call, calls, chunk, stream, whole

Json = dict[str, Any]
USER = {"role": "user", "content": "Do it."}


def request(**given: Any) -> Request:
    return CODEC.read(json.dumps({"model": "m", "messages": [USER], **given}).encode())


REFUSED: list[tuple[bytes | Mapping[str, Any], str | None, str]] = [
    (b"", None, "could not be read"),
    (b"[]", None, "must be a JSON object"),
    (b'{"model": "m", "model": "n", "messages": []}', None, "duplicate key 'model'"),
    (b'{"model": "m", "messages": [], "x": "\\ud83d"}', None, "surrogate"),
    (b'{"model": "m", "messages": [], "x": 1e999}', None, "out of range"),
    (b'{"model": "m", "messages": ' + b"[" * 5000, None, "nested too deeply"),
    ({"model": None}, "model", "non-empty string"),
    ({"model": ""}, "model", "non-empty string"),
    ({"model": 5}, "model", "non-empty string"),
    ({"messages": None}, "messages", "array of objects"),
    ({"messages": {}}, "messages", "array of objects"),
    ({"messages": ["x"]}, "messages", "array of objects"),
    ({"tools": "x"}, "tools", "array of objects"),
    ({"tools": [1]}, "tools", "array of objects"),
    ({"functions": {}}, "functions", "array of objects"),
    ({"stream": "yes"}, "stream", "true or false"),
    ({"stream": 1}, "stream", "true or false"),
    ({"n": 0}, "n", "from 1 to 128"),
    ({"n": 129}, "n", "from 1 to 128"),
    ({"n": True}, "n", "from 1 to 128"),
    ({"n": "2"}, "n", "from 1 to 128"),
    ({"messages": [USER, {"tool_calls": {}}]}, "messages[1]", "tool_calls must be an array"),
    ({"messages": [{"tool_calls": ["x"]}]}, "messages[0]", "tool_calls must be an array"),
]


@pytest.mark.parametrize(("given", "param", "words"), REFUSED)
def test_what_has_no_reading_is_refused_with_its_cause(
    given: bytes | Mapping[str, Any], param: str | None, words: str
) -> None:
    raw = (
        given
        if isinstance(given, bytes)
        else json.dumps({"model": "m", "messages": [USER], **given}).encode()
    )
    with pytest.raises(BadRequest) as refusal:
        CODEC.read(raw)
    assert refusal.value.param == param
    assert words in refusal.value.message


@pytest.mark.parametrize("given", [{}, {"n": None}, {"stream": None, "tools": None, "functions": None}])
def test_what_is_null_counts_as_missing(given: Json) -> None:
    found = request(**given)
    assert (found.stream, found.choices, found.model, dict(found.tools)) == (False, 1, "m", {})


def test_the_tools_that_are_offered() -> None:
    schema = {"type": "object"}
    found = request(
        tools=[
            {"type": "function", "function": {"name": "a", "parameters": schema, "description": "An a."}},
            {"function": {"name": "b"}},
            {"type": "custom", "custom": {"name": "c"}},
            {"type": "function", "function": {"name": "a", "parameters": {}}},
            {"type": "web_search"},
            {"type": "function", "function": None},
            {"type": "function", "function": {"name": 5}},
            {"type": ["function"], "function": {"name": "d"}},
        ],
        functions=[{"name": "e", "parameters": schema}, {"parameters": schema}],
    ).tools
    assert {name: (t.parameters, t.kind, t.description) for name, t in found.items()} == {
        "a": (schema, "function", "An a."),
        "b": (None, "function", ""),
        "c": (None, "custom", ""),
        "e": (schema, "function", ""),
    }


def tool(id: str, content: Any) -> Json:
    return {"role": "tool", "tool_call_id": id, "content": content}


def assistant(*ids: str, content: Any = None) -> Json:
    wires = [{"id": id, "type": "function", "function": {"name": "f", "arguments": f'"{id}"'}} for id in ids]
    return {"role": "assistant", "content": content, "tool_calls": wires}


def test_the_conversation_so_far() -> None:
    found = request(
        messages=[
            {"role": "system", "content": "Be good."},
            {"role": "user", "content": [{"type": "text", "text": "One"}, {"type": "image_url"}, "x"]},
            assistant("c1", "c2"),
            tool("c1", [{"type": "text", "text": "r1"}]),
            tool("c2", None),
            {"role": "assistant", "content": "Done."},
            {"role": "user", "content": "Two"},
            {"role": "assistant", "function_call": {"name": "g", "arguments": "{}"}},
            {"role": "function", "name": "g", "content": "rg"},
            assistant("c3", content=[{"type": "text", "text": "And"}]),
            tool("c3", "r3"),
        ]
    ).history
    assert [(c.id, c.name, c.result, c.turn) for c in found.calls] == [
        ("c1", "f", "r1", 1),
        ("c2", "f", "", 1),
        ("", "g", "rg", 2),
        ("c3", "f", "r3", 2),
    ]
    assert (found.opening, found.query, found.turn, found.last_answer) == ("One", "Two", 2, "And")
    assert found.fresh == {"c3"}


def test_ids_that_are_used_again_have_the_results_in_their_order() -> None:
    found = request(
        messages=[USER, assistant("c"), tool("c", "one"), assistant("c"), tool("c", "two"), assistant("c")]
    ).history
    assert [c.result for c in found.calls] == ["one", "two", None]


ODD_CALLS: list[tuple[Json, list[tuple[str, str, str]]]] = [
    ({"tool_calls": None}, []),
    ({"tool_calls": []}, []),
    ({"tool_calls": [{}]}, []),
    ({"tool_calls": [{"function": "f"}]}, []),
    ({"tool_calls": [{"function": {}}]}, []),
    ({"tool_calls": [{"id": 5, "function": {"name": 7, "arguments": {}}}]}, [("5", "7", "")]),
    ({"tool_calls": [{"id": "x", "custom": {"name": "sh", "input": "ls"}}]}, [("x", "sh", "ls")]),
    ({"function_call": "f"}, []),
    ({"function_call": {}}, [("", "", "")]),
]


@pytest.mark.parametrize(("message", "expected"), ODD_CALLS)
def test_odd_calls_of_a_history_are_read_as_far_as_they_go(
    message: Json, expected: list[tuple[str, str, str]]
) -> None:
    found = request(messages=[{"role": "assistant", **message}]).history.calls
    assert [(c.id, c.name, c.arguments_json) for c in found] == expected


def test_past_arguments_are_their_value_or_their_text() -> None:
    texts = ['{"a": 1}', "", "not JSON", '{"a": 1, "a": 2}']
    found = [PastCall("c", "f", text, None, 1).arguments() for text in texts]
    assert found == [{"a": 1}, {}, "not JSON", '{"a": 1, "a": 2}']


def test_the_handles_are_the_ids_of_past_calls() -> None:
    messages = [USER, assistant("c1", "c2"), {"tool_calls": [{"id": 5}, {"id": ""}, {}]}, assistant("c3")]
    found = request(messages=messages)
    assert list(found.handles) == ["c1", "c2", "c3"]
    assert found.scope == "Do it."


# -- changes --------------------------------------------------------------------------------------


def test_the_model_can_be_changed() -> None:
    changed = CODEC.with_model(request(seed=1), "other")
    assert changed.model == "other"
    assert json.loads(changed.raw) == {"model": "other", "messages": [USER], "seed": 1}


@pytest.mark.parametrize(
    ("roles", "place", "role"),
    [
        (["user"], 0, "system"),
        (["system", "user"], 1, "system"),
        (["developer", "user", "system"], 1, "developer"),
        (["system", "developer"], 2, "developer"),
        ([], 0, "system"),
    ],
)
def test_guidance_stands_after_what_opens_the_conversation(roles: list[str], place: int, role: str) -> None:
    messages = [{"role": one, "content": one} for one in roles]
    changed = CODEC.with_guidance(request(messages=messages), "Mind.").body["messages"]
    assert changed[place] == {"role": role, "content": "Mind."}
    assert changed[:place] + changed[place + 1 :] == messages


@pytest.mark.parametrize(
    "messages", [[], [USER], [assistant("c")], [tool("c", [{"type": "text", "text": "x"}])]]
)
def test_without_a_tool_result_the_notice_is_a_message(messages: list[Json]) -> None:
    changed = CODEC.forbid_tools(request(messages=messages), "Enough.").body["messages"]
    assert changed == [*messages, {"role": "system", "content": "Enough."}]


@pytest.mark.parametrize("given", [{}, {"tools": []}, {"functions": []}])
def test_without_tools_there_is_no_choice_to_turn_off(given: Json) -> None:
    changed = CODEC.forbid_tools(request(**given), "Enough.").body
    assert "tool_choice" not in changed
    assert "function_call" not in changed


def test_results_can_be_given_other_text() -> None:
    asked = request(
        messages=[assistant("c1", "c2"), tool("c1", "one"), tool("c2", "two"), tool("c2", "three")]
    )
    found = CODEC.tool_results(asked.body)
    assert [(r.call_id, r.tool, r.content) for r in found] == [
        ("c1", "f", "one"),
        ("c2", "f", "two"),
        ("c2", "f", "three"),
    ]
    changed = CODEC.with_results(asked, {found[1].key: "other"}).body["messages"]
    assert [m["content"] for m in changed[1:]] == ["one", "other", "three"]


# -- held turns and small parts -------------------------------------------------------------------

HELD = {
    "two calls": (
        whole(call('{"a":1}', id="c1"), call("{}", "g", "c2", 1)),
        body(calls(call('{"a":1}', id="c1"), call("{}", "g", "c2"))),
    ),
    "a custom call": (
        whole({"index": 0, "id": "c1", "type": "custom", "custom": {"name": "sh", "input": "ls"}}),
        body({"tool_calls": [{"id": "c1", "type": "custom", "custom": {"name": "sh", "input": "ls"}}]}),
    ),
    "a legacy call": (
        stream(chunk({"function_call": {"name": "f", "arguments": "{}"}}), chunk(finish="function_call")),
        body({"function_call": {"name": "f", "arguments": "{}"}}, "function_call"),
    ),
}


@pytest.mark.parametrize("replay_as_stream", [True, False])
@pytest.mark.parametrize("is_stream", [True, False])
@pytest.mark.parametrize(("streamed", "whole_body"), HELD.values(), ids=HELD)
def test_a_held_turn_is_played_back_as_it_was(
    streamed: bytes, whole_body: bytes, is_stream: bool, replay_as_stream: bool
) -> None:
    first = Read(streamed if is_stream else whole_body, is_stream)
    assert first.turn is not None
    data = CODEC.replay(CODEC.hold(first.turn), replay_as_stream)
    again = Read(data, replay_as_stream)
    assert again.calls == first.calls
    assert again.turn is not None
    assert again.turn.wire.canonical
    assert again.turn.text == ""
    view = read(data, replay_as_stream)
    assert view.ids == {"c1"}
    assert view.done


def test_a_line_of_the_proxys_own() -> None:
    encoder = CODEC.encoder(True)
    first = Read(stream(chunk({"role": "assistant", "content": "a"}), done=False) + chunk(finish="stop"))
    data = b"".join(encoder.passage(passage) for passage in first.passages[:1])
    line = json.loads(encoder.status("Checking").removeprefix(b"data: "))
    assert data
    assert line["id"] == "c1"
    assert line["choices"] == [{"index": 0, "delta": {"content": "Checking"}, "finish_reason": None}]
    assert CODEC.encoder(False).status("Checking") == b""
    early = json.loads(CODEC.encoder(True).status("Checking").removeprefix(b"data: "))
    assert early["choices"][0]["delta"]["role"] == "assistant"


@pytest.mark.parametrize("is_stream", [True, False])
def test_an_answer_can_be_ended_before_any_round(is_stream: bool) -> None:
    view = read(CODEC.encoder(is_stream).finish("Sorry."), is_stream)
    assert (view.first.text, view.first.finish, view.done) == ("Sorry.", "stop", True)


@pytest.mark.parametrize(
    ("status", "type"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (429, "rate_limit_error"),
        (502, "server_error"),
    ],
)
def test_errors_have_openais_shape(status: int, type: str) -> None:
    error = {"message": "No.", "type": type, "param": None, "code": "x"}
    assert json.loads(CODEC.error(status, "x", "No.")) == {"error": error}
    assert json.loads(CODEC.encoder(False).error(status, "x", "No.")) == {"error": error}
    framed = CODEC.encoder(True).error(status, "x", "No.")
    assert framed.startswith(b"data: ")
    assert framed.endswith(b"\n\n")
    assert json.loads(framed[6:]) == {"error": error}


JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from(["", "x", "function", "custom", "tool", "user"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["role", "content", "tool_calls", "function_call", "function", "custom", "id", "name"]
            )
            | st.sampled_from(["type", "text", "arguments", "tool_call_id", "parameters", "tools", "n"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


@given(
    messages=st.lists(JUNK, max_size=4),
    given_keys=st.dictionaries(
        st.sampled_from(["tools", "functions", "tool_choice", "function_call", "stream", "n"]),
        JUNK,
        max_size=3,
    ),
)
@settings(max_examples=200, deadline=None)
def test_no_request_breaks_the_codec(messages: list[Any], given_keys: Json) -> None:
    try:
        found = request(messages=messages, **given_keys)
    except BadRequest:
        return
    assert found.history.turn <= len(messages)
    assert set(found.handles) <= {c.id for c in found.history.calls} | set(found.handles)
    turn = Read(whole(call())).turn
    assert turn is not None
    again = CODEC.forbid_tools(CODEC.extend(found, turn, [], relax=True), "Enough.")
    assert again.body["messages"][: len(messages)] == messages
    assert json.loads(again.raw) == again.body
    CODEC.with_guidance(found, "Mind.")
    kept = CODEC.settlement(found, [(turn, [])], turn, [])
    assert kept is not None
    restored = CODEC.restore(found, dict.fromkeys(["call_1", *found.handles], kept.kept))
    assert [m for m in restored.body["messages"] if m in messages] or not messages
