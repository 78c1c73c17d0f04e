"""What is written about the settings is what they are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import jsonschema_rs
import pytest
import yaml
from pydantic import BaseModel

from proxy.config import ConfigFault, SecretRef, Settings, load, settings_schema
from proxy.http.identity import ApiKeys
from tests.config.reference import PAGE, SCHEMA, tables, written

AGAIN = "run: PYTHONPATH=. .venv/bin/python tests/config/reference.py"
EXAMPLE = re.compile(r"<!-- example: (.+?) -->\n```yaml\n(.*?)```", re.DOTALL)


def examples(kind: str) -> list[str]:
    return [text for said, text in EXAMPLE.findall(PAGE.read_text(encoding="utf-8")) if said == kind]


def models(model: type[BaseModel], seen: set[type[BaseModel]]) -> Iterator[type[BaseModel]]:
    if model in seen:
        return
    seen.add(model)
    yield model
    for field in model.model_fields.values():
        for part in flat(field.annotation):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from models(part, seen)


def flat(annotation: Any) -> Iterator[Any]:
    yield annotation
    for part in get_args(annotation):
        yield from flat(part)


def test_the_schema_file_is_current() -> None:
    assert json.loads(SCHEMA.read_text(encoding="utf-8")) == settings_schema(), AGAIN


def test_the_tables_are_current() -> None:
    assert written(PAGE.read_text(encoding="utf-8")) == tables(), AGAIN


def test_every_key_is_described() -> None:
    found = list(models(Settings, set()))
    assert len(found) >= 25
    missing = [
        f"{model.__name__}.{name}"
        for model in found
        for name, field in model.model_fields.items()
        if not field.description
    ]
    assert not missing


def test_a_row_is_one_line() -> None:
    """A second line would end the table."""
    blocks = re.split(r"\n\n", tables())
    assert len(blocks) > 30
    assert all(line.startswith(("|", "###")) for block in blocks for line in block.strip().splitlines())


def test_every_key_has_a_row() -> None:
    rows = re.findall(r"^\| `([^`]+)`", tables(), re.MULTILINE)
    told = {name for row in rows for name in re.findall(r"\w+", row)}
    keys = {
        field.alias or name
        for model in set(models(Settings, set())) - {SecretRef}
        for name, field in model.model_fields.items()
    }
    assert keys <= told


@pytest.mark.parametrize("text", examples("a test loads this"))
def test_the_examples_load_and_fit_the_schema(tmp_path: Path, text: str) -> None:
    path = tmp_path / "callgate.yaml"
    path.write_text(text, encoding="utf-8")
    assert load(path, {})
    fits = jsonschema_rs.validator_for(settings_schema())
    assert not [
        error.message for error in fits.iter_errors(yaml.load(text, yaml.SafeLoader) | unquoted(text))
    ]


def unquoted(text: str) -> dict[str, Any]:
    """What YAML 1.1 reads otherwise than Callgate does."""
    return {"approvals": {"accept": ["code", "yes"]}} if "accept: [code, yes]" in text else {}


def test_the_key_file_example_is_read(tmp_path: Path) -> None:
    (text,) = examples("a test reads this as a key file")
    path = tmp_path / "keys.yaml"
    path.write_text(text, encoding="utf-8")
    assert {key.owner.id for key in ApiKeys(path)._keys.values()} == {"support-bot", "ops-agent"}


def test_the_page_has_its_examples() -> None:
    assert len(examples("a test loads this")) >= 6


SCHEMA_REFUSES = [
    {"wrokers": 1},
    {"identity": [{"path": "k"}]},
    {"identity": [{"kind": "api_keys"}]},
    {"store": {"url": "redis://h"}},
    {"upstreams": [{"auth": "sk"}]},
    {"guards": {"cache": {"mode": "off"}}},
]


@pytest.mark.parametrize("content", SCHEMA_REFUSES, ids=str)
def test_schema_and_loader_refuse_alike(tmp_path: Path, content: dict[str, Any]) -> None:
    assert not jsonschema_rs.validator_for(settings_schema()).is_valid(content)
    path = tmp_path / "callgate.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(ConfigFault):
        load(path, {})
