"""The log of a process that serves: coloured for who watches it, one line each for what collects it."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

from rich.logging import RichHandler

from proxy.commands.terminal import err


def log_to_stderr(level: str, prefix: str = "") -> None:
    """Log what is at least as grave as ``level`` to standard error."""
    if err.is_terminal:
        handler: logging.Handler = RichHandler(
            console=err, show_path=False, rich_tracebacks=False, log_time_format="[%X]"
        )
        handler.setFormatter(Shown(f"{prefix}%(message)s"))
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(Lines(f"%(asctime)s %(levelname)s {prefix}%(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    if level != "debug":
        # It counts changes of files; what became of them is said by who followed them.
        logging.getLogger("watchfiles").setLevel(logging.WARNING)


class Shown(logging.Formatter):
    """Entries for who watches: what models and clients wrote moves no cursor and sets no title."""

    def format(self, record: logging.LogRecord) -> str:
        """The entry, in as many lines as it has: the handler sets those after the first apart."""
        return "\n".join(map(_harmless, super().format(record).split("\n")))


class Lines(logging.Formatter):
    """Each entry on one line that is never cut: a journal keeps lines, and people search it by trace id.

    Only the trace of a defect follows in lines of its own, which no entry begins like.
    """

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        """RFC 3339 in UTC, as the audit log has it."""
        moment = datetime.fromtimestamp(record.created, UTC)
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """What models and clients wrote begins no line of its own, and moves no cursor."""
        return _harmless(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        """The trace, indented: the message at its end may quote what models and clients wrote."""
        return "\n".join(f"  {_harmless(line)}" for line in super().formatException(ei).split("\n"))


def _harmless(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text)
