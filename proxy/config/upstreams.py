"""Settings of the providers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, Tag, field_validator, model_validator

from proxy.config.values import (
    CREDENTIAL_HEADERS,
    Name,
    OrSecret,
    Seconds,
    SecretRef,
    Section,
    by_shape,
    header_name,
    split_url,
)

# Headers that frame a message or name its hop (RFC 9110 7.6.1): Callgate writes these itself.
_FRAMING = frozenset({"connection", "content-length", "host", "keep-alive", "proxy-connection"}) | frozenset(
    {"te", "trailer", "transfer-encoding", "upgrade"}
)
_SECRET_HEADERS = CREDENTIAL_HEADERS | {"cookie", "proxy-authorization"}
# What people copy from a provider's page where its base is asked for.
_ROUTES = ("/chat/completions", "/responses", "/messages")

Auth = Annotated[
    Annotated[Literal["passthrough"], Tag("plain")] | Annotated[SecretRef, Tag("reference")], by_shape
]


class Upstream(Section):
    """One provider."""

    name: Name = "openai"
    """Its name in logs and metrics; no two upstreams share one."""
    base_url: str = "https://api.openai.com/v1"
    """Where it is, as its SDK takes it: with or without a trailing `/v1` or slash."""
    models: Annotated[tuple[Name, ...], Field(min_length=1)] = ("*",)
    """Globs over the model names that it serves; of all upstreams, the first match wins."""
    auth: Auth = "passthrough"
    """`passthrough` sends on the client's own key; `{env: NAME}` or `{file: PATH}` sends that key instead."""
    connect_timeout_s: Seconds = 10.0
    """Seconds to wait for a connection."""
    first_byte_timeout_s: Seconds = 300.0
    """Seconds to wait for the head of the answer."""
    idle_timeout_s: Seconds = 120.0
    """Seconds to wait for the next bytes of an answer that has begun."""
    headers: Mapping[str, OrSecret] = Field(default_factory=dict)
    """Headers set on every request: text, or `{env: NAME}` or `{file: PATH}`."""
    tls_verify: bool = True
    """Whether the provider's certificate is checked. Turn it off for a test only."""
    ca_file: Path | None = None
    """PEM file of the authorities to trust instead of the system's."""

    @field_validator("base_url")
    @classmethod
    def _a_base(cls, url: str) -> str:
        parts = split_url(url, ("https", "http"))
        if parts.query or parts.fragment or "?" in url or "#" in url:
            raise ValueError("has a query or a fragment (end it with its path)")
        for route in _ROUTES:
            if parts.path.rstrip("/").endswith(route):
                raise ValueError(f"ends in a route, which is appended to it (leave {route} out)")
        return url

    @field_validator("headers")
    @classmethod
    def _sendable(cls, headers: Mapping[str, str | SecretRef]) -> Mapping[str, str | SecretRef]:
        names = [header_name(name) for name in headers]
        for name, value in zip(names, headers.values(), strict=True):
            if names.count(name) > 1:
                raise ValueError(f"{name} is there twice (keep one)")
            if name in _FRAMING:
                raise ValueError(f"{name} is written by Callgate itself (leave it out)")
            if name in _SECRET_HEADERS and isinstance(value, str):
                raise ValueError(
                    f"{name} holds a secret in plain text (write {{env: NAME}} or {{file: PATH}})"
                )
        return dict(zip(names, headers.values(), strict=True))

    @model_validator(mode="after")
    def _one_trust(self) -> Upstream:
        if self.ca_file is not None and not self.tls_verify:
            raise ValueError("ca_file has no use while tls_verify is false (keep one of the two)")
        return self

    @property
    def has_own_key(self) -> bool:
        """Whether the provider gets a key from here, so that it does not check the client's."""
        return self.auth != "passthrough" or any(isinstance(v, SecretRef) for v in self.headers.values())

    @property
    def root(self) -> str:
        """The base URL without a trailing slash or ``/v1``: what ``/v1/messages`` is appended to."""
        return self.base_url.rstrip("/").removesuffix("/v1").rstrip("/")

    @property
    def versioned(self) -> str:
        """What ``/chat/completions`` is appended to: ``/v1`` is added only where the base URL has no path.

        Some providers have another version or none in their path (``/v1beta/openai``), and their SDK
        takes that as the base URL: it stays as it is.
        """
        base = self.base_url.rstrip("/")
        return base if split_url(base, ("https", "http")).path else f"{base}/v1"
