"""`callgate audit`: the evidence."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from proxy.commands.terminal import out, refuse
from proxy.sinks.chain import verify

group = typer.Typer(help="The evidence: check the audit log.", no_args_is_help=True)


@group.command("verify")
def audit_verify(
    folder: Annotated[Path, typer.Argument(help="The folder of the log's segments (audit.sinks[].path).")],
) -> None:
    """Check the hash chain over all segments; exit 1 at the first line that was changed, moved or removed."""
    if not folder.is_dir():
        refuse("There is no audit log", [f"{folder} is not a folder"])
    found = verify(folder)
    if not found.ok:
        refuse("The chain is broken", [f"{found.broken_at}: {found.problem}"])
    out.print(f"{found.lines} lines, unbroken. The head is {found.head}.", soft_wrap=True)
    out.print("Keep it elsewhere: with it, a cut at the end shows too.")
