"""Whatever stands in a document: the lint has an answer, and what is imported is what stood there."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy import strict_yaml
from proxy.model import dumps, loads
from proxy.schemas import openapi, yamls
from proxy.schemas.definitions import Definition, Place, read
from proxy.schemas.importing import compared, make, write
from proxy.schemas.lint import lint
from proxy.tools import Registry

Json = dict[str, Any]
WORDS = [
    *("type", "properties", "required", "items", "enum", "anyOf", "$ref", "$defs", "description", "default"),
    *("additionalProperties", "format", "name", "parameters", "input_schema", "function", "tools", "pattern"),
    *("object", "string", "integer", "#/$defs/a", "get_user", "either a or b", "date", "a", "b"),
]
TEXT = st.sampled_from(WORDS) | st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=30)
NUMBERS = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
ANYTHING = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)
SCHEMAS: st.SearchStrategy[Any] = st.recursive(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["string", "integer", "number", "boolean", "null"])},
        optional={
            "description": TEXT,
            "enum": st.lists(TEXT | NUMBERS, min_size=1, max_size=3),
            "default": ANYTHING,
            "maxLength": st.integers(0, 10),
            "pattern": st.sampled_from(["^a+$", "[0-9]{3}", "(", "\\d"]),
            "examples": st.lists(ANYTHING, max_size=2),
        },
    ),
    lambda inner: (
        st.fixed_dictionaries(
            {"type": st.just("object"), "properties": st.dictionaries(TEXT, inner, max_size=4)},
            optional={
                "required": st.lists(TEXT, max_size=3),
                "additionalProperties": st.booleans() | inner,
                "description": TEXT,
            },
        )
        | st.fixed_dictionaries({"type": st.just("array"), "items": inner})
        | st.fixed_dictionaries({"anyOf": st.lists(inner, min_size=1, max_size=3)})
    ),
    max_leaves=8,
)
PARAMETERS = st.fixed_dictionaries(
    {"type": st.just("object"), "properties": st.dictionaries(TEXT, SCHEMAS, max_size=4)},
    optional={"required": st.lists(TEXT, max_size=3), "additionalProperties": st.booleans()},
)
NAMES = st.sampled_from(["get_user", "drop.it", "con", "../../etc/passwd", ".hidden", "Get_User", "a b"])
TOOLS = st.lists(
    st.fixed_dictionaries(
        {"name": NAMES | TEXT.filter(bool), "parameters": PARAMETERS}, optional={"description": TEXT}
    ),
    min_size=1,
    max_size=4,
)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(ANYTHING, max_size=4)
    | st.fixed_dictionaries({"tools": st.lists(ANYTHING, max_size=4)})
    | ANYTHING
)
def test_whatever_a_document_holds_there_is_a_report(document: Any) -> None:
    report = lint(list(read(document, Place("tools.json"))))
    assert loads(dumps(report.fields()))["grade"] == report.grade


@settings(deadline=None, max_examples=40)
@given(TOOLS)
def test_whatever_a_tool_is_there_is_a_report(tools: list[Json]) -> None:
    report = lint(list(read(tools, Place("tools.json"))))
    assert len(report.tools) == len(tools)
    for finding in report.findings:
        assert finding.place.startswith("tools.json#/")
        assert finding.message
        if finding.fix:
            assert len(finding.fix) >= 1500 or isinstance(loads(finding.fix), dict)


@contextlib.contextmanager
def a_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "tools"


@settings(deadline=None, max_examples=20)
@given(TOOLS)
def test_what_is_imported_loads_as_it_stood(tools: list[Json]) -> None:
    definitions = list(read(tools, Place("tools.json")))
    entries, faults = make(definitions)
    last = {tool["name"]: tool for tool in tools}
    assert not faults
    with a_folder() as folder:
        for change in compared(entries, folder):
            assert change.kind == "new"
            assert change.path.parent == folder, "no name leads out of the folder"
            write(change.path, change.entry.text)
        loaded = Registry.load([folder]).specs
        assert loaded.keys() == last.keys()
        for name, tool in last.items():
            assert same(loaded[name].parameters, tool["parameters"])
            assert loaded[name].description == tool.get("description", "")
            assert set(loaded[name].pin) == {one.digest for one in definitions if one.name == name}
        assert {change.kind for change in compared(make(definitions)[0], folder)} == {"same"}


def same(one: Any, other: Any) -> bool:
    """Equal as JSON, which tells true from 1."""
    return dumps(one) == dumps(other)


@settings(deadline=None, max_examples=40)
@given(ANYTHING)
def test_yaml_reads_back_as_what_was_written(value: Any) -> None:
    text = yamls.dump(value)
    assert same(strict_yaml.load(text), value)
    assert text.replace("\n", "").isprintable()


METHODS = st.dictionaries(
    st.sampled_from(["get", "post", "delete", "parameters", "summary"]),
    st.fixed_dictionaries(
        {},
        optional={
            "operationId": TEXT,
            "summary": TEXT,
            "parameters": st.lists(
                st.fixed_dictionaries(
                    {"name": TEXT, "in": st.sampled_from(["path", "query", "header", "cookie"])},
                    optional={"schema": SCHEMAS, "required": st.booleans(), "description": TEXT},
                )
                | ANYTHING,
                max_size=3,
            ),
            "requestBody": st.fixed_dictionaries(
                {
                    "content": st.fixed_dictionaries(
                        {"application/json": st.fixed_dictionaries({"schema": SCHEMAS})}
                    )
                }
            )
            | ANYTHING,
        },
    )
    | ANYTHING,
    max_size=3,
)


@settings(deadline=None, max_examples=40)
@given(st.dictionaries(TEXT, METHODS, max_size=3), st.sampled_from(["3.0.3", "3.1.0"]))
def test_whatever_an_openapi_document_holds_what_comes_of_it_loads(paths: Json, version: str) -> None:
    found = list(openapi.operations({"openapi": version, "paths": paths}, Place("api.yaml")))
    definitions = [one for one in found if isinstance(one, Definition)]
    lint(definitions)
    entries, faults = make(definitions)
    assert len(entries) + len(faults) == len({one.name for one in definitions})
    with a_folder() as folder:
        for change in compared(entries, folder):
            write(change.path, change.entry.text)
        if entries:
            assert len(Registry.load([folder]).specs) == len(entries)
