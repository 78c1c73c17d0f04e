"""What a guard is, and what it is told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, TypeVar

import orjson

from proxy.model import OfferedTool, PastCall, Principal, Request, ToolCall, ToolResult, Turn, Usage, lazy
from proxy.tools import ToolSpec
from proxy.verdicts import Verdict

T = TypeVar("T")


@dataclass
class Situation:
    """Everything that the calls of one turn have in common. Values are worked out once, when asked for."""

    principal: Principal
    request: Request
    trace_id: str
    conversation_id: str
    time: str
    """RFC 3339, UTC."""
    batch: tuple[ToolCall, ...] = ()
    """All calls of the turn: parallel calls are judged together."""
    rounds: tuple[PastCall, ...] = ()
    """Calls that were settled since the request came in, with the results written for them: what it does
    not show."""
    settled_rounds: int = 0
    """How many rounds they were."""
    notes: dict[str, Any] = field(default_factory=dict, repr=False)
    """What a guard works out once for all calls of a turn, by the guard's name."""
    approval: Mapping[str, Any] | None = None
    """What a person approved: ``{approved, code, by, time, calls: [ids]}``; None where nobody did."""
    approved: frozenset[tuple[str, str, bytes]] = frozenset()
    """The calls that the approval is for: id, name, canonical arguments."""
    registry: Callable[[str], ToolSpec | None] = field(default=lambda name: None, repr=False)
    sent: frozenset[str] | None = None
    """The ids of the calls whose results the client itself sent; None where nothing was put back beside
    them."""
    admission: dict[str, list[str]] = field(default_factory=dict)
    """What policy changed in the request before it was sent (see ``ExchangeRecord``)."""
    _decided: int = field(default=0, init=False, repr=False)
    labels: frozenset[str] = frozenset()
    """What policy said of the results in the conversation, beside the labels of their tools."""

    def taint(self, labels: Iterable[str]) -> None:
        """The conversation has taken in content with these labels."""
        if not self.labels.issuperset(labels):
            self.labels = self.labels.union(labels)
            self.__dict__.pop("policy_input", None)

    def new_decision_id(self) -> str:
        """An id for one decision: the trace's, which is random, and the decision's number in it."""
        self._decided += 1
        return f"{self.trace_id}-{self._decided}"

    def begin_turn(
        self, calls: tuple[ToolCall, ...], hidden: Sequence[tuple[Turn, Sequence[ToolResult]]] = ()
    ) -> None:
        """The calls of the next round take the place of the last one's; ``hidden`` are the rounds before."""
        number = self.request.history.turn
        self.batch = calls
        self.rounds = tuple(
            PastCall(call.id, call.name, call.arguments_json, result.content, number)
            for turn, results in hidden
            for call, result in zip(turn.calls, results, strict=True)
        )
        self.settled_rounds = len(hidden)
        self.notes = {}
        self.__dict__.pop("policy_input", None)

    def approve(self, approval: Mapping[str, Any], calls: frozenset[tuple[str, str, bytes]]) -> None:
        """A person approved these calls."""
        self.approval, self.approved = approval, calls
        self.__dict__.pop("policy_input", None)

    @lazy
    def policy_input(self) -> dict[str, Any]:
        """The part of the policies' input that is the same for every call of the turn."""
        history = self.request.history
        # What was settled inside this exchange is history too: a cached page taints as a fetched one does.
        calls = (*history.calls, *self.rounds)
        return {
            "principal": {
                "id": self.principal.id,
                "roles": list(self.principal.roles),
                "tenant": self.principal.tenant,
                "claims": dict(self.principal.claims),
            },
            "conversation": {"id": self.conversation_id, "query": history.query, "turn": history.turn},
            "model": self.request.model,
            "protocol": self.request.protocol,
            "batch": [call_input(call) for call in self.batch],
            "history": {
                "calls": [self._past(call) for call in calls],
                "labels": sorted(self._labels(calls) | self.labels),
                "counts": _counts(calls),
            },
            "approval": self.approval,
            "time": self.time,
        }

    def _past(self, call: PastCall) -> dict[str, Any]:
        return {"id": call.id, "name": call.name, "arguments": call.arguments(), "turn": call.turn}

    def _labels(self, calls: tuple[PastCall, ...]) -> set[str]:
        """The labels of the tools whose results the conversation has already taken in."""
        labels: set[str] = set()
        for name in {call.name for call in calls if call.result is not None}:
            if spec := self.registry(name):
                labels.update(spec.labels)
        return labels


@dataclass
class Context:
    """What a guard is told beside the call: the turn's situation, the tool, and what was looked up."""

    situation: Situation
    spec: ToolSpec | None
    """What the operator says of the tool."""
    offered: OfferedTool | None
    """What the application said of it in this request."""
    facts: dict[str, Any] = field(default_factory=dict)
    cache_ttl_s: float | None = None
    """How old a cached answer may be at most, where a guard above said so; 0 is not from the cache at all."""
    policy_revision: str | None = None
    """Digest of the policies that decided, once they have."""

    async def fact(self, name: str, look_up: Callable[[], Awaitable[T]]) -> T:
        """Look something up so that the record keeps it and a replay needs nothing else."""
        if name not in self.facts:
            self.facts[name] = await look_up()
        value: T = self.facts[name]
        return value


class Guard(Protocol):
    """One reason why a call might not go through."""

    name: ClassVar[str]

    async def check(self, call: ToolCall, ctx: Context) -> Verdict:
        """This guard's word on the call. To break is to deny: the pipeline sees to that."""
        ...


class Refused(Exception):
    """A request that is not sent to the provider. ``message`` is for the client."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        param: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.param = status, code, message, param
        self.retry_after_s = retry_after_s


class Gate(Protocol):
    """Judges, and may change, a request before it is sent to the provider."""

    async def admit(self, request: Request, situation: Situation) -> Request:
        """The request as it may be sent; raises ``Refused``."""
        ...


class Learner(Protocol):
    """Takes in the tool results that an application sends back."""

    async def learn(self, results: Sequence[PastCall], situation: Situation) -> None:
        """See the results that are new in this request. To fail is to have learned nothing."""
        ...


class Meter(Protocol):
    """Counts what a request costs against what its principal may use."""

    async def open(self, situation: Situation) -> Any:
        """Reserve what this request may cost; raises ``Refused`` (429) when nothing is left."""
        ...

    async def close(
        self, reservation: Any, usage: Usage, situation: Situation, broken_off: bool = False
    ) -> None:
        """Replace the reservation by what was used, over all rounds; to fail is to let it stand.

        ``broken_off``: a last answer ended before the provider said what it used; ``usage`` is without it.
        """
        ...


def canonical(arguments: Any) -> bytes:
    """Arguments in one spelling (RFC 8785 for what tool calls hold): keys sorted, no white space."""
    return orjson.dumps(arguments, option=orjson.OPT_SORT_KEYS)


def call_input(call: ToolCall) -> dict[str, Any]:
    """A call as policies see it; arguments that have no reading are null."""
    return {"id": call.id, "name": call.name, "arguments": call.arguments}


def _counts(calls: tuple[PastCall, ...]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for call in calls:
        counts[call.name] = counts.get(call.name, 0) + 1
    return counts
