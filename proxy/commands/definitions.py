"""`callgate schema import` and `callgate schema pin`: registry files made out of what others define."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from proxy.commands.terminal import err, out, refuse
from proxy.schemas.importing import Change, compared, make, selected, write
from proxy.schemas.lint import suspicions
from proxy.schemas.pinning import Pinning, pinnings
from proxy.schemas.sources import Found, collect
from proxy.tools import Registry, RegistryFault, ToolEffect

_TOOLS = Path("schemas/tools")

Sources = Annotated[
    list[Path],
    typer.Argument(
        help="Requests (JSON, a folder of them), tools as JSON (OpenAI, Anthropic, MCP), OpenAPI 3 "
        "documents, or an audit log's folder.",
        show_default=False,
    ),
]
Folder = Annotated[Path, typer.Option("--out", help="The folder of the registry.")]
Only = Annotated[str, typer.Option(help="A glob: only tools of these names.")]


def import_(
    files: Sources,
    folder: Folder = _TOOLS,
    effect: Annotated[
        ToolEffect | None,
        typer.Option(help="What all of them do; without it, it is guessed, and a comment says so."),
    ] = None,
    only: Only = "*",
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that say something else.")] = False,
) -> None:
    """Write a registry file for every tool in FILES; files that say something else are shown and kept."""
    found = _found(files, only)
    entries, faults = make(found.definitions, effect)
    try:
        changes = compared(entries, folder)
    except RegistryFault as exc:
        refuse("The registry has faults", exc.faults)
    kept = [change for change in changes if not _written(change, force)]
    if kept:
        faults.append(f"{len(kept)} files say something else and were kept: --force overwrites them")
    if not changes and not faults:
        faults.append("no tool is defined in it")
    if found.faults or faults:
        refuse("Not everything was imported", [*found.faults, *faults])


def pin(
    files: Sources,
    tools: Annotated[Path, typer.Option("--tools", help="The folder of the registry.")] = _TOOLS,
    only: Only = "*",
    digest: Annotated[
        list[str] | None, typer.Option(help="Which definition, by the beginning of its digest.")
    ] = None,
    add: Annotated[bool, typer.Option("--add", help="Keep the pins that there are, too.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the pins that there are.")] = False,
) -> None:
    """Pin registered tools to how FILES define them; a definition that is not pinned yet is shown first."""
    found = _found(files, only)
    try:
        registry = Registry.load([tools])
    except RegistryFault as exc:
        refuse("The registry has faults", exc.faults)
    wanted = pinnings(found.definitions, registry, digest or ())
    faults = [*found.faults, *([] if wanted else ["no definition of a registered tool is in it"])]
    faults += [fault for one in wanted if (fault := _pinned(one, bool(digest), add, force))]
    if faults:
        refuse("Not everything was pinned", faults)


def _found(files: Sequence[Path], only: str) -> Found:
    """What the files define; what of it is no definition, or reads like tool poisoning, is said."""
    found = collect(files)
    found.definitions = selected(found.definitions, only)
    notes = [f"{one.place}: {one.message}" for tool in found.definitions for one in suspicions(tool)]
    for note in (*found.notes, *dict.fromkeys(notes)):
        err.print(note, markup=False, soft_wrap=True, highlight=False)
    return found


def _written(change: Change, force: bool) -> bool:
    """Write a file where it may be; whether it now says what was imported."""
    if change.kind == "other" and not force:
        _show(change.diff)
        return False
    if change.kind != "same":
        write(change.path, change.entry.text)
    word = {"new": "wrote", "same": "as it was:", "other": "overwrote"}[change.kind]
    out.print(f"{word} {change.path}", markup=False, soft_wrap=True)
    return True


def _pinned(one: Pinning, chosen: bool, add: bool, force: bool) -> str | None:
    """Write a tool's pins where they may be; what is wrong otherwise."""
    if not one.unknown:
        out.print(f"as it was: {one.path}", markup=False, soft_wrap=True)
        return None
    if len(one.unknown) > 1 and not chosen:
        _show(one.difference())
        return (
            f"{one.path}: {len(one.unknown)} definitions are new: choose with --digest, which may be repeated"
        )
    if not (one.is_first or add or force):
        _show(one.difference())
        return f"{one.path}: is pinned to another definition: --force replaces the pin, --add keeps both"
    try:
        write(one.path, one.text(add))
    except ValueError as exc:
        return str(exc)
    out.print(f"pinned {one.spec.name} in {one.path}", markup=False, soft_wrap=True)
    return None


def _show(difference: str) -> None:
    for line in difference.splitlines():
        shown = "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in line)
        style = "green" if line.startswith("+") else "red" if line.startswith("-") else ""
        out.print(shown, markup=False, highlight=False, soft_wrap=True, style=style)
