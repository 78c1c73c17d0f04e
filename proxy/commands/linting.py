"""`callgate schema lint`: how well tools are described, and what would be better."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import orjson
import typer
from rich.markup import escape
from rich.table import Table

from proxy.commands.terminal import err, out, refuse
from proxy.schemas.lint import Finding, Grade, Graded, Report
from proxy.schemas.lint import lint as graded
from proxy.schemas.sources import Found, collect, of_log, registry

_STYLES = {"error": "bold red", "warning": "yellow", "hint": "cyan"}
_GRADE_STYLES = {"A": "bold green", "B": "green", "C": "yellow", "D": "red", "F": "bold red"}
_DEFAULT = Path("schemas/tools")


def lint(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(help="Files and folders of the registry; schemas/tools where nothing is named."),
    ] = None,
    tools: Annotated[
        list[Path] | None,
        typer.Option(help="Tools or a request as JSON (OpenAI, Anthropic, MCP), or an OpenAPI 3 document."),
    ] = None,
    log: Annotated[
        Path | None, typer.Option(help="The folder of an audit log: what traffic defined.")
    ] = None,
    format: Annotated[Literal["text", "json"], typer.Option(help="What to print.")] = "text",
    fail_under: Annotated[
        Grade | None, typer.Option(help="Exit 1 where the whole, or any tool, is graded below this.")
    ] = None,
) -> None:
    """Grade tool definitions from A to F, and say what to write instead; exit 1 where there is an error."""
    if not (paths or tools or log):
        paths = [_DEFAULT]
    found = _merged([registry(paths or ()), collect(tools or ()), *([of_log(log)] if log else [])])
    for note in found.notes:
        err.print(note, markup=False, soft_wrap=True)
    report = graded(found.definitions)
    if format == "json":
        written = orjson.dumps(report.fields() | {"faults": found.faults}, option=orjson.OPT_INDENT_2)
        sys.stdout.buffer.write(written + b"\n")
    elif report.tools:
        _show(report)
    if found.faults or not report.tools:
        refuse("Not everything could be read", found.faults or ["there is no tool"])
    if not report.passes(fail_under):
        raise typer.Exit(1)


def _merged(sources: Sequence[Found]) -> Found:
    whole = Found()
    for one in sources:
        whole.definitions += one.definitions
        whole.faults += one.faults
        whole.notes += one.notes
    return whole


def _show(report: Report) -> None:
    for tool in report.tools:
        if tool.findings:
            _show_tool(tool)
    if report.together:
        out.print("\n[bold]Together[/bold]")
        _show_findings(report.together)
    table = Table(title="Grades", title_justify="left", box=None, pad_edge=False)
    for heading in ("grade", "tool", "errors", "warnings", "hints"):
        table.add_column(heading, justify="left" if heading in ("grade", "tool") else "right")
    for tool in report.tools:
        counts = (str(sum(one.severity == kind for one in tool.findings)) for kind in _STYLES)
        table.add_row(_letter(tool.grade), _plain(tool.name), *counts)
    out.print()
    out.print(table)
    out.print(f"\nOverall: {_letter(report.grade)} ({report.score} of 100)")


def _show_tool(tool: Graded) -> None:
    out.print(f"\n[bold]{_plain(tool.name)}[/bold] {_letter(tool.grade)}", soft_wrap=True)
    _show_findings(tool.findings)


def _show_findings(findings: Sequence[Finding]) -> None:
    for one in findings:
        style = _STYLES[one.severity]
        _line(f"  [{style}]{one.severity}[/{style}] {one.code}  {_plain(one.place)}")
        _line(f"    {_plain(one.message)}")
        for line in one.fix.splitlines():
            _line(f"      [green]{_plain(line)}[/green]")


def _line(text: str) -> None:
    out.print(text, soft_wrap=True, highlight=False)


def _letter(letter: Grade) -> str:
    return f"[{_GRADE_STYLES[letter]}]{letter}[/{_GRADE_STYLES[letter]}]"


def _plain(text: str) -> str:
    """Text that others wrote, as it may go to a terminal: neither markup nor control sequences."""
    return escape("".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text))
