"""What a request says, and how it is changed."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.model import HostedTool, Request, ToolResult, dumps, loads
from proxy.wire.codec import BadRequest
from tests.wire.responses.answers import CODEC, Json, body_of, turn_of

USER = {"role": "user", "content": "Go."}
CALL: Json = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": '{"a":1}'}
DONE: Json = {"type": "function_call_output", "call_id": "c1", "output": "fine"}


def read(**members: Any) -> Request:
    return CODEC.read(dumps({"model": "m", "input": "Go."} | members))


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"model": ""}, "model"),
        ({"model": 7}, "model"),
        ({"input": 7}, "input"),
        ({"input": [7]}, "input"),
        ({"input": [{"type": 7}]}, "input[0]"),
        ({"input": [{"type": "additional_tools", "tools": [1]}]}, "input[0].tools"),
        ({"tools": {}}, "tools"),
        ({"stream": "yes"}, "stream"),
        ({"previous_response_id": 7}, "previous_response_id"),
        ({"conversation": {"no": "id"}}, "conversation"),
    ],
)
def test_what_has_no_reading_is_refused(members: Json, param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        read(**members)
    assert caught.value.param == param


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b'{"model":"m","model":"n"}'])
def test_a_body_with_no_one_reading_is_refused(raw: bytes) -> None:
    with pytest.raises(BadRequest):
        CODEC.read(raw)


def test_a_prompt_template_may_name_the_model() -> None:
    request = CODEC.read(b'{"prompt":{"id":"pmpt_1"},"input":"Go."}')
    assert request.model == ""
    assert request.hosted == [HostedTool("prompt", "pmpt_1")]


def test_the_input_is_history() -> None:
    request = read(
        input=[
            USER,
            {"type": "reasoning", "id": "rs", "summary": []},
            CALL,
            DONE,
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Ok."}]},
            {"role": "user", "content": [{"type": "input_text", "text": "More."}]},
            {"type": "custom_tool_call", "call_id": "c2", "name": "sql", "input": "x"},
            {
                "type": "custom_tool_call_output",
                "call_id": "c2",
                "output": [{"type": "input_text", "text": "y"}],
            },
        ]
    )
    history = request.history
    assert [(c.id, c.name, c.result, c.turn) for c in history.calls] == [
        ("c1", "f", "fine", 1),
        ("c2", "sql", "y", 2),
    ]
    assert (history.opening, history.query, history.turn) == ("Go.", "More.", 2)
    assert (history.last_answer, history.fresh) == ("Ok.", {"c2"})
    assert request.handles == ["rs", "c1", "c2"]


def test_a_text_is_the_users_message() -> None:
    assert (read().history.query, read().history.turn) == ("Go.", 1)


def test_what_a_request_goes_on_from_are_its_handles() -> None:
    items = [{"type": "message", "role": "assistant", "id": "msg_1", "content": "x"}, DONE]
    request = read(input=items, previous_response_id="resp_1")
    assert request.handles == ["resp_1", "msg_1", "c1"]
    assert read(conversation={"id": "conv_1"}).handles == ["conv_1"]


# -- asking again ---------------------------------------------------------------------------------

REASONING: Json = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"}


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({}, [{"role": "user", "content": "Go."}, REASONING, CALL, DONE]),
        ({"previous_response_id": "r"}, [{"role": "user", "content": "Go."}, REASONING, CALL, DONE]),
        # The provider has added the rest to the conversation by itself.
        ({"conversation": "conv_1"}, [DONE]),
        ({"store": False}, [{"role": "user", "content": "Go."}, REASONING, CALL, DONE]),
    ],
)
def test_a_turn_goes_back_as_it_was(members: Json, expected: list[Json]) -> None:
    turn = turn_of(body_of(REASONING, CALL), False)
    asked = CODEC.extend(read(**members), turn, [ToolResult("c1", "fine")], relax=False)
    assert asked.body["input"] == expected
    assert loads(asked.raw) == asked.body
    assert asked.history.query == "Go."
    assert [call.id for call in asked.history.calls] == ["c1"]


def test_reasoning_that_nobody_kept_does_not_go_back() -> None:
    bare = {"type": "reasoning", "id": "rs_1", "summary": []}
    turn = turn_of(body_of(bare, CALL), False)
    asked = CODEC.extend(read(store=False), turn, [ToolResult("c1", "fine")], relax=False)
    _, call, _ = asked.body["input"]
    assert call == {key: value for key, value in CALL.items() if key != "id"}


@pytest.mark.parametrize(
    ("choice", "relaxed"),
    [
        ("required", "auto"),
        ("none", "none"),
        ({"type": "function", "name": "f"}, "auto"),
        (
            {"type": "allowed_tools", "mode": "required", "tools": []},
            {"type": "allowed_tools", "mode": "auto", "tools": []},
        ),
    ],
)
def test_the_force_to_call_can_be_lifted(choice: Any, relaxed: Any) -> None:
    turn = turn_of(body_of(CALL), False)
    request = read(tool_choice=choice)
    assert CODEC.extend(request, turn, [ToolResult("c1", "x")], relax=True).body["tool_choice"] == relaxed
    assert CODEC.extend(request, turn, [ToolResult("c1", "x")], relax=False).body["tool_choice"] == choice


def test_tools_are_turned_off_but_stay() -> None:
    tools = [{"type": "function", "name": "f"}]
    asked = CODEC.forbid_tools(read(tools=tools), "Enough.")
    assert (asked.body["tools"], asked.body["tool_choice"]) == (tools, "none")
    assert asked.body["input"][-1]["content"] == "Enough."
    # A choice without tools is an error to providers.
    assert "tool_choice" not in CODEC.forbid_tools(read(), "Enough.").body


def test_guidance_stands_after_the_instructions() -> None:
    assert CODEC.with_guidance(read(instructions="Be kind."), "Be brief.").body["instructions"] == (
        "Be kind.\n\nBe brief."
    )
    assert CODEC.with_guidance(read(), "Be brief.").body["instructions"] == "Be brief."


def test_another_model_can_be_asked() -> None:
    asked = CODEC.with_model(read(), "n")
    assert (asked.model, loads(asked.raw)["model"]) == ("n", "n")


# -- results --------------------------------------------------------------------------------------

RESULTS: list[Json] = [
    DONE,
    {"type": "shell_call_output", "call_id": "c1", "output": [{"stdout": "secret", "stderr": ""}]},
    {"type": "apply_patch_call_output", "call_id": "c1", "status": "completed", "output": "secret"},
    {"type": "local_shell_call_output", "id": "c1", "output": "secret"},
    {
        "type": "custom_tool_call_output",
        "call_id": "c1",
        "output": [{"type": "input_text", "text": "secret"}],
    },
    {
        "type": "mcp_call",
        "id": "c1",
        "server_label": "hub",
        "name": "x",
        "arguments": "{}",
        "output": "secret",
    },
    {"type": "computer_call_output", "call_id": "c1", "output": {"type": "x", "image_url": "secret"}},
]


@pytest.mark.parametrize("item", RESULTS, ids=lambda item: item["type"])
def test_every_result_can_be_read_and_replaced(item: Json) -> None:
    request = read(input=[USER, item])
    (result,) = request.results
    assert result.call_id == "c1"
    if item["type"] != "computer_call_output":
        assert result.content == request.body["input"][1]["output"] or "secret" in result.content
    changed = CODEC.with_results(request, {result.key: "gone"})
    assert b"secret" not in changed.raw
    assert changed.body["input"][0] == USER
    if item["type"] != "computer_call_output":
        assert changed.results[0].content == "gone"


# -- tools ----------------------------------------------------------------------------------------

TOOLS: list[Json] = [
    {"type": "function", "name": "f", "parameters": {"type": "object"}, "description": "F."},
    {"type": "custom", "name": "sql"},
    {"type": "namespace", "name": "crm", "tools": [{"type": "function", "name": "find"}]},
    {"type": "shell", "environment": {"type": "local"}},
    {"type": "apply_patch"},
    {"type": "local_shell"},
    {"type": "computer_use_preview"},
    {"type": "tool_search", "execution": "client"},
    {"type": "mcp", "server_label": "hub", "server_url": "https://hub.example/mcp"},
    {"type": "web_search"},
    {"type": "code_interpreter", "container": {"type": "auto"}},
]
HOSTED = [
    HostedTool("mcp", "https://hub.example/mcp", approvable=True),
    HostedTool("web_search"),
    HostedTool("code_interpreter"),
]


def test_the_applications_tools_are_offered() -> None:
    tools = read(tools=TOOLS).tools
    assert list(tools) == [
        "f",
        "sql",
        "crm.find",
        "shell",
        "apply_patch",
        "local_shell",
        "computer",
        "tool_search",
    ]
    assert (tools["f"].parameters, tools["f"].description) == ({"type": "object"}, "F.")
    assert tools.get("mcp.hub.push") is not None
    assert tools.get("mcp.other.push") is None
    assert tools.get("hub.push") is None


def test_the_providers_tools_are_hosted() -> None:
    assert read(tools=TOOLS).hosted == HOSTED


@pytest.mark.parametrize("kind", ["additional_tools", "tool_search_output"])
def test_tools_in_the_middle_of_the_input_count(kind: str) -> None:
    request = read(input=[USER, {"type": kind, "tools": TOOLS}])
    assert "crm.find" in request.tools
    assert request.hosted == HOSTED
    less = CODEC.without_tools(request, {"f", "crm.find"}, [HOSTED[1]])
    assert not {"f", "crm.find"} & less.tools.keys()
    assert less.hosted == [HOSTED[0], HOSTED[2]]


@pytest.mark.parametrize(
    "tool",
    [
        {"type": "shell", "environment": {"type": "container_auto"}},
        {"type": "tool_search"},
        {"type": "image_generation"},
        {"type": "programmatic_tool_calling"},
        {"type": "what_comes_next"},
    ],
    ids=lambda tool: tool["type"],
)
def test_what_the_provider_runs_is_hosted(tool: Json) -> None:
    request = read(tools=[tool, TOOLS[0]])
    assert request.hosted == [HostedTool(tool["type"])]
    assert list(request.tools) == ["f"]
    assert CODEC.without_tools(request, (), request.hosted).body["tools"] == [TOOLS[0]]


def test_a_reference_to_something_unknown_is_hosted() -> None:
    known = [{"type": "item_reference", "id": f"{prefix}_1"} for prefix in ("rs", "msg", "fc", "ctc")]
    request = read(input=[*known, {"type": "item_reference", "id": "at_1"}])
    assert request.hosted == [HostedTool("item_reference")]
    assert CODEC.without_tools(request, (), request.hosted).body["input"] == known


def test_tools_are_taken_out() -> None:
    request = read(tools=TOOLS, tool_choice="auto", parallel_tool_calls=True)
    less = CODEC.without_tools(request, {"f", "crm.find", "shell"}, [HOSTED[0]])
    assert [tool["type"] for tool in less.body["tools"]] == [
        "custom",
        "apply_patch",
        "local_shell",
        "computer_use_preview",
        "tool_search",
        "web_search",
        "code_interpreter",
    ]
    none = CODEC.without_tools(request, list(request.tools), HOSTED)
    assert not {"tools", "tool_choice", "parallel_tool_calls"} & none.body.keys()
    same = CODEC.without_tools(request, {"other"}, ())
    assert same is request
    prompt = read(prompt={"id": "p"}, tools=TOOLS)
    assert "prompt" not in CODEC.without_tools(prompt, (), [HostedTool("prompt", "p")]).body


@pytest.mark.parametrize(
    "choice",
    [
        {"type": "function", "name": "f"},
        {"type": "function", "namespace": "crm", "name": "find"},
        {"type": "shell"},
        {"type": "web_search"},
    ],
    ids=str,
)
def test_a_choice_of_what_is_taken_out_is_refused(choice: Json) -> None:
    request = read(tools=TOOLS, tool_choice=choice)
    with pytest.raises(BadRequest):
        CODEC.without_tools(request, {"f", "crm.find", "shell"}, [HOSTED[1]])


def test_the_choice_of_some_loses_what_is_taken_out() -> None:
    some = [{"type": "function", "name": "f"}, {"type": "custom", "name": "sql"}]
    request = read(tools=TOOLS, tool_choice={"type": "allowed_tools", "mode": "auto", "tools": some})
    assert CODEC.without_tools(request, {"f"}, ()).body["tool_choice"]["tools"] == some[1:]
    assert CODEC.without_tools(request, {"f", "sql"}, ()).body["tool_choice"] == "none"


def test_a_remote_server_can_be_made_to_ask() -> None:
    request = read(tools=TOOLS, input=[USER, {"type": "additional_tools", "tools": TOOLS}])
    asked = CODEC.with_approval(request, HOSTED[:1])
    for tools in (asked.body["tools"], asked.body["input"][1]["tools"]):
        assert [tool.get("require_approval") for tool in tools if tool["type"] == "mcp"] == ["always"]
        assert [tool for tool in tools if tool["type"] != "mcp"] == [t for t in TOOLS if t["type"] != "mcp"]
