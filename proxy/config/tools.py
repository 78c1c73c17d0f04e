"""Settings of the tool registry, and of what tools answer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from proxy.config.values import Section


class Tools(Section):
    """The tool registry."""

    paths: tuple[Path, ...] = ()
    """Folders and files of tool descriptions, one YAML file a tool. Empty: no tool is registered."""
    unregistered: Literal["allow", "validate", "deny"] = "validate"
    """Calls of other tools: `deny`, `allow`, or `validate` against the application's own schema."""
    override: bool = False
    """Show the model the registry's definitions, not the application's; a tool's `override` goes first."""
    pin: Literal["off", "report", "refuse"] = "off"
    """What becomes of a request whose definition of a tool is none of those that the tool's `pin` names."""
    record: bool = False
    """Keep every distinct definition that applications send in the audit log, for `callgate schema`."""


class Results(Section):
    """What of tool results the model may see. A tool's own description can say more (`results`)."""

    max_bytes: Annotated[int, Field(ge=256, le=2**30)] = 2**20
    """Longer results are shortened to this, and say how much was cut."""
    shape_errors: bool = True
    """Whether a raw error (a stack trace, an HTML error page) becomes a short message."""
    redact: tuple[Literal["secrets"], ...] = ()
    """What is taken out, by name: `secrets` are API keys, bearer tokens and private keys."""
    patterns: tuple[str, ...] = ()
    """Regular expressions (RE2 syntax) whose matches are taken out."""
