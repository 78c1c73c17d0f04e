"""The example tools: each has to be an example of how to describe a tool."""

from __future__ import annotations

import re
from pathlib import Path

import jsonschema_rs
import pytest
import yaml

from proxy.tools import Registry, ToolSpec

ROOT = Path(__file__).parents[2]
SPECS = Registry.load([ROOT / "schemas" / "tools"]).specs
DATA = yaml.safe_load((ROOT / "policies" / "data.yaml").read_text())


@pytest.fixture(params=sorted(SPECS))
def spec(request: pytest.FixtureRequest) -> ToolSpec:
    return SPECS[request.param]


def test_its_file_bears_its_name(spec: ToolSpec) -> None:
    assert (ROOT / "schemas" / "tools" / f"{spec.name}.yaml").exists()


def test_its_parameters_are_a_schema_that_leaves_nothing_open(spec: ToolSpec) -> None:
    assert spec.parameters is not None
    jsonschema_rs.meta.validate(spec.parameters)
    assert spec.parameters["additionalProperties"] is False
    assert spec.parameters["required"]
    for name, parameter in spec.parameters["properties"].items():
        assert len(parameter["description"]) > 3, name
        bounds = {
            "string": {"enum", "pattern", "maxLength", "format"},
            "integer": {"maximum"},
            "number": {"maximum"},
        }
        assert bounds[parameter["type"]] & set(parameter), f"{name} is not bounded"


def test_its_examples_are_valid_and_an_invented_parameter_is_not(spec: ToolSpec) -> None:
    check = jsonschema_rs.validator_for(spec.parameters, validate_formats=True)
    assert spec.examples
    for example in spec.examples:
        check.validate(example)
        assert not check.is_valid({**example, "invented": 1})


def test_its_description_says_what_it_can_and_cannot_do(spec: ToolSpec) -> None:
    assert spec.description.startswith("READ-ONLY.") == (spec.effect == "read")
    assert re.search(r"\b(cannot|CANNOT|not|no|neither)\b", spec.description)
    assert spec.status
    if spec.effect != "read":
        assert spec.confirm
        assert set(spec.confirm.show) <= set(spec.parameters["properties"])  # type: ignore[index]
        assert spec.cache is None


def test_what_it_refers_to_is_there(spec: ToolSpec) -> None:
    for parameter, path in spec.references.items():
        assert parameter in spec.parameters["properties"]  # type: ignore[index]
        values = DATA
        for part in path.split("."):
            values = values[part]
        for example in spec.examples:
            assert example.get(parameter) in (None, *values)


def test_the_tools_that_the_data_name_are_described() -> None:
    data = DATA["callgate"]
    named = {tool for role in data["roles"].values() for tool in role["tools"]} - {"*"}
    named |= {*data["read_first"], *(look["tool"] for look in data["read_first"].values())}
    named |= {*data["parallel"]["sums"], *data["mask"], *data["confirm"]["tools"]}
    assert named <= set(SPECS)
    used = {label for spec in SPECS.values() for label in spec.labels}
    assert {*data["untrusted_labels"], *data["private_labels"], "sends", "deployment"} == used


@pytest.mark.parametrize("amount", [0.01, 0.29, 1.1, 4.35, 19.9, 8.7, 1001.13, 9999.99])
def test_an_amount_may_have_cents(amount: float) -> None:
    check = jsonschema_rs.validator_for(SPECS["refund_order"].parameters)
    assert check.is_valid({"order_id": "ORD-004217", "amount": amount, "reason": "late"})
    assert not check.is_valid({"order_id": "ORD-004217", "amount": amount + 0.001, "reason": "late"})
