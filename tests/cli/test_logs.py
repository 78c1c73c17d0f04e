"""The log of a process: what models and clients wrote begins no entry of it, and commands no terminal."""

from __future__ import annotations

import io
import logging
import sys

import pytest
from rich.console import Console
from rich.logging import RichHandler

from proxy.commands import logs
from proxy.commands.logs import Lines, log_to_stderr

FORGED = "x\n1970-01-01T00:00:00.500Z INFO all is well\r\x1b[2J\x9b1A\x1b]0;title\x07"


def entry(message: str, cause: str | None = None) -> logging.LogRecord:
    record = logging.makeLogRecord({"msg": "%s", "args": (message,), "levelname": "ERROR", "created": 0.5})
    try:
        raise ValueError(cause)
    except ValueError:
        record.exc_info = sys.exc_info() if cause else None
    return record


def test_a_trace_begins_no_entry() -> None:
    written = Lines("%(asctime)s %(levelname)s %(message)s").format(entry("it broke", FORGED))
    first, *trace = written.split("\n")
    assert first == "1970-01-01T00:00:00.500Z ERROR it broke"
    assert all(line.startswith("  ") and line.isprintable() for line in trace)
    assert trace[0] == "  Traceback (most recent call last):"
    assert trace[-1].startswith("  1970-01-01T00:00:00.500Z INFO all is well\\u000d\\u001b[2J\\u009b1A")


@pytest.mark.parametrize("cause", [None, FORGED])
def test_what_was_written_commands_no_terminal(cause: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, no_color=True, color_system=None, width=200)
    handlers: list[logging.Handler] = []
    monkeypatch.setattr(logs, "err", console)
    monkeypatch.setattr(logging, "basicConfig", lambda **given: handlers.extend(given["handlers"]))
    log_to_stderr("debug", "worker 1: ")
    (handler,) = handlers
    assert isinstance(handler, RichHandler)
    handler.emit(entry(FORGED, cause))
    lines = written.getvalue().split("\n")
    assert "worker 1: x" in lines[0]
    assert all(line.isprintable() for line in lines)
    assert all(not line or line.startswith((" ", "[")) for line in lines)
    assert "\\u001b]0;title" in written.getvalue()
