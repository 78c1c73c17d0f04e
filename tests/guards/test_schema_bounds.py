"""What hostile schemas and arguments may cost: time, memory, and words."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

import pytest

from proxy.guards._validators import MAX_SCHEMA_BYTES, SchemaRefused, Validators
from proxy.guards.schema import SchemaGuard
from proxy.model import OfferedTool, ToolCall
from proxy.verdicts import Allow, Deny, Reask, Refusal
from tests.guards.schema_harness import context, judge

# Far above what a bounded check takes on a busy machine, far below what each of these would take unbounded.
LIMIT_S = 5.0
MAX_RESULT_BYTES = 1536


def chain(keyword: str, length: int) -> dict[str, Any]:
    """Each definition asks twice for the next: 2^length steps."""
    definitions: dict[str, Any] = {
        f"a{i}": {keyword: [{"$ref": f"#/$defs/a{i + 1}"}] * 2} for i in range(length)
    }
    definitions[f"a{length}"] = {"type": "integer"}
    return {"properties": {"x": {"$ref": "#/$defs/a0"}}, "$defs": definitions}


def unevaluated(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"properties": {"x": True}}
    for _ in range(levels):
        schema = {"allOf": [schema], "unevaluatedProperties": False}
    return schema


def nested(value: Any, levels: int, key: str = "x") -> Any:
    for _ in range(levels):
        value = {key: value}
    return value


TWICE_A_LEVEL = {
    "$ref": "#/$defs/a",
    "$defs": {
        "a": {
            "properties": {"x": {"$ref": "#/$defs/a"}, "z": {"type": "integer"}},
            "patternProperties": {"^x": {"$ref": "#/$defs/a"}},
        }
    },
}
BACKTRACKING = {"properties": {"x": {"pattern": "^(?=a)(a|aa)+\\1$"}}}
FAT = {"properties": {"x": {"pattern": "^(([ab]{1,80}){1,80})*c"}}}
MANY = {"properties": {"x": {"items": {"enum": [f"v{i}" for i in range(20000)] + [1]}}}}
NAMES = {f"p{i}": {"pattern": f"^([ab]{{{i + 200}}}){{100}}"} for i in range(500)}

EXPENSIVE: dict[str, tuple[Any, Any, type[Refusal]]] = {
    "allOf doubles": (chain("allOf", 60), {"x": 1}, Reask),
    "anyOf doubles": (chain("anyOf", 60), {"x": "a"}, Reask),
    "oneOf doubles": (chain("oneOf", 60), {"x": 1}, Reask),
    "errors of alternatives double": (chain("anyOf", 10), {"x": "a"}, Reask),
    "unevaluatedProperties begins again": (unevaluated(25), {"x": 1}, Deny),
    "twice a level": (TWICE_A_LEVEL, nested({"z": "a"}, 40), Reask),
    "a wide pattern on long text": (FAT, {"x": "ab" * 50_000}, Reask),
    "backtracking": (BACKTRACKING, {"x": "a" * 60 + "!"}, Reask),
    "backtracking on long text": (BACKTRACKING, {"x": "a" * 100_000 + "!"}, Reask),
    "linear where it looks exponential": (
        {"properties": {"x": {"pattern": "^(a+)+$"}}},
        {"x": "a" * 99 + "!"},
        Reask,
    ),
    "a long enum for each of many items": (MANY, {"x": ["v19999"] * 20_000}, Reask),
    "fat patterns": ({"properties": NAMES}, {}, Deny),
    "many patterns": ({"properties": {f"p{i}": {"pattern": f"^{i}"} for i in range(600)}}, {}, Deny),
    "deep": ({"properties": nested({}, 130, "properties")}, {}, Deny),
    "nested nots": (nested({}, 200, "not"), {}, Deny),
    "long": ({"properties": {f"parameter{i}": {} for i in range(30_000)}}, {}, Deny),
    "a long chain of references": (
        {
            "$ref": "#/$defs/0",
            "$defs": {str(i): {"$ref": f"#/$defs/{i + 1}"} for i in range(5000)} | {"5000": {}},
        },
        {},
        Deny,
    ),
    "many errors": ({"properties": {"x": {"items": {"type": "integer"}}}}, {"x": ["a"] * 10_000}, Reask),
    "many errors at once": ({"required": [f"p{i}" for i in range(10_000)]}, {}, Reask),
    "many errors of alternatives": (
        {"properties": {"x": {"items": {"anyOf": [{"type": "integer"}, {"type": "null"}]}}}},
        {"x": ["a"] * 100_000},
        Reask,
    ),
    "huge names": (
        {"properties": {"x": {}}},
        {'"\u0001\\\u2028' * 20_000 + str(i): 1 for i in range(12)},
        Reask,
    ),
    "huge values": ({"properties": {"x": {"enum": [1]}}}, {"x": '"\u0001\\\u2028' * 20_000}, Reask),
    "huge names below": (
        {"properties": {"x": {"additionalProperties": {"type": "integer"}}}},
        {"x": {'"~/\u0001' * 5000 + str(i): "a" for i in range(12)}},
        Reask,
    ),
    "a large value in many errors": (
        {"allOf": [{"properties": {"x": {"type": "integer", "pattern": "b"}}}] * 500},
        {"x": "y" * 500_000},
        Reask,
    ),
}


@pytest.mark.parametrize("name", EXPENSIVE)
def test_what_would_take_long_is_refused_in_time_and_in_few_words(name: str) -> None:
    schema, arguments, kind = EXPENSIVE[name]
    began = time.perf_counter()
    verdict = judge(schema, arguments)
    assert time.perf_counter() - began < LIMIT_S
    assert type(verdict) is kind
    assert isinstance(verdict, Refusal)
    assert verdict.reasons[0]
    assert len(verdict.content().encode()) < MAX_RESULT_BYTES
    assert len(verdict.details) <= 8


@pytest.mark.parametrize("name", ["é" * 10_000, '"\u0001\\' * 10_000])
async def test_long_names_stay_short(name: str) -> None:
    tools = {f"{i}{name}": OfferedTool(f"{i}{name}") for i in range(50)}
    twice = json.dumps(name)
    for call in (
        ToolCall.parse("call_1", "zzz", "{}"),
        ToolCall.parse("call_1", name, "{}"),
        ToolCall.parse("call_1", name, f"{{{twice}:1,{twice}:2}}"),
    ):
        verdict = await SchemaGuard().check(call, context(call.name, tools))
        assert isinstance(verdict, Reask)
        assert len(verdict.content().encode()) < MAX_RESULT_BYTES


TREE = {"properties": {"v": {"type": "integer"}, "kids": {"items": {"$ref": "#"}}}}
FILTER = {
    "$ref": "#/$defs/f",
    "$defs": {
        "f": {
            "anyOf": [
                {"properties": {"and": {"items": {"$ref": "#/$defs/f"}}}, "required": ["and"]},
                {"properties": {"or": {"items": {"$ref": "#/$defs/f"}}}, "required": ["or"]},
                {"properties": {"not": {"$ref": "#/$defs/f"}}, "required": ["not"]},
                {"properties": {"field": {"type": "string"}}, "required": ["field"]},
            ]
        }
    },
}
PASSWORD = {"properties": {"x": {"pattern": "^(?=.*\\d)(?=.*[a-z])(?=.*[A-Z]).{8,64}$"}}}
ORDINARY: dict[str, tuple[Any, Any]] = {
    "a deep tree": (TREE, {"v": 1, "kids": [nested({"v": 1}, 100, "x"), {"v": 1, "kids": [{"v": 2}] * 500}]}),
    "a deep filter": (FILTER, nested({"field": "a"}, 60, "not")),
    "a long text": (
        {"properties": {"path": {"pattern": "^[^*?]+$"}, "text": {}}},
        {"path": "a", "text": "b," * 400_000},
    ),
    "a long list": ({"properties": {"x": {"items": {"type": "integer"}}}}, {"x": list(range(50_000))}),
    "look-around on short text": (PASSWORD, {"x": "Correct1Horse2Battery3Staple4"}),
    "a recursive dynamic reference": (
        {"$dynamicAnchor": "n", "properties": {"x": {"$dynamicRef": "#n"}}, "additionalProperties": False},
        nested({}, 30),
    ),
    "the same definition many times": (
        {
            "properties": {f"p{i}": {"$ref": "#/$defs/n"} for i in range(1000)},
            "$defs": {"n": {"type": "integer"}},
        },
        {f"p{i}": i for i in range(1000)},
    ),
}


@pytest.mark.parametrize("name", ORDINARY)
def test_what_is_only_large_passes(name: str) -> None:
    schema, arguments = ORDINARY[name]
    assert judge(schema, arguments) == Allow()


def test_no_schema_opens_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/schema"
        for schema in (
            {"$ref": url},
            {"$schema": url},
            {"$dynamicRef": f"{url}#a"},
            {"$id": url, "$ref": "other"},
            {"$defs": {"a": {"$ref": url}}},
            {"$id": url, "properties": {"a": {"$id": "sub", "$ref": "../x"}}},
        ):
            assert isinstance(judge(schema, {}), Deny), schema
        with pytest.raises(TimeoutError):
            server.accept()


def test_an_address_in_a_schema_is_only_a_name() -> None:
    schema = {"$id": "http://127.0.0.1:9/root", "properties": {"n": {"$ref": "root#/$defs/n"}}}
    schema["$defs"] = {"n": {"type": "integer"}}
    assert judge(schema, {"n": 1}) == Allow()
    assert isinstance(judge(schema, {"n": []}), Reask)


def numbered(number: int, padding: int = 0) -> dict[str, Any]:
    return {"properties": {"n": {"const": number}}, "description": "x" * padding}


def test_the_cache_keeps_so_many() -> None:
    validators = Validators(max_schemas=8)
    for number in range(50):
        validators.get(numbered(number))
        assert len(validators) <= 8
    kept = validators.get(numbered(49))
    assert validators.get(numbered(49)) is kept
    assert validators.get(numbered(0)) is not kept


def test_the_cache_keeps_so_much() -> None:
    validators = Validators(max_schemas=1000, max_bytes=1_000_000)
    for number in range(50):
        validators.get(numbered(number, padding=4000))
    assert len(validators) <= 4  # about 60 bytes of memory for each byte of schema
    validators.get(numbered(1, padding=100_000))  # larger than the cache: used, not kept
    assert len(validators) <= 4


def test_what_is_refused_is_remembered_too() -> None:
    validators = Validators(max_schemas=8)
    for _ in range(3):
        with pytest.raises(SchemaRefused, match="valid JSON Schema"):
            validators.get({"type": "nonsense"})
    assert len(validators) == 1


def test_a_schema_is_as_long_as_it_may_be() -> None:
    overhead = len('{"description":""}')
    validators = Validators(max_schemas=8)
    assert validators.get({"description": "x" * (MAX_SCHEMA_BYTES - overhead)})
    with pytest.raises(SchemaRefused, match="longer than"):
        validators.get({"description": "x" * (MAX_SCHEMA_BYTES - overhead + 1)})


def test_a_guard_may_keep_a_single_schema() -> None:
    guard = SchemaGuard(max_schemas=1)
    for number in (1, 2, 1):
        assert judge(numbered(number), {"n": number}, guard) == Allow()
