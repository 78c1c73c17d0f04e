"""What the core needs of the outside: an upstream, a downstream, a policy engine, a store, sinks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from typing import Any, Protocol

from proxy.model.value import value
from proxy.record import Record

Headers = Sequence[tuple[str, str]]


class UpstreamFailed(Exception):
    """The provider gave no usable answer. ``message`` is for the client and holds no internals."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message

    def anew(self) -> UpstreamFailed:
        """The same failure, to be raised where this one is kept: kept and raised, it would hold every frame
        that it went through, with the request, until the garbage collector comes."""
        return UpstreamFailed(self.status, self.code, self.message)


class Unavailable(Exception):
    """A port could not do its work (the policy engine, the store, a sink). Callers fail closed."""


@value(frozen=True, slots=True)
class Ask:
    """One request to the provider."""

    path: str
    """Below the upstream's base URL, with its query string."""
    body: bytes
    headers: Headers
    model: str


class Reply(Protocol):
    """The provider's answer, its body not yet read."""

    status: int
    headers: Headers
    """Those that the client may see: no hop-by-hop header, no content length or encoding."""
    media_type: str

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives, decoded; raises ``UpstreamFailed`` when it is cut or stalls."""
        ...

    async def drain(self) -> None:
        """Read what is left after the protocol's own end, so that the connection can be used again."""
        ...


class Upstream(Protocol):
    """The providers. Never sends a request twice."""

    def ask(self, ask: Ask) -> AbstractAsyncContextManager[Reply]:
        """Send; entering raises ``UpstreamFailed``, leaving early closes the connection."""
        ...


class Downstream(Protocol):
    """The client that waits for one answer."""

    holding: bool
    """Nothing can be sent for now: whoever carries the answer keeps the client's stream alive."""

    async def begin(self, status: int, headers: Headers, keepalive: bytes | None) -> None:
        """Send the head; with ``keepalive`` what follows is a stream, and those bytes keep it alive."""
        ...

    async def send(self, data: bytes) -> None:
        """Send bytes of the body; without a stream, this is the whole body."""
        ...


class PolicyEngine(Protocol):
    """A Rego engine. ``callgate.call`` and the other packages each have one rule ``decision``."""

    @property
    def revision(self) -> str:
        """Digest of the policies and data in force."""
        ...

    def defines(self, package: str) -> bool:
        """Whether the loaded policies have a rule ``decision`` in this package (as ``callgate.call``)."""
        ...

    def reads(self, package: str) -> frozenset[str] | None:
        """The members of ``input`` that the decision may depend on, beside the policies in force.

        None where that cannot be told, or where it depends on more: then no decision may be kept.
        """
        ...

    async def decide(self, package: str, input: Mapping[str, Any]) -> Any:
        """The value of ``data.<package>.decision``, or None where it is undefined.

        Raises ``Unavailable`` when the engine cannot decide.
        """
        ...


asking: ContextVar[str] = ContextVar("callgate.asking", default="")
"""The trace id of the client request that is being served: for what is told of it beside its path."""


class Patterns(Protocol):
    """Regular expressions whose time grows with the text only, whoever wrote pattern and text."""

    def fault(self, pattern: str) -> str | None:
        """What is wrong with a pattern, for whoever wrote it; None where it can be used."""
        ...

    def replace(self, text: str, pattern: str, by: str) -> str:
        """``text`` with every match replaced; raises ``Unavailable`` where the pattern cannot be used."""
        ...


class Store(Protocol):
    """What a request cannot say by itself, for a while. Raises ``Unavailable``."""

    async def get(self, key: str) -> bytes | None:
        """The value under ``key``, or None."""
        ...

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values under ``keys``, in their order, in one round trip."""
        ...

    async def put(self, key: str, value: bytes, ttl_s: float, only_if_absent: bool = False) -> bool:
        """Keep ``value`` for ``ttl_s`` seconds; False where ``only_if_absent`` found another."""
        ...

    async def put_many(self, values: Mapping[str, bytes], ttl_s: float) -> None:
        """Keep each value for ``ttl_s`` seconds, in one round trip. Where it fails, some may be kept."""
        ...

    async def take(self, key: str) -> bytes | None:
        """Get and delete, atomically: of all who take, one receives."""
        ...

    async def keys(self, prefix: str) -> list[str]:
        """Every key that begins with ``prefix``, for people to look at; never on a request's path."""
        ...

    async def count(self, key: str, amount: float, ttl_s: float) -> float:
        """Add to a counter that expires ``ttl_s`` seconds after it began; returns its new value."""
        ...


class Sink(Protocol):
    """Where records go."""

    def write(self, record: Record) -> None:
        """Take a record without waiting; raises ``Unavailable`` when it cannot be kept."""
        ...
