"""The evidence: one record a call, one a client request. Logs, metrics and replay are read from these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any, ClassVar, Protocol

from proxy.model.value import value

MASKED = "[masked]"

# OpenTelemetry GenAI semantic conventions: the one place where their names stand.
GEN_AI_REQUEST_MODEL = "gen_ai.request.model"
GEN_AI_RESPONSE_MODEL = "gen_ai.response.model"
GEN_AI_TOOL_NAME = "gen_ai.tool.name"
GEN_AI_TOOL_CALL_ID = "gen_ai.tool.call.id"
GEN_AI_INPUT_TOKENS = "gen_ai.usage.input_tokens"
GEN_AI_OUTPUT_TOKENS = "gen_ai.usage.output_tokens"


@value(frozen=True, slots=True)
class Step:
    """One guard's word in a decision's trail."""

    guard: str
    verdict: str
    micros: int
    """How long the guard took, in microseconds."""
    reasons: tuple[str, ...] = ()
    shadow: bool = False
    """The guard was only watched: its verdict did not count."""

    def fields(self) -> dict[str, Any]:
        step: dict[str, Any] = {"guard": self.guard, "verdict": self.verdict, "micros": self.micros}
        if self.reasons:
            step["reasons"] = list(self.reasons)
        if self.shadow:
            step["shadow"] = True
        return step


class Fact(Protocol):
    """A fact that is worked out when the record is written, off the request's path."""

    __slots__ = ()

    def __call__(self) -> Any:
        """As JSON."""


@value(frozen=True, slots=True)
class DecisionRecord:
    """What was decided of one call, by whom, on which grounds. Made only by the pipeline."""

    kind: ClassVar[str] = "decision"

    decision_id: str
    time: str
    """RFC 3339, UTC."""
    trace_id: str
    conversation_id: str
    principal: Mapping[str, Any]
    protocol: str
    model: str
    tool: str
    call_id: str
    arguments_written: Any
    """As the model wrote them (masked): the parsed object, or the text where it has no reading."""
    arguments_forwarded: Any
    """As the application gets them (masked); None where the call was not forwarded."""
    verdict: str
    """What was said of the call by itself."""
    effect: str
    """What became of it beside the others of its turn: an allowed call is held with one that waits."""
    guard: str | None
    """The guard whose verdict decided; None where none objected."""
    reasons: tuple[str, ...]
    trail: tuple[Step, ...]
    policy_revision: str
    config_digest: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Every value that a guard looked up, so that the decision can be replayed: JSON, or a ``Fact``."""

    def fields(self) -> dict[str, Any]:
        """The record as one flat JSON object."""
        return {
            "kind": self.kind,
            "time": self.time,
            "decision_id": self.decision_id,
            "trace_id": self.trace_id,
            "conversation_id": self.conversation_id,
            "principal": self.principal,
            "protocol": self.protocol,
            GEN_AI_REQUEST_MODEL: self.model,
            GEN_AI_TOOL_NAME: self.tool,
            GEN_AI_TOOL_CALL_ID: self.call_id,
            "arguments_written": self.arguments_written,
            "arguments_forwarded": self.arguments_forwarded,
            "verdict": self.verdict,
            "effect": self.effect,
            "guard": self.guard,
            "reasons": self.reasons,
            "trail": [step.fields() for step in self.trail],
            "policy_revision": self.policy_revision,
            "config_digest": self.config_digest,
            # No JSON can be called; to ask for the class takes longer, and there are many facts.
            "facts": {name: fact() if callable(fact) else fact for name, fact in self.facts.items()},
        }


@value(frozen=True, slots=True)
class ExchangeRecord:
    """One client request, from its first byte to the last of its answer."""

    kind: ClassVar[str] = "exchange"

    time: str
    trace_id: str
    conversation_id: str
    principal: Mapping[str, Any]
    protocol: str
    model: str
    stream: bool
    query: str | None
    status: int
    outcome: str
    """``answered``, ``forwarded``, ``mixed``, ``finished``, ``refused``, ``upstream_error``, ``failed``
    or ``cancelled``."""
    rounds: int
    """How often the provider was asked."""
    calls: int
    input_tokens: int | None
    output_tokens: int | None
    latency_s: Mapping[str, float]
    """Seconds by component: ``total``, ``upstream`` (waiting for the provider), ``judging``,
    ``first_byte``."""
    decisions: Sequence[str] = ()
    error: str | None = None
    restored: int = 0
    """Calls settled earlier that were put back into this request."""
    admission: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """What policy changed in the request before it was sent: ``hidden`` (tools), ``stripped`` and
    ``approval`` (hosted tools), with its ``reasons``; the tools ``redefined`` by the registry, those that
    have ``drifted`` from their pin; and the ``model`` that it was routed to."""
    cost_usd: float | None = None
    """What the tokens cost by list price, or the operator's; None where tokens or price are not known."""

    def fields(self) -> dict[str, Any]:
        """The record as one flat JSON object."""
        return {
            "kind": self.kind,
            "time": self.time,
            "trace_id": self.trace_id,
            "conversation_id": self.conversation_id,
            "principal": self.principal,
            "protocol": self.protocol,
            GEN_AI_REQUEST_MODEL: self.model,
            "stream": self.stream,
            "query": self.query,
            "status": self.status,
            "outcome": self.outcome,
            "rounds": self.rounds,
            "calls": self.calls,
            GEN_AI_INPUT_TOKENS: self.input_tokens,
            GEN_AI_OUTPUT_TOKENS: self.output_tokens,
            "latency_s": self.latency_s,
            "decisions": self.decisions,
            "error": self.error,
            "restored": self.restored,
            "admission": self.admission,
            "cost_usd": self.cost_usd,
        }


