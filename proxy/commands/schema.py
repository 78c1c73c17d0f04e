"""`callgate schema`: the JSON Schemas of what Callgate reads and writes, and the registry's tools."""

from __future__ import annotations

import sys
from typing import Any

import orjson
import typer

from proxy.commands import definitions, linting
from proxy.config import settings_schema
from proxy.tools import ToolSpec

group = typer.Typer(
    help="The registry's tools: grade, import and pin them; the JSON Schemas of files.",
    no_args_is_help=True,
)
group.command("lint")(linting.lint)
group.command("import")(definitions.import_)
group.command("pin")(definitions.pin)


@group.command("config")
def schema_config() -> None:
    """Print the JSON Schema of callgate.yaml, for editors that complete and check it."""
    _print(settings_schema())


@group.command("tool")
def schema_tool() -> None:
    """Print the JSON Schema of a tool's file, for editors that complete and check it."""
    _print(ToolSpec.schema_of_files())


def _print(schema: dict[str, Any]) -> None:
    sys.stdout.buffer.write(orjson.dumps(schema, option=orjson.OPT_INDENT_2) + b"\n")
