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
    return written(tmp_path)


def written(folder: Path) -> Path:
    sink = JsonlSink(folder, flush_interval_s=0)
    sink.start()
    for number in range(3):
        sink.write(PolicyRecord("2026-01-01T00:00:00.000Z", "loaded", f"r{number}"))
    assert sink.close()
    return folder


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


def test_a_folder_without_a_log_is_not_a_broken_one(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["audit", "verify", str(tmp_path)])
    assert done.exit_code == 1
    assert "There is no audit log" in done.output
    assert "audit.sinks[].path" in done.output
    assert "broken" not in done.output


def test_the_logs_of_all_workers_are_checked(tmp_path: Path) -> None:
    for number in (1, 2):
        written(tmp_path / f"worker-{number}")
    done = CliRunner().invoke(app, ["audit", "verify", str(tmp_path)])
    assert done.exit_code == 0
    assert "worker-1: 3 lines, unbroken" in done.output
    assert "worker-2: 3 lines, unbroken" in done.output
    (segment,) = (tmp_path / "worker-2").glob("*.jsonl")
    segment.write_bytes(segment.read_bytes().replace(b'"r1"', b'"r9"'))
    done = CliRunner().invoke(app, ["audit", "verify", str(tmp_path)])
    assert done.exit_code == 1
    assert f"worker-2: {segment.name}:3" in done.output


def test_a_log_that_may_not_be_read_is_said(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied", str(log))

    monkeypatch.setattr("proxy.commands.audit.verify", refused)
    done = CliRunner().invoke(app, ["audit", "verify", str(log)])
    assert done.exit_code == 1
    assert f"{log}: Permission denied" in done.output
