"""The schema guard, by cases: tests/guards/cases/schema/*.yaml."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy.guards.schema import SchemaGuard
from proxy.model import OfferedTool, ToolCall
from proxy.tools import ToolSpec
from proxy.verdicts import Allow, Reask, Refusal, Repair
from tests.guards.schema_harness import calling, context, judge, offering

CASES = Path(__file__).parent / "cases" / "schema"


def load(name: str) -> list[dict[str, Any]]:
    cases: list[dict[str, Any]] = yaml.safe_load((CASES / name).read_text(encoding="utf-8"))
    return cases


def about_x(schema: Any) -> dict[str, Any]:
    """A tool with one parameter, x."""
    return {"type": "object", "properties": {"x": schema}, "$defs": {"n": {"type": "integer"}}}


@pytest.mark.parametrize("case", load("verdicts.yaml"), ids=lambda case: case["name"])
async def test_a_call_is_judged(case: dict[str, Any]) -> None:
    name = case.get("tool", "find")
    tools = {other: OfferedTool(other) for other in case.get("others", [])}
    if "schema" in case:
        offered = OfferedTool("find", case["schema"], kind=case.get("offered_kind", "function"))
        tools = {"find": offered} | tools
    spec = ToolSpec(name=name, **case["registered"]) if "registered" in case else None
    written = case["arguments_json"] if "arguments_json" in case else json.dumps(case["arguments"])
    call = ToolCall.parse("call_1", name, written, case.get("kind", "function"))
    verdict = await SchemaGuard(**case.get("guard", {})).check(call, context(name, tools, spec))
    assert verdict.name == case["verdict"], verdict
    if isinstance(verdict, Refusal):
        assert verdict.reasons[0].startswith(case.get("starts", "")), verdict
        assert verdict.reasons == (case.get("reason", verdict.reasons[0]),)
        assert verdict.type == case.get("type", verdict.type)
        assert verdict.details == case.get("details", verdict.details)


@pytest.mark.parametrize("case", load("keywords.yaml"), ids=lambda case: case["says"])
def test_every_keyword_has_its_sentence(case: dict[str, Any]) -> None:
    verdict = judge(about_x(case["schema"]), {"x": case["value"]})
    assert isinstance(verdict, Reask)
    assert verdict.type == "invalid_arguments"
    assert list(verdict.details) == [{"path": case.get("path", "/x"), "message": case["says"]}]
    assert verdict.reasons == (case["says"] if case["says"].endswith("?") else f"{case['says']}.",)


@pytest.mark.parametrize(
    "case", load("coercion.yaml"), ids=lambda case: f"{case['value']!r}-{case['schema']}"
)
def test_text_is_coerced_only_where_no_doubt_is_left(case: dict[str, Any]) -> None:
    schema, arguments = about_x(case["schema"]), {"x": case["value"], "y": 1}
    schema["properties"]["y"] = {}
    verdict = judge(schema, arguments)
    if "becomes" not in case:
        assert isinstance(verdict, Reask)
        return
    assert isinstance(verdict, Repair)
    assert verdict.arguments == {"x": case["becomes"], "y": 1}
    assert json.dumps(verdict.arguments["x"]) == json.dumps(case["becomes"])  # 1 is not true, 5 not 5.0
    assert verdict.reasons[0].startswith("Parameter x")
    assert isinstance(judge(schema, verdict.arguments), Allow)
    assert isinstance(judge(schema, arguments, SchemaGuard(coerce=False)), Reask)


def test_a_coercion_is_told() -> None:
    verdict = judge({"properties": {"limit": {"type": "integer"}}}, {"limit": "5"})
    assert verdict.reasons == ("Parameter limit coerced from string to integer",)


def test_a_coercion_that_does_not_mend_everything_is_none() -> None:
    schema = {"properties": {"limit": {"type": "integer"}, "flag": {"const": 1}}}
    verdict = judge(schema, {"limit": "5", "flag": 2})
    assert verdict.reasons == ("Parameter flag must be 1. Parameter limit must be an integer, not a string.",)
    assert isinstance(judge(schema, {"limit": "5", "unknown": 2}), Reask)


async def test_the_call_is_left_as_it_was() -> None:
    call = calling({"rows": [{"n": "1"}], "text": "a"})
    before = copy.deepcopy(call.arguments)
    schema = {"properties": {"rows": {"items": {"properties": {"n": {"type": "integer"}}}}, "text": {}}}
    verdict = await SchemaGuard().check(call, offering(schema))
    assert isinstance(verdict, Repair)
    assert verdict.arguments == {"rows": [{"n": 1}], "text": "a"}
    assert call.arguments == before


async def test_a_registered_schema_is_found_again_by_identity_and_never_mistaken() -> None:
    guard = SchemaGuard(max_schemas=2)
    for limit in range(20):  # dead schemas give their identity to new ones
        parameters = {"properties": {"n": {"maximum": limit}}}
        ctx = offering({}, ToolSpec(name="find", parameters=parameters))
        assert isinstance(await guard.check(calling({"n": limit}), ctx), Allow)
        assert isinstance(await guard.check(calling({"n": limit + 1}), ctx), Reask)
        assert isinstance(await guard.check(calling({"n": limit}), ctx), Allow)
