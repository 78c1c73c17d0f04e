"""Tools out of OpenAPI documents: the cases of openapi.yaml, and documents that would never end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from proxy import strict_yaml
from proxy.schemas import yamls
from proxy.schemas.definitions import Definition, Place
from proxy.schemas.importing import compared, make, write
from proxy.schemas.openapi import OpenApiFault, operations
from proxy.schemas.sources import collect
from proxy.tools import Registry

Json = dict[str, Any]
CASES = strict_yaml.load((Path(__file__).parent / "openapi.yaml").read_text(encoding="utf-8"))


def document_of(case: Json) -> Json:
    item = {"parameters": case.get("shared", []), case.get("method", "post"): case["operation"]}
    return {
        "openapi": case.get("version", "3.0.3"),
        "info": {"title": "Things", "version": "1"},
        "paths": {case.get("path", "/things"): item},
        "components": case.get("components", {}),
    }


@pytest.mark.parametrize("suffix", ["json", "yaml"])
@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_case(case: Json, suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"api.{suffix}"
    document = document_of(case)
    file.write_bytes(orjson.dumps(document) if suffix == "json" else yamls.dump(document).encode())
    found = collect([file])
    if "fault" in case:
        assert not found.definitions
        (fault,) = found.faults
        assert case["fault"] in fault
        assert fault.startswith(str(file))
        return
    assert not found.faults
    entries, faults = make(found.definitions)
    assert not faults
    for change in compared(entries, tmp_path / "tools"):
        write(change.path, change.entry.text)
    (spec,) = Registry.load([tmp_path / "tools"]).specs.values()
    assert {key: getattr(spec, key) for key in case.get("tool", {})} == case.get("tool", {})
    if "parameters" in case:
        sort = orjson.OPT_SORT_KEYS
        assert orjson.dumps(spec.parameters, option=sort) == orjson.dumps(case["parameters"], option=sort)
    assert not spec.pin, "nobody has sent this to a model"


def one(document: Json) -> Definition | OpenApiFault:
    (found,) = operations(document, Place("api.yaml"))
    return found


def referring(schemas: Json) -> Json:
    operation = {"parameters": [{"name": "x", "in": "query", "schema": {"$ref": "#/components/schemas/s0"}}]}
    return {"openapi": "3.1.0", "paths": {"/": {"get": operation}}, "components": {"schemas": schemas}}


def test_references_that_would_fill_the_memory_are_referred_to() -> None:
    twice = {
        f"s{n}": {
            "type": "object",
            "properties": {side: {"$ref": f"#/components/schemas/s{n + 1}"} for side in "lr"},
        }
        for n in range(40)
    }
    made = one(referring(twice | {"s40": {"type": "string"}}))
    assert isinstance(made, Definition)
    assert len(made.tool.parameters["$defs"]) == 41
    assert len(orjson.dumps(made.tool.parameters)) < 10_000


def test_a_chain_of_references_that_is_too_long_is_a_fault() -> None:
    chain = {f"s{n}": {"not": {"$ref": f"#/components/schemas/s{n + 1}"}} for n in range(1500)}
    made = one(referring(chain | {"s1500": {"type": "string"}}))
    assert isinstance(made, OpenApiFault)
    assert "too large, or nested too deeply" in str(made)


def test_a_schema_that_is_nested_too_deeply_is_a_fault() -> None:
    deep: Json = {"type": "string"}
    for _ in range(100):
        deep = {"not": deep}
    made = one(referring({"s0": deep}))
    assert isinstance(made, OpenApiFault)


def test_a_fault_of_one_operation_leaves_the_others(tmp_path: Path) -> None:
    document = document_of({"operation": {"operationId": "good"}})
    document["paths"]["/bad"] = {"get": {"parameters": [{"name": "x", "in": "body"}]}}
    found = collect([_written(tmp_path, document)])
    assert [tool.name for tool in found.definitions] == ["good"]
    assert len(found.faults) == 1


@pytest.mark.parametrize(
    ("document", "said"),
    [({"swagger": "2.0"}, "convert it to OpenAPI 3"), ({"openapi": "4.0.0"}, "OpenAPI 4.0.0 cannot be read")],
)
def test_other_versions_are_said(document: Json, said: str, tmp_path: Path) -> None:
    (fault,) = collect([_written(tmp_path, document)]).faults
    assert said in fault


def _written(folder: Path, document: Json) -> Path:
    file = folder / "api.json"
    file.write_bytes(orjson.dumps(document))
    return file
