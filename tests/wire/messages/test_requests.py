"""Messages requests: what is read of them, and how they are changed."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from proxy.model import HostedTool, Request, ToolResult, Turn
from proxy.wire.codec import BadRequest, Caps
from proxy.wire.messages import MessagesCodec

CODEC = MessagesCodec()
REFUSED = '{"error":{"type":"denied","message":"No.","retryable":false}}'
Json = dict[str, Any]


def request(*messages: Json, **members: Any) -> Request:
    body = {"model": "m", "max_tokens": 9, "messages": list(messages or [user("go")])} | members
    return CODEC.read(orjson.dumps(body))


def user(*content: Any) -> Json:
    return {"role": "user", "content": content[0] if isinstance(content[0], str) else list(content)}


def assistant(*content: Any) -> Json:
    return user(*content) | {"role": "assistant"}


def text(words: str) -> Json:
    return {"type": "text", "text": words}


def call(id: str, name: str = "get", **members: Any) -> Json:
    return {"type": "tool_use", "id": id, "name": name, "input": {"id": 1}} | members


def result(id: str, content: Any = "done") -> Json:
    return {"type": "tool_result", "tool_use_id": id, "content": content}


def turn(*content: Json, **members: Any) -> Turn:
    """A provider's whole answer, read."""
    decoder = CODEC.decoder(False, Caps())
    message = {"id": "msg_1", "model": "m", "content": content, "stop_reason": "tool_use"} | members
    decoder.feed(orjson.dumps(message))
    return decoder.close()[1]


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"model": ""}, "model"),
        ({"model": 7}, "model"),
        ({"messages": "go"}, "messages"),
        ({"messages": ["go"]}, "messages"),
        ({"messages": [{"role": "user", "content": [1]}]}, "messages.content"),
        ({"messages": [{"role": "user", "content": {}}]}, "messages.content"),
        ({"system": {}}, "system"),
        ({"tools": {}}, "tools"),
        ({"tools": ["get"]}, "tools"),
        ({"mcp_servers": "x"}, "mcp_servers"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"stream": "yes"}, "stream"),
        ({"thread": {"type": "create"}}, "thread"),
    ],
)
def test_what_has_no_reading_is_refused(members: Json, param: str) -> None:
    with pytest.raises(BadRequest) as refused:
        request(**members)
    assert refused.value.param == param


@pytest.mark.parametrize("raw", [b"", b"[]", b'{"model":"a","model":"b","messages":[]}', b'{"model":NaN}'])
def test_a_body_has_one_reading_or_none(raw: bytes) -> None:
    with pytest.raises(BadRequest):
        CODEC.read(raw)


def test_the_history_is_read_from_the_messages() -> None:
    history = request(
        user(text("Find"), text("Ada.")),
        assistant(text("I look."), call("t1"), call("t2", "zoom", toolset_name="computer")),
        user(result("t1", [text("Ada")]), result("t2"), text("<reminder>")),
        assistant("Found."),
        user("Thanks. Now drop it."),
        assistant({"type": "thinking", "thinking": "Hm.", "signature": "s"}, call("t3")),
        user(result("t3")),
    ).history
    assert [(c.id, c.name, c.arguments_json, c.result, c.turn) for c in history.calls] == [
        ("t1", "get", '{"id":1}', "Ada", 1),
        ("t2", "computer.zoom", '{"id":1}', "done", 1),
        ("t3", "get", '{"id":1}', "done", 2),
    ]
    assert (history.opening, history.query, history.turn) == ("Find\nAda.", "Thanks. Now drop it.", 2)
    assert (history.last_answer, history.fresh) == ("", frozenset({"t3"}))


def test_a_question_beside_no_results_is_a_new_turn() -> None:
    assert request(user("a"), assistant("b"), user("c"), assistant("d"), user(text("e"))).history.turn == 3


# -- asking again


def test_the_turn_goes_back_as_it_was_with_a_result_for_every_call() -> None:
    thinking = {"type": "thinking", "thinking": "Hm. ☂", "signature": "Eq=="}
    redacted = {"type": "redacted_thinking", "data": "Em=="}
    asked = CODEC.extend(
        request(user("go"), system="Be brief.", tools=[{"name": "get", "input_schema": {}}]),
        turn(thinking, redacted, text("Now."), call("t1"), text(""), call("t2", toolset_name="computer")),
        [ToolResult("t1", REFUSED), ToolResult("t2", "from the cache")],
        relax=False,
    )
    said, told = asked.body["messages"][1:]
    assert said["content"] == [
        thinking,
        redacted,
        text("Now."),
        call("t1"),
        call("t2", toolset_name="computer"),
    ]
    assert told == {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "t1", "content": REFUSED, "is_error": True},
            {
                "type": "tool_result",
                "tool_use_id": "t2",
                "content": "from the cache",
                "toolset_name": "computer",
            },
        ],
    }
    assert list(asked.body) == ["model", "max_tokens", "messages", "system", "tools"]
    assert orjson.loads(asked.raw) == asked.body


