"""Where commands speak: results to standard output, faults to standard error."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from rich.console import Console
from rich.text import Text

T = TypeVar("T")

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


def show(title: str, rows: Sequence[tuple[str, str]]) -> None:
    """What is the case, each on a line that is never cut: paths and reasons are there to be copied."""
    width = max(len(label) for label, _ in rows)
    out.print(Text(title, "bold"))
    for label, value in rows:
        out.print(Text.assemble(f"  {label:<{width}}  ", value), soft_wrap=True)


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run on uvloop where there is one."""
    try:
        import uvloop
    except ModuleNotFoundError:
        return asyncio.run(coroutine)
    return uvloop.run(coroutine)
