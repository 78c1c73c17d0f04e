"""Files that commands may not use are named, with the cause, and without a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from proxy import cli

TOOLS = '[{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]'


def ended(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int | str | None:
    """What the command exits with."""
    monkeypatch.setattr(sys, "argv", ["callgate", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


def test_a_folder_that_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tools.json").write_text(TOOLS)
    # Nobody makes folders there, root neither.
    code = ended(monkeypatch, "schema", "import", str(tmp_path / "tools.json"), "--out", "/proc/tools")
    assert code == 1
    assert "/proc/tools: No such file or directory (may you" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [("policy", "diff", "policies", "policies", "--log"), ("schema", "lint", "--log")]
)
def test_a_log_of_somebody_else(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
) -> None:
    """A service's log is for its own user alone."""
    segment = tmp_path / "audit-000001.jsonl"
    segment.touch(mode=0o600)
    opened: Any = Path.open

    def denied(path: Path, *how: Any, **words: Any) -> Any:
        if path == segment:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *how, **words)

    monkeypatch.setattr(Path, "open", denied)
    monkeypatch.chdir(Path(__file__).parents[2])
    assert ended(monkeypatch, *arguments, str(tmp_path)) == 1
    assert f"{segment}: Permission denied (may you" in capsys.readouterr().err


def test_a_fault_without_a_file_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing() -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(cli, "app", failing)
    with pytest.raises(OSError, match="Input/output"):
        cli.main()


def test_an_encoding_that_lacks_a_character(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    file.write_text(f"{'0' * 64}: {{id: bot, note: après → demain}}\n", encoding="utf-8")
    command = [sys.executable, "-P", "-m", "proxy", "keys", "list", "--file", str(file)]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONIOENCODING": "ascii"}, capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"apr\\xe8s \\u2192 demain" in done.stdout
