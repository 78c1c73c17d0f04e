"""What the commands on policies have in common: where policies come from, and how things are said."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import orjson
import typer

from proxy import parts
from proxy.commands.terminal import refuse
from proxy.config import ConfigFault, Settings, load
from proxy.engines.sources.policyset import PolicyFault, PolicySet

T = TypeVar("T")
Format = Annotated[Literal["text", "json"], typer.Option("--format", "-f", help="How to print the result.")]
Sources = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="[PATHS]...",
        help="Folders, files and bundles of policies; without any, those of the configuration.",
        show_default=False,
    ),
]


def policy_set(paths: Sequence[Path] | None, config: Path | None, *, tests: bool = False) -> PolicySet:
    """The policies to work on; exits 1 with every fault of them."""
    return ready(lambda: _read(paths, config, tests))


def _read(paths: Sequence[Path] | None, config: Path | None, tests: bool) -> PolicySet:
    if paths:
        return PolicySet.load(paths, tests=tests)
    return asyncio.run(parts.fetch_policies(_embedded(load(config)), tests=tests))


def _embedded(settings: Settings) -> Settings:
    if settings.policies.engine == "opa":
        raise ConfigFault(["policies.engine is opa: the policies are the server's; name PATHS instead"])
    return settings


def ready(make: Callable[[], T]) -> T:
    """What ``make`` gives; exits 1 with every fault that it finds."""
    try:
        return make()
    except PolicyFault as exc:
        refuse("The policies have faults", exc.faults)
    except ConfigFault as exc:
        refuse("The configuration has faults", exc.faults)


def print_json(value: Any) -> None:
    """For programs, to standard output."""
    try:
        text = orjson.dumps(value, option=orjson.OPT_INDENT_2)
    except (TypeError, ValueError):  # half a character, as models write them, or nested beyond measure
        text = json.dumps(value, indent=2, default=str).encode()
    sys.stdout.buffer.write(text + b"\n")


def plain(value: Any, max_chars: int = 200) -> str:
    """Text that models or callers may have written, on one line and without what a terminal would obey."""
    text = value if isinstance(value, str) else _worded(value)
    shown = "".join(char if char.isprintable() else " " for char in text)
    return shown if len(shown) <= max_chars else f"{shown[: max_chars - 1]}…"


def _worded(value: Any) -> str:
    try:
        return orjson.dumps(value, default=str).decode()
    except (TypeError, ValueError):
        return json.dumps(value, default=str, ensure_ascii=False)
