"""`callgate schema`: the JSON Schemas of what Callgate reads and writes."""

from __future__ import annotations

import sys

import orjson
import typer

from proxy.config import settings_schema

group = typer.Typer(help="JSON Schemas of what Callgate reads and writes.", no_args_is_help=True)


@group.command("config")
def schema_config() -> None:
    """Print the JSON Schema of callgate.yaml, for editors that complete and check it."""
    sys.stdout.buffer.write(orjson.dumps(settings_schema(), option=orjson.OPT_INDENT_2) + b"\n")
