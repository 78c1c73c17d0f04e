"""Definitions out of files and folders: registry files, requests, lists of tools, OpenAPI, the audit log."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from proxy import strict_yaml
from proxy.model import Fault, OfferedTool, loads
from proxy.record import DecisionRecord, DefinitionRecord
from proxy.schemas import openapi, yamls
from proxy.schemas.definitions import Definition, Place, read
from proxy.sinks.chain import entries, segments
from proxy.sinks.reading import record_of
from proxy.strict_yaml import YamlFault
from proxy.tools import ToolSpec, registry_files, worded

MAX_FILE_BYTES = 64 * 2**20
# With one of these, what has a name is a tool as an API takes it.
_FOREIGN = frozenset({"type", "input_schema", "inputSchema", "openapi"})
_SUFFIXES = (".json", ".jsonl", ".yaml", ".yml")


@dataclass
class Found:
    """What was read: definitions in their order, what could not be read, and what is worth knowing."""

    definitions: list[Definition] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def collect(paths: Iterable[Path]) -> Found:
    """Read files of any of these kinds, told apart by what they hold; a folder with all that are below it."""
    found = Found()
    for path in paths:
        if path.is_dir() and (logs := _logs(path)):
            for folder in logs:
                _log(folder, found)
        elif path.is_dir():
            inside = [file for file in _files(path) if file.suffix.lower() in _SUFFIXES]
            if not inside:
                found.faults.append(f"{path}: no .json, .jsonl, .yaml or .yml file in it")
            for file in inside:
                _file(file, found)
        else:
            _file(path, found)
    return found


def registry(paths: Iterable[Path]) -> Found:
    """Read the registry's own files, each with the faults for which it would not be loaded."""
    found = Found()
    for file in registry_files(paths, found.faults):
        _file(file, found)
    return found


def of_log(folder: Path) -> Found:
    """Read the definitions that an audit log holds."""
    found = Found()
    logs = _logs(folder) if folder.is_dir() else []
    if not logs:
        found.faults.append(f"{folder}: no audit log (audit-*.jsonl) in it")
    for one in logs:
        _log(one, found)
    return found


def _logs(folder: Path) -> list[Path]:
    """A log's folder, or those of several workers in it."""
    return [one for one in (folder, *sorted(folder.glob("worker-*"))) if one.is_dir() and segments(one)]


def _files(folder: Path) -> list[Path]:
    visible = (
        p for p in folder.rglob("*") if not any(s.startswith(".") for s in p.relative_to(folder).parts)
    )
    return sorted(p for p in visible if p.is_file())


def _file(file: Path, found: Found) -> None:
    before = len(found.definitions), len(found.faults)
    try:
        for one in _read(file):
            if isinstance(one, Definition):
                found.definitions.append(one)
            else:
                found.faults.append(str(one))
    except YamlFault as exc:
        found.faults.append(exc.at(file))
    except (OSError, ValueError) as exc:
        found.faults.append(f"{file}: {_word(exc)}")
    if before == (len(found.definitions), len(found.faults)):
        found.notes.append(f"{file}: no tool is defined in it")


def _read(file: Path) -> Iterator[Definition | ValueError]:
    text = _text(file)
    if file.suffix.lower() in (".yaml", ".yml"):
        content, duplicates = strict_yaml.read(text)
        yield from _yaml(content, duplicates, Place(str(file), "", yamls.lines(text)))
    elif file.suffix.lower() == ".jsonl":
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                yield from read(_json(line), Place(f"{file}:{number}"))
    else:
        yield from _document(_json(text), Place(str(file)))


def _text(file: Path) -> str:
    with file.open("rb") as stream:
        raw = stream.read(MAX_FILE_BYTES + 1)
    if len(raw) > MAX_FILE_BYTES:
        raise ValueError(f"larger than {MAX_FILE_BYTES} bytes")
    return raw.decode("utf-8-sig")


def _json(text: str) -> Any:
    try:
        return loads(text)
    except Fault as exc:
        raise ValueError(f"cannot be read: {exc}") from None


def _yaml(value: Any, duplicates: Sequence[YamlFault], place: Place) -> Iterator[Definition | ValueError]:
    if isinstance(value, dict) and isinstance(value.get("name"), str) and not _FOREIGN & value.keys():
        # In what others wrote, such as an OpenAPI document, the last counts, as it does for them.
        yield from (ValueError(duplicate.at(place.file)) for duplicate in duplicates)
        yield _registered(value, place)
    else:
        yield from _document(value, place)


def _document(value: Any, place: Place) -> Iterator[Definition | ValueError]:
    if isinstance(value, dict) and "openapi" in value:
        yield from openapi.operations(value, place)
    elif isinstance(value, dict) and "swagger" in value:
        yield ValueError(f"{place.file}: Swagger 2.0 cannot be read: convert it to OpenAPI 3 first")
    else:
        yield from read(value, place)


def _registered(value: dict[str, Any], place: Place) -> Definition:
    """A file of the registry; raises ``ValidationError`` where it would not be loaded."""
    spec = ToolSpec.model_validate(value)
    tool = OfferedTool(spec.name, spec.parameters, spec.description)
    effect = spec.effect if "effect" in value else None
    return Definition(tool, place, "registry", effect, examples=spec.examples, spec=spec)


def _log(folder: Path, found: Found) -> None:
    """The last definition of each tool that the log holds, and the tools of which it has none."""
    records: dict[tuple[str, str], Definition] = {}
    called: set[str] = set()
    kept_back: set[str] = set()
    for line in _lines(folder, found):
        record = record_of(line)
        if isinstance(record, DecisionRecord):
            called.add(record.tool)
        elif isinstance(record, DefinitionRecord):
            if record.definition is None:
                kept_back.add(record.tool)
                continue
            said = record.definition
            tool = OfferedTool(
                record.tool, said.get("parameters"), str(said.get("description") or ""), more=said.get("more")
            )
            place = Place(f"{folder}: line {line.get('seq')}")
            sender = f"Sent by {record.principal.get('id')!r} in {record.protocol}, {record.time}"
            records[record.tool, record.digest] = Definition(tool, place, "log", source=sender)
    found.definitions += records.values()
    defined = {name for name, _ in records}
    if missing := sorted((called | kept_back) - defined):
        cure = "set tools.record: true, and audit.capture: full, and let requests come"
        found.notes.append(f"{folder}: no definition is recorded of {', '.join(missing[:20])} ({cure})")


def _lines(folder: Path, found: Found) -> Iterator[dict[str, Any]]:
    try:
        yield from entries(folder)
    except Fault as exc:
        found.faults.append(f"{folder}: a line cannot be read: {exc} (callgate audit verify {folder})")


def _word(exc: Exception) -> str:
    if isinstance(exc, ValidationError):
        return worded(exc)
    if isinstance(exc, UnicodeDecodeError):
        return "not UTF-8 text"
    return str(getattr(exc, "strerror", None) or exc)
