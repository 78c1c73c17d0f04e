"""`callgate schema`: the JSON Schemas of what Callgate reads and writes, and the registry's tools."""

from __future__ import annotations

import sys

import orjson
import typer

from proxy.commands import definitions, linting
from proxy.config import settings_schema

group = typer.Typer(
    help="The registry's tools: grade, import and pin them; the JSON Schema of the settings.",
    no_args_is_help=True,
)
group.command("lint")(linting.lint)
group.command("import")(definitions.import_)
group.command("pin")(definitions.pin)


@group.command("config")
def schema_config() -> None:
    """Print the JSON Schema of callgate.yaml, for editors that complete and check it."""
    sys.stdout.buffer.write(orjson.dumps(settings_schema(), option=orjson.OPT_INDENT_2) + b"\n")
