"""`callgate serve` where it cannot, and what it says while it does: causes, and no traceback."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from proxy.cli import app
from proxy.commands.logs import Lines, log_to_stderr
from proxy.sinks.jsonl import JsonlSink

FREE = "listen: {port: 0}\nadmin: {port: 0}\n"


def callgate(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "proxy", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)


def test_another_process_writes_the_log(tmp_path: Path) -> None:
    """What a second `callgate serve` in the same folder ends in."""
    log = JsonlSink(tmp_path / "audit", flush_interval_s=0)
    log.start()
    try:
        (tmp_path / "callgate.yaml").write_text(FREE)
        done = callgate("serve", "--config", "callgate.yaml", cwd=tmp_path)
    finally:
        log.close()
    assert done.returncode == 1
    assert "Callgate cannot start" in done.stderr
    assert "another process writes the audit log in audit" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_logs_folder_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    (tmp_path / "callgate.yaml").write_text(f"{FREE}audit: {{sinks: [{{path: taken}}]}}\n")
    done = callgate("serve", "--config", "callgate.yaml", cwd=tmp_path)
    assert done.returncode == 1
    assert "the audit log in taken cannot be opened: File exists (name a folder" in done.stderr
    assert "can write in audit.sinks[].path)" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_demo_cannot_keep_its_log(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    done = callgate("demo", "--keep", "taken", cwd=tmp_path)
    assert done.returncode == 1
    assert "the audit log in taken cannot be opened" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("level", ["loud", "", "10"])
def test_a_level_that_is_none(level: str, tmp_path: Path) -> None:
    # A file that is not there: where the level was taken, nothing is served all the same.
    none = str(tmp_path / "none.yaml")
    done = CliRunner().invoke(app, ["serve", "--log-level", level, "--config", none])
    assert done.exit_code == 2
    assert "'debug'" in done.output


def test_levels_are_read_in_any_case(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        app, ["serve", "--log-level", "WARNING", "--config", str(tmp_path / "none.yaml")]
    )
    assert done.exit_code == 1
    assert "none.yaml: No such file" in done.output


def test_what_is_collected_has_one_whole_line_for_each_entry() -> None:
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(Lines("%(asctime)s %(levelname)s %(message)s"))
    record = logging.makeLogRecord(
        {
            "msg": "no tool %s",
            "args": ("x" * 200 + "\nERROR forged\x1b[2J",),
            "levelname": "INFO",
            "created": 0.5,
        }
    )
    handler.emit(record)
    assert written.getvalue() == (
        f"1970-01-01T00:00:00.500Z INFO no tool {'x' * 200}\\u000aERROR forged\\u001b[2J\n"
    )


def test_a_process_without_a_terminal_logs_whole_lines(tmp_path: Path) -> None:
    """The store's fault is longer than a terminal is wide; nobody here has the address of the listener."""
    (tmp_path / "callgate.yaml").write_text(
        "listen: {host: 203.0.113.1, port: 0}\nadmin: {port: 0}\nidentity: [{kind: anonymous}]\n"
        "store: {kind: redis, url: 'redis://127.0.0.1:1/0'}\n"
    )
    done = callgate("serve", "--config", "callgate.yaml", cwd=tmp_path)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if "Redis at 127.0.0.1:1" in line]
    assert " ERROR Redis at 127.0.0.1:1 does not answer" in line
    assert "refused" in line


def test_the_log_is_callgates_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """What follows files counts their changes, at the level at which Callgate says what became of them."""
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
    watching = logging.getLogger("watchfiles.main")
    monkeypatch.setattr(logging.getLogger("watchfiles"), "level", logging.NOTSET)
    log_to_stderr("info")
    assert not watching.isEnabledFor(logging.INFO)
    assert watching.isEnabledFor(logging.WARNING)
