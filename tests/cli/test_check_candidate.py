"""``callgate check`` with a candidate, as the guide has it: its revision shown, its faults named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from proxy.cli import app
from proxy.engines.sources.policyset import PolicySet
from proxy.engines.trial.candidate import OUTCOMES
from proxy.gates.comparing import STRICTNESS

GUIDE = (Path(__file__).parents[2] / "docs" / "policies.md").read_text()
SECTION = GUIDE.partition("\n## Rollout: shadow\n")[2].partition("\n## ")[0]
(SETTINGS,) = re.findall(r"^```yaml config\n(.+?)^```$", SECTION, re.MULTILINE | re.DOTALL)
ALLOW = 'package callgate.call\n\ndecision := {"effect": "allow"}\n'
UPSTREAM = "upstreams: [{name: none, base_url: 'http://127.0.0.1:9/v1'}]\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COLUMNS", "300")
    (tmp_path / "callgate.yaml").write_text(UPSTREAM + SETTINGS)
    for name in ("policies", "policies-next"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "call.rego").write_text(ALLOW)
    return tmp_path


def check(folder: Path) -> Result:
    return CliRunner().invoke(app, ["check", "--config", str(folder / "callgate.yaml")])


def test_a_candidate_is_shown_with_its_revision(folder: Path) -> None:
    (folder / "policies-next" / "more.rego").write_text("package more\n\nx := 1\n")
    done = check(folder)
    assert done.exit_code == 0, done.output
    lines = {line.split()[0]: line for line in done.output.splitlines() if line.strip()}
    assert PolicySet.load([folder / "policies-next"]).revision[:16] in lines["candidate"]
    assert PolicySet.load([folder / "policies"]).revision[:16] in lines["policies"]


FAULTS = {
    "syntax": ("package callgate.call\n\ndecision := {", "call.rego:3"),
    "builtin": ('package callgate.call\n\ndecision := http.send({"url": "x"})\n', "http.send"),
}


@pytest.mark.parametrize(("rego", "fault"), FAULTS.values(), ids=FAULTS)
def test_faults_are_named(folder: Path, rego: str, fault: str) -> None:
    (folder / "policies-next" / "call.rego").write_text(rego)
    done = check(folder)
    assert done.exit_code == 1
    assert "The candidate policies have faults" in done.output
    assert fault in done.output


def test_a_folder_that_is_not_there_is_a_fault(folder: Path) -> None:
    (folder / "policies-next" / "call.rego").unlink()
    (folder / "policies-next").rmdir()
    done = check(folder)
    assert done.exit_code == 1
    assert "no such file or directory" in done.output


def test_an_opa_server_has_no_candidate_here(folder: Path) -> None:
    settings = SETTINGS.replace("policies:\n", "policies:\n  engine: opa\n")
    (folder / "callgate.yaml").write_text(UPSTREAM + settings)
    done = check(folder)
    assert done.exit_code == 1
    assert "candidate is for the embedded engine" in done.output


def test_the_guide_names_every_outcome_and_the_order_of_effects() -> None:
    table = re.findall(r"^\| (`.+?) \|", SECTION, re.MULTILINE)
    assert re.findall(r"`(\w+)`", " ".join(table)) == list(OUTCOMES)
    assert ", ".join(f"`{effect}`" for effect in STRICTNESS) in SECTION
