"""Settings of the policies: where they come from, and what evaluates them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from proxy.config.values import SecretRef, Section, split_url


class Opa(Section):
    """The OPA server."""

    url: str = "http://127.0.0.1:8181"
    """Where it is."""
    token: SecretRef | None = None
    """Bearer token that it asks for: `{env: NAME}` or `{file: PATH}`."""
    timeout_s: Annotated[float, Field(gt=0, le=60)] = 1.0
    """Seconds to wait for one answer of the server."""

    @field_validator("url")
    @classmethod
    def _a_server(cls, url: str) -> str:
        split_url(url, ("https", "http"))
        return url.rstrip("/")


class Policies(Section):
    """Where decisions come from."""

    engine: Literal["embedded", "opa"] = "embedded"
    """`embedded` evaluates Rego inside Callgate; `opa` asks an OPA server."""
    paths: tuple[Path, ...] = ()
    """Folders and files of Rego policies and their data. Empty: the starter policies."""
    opa: Opa = Opa()
    """The OPA server, with `engine: opa`."""
