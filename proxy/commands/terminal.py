"""Where commands speak: results to standard output, faults to standard error."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

out, err = Console(), Console(stderr=True)

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="callgate.yaml; without it, the defaults and CALLGATE_* variables."),
]


def refuse(title: str, faults: Iterable[object]) -> NoReturn:
    """Name what is wrong, each on a line, and exit 1."""
    err.print(f"[bold red]{title}:[/bold red]")
    for fault in faults:
        err.print(f"  - {fault}", markup=False, soft_wrap=True)
    raise typer.Exit(1)
