"""What every exchange is made of: what all of them share, and what one client sent."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from proxy.approvals import Approvals
from proxy.guards.base import Gate, Learner, Meter
from proxy.model import Principal, Usage
from proxy.model.value import value
from proxy.pipeline import Capture, Pipeline
from proxy.ports import Headers, Sink, Store, Upstream
from proxy.tools import Registry
from proxy.wire.codec import Caps


@dataclass(frozen=True)
class Core:
    """What all exchanges share."""

    upstream: Upstream
    pipeline: Pipeline
    store: Store
    sink: Sink
    registry: Callable[[], Registry]
    approvals: Approvals
    gates: Sequence[Gate] = ()
    """Asked in their order before a request is sent."""
    learners: Sequence[Learner] = ()
    meter: Meter | None = None
    cost_usd: Callable[[str, Usage], float | None] = lambda model, usage: None
    """What a model's tokens cost, in US dollars."""
    caps: Caps = field(default_factory=Caps)
    max_rounds: int = 3
    settled_ttl_s: float = 86_400
    status: bool = False
    """Whether streams say the status of the tools that they end in calls of."""
    capture: Capture = "full"
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)


@value(frozen=True, slots=True)
class Incoming:
    """One client request as it came in."""

    raw: bytes
    path: str
    """Below the upstream's base URL, with its query string."""
    headers: Headers
    """Those that go on to the provider."""
    principal: Principal
    trace_id: str


def conversation_id(principal: Principal, opening: str) -> str:
    """The name of a conversation: whose it is, and how it began."""
    text = f"{principal.key}\0{opening}"
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:16]