def test_what_the_model_wrote_wrongly_goes_back_as_an_object() -> None:
    asked = CODEC.extend(request(), turn(call("t1") | {"input": '{"a":'}), [ToolResult("t1", REFUSED)], False)
    assert asked.body["messages"][1]["content"][0]["input"] == {"INVALID_JSON": '{"a":'}


@pytest.mark.parametrize(
    ("choice", "relaxed"),
    [
        ({"type": "any"}, {"type": "auto"}),
        (
            {"type": "tool", "name": "get", "disable_parallel_tool_use": True},
            {"type": "auto", "disable_parallel_tool_use": True},
        ),
        ({"type": "auto"}, {"type": "auto"}),
        ({"type": "none"}, {"type": "none"}),
    ],
)
def test_a_forced_choice_is_relaxed_only_where_it_has_to_be(choice: Json, relaxed: Json) -> None:
    for relax, expected in ((True, relaxed), (False, choice)):
        asked = CODEC.extend(
            request(tool_choice=choice), turn(call("t1")), [ToolResult("t1", "x")], relax=relax
        )
        assert asked.body["tool_choice"] == expected


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (None, "c_1"),
        ("c_0", "c_1"),
        ({"skills": [{"skill_id": "s"}]}, {"skills": [{"skill_id": "s"}], "id": "c_1"}),
    ],
)
def test_the_container_that_waits_is_named(given: Any, named: Any) -> None:
    members = {} if given is None else {"container": given}
    waiting = turn(call("t1"), container={"id": "c_1", "expires_at": "x"})
    asked = CODEC.extend(request(**members), waiting, [ToolResult("t1", "x")], relax=False)
    assert asked.body["container"] == named


def test_tools_are_turned_off_and_the_notice_stands_after_the_results() -> None:
    tools = [{"name": "get", "input_schema": {}}]
    given = request(user("go"), assistant(call("t1")), user(result("t1")), tools=tools)
    asked = CODEC.forbid_tools(given, "Answer now.").body
    assert asked["messages"][-1] == user(result("t1"), text("Answer now."))
    assert asked["tool_choice"] == {"type": "none"}
    assert asked["tools"] == tools
    assert "tool_choice" not in CODEC.forbid_tools(request(), "Answer now.").body


def test_running_code_is_answered_with_results_alone() -> None:
    made = call("t1", caller={"type": "code_execution_20250825", "tool_id": "s1"})
    asked = CODEC.forbid_tools(request(user("go"), assistant(made), user(result("t1"))), "Answer now.").body
    assert asked["messages"][-1] == user(result("t1"))
    assert asked["system"] == "Answer now."


@pytest.mark.parametrize(
    ("system", "told"),
    [
        (None, "Guide."),
        ("Be brief.", [text("Be brief."), text("Guide.")]),
        (
            [text("Be brief.") | {"cache_control": {"type": "ephemeral"}}],
            [text("Be brief.") | {"cache_control": {"type": "ephemeral"}}, text("Guide.")],
        ),
    ],
)
def test_guidance_follows_the_system_prompt(system: Any, told: Any) -> None:
    members = {} if system is None else {"system": system}
    assert CODEC.with_guidance(request(**members), "Guide.").body["system"] == told


def test_another_model_is_asked() -> None:
    asked = CODEC.with_model(request(), "small")
    assert (asked.model, asked.body["model"]) == ("small", "small")


def test_results_get_other_text_by_their_keys() -> None:
    given = request(
        user("go"),
        assistant(call("t1"), call("t2", "look")),
        user(result("t1", [{"type": "image", "source": {}}]), result("t2"), text("Well?")),
        assistant(call("t1", "again")),
        user(result("t1", "twice")),
    )
    keys = [(found.key, found.call_id, found.tool, found.content) for found in given.results]
    assert keys == [
        ("t1", "t1", "get", ""),
        ("t2", "t2", "look", "done"),
        (keys[2][0], "t1", "again", "twice"),
    ]
    assert len({key for key, *_ in keys}) == 3
    told = CODEC.with_results(given, {"t1": "a", keys[2][0]: "b"}).body["messages"]
    assert told[2] == user(result("t1", "a"), result("t2"), text("Well?"))
    assert told[4] == user(result("t1", "b"))


# -- tools

GET = {"name": "get", "description": "Gets.", "input_schema": {"type": "object"}}
BASH = {"type": "bash_20250124", "name": "bash"}
SEARCH = {"type": "web_search_20260318", "name": "web_search"}
COMPUTER = {"type": "computer_toolset_20260801", "configs": {"zoom": {"enabled": False}}}
SERVERS = [{"type": "url", "name": "wiki", "url": "https://wiki.example/mcp"}]
TOOLSET = {"type": "mcp_toolset", "mcp_server_name": "wiki"}


