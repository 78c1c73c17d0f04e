"""``callgate schema lint``: what it reads, prints and exits with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from proxy.record import DefinitionRecord
from tests.cli.schema_tools import FUNCTIONS, document, log, request, run
from tests.core.protocols import PROTOCOLS
from tests.sinks.conftest import make_decision

GOOD = Path(__file__).parents[2] / "schemas" / "tools"


BAD = """\
name: drop_table
effect: destructive
examples:
  - {name: 7}
parameters:
  type: object
  properties:
    name: {type: string, maxLength: 9, description: Of which table.}
"""


def seen(tool: str, definition: Any, **fields: Any) -> DefinitionRecord:
    who = {"id": "ann", "roles": [], "tenant": "", "kind": "header"}
    values = {
        "time": "2026-01-01T00:00:00Z",
        "trace_id": "t",
        "principal": who,
        "protocol": "chat",
        "event": "seen",
    }
    return DefinitionRecord(**values, tool=tool, digest=f"sha256:{tool}", definition=definition, **fields)


def bad(folder: Path) -> Path:
    """A registry of one tool with an error."""
    file = folder / "tools" / "drop_table.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(BAD)
    return file


def test_the_registry_that_comes_with_callgate() -> None:
    done = run("lint", GOOD)
    assert done.exit_code == 0
    assert "Overall: A" in done.output
    assert "delete_user" in done.output


def test_findings_with_their_place_and_fix(tmp_path: Path) -> None:
    file = bad(tmp_path)
    done = run("lint", file.parent)
    assert done.exit_code == 1
    assert f"error invalid-example  {file}:4" in done.output
    assert f"warning missing-description  {file}:1" in done.output
    assert "additionalProperties: false" in done.output
    assert "Overall: F" in done.output


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_tools_as_applications_send_them(protocol: str, tmp_path: Path) -> None:
    file = request(tmp_path, protocol)
    done = run("lint", "--tools", file, "--format", "json")
    report = orjson.loads(done.stdout)
    assert [tool["name"] for tool in report["tools"]] == [function["name"] for function in FUNCTIONS]
    assert done.exit_code == 0
    schema = {"chat": "/tools/0/function/parameters", "messages": "/tools/0/input_schema"}.get(
        protocol, "/tools/0/parameters"
    )
    places = {one["code"]: one["place"] for one in report["tools"][0]["findings"]}
    assert places["missing-range"] == f"{file}#{schema}/properties/id"
    fixes = {one["code"]: one["fix"] for one in report["tools"][0]["findings"]}
    assert orjson.loads(fixes["open-object"]) == {"additionalProperties": False}


@pytest.mark.parametrize(("least", "code"), [("A", 1), ("B", 1), ("C", 0), ("F", 0), (None, 0)])
def test_a_grade_may_be_asked_for(least: str | None, code: int, tmp_path: Path) -> None:
    tool = yaml.safe_load((GOOD / "get_user.yaml").read_text())
    del tool["description"]
    document(tmp_path / "get_user.yaml", tool)  # JSON is YAML
    done = run("lint", tmp_path / "get_user.yaml", *(["--fail-under", least] if least else []))
    assert done.exit_code == code, done.output


def test_no_such_grade_is_said() -> None:
    assert run("lint", GOOD, "--fail-under", "Z").exit_code == 2


def test_what_traffic_defined(tmp_path: Path) -> None:
    one = {"description": "Deletes.", "parameters": {"type": "object"}}
    folder = log(
        tmp_path / "audit",
        make_decision(tool="get_order"),
        seen("drop", one),
        seen("secret", None),
    )
    done = run("lint", "--log", folder, "--format", "json")
    report = orjson.loads(done.stdout)
    assert [tool["name"] for tool in report["tools"]] == ["drop"]
    assert report["tools"][0]["place"] == f"{folder}: line 2"
    assert "no definition is recorded of get_order, secret" in done.stderr
    assert "tools.record: true" in done.stderr


def test_a_log_of_several_workers(tmp_path: Path) -> None:
    definition = {"description": "READ-ONLY. Returns it.", "parameters": {"type": "object"}}
    for number in (1, 2):
        log(tmp_path / f"worker-{number}", seen(f"get_{number}", definition))
    report = orjson.loads(run("lint", "--log", tmp_path, "--format", "json").stdout)
    assert [tool["name"] for tool in report["tools"]] == ["get_1", "get_2"]


@pytest.mark.parametrize("where", ["nowhere", "."])
def test_no_log_is_said(where: str, tmp_path: Path) -> None:
    done = run("lint", "--log", tmp_path / where)
    assert done.exit_code == 1
    assert "no audit log" in done.output


def test_what_cannot_be_read_is_an_error_beside_what_can(tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("name: x\neffect: reads\n")
    done = run("lint", GOOD, tmp_path)
    assert done.exit_code == 1
    assert "broken.yaml: effect" in done.output
    assert "Overall: A" in done.output
    report = orjson.loads(run("lint", GOOD, tmp_path, "--format", "json").stdout)
    assert "broken.yaml" in report["faults"][0]


def test_what_others_wrote_cannot_speak_to_the_terminal(tmp_path: Path) -> None:
    name = "\x1b[2J[bold]x[/bold]"
    file = document(
        tmp_path / "tools.json", [{"name": name, "description": "\x1b]0;owned\x07", "parameters": {}}]
    )
    done = run("lint", "--tools", file)
    assert "\x1b" not in done.output
    assert "[bold]x[/bold]" in done.output


def test_without_a_path_it_is_the_registry_of_this_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(GOOD.parents[1])
    assert run("lint").exit_code == 0
    monkeypatch.chdir(tmp_path)
    done = run("lint")
    assert done.exit_code == 1
    assert "schemas/tools: no such file or directory" in done.output
