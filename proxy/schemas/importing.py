"""Registry files made out of definitions: what is known goes in, what is guessed says so."""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from proxy import strict_yaml
from proxy.schemas import yamls
from proxy.schemas.definitions import Definition
from proxy.tools import Registry, ToolEffect, ToolSpec, worded

_READS = re.compile(
    r"(?:get|list|search|find|fetch|read|lookup|look|show|describe|query|count|check|view|browse|retrieve|"
    r"download|is|has|exists)(?:[_-]|$|(?=[A-Z]))"
)
_DESTROYS = re.compile(
    r"(?:delete|remove|drop|purge|destroy|erase|wipe|truncate|terminate|kill|revoke|uninstall|unpublish)"
    r"(?:[_-]|$|(?=[A-Z]))"
)
_SAFE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True)
class Entry:
    """One tool as a registry file."""

    name: str
    file_name: str
    text: str


@dataclass(frozen=True)
class Change:
    """What writing an entry would do to a folder."""

    path: Path
    entry: Entry
    kind: Literal["new", "same", "other"]
    diff: str = ""


def guessed_effect(name: str) -> ToolEffect:
    """What a tool of this name probably does; one that does not say is taken to write."""
    last = name.rpartition(".")[2]
    if _DESTROYS.match(last):
        return "destructive"
    return "read" if _READS.match(last) else "write"


def selected(definitions: Iterable[Definition], only: str) -> list[Definition]:
    """Those whose name the glob matches."""
    return [one for one in definitions if fnmatchcase(one.name, only)]


def make(
    definitions: Iterable[Definition], effect: ToolEffect | None = None
) -> tuple[list[Entry], list[str]]:
    """A registry file for every name, and what is wrong where one cannot be made.

    Of several definitions of one name the last counts; the pins of all are written down.
    """
    by_name: dict[str, list[Definition]] = {}
    for one in definitions:
        by_name.setdefault(one.name, []).append(one)
    made: list[Entry] = []
    faults: list[str] = []
    taken: set[str] = set()
    for name, same in by_name.items():
        try:
            text = _text(same, effect)
            spec = ToolSpec.model_validate(strict_yaml.load(text))
            if spec.parameters != _schema(same[-1]):
                raise ValueError("its parameters cannot be written as YAML")
        except ValidationError as exc:
            faults.append(f"{same[-1].place.at('')}: tool {name!r}: {worded(exc)}")
        except ValueError as exc:
            faults.append(f"{same[-1].place.at('')}: tool {name!r}: {exc}")
        else:
            made.append(Entry(name, _file_name(name, taken), text))
    return made, faults


def _text(same: Sequence[Definition], effect: ToolEffect | None) -> str:
    one = same[-1]
    pins = list(dict.fromkeys(other.digest for other in same if other.digest is not None))
    said = {"name": one.name, **({"description": one.tool.description} if one.tool.description else {})}
    schema, examples = _schema(one), list(one.examples)
    rest: dict[str, Any] = {} if schema is None else {"parameters": schema}
    if examples:
        rest["examples"] = examples
    if pins:
        rest["pin"] = pins[0] if len(pins) == 1 else pins
    comment = f"# {_one_line(one.source)}\n" if one.source else ""
    if len(pins) > 1:
        comment += f"# {len(pins)} definitions were seen: this is the last, and all of them are pinned.\n"
    return comment + yamls.dump(said) + _effect_line(one, effect) + (yamls.dump(rest) if rest else "")


def _effect_line(one: Definition, effect: ToolEffect | None) -> str:
    if effect is not None:
        return f"effect: {effect}\n"
    if one.effect is not None and not one.effect_from:
        return f"effect: {one.effect}\n"
    if one.effect is not None:
        return f"effect: {one.effect}  # guessed from {one.effect_from}: check\n"
    return f"effect: {guessed_effect(one.name)}  # guessed from its name: check\n"


def _schema(one: Definition) -> Any:
    return one.tool.parameters if one.tool.kind == "function" else None


def _one_line(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)[:200]


def _file_name(name: str, taken: set[str]) -> str:
    """A file for the tool: its name where that is fit for one, and no other differs from it in case only."""
    stem = name
    if not _SAFE_NAME.fullmatch(name) or name.lower() in taken:
        digest = hashlib.sha256(name.encode(errors="replace")).hexdigest()[:8]
        stem = f"{re.sub(r'[^A-Za-z0-9_-]', '_', name)[:80]}-{digest}"
    taken.add(stem.lower())
    return f"{stem}.yaml"


def compared(entries: Iterable[Entry], folder: Path) -> list[Change]:
    """What the entries are to the files that there are; raises ``RegistryFault`` where these cannot be read.

    A tool that another file of the folder describes already would be written there.
    """
    known = Registry.load([folder]).origins if folder.exists() else {}
    return [_change(known.get(entry.name, folder / entry.file_name), entry) for entry in entries]


def _change(path: Path, entry: Entry) -> Change:
    if not path.exists():
        return Change(path, entry, "new")
    before = path.read_text(encoding="utf-8")
    if before == entry.text:
        return Change(path, entry, "same")
    return Change(path, entry, "other", diff(before, entry.text, str(path)))


def diff(before: str, after: str, name: str) -> str:
    """The change of a text, as ``diff -u`` shows it."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), name, f"{name} (new)", lineterm="")
    return "\n".join(lines)


def write(path: Path, text: str) -> None:
    """Replace a file whole: who reads it meanwhile finds the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        Path(temporary).chmod(path.stat().st_mode & 0o777 if path.exists() else 0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