def added(tool: Json) -> Json:
    definition = {"type": "tool_definition", "definition": tool}
    return {"type": "tool_addition", "tool": definition}


def test_the_applications_tools_are_those_that_it_runs() -> None:
    tools = request(
        user(text("go"), added(GET | {"name": "late"})), tools=[GET, BASH, SEARCH, COMPUTER]
    ).tools
    assert {"get", "bash", "late", "computer.key"} <= tools.keys()
    assert not {"web_search", "computer.zoom"} & tools.keys()
    assert (tools["get"].parameters, tools["get"].description) == ({"type": "object"}, "Gets.")


def test_what_the_provider_runs_is_governed() -> None:
    hosted = request(
        user(text("go"), added({"type": "code_execution_20260521", "name": "code_execution"})),
        tools=[GET, BASH, SEARCH, COMPUTER, TOOLSET, {"type": "mcp_toolset", "mcp_server_name": "other"}],
        mcp_servers=SERVERS,
        container={"skills": [{"type": "anthropic", "skill_id": "pptx"}]},
    ).hosted
    assert set(hosted) == {
        HostedTool("mcp", "https://wiki.example/mcp"),
        HostedTool("mcp", "other"),
        HostedTool("web_search"),
        HostedTool("code_execution"),
        HostedTool("skill", "pptx"),
    }


def test_tools_are_taken_out_and_the_rest_keeps_its_order() -> None:
    given = request(
        user(text("go"), added(SEARCH)),
        tools=[GET, SEARCH, BASH, TOOLSET, {"type": "computer_toolset_20260801"}],
        mcp_servers=SERVERS,
        container={"id": "c", "skills": [{"type": "anthropic", "skill_id": "pptx"}]},
        tool_choice={"type": "auto"},
    )
    hosted = [
        HostedTool("web_search"),
        HostedTool("mcp", "https://wiki.example/mcp"),
        HostedTool("skill", "pptx"),
    ]
    left = CODEC.without_tools(given, ["get", "computer.zoom"], hosted).body
    off = {"zoom": {"enabled": False}}
    assert left == {
        "model": "m",
        "max_tokens": 9,
        "messages": [user(text("go"))],
        "tools": [BASH, {"type": "computer_toolset_20260801", "configs": off}],
        "container": {"id": "c", "skills": []},
        "tool_choice": {"type": "auto"},
    }


def test_the_last_tool_takes_the_choice_with_it() -> None:
    given = request(tools=[GET], tool_choice={"type": "any"})
    assert CODEC.without_tools(given, ["get"], []).body.keys() == {"model", "max_tokens", "messages"}
    assert CODEC.without_tools(given, ["other"], []) is given


@pytest.mark.parametrize("name", ["get", "web_search"])
def test_a_choice_of_a_tool_that_is_taken_out_is_refused(name: str) -> None:
    given = request(tools=[GET, SEARCH, BASH], tool_choice={"type": "tool", "name": name})
    with pytest.raises(BadRequest):
        CODEC.without_tools(given, ["get"], [HostedTool("web_search")])


@pytest.mark.parametrize("name", [None, 7, ["s"], {"s": 1}])
def test_names_of_servers_and_skills_that_are_no_text_are_the_providers_to_refuse(name: Any) -> None:
    given = request(
        tools=[GET, {"type": "mcp_toolset", "mcp_server_name": name}],
        mcp_servers=[{"type": "url", "url": "https://s", "name": name}],
        container={"skills": [{"type": "anthropic", "skill_id": name}]},
    )
    assert given.hosted == [HostedTool("mcp", "https://s"), HostedTool("skill", str(name))]
    assert CODEC.without_tools(given, ["other"], []) is given
    assert CODEC.without_tools(given, [], given.hosted).body["tools"] == [GET]


def test_a_toolset_without_readable_configs_is_refused_where_one_of_its_tools_is_taken_out() -> None:
    given = request(tools=[{"type": "computer_toolset_20260801", "configs": [1]}])
    assert CODEC.without_tools(given, ["get"], []) is given
    with pytest.raises(BadRequest) as refused:
        CODEC.without_tools(given, ["computer.zoom"], [])
    assert refused.value.message == "The configs of a tool must be an object."


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (405, "invalid_request_error"),
        (413, "request_too_large"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (502, "api_error"),
        (503, "overloaded_error"),
        (504, "timeout_error"),
    ],
)
def test_errors_have_anthropics_shape(status: int, kind: str) -> None:
    error = orjson.loads(CODEC.error(status, "code", "Words.", "param"))
    assert error == {"type": "error", "error": {"type": kind, "message": "Words.", "code": "code"}}
