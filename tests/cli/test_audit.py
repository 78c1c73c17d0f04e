"""``callgate audit verify``: a log that holds, one that was changed, and none."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from proxy.cli import app
from proxy.record import PolicyRecord
from proxy.sinks.jsonl import JsonlSink


@pytest.fixture
def log(tmp_path: Path) -> Path:
    sink = JsonlSink(tmp_path, flush_interval_s=0)
    sink.start()
    for number in range(3):
        sink.write(PolicyRecord("2026-01-01T00:00:00.000Z", "loaded", f"r{number}"))
    assert sink.close()
    return tmp_path


def test_a_log_that_holds(log: Path) -> None:
    done = CliRunner().invoke(app, ["audit", "verify", str(log)])
    assert done.exit_code == 0
    assert "3 lines, unbroken" in done.output


def test_a_changed_line_is_named(log: Path) -> None:
    (segment,) = log.glob("*.jsonl")
    segment.write_bytes(segment.read_bytes().replace(b'"r1"', b'"r9"'))
    done = CliRunner().invoke(app, ["audit", "verify", str(log)])
    assert done.exit_code == 1
    assert f"{segment.name}:3" in done.output


def test_no_log_is_said(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["audit", "verify", str(tmp_path / "nowhere")])
    assert done.exit_code == 1
    assert "is not a folder" in done.output
