"""Every kind of item that makes a client act is judged, and answered in its own words."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.model import ToolResult, dumps, loads
from proxy.wire.codec import MalformedTurn
from proxy.wire.responses import items
from tests.core import view_responses
from tests.wire.responses.answers import CODEC, Json, body_of, items_events, read, released, turn_of, written

EXEC = {"type": "exec", "command": ["ls", "-l"], "env": {}}
PATCH = {"type": "delete_file", "path": "a.py"}
CLICK = {"type": "click", "x": 1, "y": 2, "button": "left"}

# item -> the call's name and arguments
KINDS: dict[str, tuple[Json, str, Json]] = {
    "function": (
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"a":1}'},
        "f",
        {"a": 1},
    ),
    "namespace": (
        {"type": "function_call", "call_id": "c", "namespace": "crm", "name": "f", "arguments": "{}"},
        "crm.f",
        {},
    ),
    "a program's call": (
        {
            "type": "function_call",
            "call_id": "c",
            "name": "f",
            "arguments": "{}",
            "caller": {"type": "program", "caller_id": "p"},
        },
        "f",
        {},
    ),
    "custom": (
        {"type": "custom_tool_call", "call_id": "c", "name": "sql", "input": "SELECT 1"},
        "sql",
        {"input": "SELECT 1"},
    ),
    "local shell": (
        {"type": "local_shell_call", "call_id": "c", "action": EXEC, "status": "completed"},
        "local_shell",
        {"action": EXEC},
    ),
    "shell": (
        {
            "type": "shell_call",
            "call_id": "c",
            "action": {"commands": ["ls"]},
            "environment": {"type": "local"},
        },
        "shell",
        {"action": {"commands": ["ls"]}},
    ),
    "apply patch": (
        {"type": "apply_patch_call", "call_id": "c", "operation": PATCH, "status": "completed"},
        "apply_patch",
        {"operation": PATCH},
    ),
    "computer": (
        {"type": "computer_call", "call_id": "c", "action": CLICK, "pending_safety_checks": []},
        "computer",
        {"action": CLICK},
    ),
    "computer, several": (
        {"type": "computer_call", "call_id": "c", "actions": [CLICK], "pending_safety_checks": []},
        "computer",
        {"actions": [CLICK]},
    ),
    "tool search": (
        {"type": "tool_search_call", "call_id": "c", "execution": "client", "arguments": {"q": "x"}},
        "tool_search",
        {"arguments": {"q": "x"}},
    ),
    "MCP approval": (
        {"type": "mcp_approval_request", "server_label": "hub", "name": "push", "arguments": '{"b":2}'},
        "mcp.hub.push",
        {"b": 2},
    ),
}


def item_of(name: str) -> Json:
    item = {"id": "x_1", **KINDS[name][0]}
    return item


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "body"])
@pytest.mark.parametrize("name", KINDS)
def test_each_kind_is_one_call(name: str, stream: bool) -> None:
    item = item_of(name)
    data = written(items_events(item)) if stream else body_of(item)
    (call,) = turn_of(data, stream).calls
    assert (call.name, call.arguments, call.fault) == (KINDS[name][1], KINDS[name][2], None)
    assert call.id == ("x_1" if name == "MCP approval" else "c")


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "body"])
@pytest.mark.parametrize("name", KINDS)
def test_each_kind_goes_on_or_is_dropped(name: str, stream: bool) -> None:
    item = item_of(name)
    data = written(items_events(item)) if stream else body_of(item)
    tool = KINDS[name][1]
    answer = view_responses.read(released(data, stream), stream)
    assert len(answer.first.calls) == 1
    refused = released(data, stream, drop=[tool], notice="It may not run.")
    answer = view_responses.read(refused, stream)
    assert (answer.first.calls, answer.first.text) == ([], "It may not run.")
    assert item["type"].encode() not in refused


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_is_answered_in_its_own_words(name: str) -> None:
    turn = turn_of(body_of(item_of(name)), False)
    request = CODEC.read(dumps({"model": "m", "input": "go"}))
    asked = CODEC.extend(request, turn, [ToolResult(turn.calls[0].id, "Not for you.")], relax=False)
    user, item, *answers = asked.body["input"]
    assert user == {"role": "user", "content": "go"}
    assert item == item_of(name)
    assert items.answered_id(answers[0]) == turn.calls[0].id
    assert "Not for you." in json.dumps(answers)
    assert answers[0].get("caller") == item.get("caller")
    assert request.history.calls == ()
    (past,) = asked.history.calls
    assert (past.name, past.result is not None) == (KINDS[name][1], True)
    if name not in ("tool search", "MCP approval"):  # these tell nothing of a tool
        (result,) = asked.results
        assert result.tool == KINDS[name][1]


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "body"])
@pytest.mark.parametrize("name", KINDS)
def test_rewritten_arguments_are_what_goes_on(name: str, stream: bool) -> None:
    item = item_of(name)
    data = written(items_events(item)) if stream else body_of(item)
    passed, turn = read(data, stream)
    (call,) = turn.calls
    changed = call.arguments_json.replace("1", "7").replace("ls", "id").replace("a.py", "b.py")
    changed = changed.replace("push", "pull").replace('"b":2', '"b":3').replace('"x"', '"z"')
    if changed == "{}":
        changed = '{"a":1}'
    encoder = CODEC.encoder(stream)
    head = b"".join(encoder.passage(p) for p in passed)
    out = head + encoder.release(turn, [changed], {})
    (again,) = turn_of(out, stream).calls
    assert again.arguments_json == changed
    assert view_responses.read(out, stream).first.calls


# -- what is no call ------------------------------------------------------------------------------

PASSING: list[Json] = [
    {"type": "message", "id": "m", "role": "assistant", "content": []},
    {"type": "reasoning", "id": "r", "summary": []},
    {"type": "web_search_call", "id": "w", "action": {"type": "search", "query": "x"}},
    {"type": "file_search_call", "id": "f", "queries": ["x"]},
    {"type": "code_interpreter_call", "id": "c", "code": "1"},
    {"type": "image_generation_call", "id": "i", "result": "…"},
    {"type": "mcp_list_tools", "id": "l", "server_label": "hub", "tools": []},
    {"type": "mcp_call", "id": "k", "server_label": "hub", "name": "push", "arguments": "{}", "output": "x"},
    {"type": "tool_search_call", "id": "t", "execution": "server", "arguments": {}},
    {"type": "program", "id": "p", "call_id": "p", "code": "1", "fingerprint": "x"},
    {"type": "compaction", "id": "z", "encrypted_content": "x"},
]


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "body"])
@pytest.mark.parametrize("item", PASSING, ids=lambda item: item["type"])
def test_what_the_provider_says_or_ran_itself_goes_through(item: Json, stream: bool) -> None:
    data = written(items_events(item)) if stream else body_of(item)
    assert turn_of(data, stream).calls == ()
    assert released(data, stream) == data


def test_a_shell_that_the_provider_ran_is_no_call_of_the_clients() -> None:
    call = {
        "type": "shell_call",
        "id": "s",
        "call_id": "c",
        "action": {"commands": ["ls"]},
        "environment": {"type": "container_reference", "container_id": "x"},
    }
    output = {"type": "shell_call_output", "id": "o", "call_id": "c", "output": []}
    data = written(items_events(call, output))
    assert turn_of(data).calls == ()
    assert released(data) == data
    # Without its output nothing says that it ran.
    assert len(turn_of(written(items_events(call))).calls) == 1


UNKNOWN: list[Json] = [
    {"type": "robot_call", "call_id": "c"},
    {"type": "robot_call", "arguments": "{}"},
    {"type": "robot_call", "action": {"type": "walk"}},
    {"type": "approval_request"},
    {"type": "thing", "call_id": "c"},
]


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "body"])
@pytest.mark.parametrize("item", UNKNOWN, ids=str)
def test_an_unknown_kind_that_may_be_a_call_is_refused(item: Json, stream: bool) -> None:
    data = written(items_events(item)) if stream else body_of(item)
    _, error = read(data, stream)
    assert isinstance(error, MalformedTurn)
    assert item["type"] in str(error)


# -- names ----------------------------------------------------------------------------------------

BAD_NAMES: list[Json] = [
    {"name": ""},
    {"name": None},
    {"name": 7},
    {"name": "b.c", "namespace": "a"},
    {"name": "f", "namespace": ["a"]},
    {"name": "\ud800"},
]


@pytest.mark.parametrize("names", BAD_NAMES, ids=str)
def test_a_name_with_two_readings_or_none_is_a_fault(names: Json) -> None:
    item = {"type": "function_call", "id": "x", "call_id": "c", "arguments": "{}", **names}
    (call,) = turn_of(body_of(item), False).calls
    assert call.fault


# -- the parallel wrapper -------------------------------------------------------------------------


def wrapper(*uses: Any, name: str = "parallel") -> Json:
    arguments = json.dumps({"tool_uses": list(uses)}, separators=(",", ":"))
    return {"type": "function_call", "id": "x", "call_id": "c", "name": name, "arguments": arguments}


READ: Json = {"recipient_name": "functions.read", "parameters": {"path": "a"}}
DROP: Json = {"recipient_name": "functions.drop", "parameters": {"table": "t"}}


@pytest.mark.parametrize("name", ["parallel", "multi_tool_use.parallel"])
def test_each_call_of_a_batch_is_judged_by_its_own_name(name: str) -> None:
    calls = turn_of(body_of(wrapper(READ, DROP, name=name)), False).calls
    assert [(c.id, c.name, c.arguments) for c in calls] == [
        ("c#0", "read", {"path": "a"}),
        ("c#1", "drop", {"table": "t"}),
    ]


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "body"])
def test_of_a_batch_those_calls_go_on_that_may_run(stream: bool) -> None:
    item = wrapper(READ, DROP)
    data = written(items_events(item)) if stream else body_of(item)
    (whole,) = view_responses.read(released(data, stream), stream).first.calls
    assert whole["arguments"] == item["arguments"]
    (left,) = view_responses.read(released(data, stream, drop=["drop"]), stream).first.calls
    assert (left["id"], loads(left["arguments"])) == ("c", {"tool_uses": [READ]})
    assert view_responses.read(released(data, stream, drop=["drop", "read"]), stream).first.calls == []


def test_a_batch_is_answered_once_for_all_its_calls() -> None:
    turn = turn_of(body_of(wrapper(READ, DROP)), False)
    request = CODEC.read(dumps({"model": "m", "input": "go"}))
    results = [ToolResult("c#0", "Not executed."), ToolResult("c#1", "Denied.")]
    *_, answer = CODEC.extend(request, turn, results, relax=False).body["input"]
    assert answer["call_id"] == "c"
    assert loads(answer["output"]) == [
        {"recipient_name": "read", "result": "Not executed."},
        {"recipient_name": "drop", "result": "Denied."},
    ]


def test_rewritten_arguments_of_a_batch_are_written_in_it() -> None:
    _, turn = read(body_of(wrapper(READ, DROP)), False)
    out = CODEC.encoder(False).release(turn, ['{"path":"b"}', turn.calls[1].arguments_json], {})
    uses = loads(loads(out)["output"][0]["arguments"])["tool_uses"]
    assert uses == [{**READ, "parameters": {"path": "b"}}, DROP]


@pytest.mark.parametrize(
    "use",
    [
        *(7, {}, {"recipient_name": 7}, {"recipient_name": "functions."}),
        *({"recipient_name": "x", "parameters": []}, {"recipient_name": "x", "command": "rm"}),
        *({"recipient_name": name, "parameters": {}} for name in ("parallel", "multi_tool_use.parallel")),
    ],
    ids=str,
)
def test_a_part_of_a_batch_without_a_reading_is_a_fault(use: Any) -> None:
    calls = turn_of(body_of(wrapper(READ, use)), False).calls
    assert calls[1].fault


def test_what_stands_in_a_batch_beside_its_calls_is_a_fault() -> None:
    item = {**wrapper(), "arguments": json.dumps({"tool_uses": [READ], "command": "rm"})}
    (call,) = turn_of(body_of(item), False).calls
    assert (call.name, call.arguments) == ("parallel", None)
    assert call.fault == "The batch holds more than its tool_uses."


def test_a_tool_that_is_only_called_parallel_is_itself() -> None:
    item = {**wrapper(), "arguments": '{"lines":2}'}
    (call,) = turn_of(body_of(item), False).calls
    assert (call.name, call.arguments) == ("parallel", {"lines": 2})
