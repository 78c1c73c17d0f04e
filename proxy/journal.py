"""What one exchange came to: kept while it runs, made a record when it ends."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from time import perf_counter

from proxy.model import Principal, Request, Usage
from proxy.pipeline import Capture, principal_fields
from proxy.record import ExchangeRecord

_MAX_QUERY_CHARS = 8192
_NOTHING = Usage()


@dataclass
class Journal:
    """The story of one client request."""

    time: str
    trace_id: str
    protocol: str
    principal: Principal
    capture: Capture
    conversation_id: str = ""
    request: Request | None = None
    outcome: str = "failed"
    error: str | None = None
    rounds: int = 0
    asked_model: str = ""
    """The model that was asked: another than the client's where the request was routed."""
    restored: int = 0
    decisions: list[str] = field(default_factory=list)
    admission: dict[str, list[str]] = field(default_factory=dict)
    usage: Usage | None = None
    """Tokens as the provider counts them, over all rounds; None where it never said."""
    spent: Usage = _NOTHING
    """The same, with an estimate for every answer of which the provider did not say."""
    broken_off: bool = False
    """A last answer ended before all of it was read: what it used is not known, and not in ``spent``."""
    upstream_s: float = 0.0
    judging_s: float = 0.0
    _began: float = field(default_factory=perf_counter)

    def take_usage(self, usage: Usage | None, estimate: Usage = _NOTHING) -> None:
        """Add the tokens of a round that was read to its end."""
        self.broken_off = False
        # Some providers say zero where they did not count.
        self.spent += usage if usage is not None and usage != _NOTHING else estimate
        if usage is not None:
            self.usage = usage if self.usage is None else self.usage + usage

    def record(
        self, status: int, first_byte_s: float | None, cost_usd: float | None = None
    ) -> ExchangeRecord:
        """The record of the exchange as it stands."""
        request = self.request
        latency = {
            "total": perf_counter() - self._began,
            "upstream": self.upstream_s,
            "judging": self.judging_s,
        }
        if first_byte_s is not None:
            latency["first_byte"] = first_byte_s
        return ExchangeRecord(
            time=self.time,
            trace_id=self.trace_id,
            conversation_id=self.conversation_id,
            principal=principal_fields(self.principal),
            protocol=self.protocol,
            model=request.model if request else "",
            stream=request.stream if request else False,
            query=self._query(),
            status=status,
            outcome=self.outcome,
            rounds=self.rounds,
            calls=len(self.decisions),
            input_tokens=self.usage.input_tokens if self.usage else None,
            output_tokens=self.usage.output_tokens if self.usage else None,
            latency_s={name: round(seconds, 6) for name, seconds in latency.items()},
            decisions=tuple(self.decisions),
            error=self.error,
            restored=self.restored,
            admission=self.admission,
            cost_usd=cost_usd,
        )

    def _query(self) -> str | None:
        if self.request is None or self.capture == "off":
            return None
        query = self.request.history.query
        if self.capture == "digest":
            return hashlib.sha256(query.encode(errors="replace")).hexdigest()
        return query[:_MAX_QUERY_CHARS]