@value(frozen=True, slots=True)
class TicketRecord:
    """One step in the life of a held turn."""

    kind: ClassVar[str] = "ticket"

    time: str
    trace_id: str
    conversation_id: str
    principal: Mapping[str, Any]
    code: str
    event: str
    """``opened``, ``approved`` or ``declined``."""
    by: str
    """``policy`` opens; ``user`` (in the conversation) or ``operator`` (the admin API) decides."""
    question: str
    calls: Sequence[Mapping[str, Any]] = ()
    """The ids and names of the calls that are held; their arguments stand in the decisions."""

    def fields(self) -> dict[str, Any]:
        """The record as one flat JSON object."""
        return {"kind": self.kind} | {name: getattr(self, name) for name in self.__slots__}


@value(frozen=True, slots=True)
class ResultRecord:
    """One tool result on its way to the model."""

    kind: ClassVar[str] = "result"

    time: str
    trace_id: str
    conversation_id: str
    principal: Mapping[str, Any]
    call_id: str
    tool: str
    effect: str
    """``pass``, ``redact``, ``shorten`` or ``replace``."""
    reasons: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    """What it brings into the conversation, for policies on later calls."""
    bytes_before: int = 0
    bytes_after: int = 0

    def fields(self) -> dict[str, Any]:
        """The record as one flat JSON object."""
        return {"kind": self.kind} | {name: getattr(self, name) for name in self.__slots__}


@value(frozen=True, slots=True)
class PolicyRecord:
    """Policies were put in force, or could not be."""

    kind: ClassVar[str] = "policy"

    time: str
    event: str
    """``loaded``, or ``refused``: then the last good ones stay in force."""
    revision: str
    """Of the policies that are in force after this; empty while there are none."""
    faults: tuple[str, ...] = ()

    def fields(self) -> dict[str, Any]:
        """The record as one flat JSON object."""
        return {"kind": self.kind} | {name: getattr(self, name) for name in self.__slots__}


@value(frozen=True, slots=True)
class DifferenceRecord:
    """A candidate's policies would have decided otherwise than those in force, which decided."""

    kind: ClassVar[str] = "policy"
    event: ClassVar[str] = "differs"

    time: str
    """When the decision in force was made."""
    trace_id: str
    conversation_id: str
    principal: Mapping[str, Any]
    package: str
    tool: str
    """Of the call or the result; empty where the decision is about neither."""
    call_id: str
    change: str
    """``stricter``, ``looser``, ``altered`` (other obligations) or ``reworded`` (other reasons)."""
    live: Mapping[str, Any]
    """``effect``, ``reasons`` and ``obligations`` of the policies in force."""
    candidate: Mapping[str, Any]
    revision: str
    """Of the policies in force."""
    candidate_revision: str

    def fields(self) -> dict[str, Any]:
        """The record as one flat JSON object."""
        own = {name: getattr(self, name) for name in self.__slots__}
        return {"kind": self.kind, "time": self.time, "event": self.event} | own


@value(frozen=True, slots=True)
class DefinitionRecord:
    """A tool's definition as an application sent it: once for each distinct one that a process sees."""

    kind: ClassVar[str] = "definition"

    time: str
    trace_id: str
    principal: Mapping[str, Any]
    protocol: str
    tool: str
    digest: str
    """What the tool's ``pin`` is compared with."""
    event: str
    """``seen``, or ``drifted``: it is none of those that are pinned."""
    pinned: tuple[str, ...] = ()
    definition: Mapping[str, Any] | None = None
    """``description`` and ``parameters``, and what else the model may read; None where ``audit.capture`` is
    not ``full``, or it is too large."""

    def fields(self) -> dict[str, Any]:
        """The record as one flat JSON object."""
        return {"kind": self.kind} | {name: getattr(self, name) for name in self.__slots__}


Record = (
    DecisionRecord
    | ExchangeRecord
    | TicketRecord
    | ResultRecord
    | PolicyRecord
    | DifferenceRecord
    | DefinitionRecord
)


def masked(value: Any, pointers: Sequence[str]) -> Any:
    """A copy of ``value`` in which what the JSON pointers (RFC 6901) name is replaced.

    A pointer that leads nowhere masks nothing; the empty pointer masks everything. Where it leads on from
    text that may be JSON, all of that is masked: what policy saw there had been read from it.
    """
    for pointer in pointers:
        parts = [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]
        value = _mask(value, parts)
    return value


def _mask(value: Any, parts: list[str]) -> Any:
    if not parts:
        return MASKED
    head, rest = parts[0], parts[1:]
    if isinstance(value, dict) and head in value:
        return value | {head: _mask(value[head], rest)}
    if isinstance(value, str) and value.lstrip().startswith(("{", "[")):
        return MASKED
    # A policy may make pointers of what a model wrote: beyond some thousand digits, Python reads no number.
    if isinstance(value, list) and head.isascii() and head.isdigit() and len(head) < 19:
        copy = list(value)
        if (at := int(head)) < len(copy):
            copy[at] = _mask(copy[at], rest)
        return copy
    return value
