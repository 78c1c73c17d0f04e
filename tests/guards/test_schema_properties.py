"""What holds of the schema guard for every schema and every call."""

from __future__ import annotations

import asyncio
import copy
import json
from typing import Any

import jsonschema_rs
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.guards.schema import SchemaGuard
from proxy.verdicts import Allow, Deny, Reask, Refusal, Repair
from tests.guards.schema_harness import calling, judge, offering

GUARD = SchemaGuard()
STRICT = SchemaGuard(coerce=False, unknown_parameters="allow")

names = st.sampled_from(["a", "b", "c", "~/", "anyOf"])
numbers = st.integers(-3, 3) | st.sampled_from([0.5, 1.0, 1e300])
texts = st.sampled_from(
    ["", "a", "ab", "1", "-2", "1.5", "true", "null", "[1]", '{"a": 1}', "é", "2024-01-01"]
)
scalars = st.none() | st.booleans() | numbers | texts
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
arguments = st.dictionaries(names, values, max_size=4)

types = st.sampled_from(["null", "boolean", "object", "array", "number", "string", "integer"])
small = st.integers(0, 3)


def some_of(keywords: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    """A schema of up to three of these keywords."""
    pairs = st.one_of([st.tuples(st.just(keyword), value) for keyword, value in keywords.items()])
    return st.lists(pairs, max_size=3).map(dict)


leaves = st.booleans() | some_of(
    {
        "type": types | st.lists(types, min_size=1, max_size=3, unique=True),
        "enum": st.lists(scalars, min_size=1, max_size=3),
        "const": values,
        "minimum": numbers,
        "exclusiveMaximum": numbers,
        "multipleOf": st.sampled_from([1, 2, 0.5]),
        "minLength": small,
        "maxLength": small,
        "pattern": st.sampled_from(["^a", "b$", "^-?\\d+$", "^.?$", "^(?!a)"]),
        "format": st.sampled_from(["date", "uuid", "ipv4", "unknown"]),
        "required": st.lists(names, max_size=2, unique=True),
        "minProperties": small,
        "maxProperties": small,
        "minItems": small,
        "maxItems": small,
        "uniqueItems": st.booleans(),
        "$ref": st.sampled_from(["#", "#/$defs/d", "#n"]),
    }
)


def composed(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several = st.lists(inner, min_size=1, max_size=3)
    named = st.dictionaries(names, inner, max_size=3)
    return some_of(
        {
            "type": types,
            "properties": named,
            "patternProperties": st.dictionaries(st.sampled_from(["^a", "b|c"]), inner, max_size=1),
            "additionalProperties": inner,
            "unevaluatedProperties": inner,
            "propertyNames": inner,
            "dependentSchemas": named,
            "dependentRequired": st.dictionaries(names, st.lists(names, max_size=2, unique=True), max_size=2),
            "items": inner,
            "prefixItems": several,
            "contains": inner,
            "maxContains": small,
            "unevaluatedItems": inner,
            "allOf": several,
            "anyOf": several,
            "oneOf": several,
            "not": inner,
            "if": inner,
            "then": inner,
            "else": inner,
        }
    )


@st.composite
def schemas(draw: st.DrawFn) -> Any:
    inner = st.recursive(leaves, composed, max_leaves=8)
    schema = draw(composed(inner))
    schema["$defs"] = {"d": draw(inner), "n": {"$anchor": "n", "type": ["integer", "object"]}}
    return schema


@settings(max_examples=100, deadline=None)
@given(schemas(), arguments)
def test_what_is_allowed_is_what_is_valid(schema: Any, arguments: Any) -> None:
    verdict = judge(schema, arguments, STRICT)
    if isinstance(verdict, Deny):  # look-around where giving up could open the door, or too costly
        assert "cannot be used" in verdict.reasons[0]
        return
    valid = jsonschema_rs.Draft202012Validator(schema, validate_formats=True).is_valid(arguments)
    assert isinstance(verdict, Allow if valid else Reask)


def means_the_same(written: Any, read: Any) -> bool:
    """Whether ``read`` is ``written``, but for text that was replaced by the value that it spells."""
    if isinstance(written, str) and not isinstance(read, str):
        return bool(json.loads(written) == read and type(json.loads(written)) is type(read))
    if isinstance(written, dict) and isinstance(read, dict):
        return list(written) == list(read) and all(means_the_same(written[key], read[key]) for key in written)
    if isinstance(written, list) and isinstance(read, list):
        return len(written) == len(read) and all(map(means_the_same, written, read))
    return type(written) is type(read) and bool(written == read)


@st.composite
def misspelled(draw: st.DrawFn) -> tuple[Any, Any]:
    """A schema, and arguments for it of which many are text."""
    kinds = draw(st.dictionaries(names, types, min_size=1, max_size=3))
    given = {name: draw(SPELLED[kind] | texts | values) for name, kind in kinds.items()}
    schema: Any = {"properties": {name: {"type": kind} for name, kind in kinds.items()}}
    if draw(st.booleans()):
        return {"properties": {"x": {"items": schema}}}, {"x": [given]}
    return schema, given


SPELLED: dict[str, st.SearchStrategy[Any]] = {
    "null": st.just("null"),
    "boolean": st.sampled_from(["true", "false", "True"]),
    "integer": st.integers().map(str) | st.integers(-9, 9).map(str),
    "number": st.floats().map(repr) | st.decimals(allow_nan=False, places=4).map(str),
    "string": texts,
    "array": st.lists(values, max_size=3).map(json.dumps),
    "object": st.dictionaries(names, values, max_size=3).map(json.dumps),
}


@settings(max_examples=300, deadline=None)
@given(misspelled())
def test_a_repair_changes_no_meaning_and_is_valid(case: tuple[Any, Any]) -> None:
    schema, arguments = case
    call = calling(arguments)
    before = copy.deepcopy(call.arguments)
    verdict = asyncio.run(GUARD.check(call, offering(schema)))
    assert call.arguments == before
    if isinstance(verdict, Repair):
        assert verdict.arguments != before
        assert means_the_same(before, verdict.arguments)
        assert judge(schema, verdict.arguments, GUARD) == Allow()


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(names, st.integers().map(str), min_size=1, max_size=4))
def test_integers_are_repaired_or_refused(arguments: dict[str, str]) -> None:
    schema = {"properties": {name: {"type": "integer"} for name in arguments}}
    verdict = judge(schema, arguments, GUARD)
    if all(abs(int(text)) < 2**53 for text in arguments.values()):
        assert isinstance(verdict, Repair)
        assert verdict.arguments == {name: int(text) for name, text in arguments.items()}
    else:
        assert isinstance(verdict, Reask)


KEYWORDS = """
    $ref $dynamicRef $recursiveRef $id id $anchor $dynamicAnchor $schema $defs definitions type enum const
    properties patternProperties additionalProperties unevaluatedProperties propertyNames required minimum
    multipleOf pattern format items prefixItems contains unevaluatedItems allOf anyOf oneOf not if then else
    dependentSchemas dependentRequired dependencies minLength minContains uniqueItems x
"""
keywords = st.sampled_from(KEYWORDS.split())
references = st.sampled_from(
    [
        "#",
        "#/x",
        "#a",
        "a",
        "/a",
        "http://[",
        "http://127.0.0.1:9/",
        "file:///etc/passwd",
        "urn:x",
        "#/%zz/~9",
        "(?=a)b",
        "(",
    ]
)
anything = st.recursive(
    scalars | references | st.text(max_size=5) | st.integers() | st.floats(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(keywords, inner, max_size=4)
        | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=15,
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(keywords, anything, max_size=6) | anything, st.dictionaries(st.text(), values))
def test_whatever_the_schema_there_is_a_short_verdict(schema: Any, arguments: Any) -> None:
    verdict = judge(schema, arguments, GUARD)
    assert isinstance(verdict, Allow | Repair | Reask | Deny)
    assert sum(map(len, verdict.reasons)) < 1500
    if isinstance(verdict, Refusal):
        assert verdict.reasons[0]
        assert len(verdict.content().encode()) < 1536
        assert judge(schema, arguments, SchemaGuard()).reasons == verdict.reasons  # and always the same
