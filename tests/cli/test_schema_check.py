"""``callgate check`` says which tools are pinned, and which the model reads in the registry's words."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner

from proxy.cli import app

PIN = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("tools", "said"),
    [
        ({}, "2 registered, others: validate, 1 shown in the registry's words"),
        ({"pin": "refuse"}, "1 shown in the registry's words, 1 pinned (refuse)"),
        ({"override": True, "unregistered": "deny"}, "others: deny, 2 shown in the registry's words"),
    ],
)
def test_what_is_done_about_definitions(tools: dict[str, object], said: str, tmp_path: Path) -> None:
    folder = tmp_path / "tools"
    folder.mkdir()
    for spec in ({"name": "a", "override": True}, {"name": "b", "pin": PIN}):
        (folder / f"{spec['name']}.yaml").write_bytes(orjson.dumps(spec))
    config = tmp_path / "callgate.yaml"
    config.write_bytes(orjson.dumps({"tools": {"paths": [str(folder)], **tools}}))
    done = CliRunner().invoke(app, ["check", "--config", str(config)])
    assert done.exit_code == 0, done.output
    assert said in " ".join(done.output.split())


def test_a_pin_that_is_none_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("name: a\npin: md5:0\n")
    config = tmp_path / "callgate.yaml"
    config.write_bytes(orjson.dumps({"tools": {"paths": [str(tmp_path / "a.yaml")]}}))
    done = CliRunner().invoke(app, ["check", "--config", str(config)])
    assert done.exit_code == 1
    assert "pin" in done.output


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"type": "object", "properties": {"a": {"type": "txt"}}}, "is not valid JSON Schema"),
        ({"type": "object", "properties": {"a": {"$ref": "https://example.com/a"}}}, "the schema"),
        ({"type": "object", "properties": {"a": {"pattern": "("}}}, "the schema"),
    ],
    ids=["no type", "elsewhere", "no pattern"],
)
def test_a_schema_that_could_judge_no_call_is_a_fault(
    parameters: dict[str, object], said: str, tmp_path: Path
) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes(orjson.dumps({"name": "a", "parameters": parameters}))
    config = tmp_path / "callgate.yaml"
    config.write_bytes(orjson.dumps({"tools": {"paths": [str(file)]}}))
    done = CliRunner().invoke(app, ["check", "--config", str(config)])
    assert done.exit_code == 1
    assert f"{file}: parameters: the schema" in done.output.replace("\n", "")
    assert said in done.output
