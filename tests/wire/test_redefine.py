"""``redefine`` on every API: what is told of a definition, what another leaves, what ``strict`` takes."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.model import OfferedTool, Request, dumps
from proxy.tools import definition_digest
from proxy.wire.redefining import Redefinition
from tests.core.protocols import PROTOCOLS

Json = dict[str, Any]
EVERY_API = pytest.mark.parametrize("protocol", PROTOCOLS)
SCHEMA: Json = {"type": "object", "properties": {"id": {"type": "string"}}}
OURS = Redefinition("Ours.", SCHEMA)


def offering(*definitions: Json, protocol: str = "chat", **more: Any) -> Request:
    """A request that offers these functions."""
    spoken = PROTOCOLS[protocol]
    return spoken.codec.read(dumps(spoken.request({"tools": list(definitions), **more}, False)))


def told(request: Request) -> list[OfferedTool]:
    """What ``redefine`` tells of each definition."""
    seen: list[OfferedTool] = []
    assert request.reader.redefine(request, seen.append) is request
    return seen


def redefined(request: Request, new: Redefinition | None = OURS, only: str | None = None) -> Request:
    def define(tool: OfferedTool) -> Redefinition | None:
        return new if only in (None, tool.name) else None

    changed: Request = request.reader.redefine(request, define)
    return changed


@EVERY_API
def test_only_what_is_said_changes(protocol: str) -> None:
    request = offering(
        {"name": "a", "description": "Theirs.", "strict": True}, {"name": "b"}, protocol=protocol
    )
    changed = redefined(request, Redefinition(description="Ours."), only="a")
    before, after = told(request), told(changed)
    assert [(tool.name, tool.description) for tool in after] == [("a", "Ours."), ("b", "")]
    assert [tool.parameters for tool in after] == [tool.parameters for tool in before]
    assert b'"strict":true' in changed.raw
    assert list(changed.body) == list(request.body)
    assert changed.raw == orjson.dumps(changed.body)
    assert changed.tools["a"].description == "Ours.", "guards see what the model is shown"


@EVERY_API
def test_a_choice_among_tools_stays(protocol: str) -> None:
    choice = {"type": "function", "function": {"name": "a"}}
    request = offering({"name": "a"}, protocol=protocol, tool_choice=choice)
    assert redefined(request).body["tool_choice"] == request.body["tool_choice"]


@EVERY_API
def test_the_tools_of_the_provider_are_not_told(protocol: str) -> None:
    hosted = {"type": "web_search_20250305", "name": "web_search"}
    body = PROTOCOLS[protocol].request({"tools": [{"name": "a"}]}, False)
    body["tools"].append(hosted)
    request = PROTOCOLS[protocol].codec.read(orjson.dumps(body))
    assert [tool.name for tool in told(request)] == ["a"]
    assert redefined(request).body["tools"][1] == hosted


@EVERY_API
def test_a_request_without_tools_is_left_alone(protocol: str) -> None:
    spoken = PROTOCOLS[protocol]
    for tools in ({}, {"tools": []}, {"tools": None}):
        request = spoken.codec.read(orjson.dumps(spoken.request({}, False) | tools))
        assert redefined(request) is request


def closed(**properties: Any) -> Json:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


TEXT_SCHEMA: Json = {"type": "string"}


@pytest.mark.parametrize(
    ("schema", "openai", "anthropic"),
    [
        (None, True, True),
        (closed(), True, True),
        (closed(a=TEXT_SCHEMA), True, True),
        (closed(a={"type": "string", "format": "date", "enum": ["x"], "description": "d"}), True, True),
        (closed(a={"anyOf": [TEXT_SCHEMA, {"type": "null"}]}), True, True),
        (closed(a={"type": "array", "items": closed(b=TEXT_SCHEMA)}), True, True),
        ({**closed(a={"$ref": "#/$defs/b"}), "$defs": {"b": closed(c=TEXT_SCHEMA)}}, True, True),
        ({**closed(a=TEXT_SCHEMA), "required": []}, False, True),
        (closed(a={"type": "integer", "minimum": 1}), True, False),
        (closed(a={"type": "array", "items": TEXT_SCHEMA, "maxItems": 3}), True, False),
        (closed(a={"type": "string", "maxLength": 3}), False, False),
        (closed(a={"type": "string", "format": "uri"}), False, False),
        (closed(a={"type": "string", "default": "x"}), False, False),
        (closed(a={"oneOf": [TEXT_SCHEMA]}), False, False),
        (closed(a={"type": "object"}), False, False),
        ({"type": "object", "properties": {}}, False, False),
        ({**closed(), "$defs": {"b": {"type": "object", "properties": {}}}}, False, False),
        ({**closed(), "$defs": []}, False, False),
        ({**closed(), "properties": []}, False, False),
        (closed(a=True), False, False),
    ],
)
def test_what_strict_can_take(schema: Json | None, openai: bool, anthropic: bool) -> None:
    new = Redefinition(parameters=schema)
    assert new.fits_openai_strict is openai
    assert new.fits_anthropic_strict is anthropic


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
DEFINITIONS = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["get_user", "drop"]),
        "description": TEXT,
        "parameters": st.fixed_dictionaries({"type": st.just("object")}, optional={"properties": JSON}),
    },
    optional={"strict": st.booleans(), "note": JSON},
)


@settings(deadline=None)
@given(st.lists(DEFINITIONS, max_size=4))
def test_a_digest_is_the_same_whatever_the_api(definitions: list[Json]) -> None:
    digests = [
        [definition_digest(tool) for tool in told(offering(*definitions, protocol=name))]
        for name in PROTOCOLS
    ]
    assert digests[0] == digests[1] == digests[2]
    assert len(digests[0]) == len(definitions)


@settings(deadline=None)
@given(DEFINITIONS, DEFINITIONS)
def test_definitions_that_read_otherwise_have_other_digests(one: Json, other: Json) -> None:
    def read_by_the_model(definition: Json) -> bytes:
        more = definition.get("note")
        flag = more is None or isinstance(more, bool | int)
        said = {key: value for key, value in definition.items() if key not in ("strict", "note")}
        return json.dumps([said, None if flag else more], sort_keys=True).encode()

    (first,), (second,) = told(offering(one)), told(offering(other))
    same = read_by_the_model(one) == read_by_the_model(other)
    assert (definition_digest(first) == definition_digest(second)) is same


@settings(deadline=None)
@given(st.lists(DEFINITIONS, min_size=1, max_size=4), st.sampled_from(sorted(PROTOCOLS)))
def test_redefining_twice_is_redefining_once(definitions: list[Json], protocol: str) -> None:
    request = offering(*definitions, protocol=protocol)
    once = redefined(request)
    assert [(tool.description, tool.parameters, tool.more) for tool in told(once)] == [
        ("Ours.", SCHEMA, None) for _ in definitions
    ]
    assert redefined(once) is once
    assert redefined(request).raw == once.raw, "what is cached of it holds"
