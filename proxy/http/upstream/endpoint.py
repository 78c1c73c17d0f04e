"""One provider, as its operator describes it."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from proxy.http import azure
from proxy.ports import Headers


@dataclass(frozen=True)
class Endpoint:
    """One provider."""

    name: str
    base_url: str
    """What ``/chat/completions`` is appended to."""
    models: tuple[str, ...] = ("*",)
    """Globs over the models that it serves."""
    key: str | None = field(default=None, repr=False)
    """The provider's key; None sends on the client's own."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    connect_timeout_s: float = 10.0
    """For the name, the connection and the handshake together."""
    first_byte_timeout_s: float = 300.0
    """For the head of an answer, from when its request began to be sent."""
    idle_timeout_s: float = 120.0
    tls: ssl.SSLContext | bool = True
    """The context to connect with; True for the system's authorities, False to check nothing."""

    def address(self, path: str) -> str:
        """The URL of a path below ``/v1``, as the SDK that knows the path would build it."""
        root = self.base_url.rstrip("/").removesuffix("/v1")
        if path.startswith(azure.PREFIX):
            return root.removesuffix("/openai") + path
        # Anthropic's SDK appends the version to any base URL, OpenAI's takes it as part of one.
        return f"{root}/v1{path}" if _is_messages(path) else self.base_url + path

    def credential(self, path: str, headers: Headers) -> tuple[str, str]:
        """The header, in lower case, in which the API behind a path takes the operator's key."""
        if path.startswith(azure.PREFIX):
            return "api-key", f"{self.key}"
        if _is_messages(path) or "anthropic-version" in [name.lower() for name, _ in headers]:
            return "x-api-key", f"{self.key}"
        return "authorization", f"Bearer {self.key}"

    def serves(self, model: str) -> bool:
        """Whether one of the globs matches."""
        return any(fnmatchcase(model, glob) for glob in self.models)


def _is_messages(path: str) -> bool:
    return path.startswith("/messages") and path[9:10] in ("", "/", "?")
