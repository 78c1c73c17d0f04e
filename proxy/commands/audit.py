"""`callgate audit`: the evidence."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from proxy.commands.terminal import out, refuse
from proxy.model import Fault
from proxy.sinks.chain import Verification, verify
from proxy.sinks.walking import logs

group = typer.Typer(help="The evidence: check the audit log.", no_args_is_help=True)


@group.command("verify")
def audit_verify(
    folder: Annotated[Path, typer.Argument(help="The folder of the log's segments (audit.sinks[].path).")],
) -> None:
    """Check the hash chain over all segments; exit 1 at the first line that was changed, moved or removed.

    A folder that several workers write holds a log of each: all are checked.
    """
    if not folder.is_dir():
        refuse("There is no audit log", [f"{folder} is not a folder (name the one in audit.sinks[].path)"])
    try:
        found = [(log[0].parent, verify(log[0].parent)) for log in logs(folder)]
    except Fault:
        refuse("There is no audit log", [f"{folder} holds none (name the folder in audit.sinks[].path)"])
    except OSError as exc:
        refuse("The log cannot be read", [f"{exc.filename}: {exc.strerror}"])
    for place, log in found:
        if log.ok:
            out.print(f"{_place(place, folder)}{_held(log)}", markup=False, soft_wrap=True)
    if broken := [(place, log) for place, log in found if not log.ok]:
        faults = [f"{_place(place, folder)}{log.broken_at}: {log.problem}" for place, log in broken]
        refuse("The chain is broken", faults)
    out.print("Keep it elsewhere: with it, a cut at the end shows too.")


def _place(log: Path, folder: Path) -> str:
    return "" if log == folder else f"{log.relative_to(folder)}: "


def _held(log: Verification) -> str:
    return f"{log.lines} lines, unbroken. The head is {log.head}."
