"""The guide to tools does what it says: its files are written, its commands run, its output compared."""

from __future__ import annotations

import contextlib
import re
import shlex
import subprocess
from pathlib import Path

import jsonschema_rs
import orjson
import pytest
import yaml
from pydantic import ValidationError
from typer.testing import CliRunner

from proxy.cli import app
from proxy.config import Settings
from proxy.schemas.lint import lint
from proxy.schemas.lint.parameters import MAX_LEVELS, MAX_PARAMETERS
from proxy.schemas.lint.together import MANY_TOOLS, MOST_TOOLS
from proxy.schemas.sources import registry
from proxy.tools import Registry, ToolSpec

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "schemas.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)[ ]?(.*)\n((?:.*\n)*?)```$", GUIDE, re.MULTILINE)
FILES = {title: text for _, title, text in BLOCKS if "/" in title or "." in title}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the guide's files."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(line: str) -> tuple[str, int]:
    if line.startswith("callgate "):
        done = CliRunner().invoke(app, shlex.split(line, comments=True)[1:])
        return done.stdout, done.exit_code
    shell = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True, timeout=10)
    return shell.stdout, 0


def test_its_commands_print_what_it_shows(place: Path) -> None:
    printed, shown = "", 0
    for _, title, text in BLOCKS:
        if title.startswith("run"):
            outputs = [run(line) for line in text.splitlines()]
            printed = "".join(out for out, _ in outputs)
            assert outputs[-1][1] == int(title.partition("exits ")[2] or 0), printed
        elif title == "output":
            shown += 1
            assert text.strip() in printed
    assert shown == 3


def test_its_tools_load_and_are_graded_a(place: Path) -> None:
    specs = Registry.load([place / "schemas" / "tools"]).specs
    assert set(specs) == {"refund_invoice", "get_invoice"}
    report = lint(registry([place / "schemas" / "tools"]).definitions)
    assert not report.findings


def test_every_key_of_a_tool_is_told() -> None:
    told = re.findall(r"^\| `(\w+)` \|.*\|.*\|$", GUIDE.partition("## Import")[0], re.MULTILINE)
    assert told == list(dict.fromkeys(told))
    assert set(told) == set(ToolSpec.model_fields)


def test_its_settings_load() -> None:
    settings = Settings.model_validate(yaml.safe_load(FILES["callgate.yaml"]))
    assert (settings.tools.pin, settings.tools.unregistered) == ("refuse", "deny")


def test_its_numbers_are_those_of_the_lint() -> None:
    table = GUIDE.partition("The codes are stable:")[2]
    for number in (MAX_PARAMETERS, MAX_LEVELS, MANY_TOOLS, MOST_TOOLS):
        assert re.search(rf"more than {number}\b", table)


SCHEMA = ROOT / "schemas" / "tool.schema.json"


def test_the_schema_of_tool_files_is_current() -> None:
    """Write it anew with: callgate schema tool > schemas/tool.schema.json."""
    done = CliRunner().invoke(app, ["schema", "tool"])
    assert done.stdout == SCHEMA.read_text()


@pytest.mark.parametrize(
    "file", sorted((ROOT / "schemas" / "tools").glob("*.yaml")), ids=lambda file: file.stem
)
def test_the_tools_that_come_with_callgate_fit_it(file: Path) -> None:
    validator = jsonschema_rs.validator_for(orjson.loads(SCHEMA.read_bytes()))
    assert [*validator.iter_errors(yaml.safe_load(file.read_text(encoding="utf-8")))] == []


@pytest.mark.parametrize(
    ("tool", "fits"),
    [
        ({"name": "t", "pin": "sha256:" + "0" * 64}, True),
        ({"name": "t", "pin": ["sha256:" + "0" * 64]}, True),
        ({"name": "t", "pin": "sha256:0"}, False),
        ({"name": "t", "colour": "red"}, False),
        ({"effect": "read"}, False),
        ({"name": "t", "effect": "reads"}, False),
    ],
)
def test_it_knows_what_the_registry_refuses(tool: dict[str, object], fits: bool) -> None:
    assert jsonschema_rs.validator_for(orjson.loads(SCHEMA.read_bytes())).is_valid(tool) is fits
    with contextlib.nullcontext() if fits else pytest.raises(ValidationError):
        ToolSpec.model_validate(tool)
