"""What the server asks of an API: to read its requests and to render turns as its answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from proxy.scripted.expect import Seen
from proxy.scripted.script import Played


class Shape(NamedTuple):
    """Everything about a request that changes how a turn is rendered."""

    model: str
    stream: bool
    legacy: bool = False
    """The request offers ``functions``, not ``tools``."""
    usage: bool = False
    """The request wants usage on the stream."""
    obfuscation: bool = True


class BadRequest(ValueError):
    """The request is not one of this API; the message says why."""


class Dialect(Protocol):
    """One API. A module with these names is one."""

    @property
    def PATH(self) -> str:
        """How the paths of its requests end."""

    def shape(self, body: Mapping[str, Any]) -> Shape:
        """How the answer must look; raises BadRequest."""

    def answered(self, body: Mapping[str, Any]) -> int:
        """How many turns of the model the request's history holds."""

    def seen(self, body: Mapping[str, Any]) -> Seen:
        """What the request says, for expectations."""

    def body(self, played: Played, shape: Shape) -> bytes:
        """The turn as one whole response body; raises ScriptError where the API cannot say it."""

    def frames(self, played: Played, shape: Shape) -> list[bytes]:
        """The turn as server-sent events; raises ScriptError where the API cannot say it."""

    def error(self, status: int, message: str, code: str | None = None) -> bytes:
        """The body of an error response, also the data of an error in mid-stream."""
