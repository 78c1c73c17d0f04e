"""Settings of the policies: where they come from, and what evaluates them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from proxy.config.values import Bytes, Name, SecretRef, Section, Text, is_loopback, split_url

# Those of OPA. HS ones are made and checked with one secret: who can check can also sign.
# fmt: off
BundleAlgorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512",
    "ES256", "ES384", "ES512", "HS256", "HS384", "HS512",
]
# fmt: on


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


class BundleKey(Section):
    """A key that bundles may be signed with."""

    id: Name = "default"
    """Its name in signatures; `opa build` calls it `default`, or by its `--verification-key-id`."""
    algorithm: BundleAlgorithm = "RS256"
    """The algorithm that it is for; a signature by any other is refused."""
    key: SecretRef
    """PEM of the public key or certificate, or with `HS...` the secret: `{env: NAME}` or `{file: PATH}`."""


class Verification(Section):
    """Who may have signed a bundle."""

    keys: Annotated[tuple[BundleKey, ...], Field(min_length=1)]
    """The keys; a signature by one of them is needed."""
    scope: Text = ""
    """The scope that the signature has to name."""

    @field_validator("keys")
    @classmethod
    def _named_apart(cls, keys: tuple[BundleKey, ...]) -> tuple[BundleKey, ...]:
        names = [key.id for key in keys]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two are named {twice[0]!r} (give each its own id)")
        return keys


class PolicyBundle(Section):
    """An OPA bundle, at a URL or in a file."""

    url: str | None = None
    """Where it is fetched from: https, or http on this machine."""
    path: Path | None = None
    """The file (`.tar.gz`) that it is, instead of `url`."""
    token: SecretRef | None = None
    """Bearer token that the server asks for: `{env: NAME}` or `{file: PATH}`."""
    ca_file: Path | None = None
    """PEM file of the authorities to trust instead of the system's."""
    poll_s: Annotated[float, Field(ge=1, le=86_400)] = 60.0
    """Seconds between two questions whether there is another one."""
    timeout_s: Annotated[float, Field(gt=0, le=600)] = 10.0
    """Seconds in which it has to come whole."""
    max_bytes: Bytes = 16 * 2**20
    """How large it may be as it is sent; unpacked it may have 64 MiB."""
    verification: Verification | None = None
    """Who must have signed it. Without this, an unsigned one is taken and a signed one refused."""

    @field_validator("url")
    @classmethod
    def _over_tls(cls, url: str | None) -> str | None:
        if url is not None:
            parts = split_url(url, ("https", "http"))
            if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
                raise ValueError(
                    "is not encrypted, so that anyone on the way could change it (write https://)"
                )
        return url

    @model_validator(mode="after")
    def _one_place(self) -> PolicyBundle:
        if (self.url is None) == (self.path is None):
            raise ValueError("a bundle is in one place (write url or path)")
        if self.path is not None:
            for name in ("token", "ca_file", "poll_s", "timeout_s", "max_bytes"):
                # By value: workers are handed all settings, whether they were written down or not.
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"{name} is for a url (leave it out beside path)")
        return self


class Candidate(Section):
    """Policies that are tried out: asked beside those in force, compared, and never obeyed."""

    paths: Annotated[tuple[Path, ...], Field(min_length=1)]
    """Folders, files and bundles (`.tar.gz`) of Rego policies and their data: the whole set to try."""
    timeout_s: Annotated[float, Field(gt=0, le=60)] = 1.0
    """Seconds for one decision. What takes longer is ended, and counted as failed."""
    max_memory_bytes: Annotated[int, Field(ge=128 * 2**20, le=64 * 2**30)] = 512 * 2**20
    """Memory, in addresses, for the process that evaluates them, beside Callgate's own; one a worker."""


class Policies(Section):
    """Where decisions come from."""

    engine: Literal["embedded", "opa"] = "embedded"
    """`embedded` evaluates Rego inside Callgate; `opa` asks an OPA server."""
    paths: tuple[Path, ...] = ()
    """Folders, files and bundles (`.tar.gz`) of Rego policies and their data. Empty: the starter policies."""
    bundles: tuple[PolicyBundle, ...] = ()
    """OPA bundles from servers, or signed ones: one set with `paths`, or in place of the starter policies."""
    opa: Opa = Opa()
    """The OPA server, with `engine: opa`."""
    candidate: Candidate | None = None
    """Policies that are tried out beside those in force, with `engine: embedded`."""

    @model_validator(mode="after")
    def _served_here(self) -> Policies:
        if self.engine == "opa" and self.bundles:
            raise ValueError("bundles are for the embedded engine (configure them in the OPA server)")
        if self.engine == "opa" and self.candidate is not None:
            raise ValueError("a candidate is for the embedded engine (leave it out with engine: opa)")
        return self
