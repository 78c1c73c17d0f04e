"""The schemas of input and decision: what the proxy really asks, and what the starter policies answer."""

from __future__ import annotations

import asyncio
import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.engines.evaluating.compiling import MINIMAL_INPUT
from proxy.engines.regorus import RegorusEngine
from proxy.engines.sources.policyset import PolicySet
from proxy.gates.request import request_input
from proxy.gates.results import result_input
from proxy.gates.tools import tools_input
from proxy.guards.base import Context, Situation
from proxy.guards.policy import policy_input, read_decision
from proxy.model import History, PastCall, Principal, Request, ToolCall
from proxy.tools import Registry, tool_input
from proxy.wire.chat import ChatCodec
from tests.policies.inputs import call_inputs, request_inputs, tools_inputs

ROOT = Path(__file__).parents[2]


@cache
def validator(file: str, definition: str) -> Any:
    schema = json.loads((ROOT / "schemas" / file).read_text())
    jsonschema_rs.meta.validate(schema)
    schema["$ref"] = f"#/$defs/{definition}"
    return jsonschema_rs.validator_for(schema, validate_formats=True)


@cache
def engine() -> RegorusEngine:
    return RegorusEngine(PolicySet.load([ROOT / "policies"]))


def decide(package: str, document: dict[str, Any]) -> Any:
    return asyncio.run(engine().decide(package, document))


class Reader:
    """Stands in for a codec."""

    def history(self, body: dict[str, Any]) -> History:
        calls = (
            PastCall("call_0", "fetch_url", '{"url": "https://example.com"}', "a page", 1),
            PastCall("call_1", "get_user", "{not json", None, 1),
        )
        return History(calls=calls, query="Deploy it", turn=2)


def situation(**changes: Any) -> Situation:
    request = Request("chat", b"{}", {}, "some-model", False, 1, Reader())
    batch = (
        ToolCall.parse("call_2", "deploy_service", '{"service": "checkout"}'),
        ToolCall.parse("call_3", "delete_user", '{"a": 1, "a": 2}'),
        ToolCall.parse("call_4", "unknown", ""),
    )
    known = Registry.load([ROOT / "schemas" / "tools"])
    given = {
        "principal": Principal("alice", ("developer",), "acme", {"sub": "alice"}),
        "request": request,
        "trace_id": "t",
        "conversation_id": "c",
        "time": "2026-01-01T12:00:00.000Z",
        "batch": batch,
        "registry": known.get,
    }
    return Situation(**{**given, **changes})


@pytest.mark.parametrize("index", [0, 1, 2])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"principal": Principal("anonymous")},
        {"approval": {"approved": True, "code": "K7", "by": "bob", "time": "now", "calls": ["call_2"]}},
    ],
)
def test_what_the_proxy_asks_is_what_the_schema_says(index: int, changes: dict[str, Any]) -> None:
    asked = situation(**changes)
    call = asked.batch[index]
    document = policy_input(call, Context(asked, asked.registry(call.name), None))
    validator("policy-input.schema.json", "call_input").validate(json.loads(json.dumps(document)))
    assert document["history"]["labels"] == ["sends", "untrusted"]


def test_the_schema_refuses_what_the_proxy_does_not_ask() -> None:
    asked = situation()
    document = policy_input(asked.batch[0], Context(asked, None, None))
    check = validator("policy-input.schema.json", "call_input")
    for name in document:
        assert not check.is_valid({key: value for key, value in document.items() if key != name}), name
    assert not check.is_valid({**document, "more": 1})


def test_what_the_gates_ask_is_what_the_schema_says() -> None:
    body = {
        "model": "m",
        "messages": [{"role": "tool", "tool_call_id": "1", "content": '{"a": 1}'}],
        "tools": [{"type": "function", "function": {"name": name}} for name in ("get_user", "unknown")],
        "web_search_options": {},
    }
    request = ChatCodec().read(json.dumps(body).encode())
    asked = situation(request=request)
    (result,) = request.results
    for definition, members in {
        "request_input": request_input(request),
        "tools_input": tools_input(request, {name: asked.registry(name) for name in request.tools}),
        "result_input": {"tool": tool_input("", None), "result": result_input(result, result.content)},
    }.items():
        document = json.loads(json.dumps({**asked.policy_input, **members}))
        check = validator("policy-input.schema.json", definition)
        check.validate(document)
        for name in members:
            assert not check.is_valid({key: value for key, value in document.items() if key != name}), name


@pytest.mark.parametrize("definition", ["call_input", "tools_input", "request_input", "result_input"])
def test_policies_are_proven_on_an_input_that_the_schemas_allow(definition: str) -> None:
    left_out = {"call", "tool", "tools", "hosted", "hosted_tools", "result"} - {
        "call_input": {"call", "tool"},
        "tools_input": {"hosted", "hosted_tools", "tools"},
        "request_input": {"hosted", "hosted_tools", "tools"},
        "result_input": {"tool", "result"},
    }[definition]
    document = {key: value for key, value in MINIMAL_INPUT.items() if key not in left_out}
    faults = validator("policy-input.schema.json", definition).iter_errors(document)
    assert [str(fault) for fault in faults] == []


PACKAGES = {
    "callgate.call": ("call_input", "call_decision", call_inputs()),
    "callgate.tools": ("tools_input", "tools_decision", tools_inputs),
    "callgate.request": ("request_input", "request_decision", request_inputs),
}


@pytest.mark.parametrize("package", PACKAGES)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_whatever_is_asked_the_decision_is_what_its_schema_says(package: str, data: st.DataObject) -> None:
    asked, answered, inputs = PACKAGES[package]
    document = data.draw(inputs)
    validator("policy-input.schema.json", asked).validate(document)
    decision = decide(package, document)
    validator("policy-decision.schema.json", answered).validate(decision)
    if package == "callgate.call":
        read_decision(ToolCall.parse("1", document["call"]["name"], "{}"), decision)
        assert decision["effect"] == "allow" or decision["reasons"]


@pytest.mark.parametrize(
    "decision",
    [
        {},
        {"effect": "maybe"},
        {"effect": "allow", "reasons": "none"},
        {"effect": "allow", "obligations": {"mask": ["body"]}},
        {"effect": "allow", "obligations": {"redact": []}},
        {"effect": "allow", "more": 1},
    ],
)
def test_the_schema_refuses_what_is_no_decision(decision: dict[str, Any]) -> None:
    assert not validator("policy-decision.schema.json", "call_decision").is_valid(decision)
