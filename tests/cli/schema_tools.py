"""Tools as applications define them, for the tests of `callgate schema`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
from click.testing import Result
from typer.testing import CliRunner

from proxy.cli import app
from proxy.record import DecisionRecord, DefinitionRecord
from proxy.sinks.jsonl import JsonlSink
from tests.core.protocols import PROTOCOLS

Json = dict[str, Any]
FUNCTIONS: list[Json] = [
    {
        "name": "get_user",
        "description": "READ-ONLY. Returns one user by number.",
        "parameters": {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]},
    },
    {"name": "delete_user", "description": "Deletes one user.", "parameters": {"type": "object"}},
]


def run(*arguments: object) -> Result:
    """`callgate schema` with these arguments."""
    return CliRunner().invoke(app, ["schema", *map(str, arguments)])


def request(folder: Path, protocol: str, functions: list[Json] | None = None) -> Path:
    """A recorded request of one of the APIs, as a file."""
    body = PROTOCOLS[protocol].request({"tools": functions or FUNCTIONS}, False)
    return document(folder / f"{protocol}.json", body)


def document(file: Path, value: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(orjson.dumps(value))
    return file


def log(folder: Path, *records: DefinitionRecord | DecisionRecord) -> Path:
    """An audit log of these records."""
    sink = JsonlSink(folder, flush_interval_s=0)
    sink.start()
    for record in records:
        sink.write(record)
    assert sink.close()
    return folder
