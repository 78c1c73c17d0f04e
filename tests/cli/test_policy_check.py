"""``callgate policy check``: every fault with its place, or what would be in force."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from proxy.cli import app
from proxy.engines.sources.policyset import PolicySet

POLICIES = Path(__file__).parents[2] / "policies"
GOOD = 'package callgate.call\n\ndecision := {"effect": "allow"} if input.principal.id in data.known\n'


def check(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["policy", "check", *arguments])


def test_the_starter_policies_are_described() -> None:
    done = check(str(POLICIES))
    assert done.exit_code == 0
    revision = PolicySet.load([POLICIES]).revision
    for shown in (revision, "callgate.call", "every tool call", "access.rego", "data.callgate.roles"):
        assert shown in done.output


def test_programs_are_told_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.rego").write_text(GOOD)
    (tmp_path / "data.yaml").write_text("known: [ann, bob]\nlimits: {day: 5}\n")
    done = check(str(tmp_path), "--format", "json")
    assert json.loads(done.stdout) == {
        "revision": PolicySet.load([tmp_path]).revision,
        "bundles": {},
        "packages": {
            "callgate.call": {
                "rules": 1,
                "files": [str(tmp_path / "a.rego")],
                "decides": True,
                "reads": ["principal"],
            }
        },
        "data": {"data.known": "2 entries", "data.limits.day": "5"},
    }


@pytest.mark.parametrize(
    ("file", "text", "fault"),
    [
        ("b.rego", "package b\n\nx if {\n\tinput.a ==\n}\n", "b.rego:5"),
        ("b.rego", 'package b\n\nx := io.jwt.decode("a")\n', "b.rego:3: the embedded engine has no function"),
        ("b_test.rego", "package b\n\ntest_x if {\n", "b_test.rego:"),
        ("data.yaml", "a: 1\nb: 2024-01-01\n", "data.yaml:2: a timestamp has no form in JSON"),
        ("data.json", '{"a": 1, "a": 2}', "data.json"),
    ],
)
def test_a_fault_is_named_with_its_place(tmp_path: Path, file: str, text: str, fault: str) -> None:
    (tmp_path / "a.rego").write_text(GOOD)
    (tmp_path / file).write_text(text)
    done = check(str(tmp_path))
    assert done.exit_code == 1
    assert f"{tmp_path}/{fault}" in done.output


def test_all_faults_are_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text("a: .nan\n")
    (tmp_path / "more.json").write_text("{")
    done = check(str(tmp_path), str(tmp_path / "nowhere"))
    assert done.exit_code == 1
    assert done.output.count("\n  - ") == 3


def test_without_a_decision_on_calls_it_is_said_that_all_are_denied(tmp_path: Path) -> None:
    (tmp_path / "a.rego").write_text("package other\n\nx := 1\n")
    done = check(str(tmp_path))
    assert done.exit_code == 0
    assert "every call would be denied" in done.output


def test_without_paths_it_is_the_configuration_s(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "a.rego").write_text(GOOD)
    config = tmp_path / "callgate.yaml"
    config.write_text(f"policies: {{paths: [{tmp_path / 'p'}]}}\n")
    assert PolicySet.load([tmp_path / "p"]).revision in check("--config", str(config)).output
    config.write_text("policies: {engine: opa}\n")
    refused = check("--config", str(config))
    assert refused.exit_code == 1
    assert "the policies are the server's" in refused.output
