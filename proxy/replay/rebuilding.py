"""The policy inputs of recorded decisions, put together again out of the log.

A record holds what a policy was told of its own call, and names the other calls of the turn and of the
conversation; their arguments stand in their own records, masked as policy said of them. So records have to
come in the log's order. What cannot be found is missing, and said to be.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from proxy.guards.told import POLICY_FACT
from proxy.record import MASKED, DecisionRecord
from proxy.tools import tool_input

POLICY_GUARD = "policy"


@dataclass(frozen=True, slots=True)
class Asked:
    """A decision that policy was asked for, and what it was told."""

    record: DecisionRecord
    document: dict[str, Any]
    """The input of ``callgate.call``; where something is missing, a stand-in."""
    missing: tuple[str, ...] = ()
    """JSON pointers (RFC 6901) to what of the document the log does not tell; the empty one is all of it."""


@dataclass(frozen=True, slots=True)
class _Arguments:
    """The arguments of a call as the log has them, and the pointers to what it does not have of them."""

    value: Any
    missing: tuple[str, ...] = ()

    def at(self, pointer: str) -> tuple[str, ...]:
        return tuple(pointer + rest for rest in self.missing)


_UNKNOWN = _Arguments(None, ("",))


class Rebuilder:
    """Takes records in, gives decisions out. What it keeps is bounded, whatever the log's length."""

    def __init__(self, max_waiting: int = 4096, max_bytes: int = 64 << 20) -> None:
        """At most ``max_waiting`` exchanges wait for the rest of a turn; arguments of earlier calls are kept
        in about ``max_bytes``, those that were asked for last."""
        self._waiting: OrderedDict[str, list[_Waiting]] = OrderedDict()
        self._max_waiting = max_waiting
        self._past = _Kept(max_bytes // 2)
        self._turns = _Kept(max_bytes // 2)

    def feed(self, record: DecisionRecord, wanted: bool = True) -> Iterator[Asked]:
        """The decisions that can be judged now that this one is known; itself only if it is ``wanted``."""
        fact = record.facts.get(POLICY_FACT)
        if wanted and any(step.guard == POLICY_GUARD for step in record.trail):
            if isinstance(fact, Mapping):
                self._waiting.setdefault(record.trace_id, []).append(self._begun(record, fact))
            else:
                yield Asked(record, {}, ("",))
        written = _arguments(record.arguments_written, fact)
        self._turns.put(record.decision_id, written)
        forwarded = _arguments(record.arguments_forwarded, fact) if record.effect == "forward" else written
        self._past.put((record.conversation_id, record.call_id, record.tool), forwarded)
        yield from self._ready(record.trace_id)

    def finish(self) -> Iterator[Asked]:
        """The decisions whose turn the log does not hold to its end."""
        while self._waiting:
            yield from self._given_up()

    def _ready(self, trace_id: str) -> Iterator[Asked]:
        for one in self._waiting.pop(trace_id, []):
            if all(sibling is None or sibling in self._turns for sibling in one.siblings):
                yield one.asked(self._turns)
            else:
                self._waiting.setdefault(trace_id, []).append(one)
        while len(self._waiting) > self._max_waiting:
            yield from self._given_up()

    def _given_up(self) -> Iterator[Asked]:
        _, waiting = self._waiting.popitem(last=False)
        for one in waiting:
            yield one.asked(self._turns)

    def _begun(self, record: DecisionRecord, fact: Mapping[str, Any]) -> _Waiting:
        missing: list[str] = []
        history = []
        for index, (id, name, turn) in enumerate(fact.get("calls", ())):
            past = self._past.get((record.conversation_id, id, name)) or _UNKNOWN
            missing += past.at(f"/history/calls/{index}/arguments")
            history.append({"id": id, "name": name, "arguments": past.value, "turn": turn})
        if "capture" in fact:
            missing += ["/principal/claims", "/conversation/query"]
        elif "query_chars" in fact:
            missing.append("/conversation/query")
        return _Waiting(record, fact, history, tuple(missing))


@dataclass(slots=True)
class _Waiting:
    """A decision whose turn may not be whole yet."""

    record: DecisionRecord
    fact: Mapping[str, Any]
    history: list[dict[str, Any]]
    missing: tuple[str, ...]
    siblings: list[str | None] = field(init=False)
    """The ids of the decisions on the calls of the turn, in its order; None where they are not known."""

    def __post_init__(self) -> None:
        self.siblings = [self.record.decision_id]
        if batch := self.fact.get("batch"):
            trace, _, number = self.record.decision_id.rpartition("-")
            at = self.fact.get("at")
            # The decisions of one turn are numbered in the order of its calls.
            known = at is not None and number.isascii() and number.isdigit()
            first = int(number) - at if known and at is not None else 0
            self.siblings = [f"{trace}-{first + place}" if known else None for place in range(len(batch))]

    def asked(self, turns: _Kept) -> Asked:
        """The decision as far as the log tells it."""
        record, fact = self.record, self.fact
        own = turns.get(record.decision_id) or _UNKNOWN
        judged = _arguments(fact["arguments"], fact) if "arguments" in fact else own
        batch, missing = [], self.missing
        for place, (id, name) in enumerate(fact.get("batch", [(record.call_id, record.tool)])):
            sibling = self.siblings[place]
            given = (turns.get(sibling) if sibling else None) or _UNKNOWN
            missing += given.at(f"/batch/{place}/arguments")
            batch.append({"id": id, "name": name, "arguments": _read(given.value)})
        missing += judged.at("/call/arguments")
        return Asked(record, self._document(batch, _read(judged.value)), missing)

    def _document(self, batch: list[dict[str, Any]], arguments: Any) -> dict[str, Any]:
        record, fact, who = self.record, self.fact, self.record.principal
        counts: dict[str, int] = {}
        for call in self.history:
            counts[call["name"]] = counts.get(call["name"], 0) + 1
        return {
            "principal": {
                "id": who.get("id", ""),
                "roles": list(who.get("roles", ())),
                "tenant": who.get("tenant", ""),
                "claims": fact.get("claims", {}),
            },
            "conversation": {
                "id": record.conversation_id,
                "query": fact.get("query", ""),
                "turn": fact.get("turn", 0),
            },
            "model": record.model,
            "protocol": record.protocol,
            "batch": batch,
            "history": {"calls": self.history, "labels": fact.get("labels", []), "counts": counts},
            "approval": fact.get("approval"),
            "time": record.time,
            "call": {"id": record.call_id, "name": record.tool, "arguments": arguments},
            "tool": fact.get("tool") or tool_input(record.tool, None),
        }


class _Kept:
    """Arguments by key, in bounded memory: those that were put or asked for last."""

    def __init__(self, max_bytes: int) -> None:
        self._kept: OrderedDict[Hashable, tuple[_Arguments, int]] = OrderedDict()
        self._max_bytes, self._bytes = max_bytes, 0

    def __contains__(self, key: Hashable) -> bool:
        return key in self._kept

    def get(self, key: Hashable) -> _Arguments | None:
        found = self._kept.get(key)
        if found is None:
            return None
        self._kept.move_to_end(key)
        return found[0]

    def put(self, key: Hashable, arguments: _Arguments) -> None:
        size = _size(arguments.value) + 400  # and some for the key
        self._bytes += size - self._kept.pop(key, (arguments, 0))[1]
        self._kept[key] = (arguments, size)
        while self._bytes > self._max_bytes and len(self._kept) > 1:
            self._bytes -= self._kept.popitem(last=False)[1][1]


def _arguments(value: Any, fact: Any) -> _Arguments:
    """Arguments as a record has them, which may not be all of them."""
    withheld = isinstance(fact, Mapping) and "capture" in fact
    # Without the fact, only the shape tells: arguments are never null, and seldom one digest.
    digest = not isinstance(fact, Mapping) and isinstance(value, dict) and [*value] == ["sha256"]
    if withheld or digest or value is None:
        return _UNKNOWN
    return _Arguments(value, tuple(_masked(value)))


def _masked(value: Any) -> Iterator[str]:
    """Pointers to what is masked. Without recursion: a model may nest what it writes as deep as it likes."""
    below: list[tuple[str, Any]] = [("", value)]
    while below:
        at, inner = below.pop()
        if inner == MASKED:
            yield at
        elif isinstance(inner, dict):
            below += [
                (f"{at}/{key.replace('~', '~0').replace('/', '~1')}", item) for key, item in inner.items()
            ]
        elif isinstance(inner, list):
            below += [(f"{at}/{index}", item) for index, item in enumerate(inner)]


def _size(value: Any) -> int:
    """About how many bytes Python needs for it: four times its text."""
    try:
        return 4 * len(repr(value))
    except RecursionError:
        return 1 << 20


def _read(arguments: Any) -> Any:
    """As policies are told of a call: arguments that have no one reading are null."""
    return None if isinstance(arguments, str) else arguments
