"""``callgate check`` on policies that may explode: what is evaluated aside, and what cannot serve at all."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from proxy.cli import app

UPSTREAM = "upstreams: [{name: none, base_url: 'http://127.0.0.1:9/v1'}]\npolicies: {paths: [call.rego]}\n"


def check(folder: Path, monkeypatch: pytest.MonkeyPatch, decision: str) -> Result:
    monkeypatch.setenv("COLUMNS", "300")
    (folder / "callgate.yaml").write_text(UPSTREAM)
    (folder / "call.rego").write_text(f"package callgate.call\n\ndecision := {decision}\n")
    return CliRunner().invoke(app, ["check", "--config", str(folder / "callgate.yaml")])


@pytest.mark.parametrize(
    ("decision", "why"),
    [
        ("count(numbers.range(1, input.call.arguments.limit))", "nothing bounds what numbers.range costs"),
        ('{"effect": "allow"}', None),
    ],
)
def test_what_is_evaluated_aside_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decision: str, why: str | None
) -> None:
    done = check(tmp_path, monkeypatch, decision)
    assert done.exit_code == 0, done.output
    told = [line for line in done.output.splitlines() if line.lstrip().startswith("evaluated aside")]
    assert len(told) == (1 if why else 0)
    assert not why or f"callgate.call: {tmp_path / 'call.rego'}:3: {why}" in told[0]


def test_what_explodes_on_anything_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = check(tmp_path, monkeypatch, "count(numbers.range(1, 1000000000000))")
    assert done.exit_code == 1
    assert "cannot be proven" in done.output
