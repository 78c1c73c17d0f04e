"""The log of a process that serves: coloured for who watches it, one line each for what collects it."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from rich.logging import RichHandler

from proxy.commands.terminal import err


def log_to_stderr(level: str, prefix: str = "") -> None:
    """Log what is at least as grave as ``level`` to standard error."""
    if err.is_terminal:
        handler: logging.Handler = RichHandler(
            console=err, show_path=False, rich_tracebacks=False, log_time_format="[%X]"
        )
        handler.setFormatter(logging.Formatter(f"{prefix}%(message)s"))
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(Lines(f"%(asctime)s %(levelname)s {prefix}%(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    if level != "debug":
        # It counts changes of files; what became of them is said by who followed them.
        logging.getLogger("watchfiles").setLevel(logging.WARNING)


class Lines(logging.Formatter):
    """Each entry on one line that is never cut: a journal keeps lines, and people search it by trace id."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        """RFC 3339 in UTC, as the audit log has it."""
        moment = datetime.fromtimestamp(record.created, UTC)
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """What models and clients wrote begins no line of its own, and moves no cursor."""
        text = super().formatMessage(record)
        return "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text)
