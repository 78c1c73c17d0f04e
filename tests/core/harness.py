"""Runs one case through the real core: scripted bytes in, client bytes and records out, no network."""

from __future__ import annotations

import copy
import itertools
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import orjson

from proxy.approvals import Approvals
from proxy.config import Settings
from proxy.core import Core, Incoming
from proxy.engines.patterns import LinearPatterns
from proxy.engines.regorus import RegorusEngine
from proxy.engines.sources.policyset import PolicySet
from proxy.exchange import Exchange
from proxy.gates.definitions import DefinitionsGate
from proxy.gates.request import RequestGate
from proxy.gates.results import ResultsGate
from proxy.gates.tools import ToolsGate
from proxy.guards.base import Situation
from proxy.guards.cache import CacheGuard
from proxy.guards.loop import LoopGuard
from proxy.guards.policy import PolicyGuard
from proxy.guards.schema import SchemaGuard
from proxy.model import PastResult, Principal
from proxy.parts import limits_guard, meter, priced
from proxy.pipeline import Pipeline, Watched
from proxy.ports import Ask, Headers, UpstreamFailed
from proxy.record import DecisionRecord, ExchangeRecord, Record
from proxy.scripted.reply import compose
from proxy.scripted.script import Played, Script
from proxy.stores.memory import MemoryStore
from proxy.tools import Registry, ResultRule, ToolSpec
from proxy.wire.codec import Caps
from tests.core.protocols import PROTOCOLS, Protocol, chat_request
from tests.gates.histories import HISTORIES

Cuts = Sequence[int]

# As the settings have it where nothing is written down.
RESULTS: dict[str, Any] = {"max_bytes": 2**20, "shape_errors": True}


@dataclass
class FakeEngine:
    """Decides by tool name; of the other packages it defines those that are given a decision."""

    decisions: Mapping[str, Any]
    packages: Mapping[str, Any] = field(default_factory=dict)
    revision: str = "test"
    inputs: list[Mapping[str, Any]] = field(default_factory=list)

    def defines(self, package: str) -> bool:
        return package == "callgate.call" or package in self.packages

    def reads(self, package: str) -> frozenset[str] | None:
        return None

    async def decide(self, package: str, input: Mapping[str, Any]) -> Any:
        if package in self.packages:
            decision = self.packages[package]
            if isinstance(decision, Exception):
                raise decision
            by_tool = package == "callgate.result" and input["tool"]["name"]
            return decision.get(by_tool, {"effect": "allow"}) if by_tool else decision
        self.inputs.append(copy.deepcopy(dict(input)))
        decision = self.decisions.get(input["call"]["name"], {"effect": "allow"})
        if isinstance(decision, Exception):
            raise decision
        if "labels" in decision:  # {labels: untrusted} denies once the conversation has the label
            if decision["labels"] in input["history"]["labels"]:
                return {"effect": "deny", "reasons": ["The conversation is tainted."]}
            return {"effect": "allow"}
        if "roles" in decision:  # {roles: [admin]} allows these and denies others
            allowed = set(decision["roles"]) & set(input["principal"]["roles"])
            return {"effect": "allow"} if allowed else {"effect": "deny", "reasons": ["Your role may not."]}
        return decision


@dataclass
class FakeReply:
    status: int
    headers: Headers
    media_type: str
    pieces: Sequence[bytes]
    ending: str

    async def chunks(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            yield piece
        if self.ending == "cut":
            raise UpstreamFailed(502, "upstream_incomplete", "The provider's answer was cut off.")
        if self.ending == "stall":
            raise UpstreamFailed(504, "upstream_stalled", "The provider sent nothing.")

    async def drain(self) -> None:
        return


class FakeUpstream:
    """Plays a script's turns; every answer's bytes are cut where ``cuts`` says (0 = byte by byte)."""

    def __init__(self, script: Script, cuts: Cuts | None = None, protocol: Protocol | None = None) -> None:
        self.script, self.cuts = script, cuts
        self.dialect = (protocol or PROTOCOLS["chat"]).dialect
        self.asks: list[Ask] = []
        self.sent: list[bytes] = []

    @asynccontextmanager
    async def ask(self, ask: Ask) -> AsyncIterator[FakeReply]:
        body = orjson.loads(ask.body)
        self.asks.append(ask)
        dialect = self.dialect
        played = Played(self.script, dialect.answered(body))
        if (expect := played.turn.expect) is not None:
            assert not list(expect.mismatches(dialect.seen(body)))
        reply = compose(dialect, played, dialect.shape(body))
        raw = b"".join(reply.pieces)
        self.sent.append(raw)
        media = reply.headers["content-type"].partition(";")[0]
        headers = [(k, v) for k, v in reply.headers.items()]
        yield FakeReply(reply.status, headers, media, self._cut(raw), reply.ending)

    def _cut(self, raw: bytes) -> list[bytes]:
        if self.cuts is None:
            return [raw] if raw else []
        if not self.cuts:
            return [raw[i : i + 1] for i in range(len(raw))]
        points = sorted({cut % (len(raw) + 1) for cut in self.cuts} | {0, len(raw)})
        return [raw[a:b] for a, b in itertools.pairwise(points)]


@dataclass
class FakeClient:
    status: int = 0
    keepalive: bytes | None = None
    holding: bool = False
    data: bytes = b""
    sends: list[bytes] = field(default_factory=list)

    async def begin(self, status: int, headers: Headers, keepalive: bytes | None) -> None:
        assert self.status == 0, "an answer begins once"
        self.status, self.keepalive = status, keepalive

    async def send(self, data: bytes) -> None:
        assert self.status, "begin comes first"
        self.sends.append(data)
        self.data += data


class ListSink:
    def __init__(self) -> None:
        self.records: list[Record] = []

    def write(self, record: Record) -> None:
        self.records.append(record)


@dataclass
class Outcome:
    """Everything that one request came to."""

    client: FakeClient
    upstream: FakeUpstream
    engine: FakeEngine
    records: list[Record]

    @property
    def decisions(self) -> list[DecisionRecord]:
        return [r for r in self.records if isinstance(r, DecisionRecord)]

    @property
    def exchange(self) -> ExchangeRecord:
        (record,) = [r for r in self.records if isinstance(r, ExchangeRecord)]
        return record

    def comparable(self) -> tuple[bytes, list[dict[str, Any]]]:
        """What must not depend on how the bytes arrived."""
        return self.client.data, [_timeless(record.fields()) for record in self.records]


def _timeless(fields: dict[str, Any]) -> dict[str, Any]:
    out = {k: v for k, v in fields.items() if k not in ("decision_id", "latency_s", "decisions")}
    if "trail" in out:
        out["trail"] = [{k: v for k, v in step.items() if k != "micros"} for step in out["trail"]]
    return out


def request_body(case: Mapping[str, Any], stream: bool) -> dict[str, Any]:
    """A case's request as Chat Completions."""
    return chat_request(case.get("request", {}), stream)


@dataclass
class World:
    """What outlives one request: the stores and the settings."""

    store: MemoryStore = field(default_factory=MemoryStore)
    results: MemoryStore = field(default_factory=MemoryStore)
    """What the cache keeps."""
    max_rounds: int = 3
    caps: Caps = field(default_factory=Caps)
    approvals: dict[str, Any] = field(default_factory=dict)
    now: float = 1_800_000_036.0
    """The time that limits go by, in seconds."""


def engine_of(case: Mapping[str, Any]) -> Any:
    """The engine that a case names: the starter policies, or decisions of its own."""
    if case.get("engine") == "starter":
        return starter()
    names = ("request", "tools", "result")
    packages = {f"callgate.{name}": case[f"{name}_policy"] for name in names if f"{name}_policy" in case}
    return FakeEngine(case.get("policy", {}), packages)


@cache
def starter() -> RegorusEngine:
    """The policies that Callgate is delivered with."""
    return RegorusEngine(PolicySet.load([Path(__file__).parents[2] / "policies"]))


async def run(
    case: Mapping[str, Any],
    stream: bool,
    cuts: Cuts | None = None,
    world: World | None = None,
    body: Mapping[str, Any] | None = None,
    protocol: str = "chat",
) -> Outcome:
    """Run a case's request once."""
    spoken = PROTOCOLS[protocol]
    world = world or World(max_rounds=case.get("max_rounds", 3))
    engine, sink, client = engine_of(case), ListSink(), FakeClient()
    upstream = FakeUpstream(Script.of("scripted", case["upstream"]), cuts, spoken)
    registry = Registry({t["name"]: ToolSpec.model_validate(t) for t in case.get("registry", [])})
    guards = case.get("guards", {})
    results_gate = ResultsGate(
        engine, LinearPatterns(), sink, ResultRule.model_validate(RESULTS | case.get("results", {}))
    )

    async def shown(result: PastResult, situation: Situation) -> str:
        inspected = await results_gate.inspect(result, situation)
        return result.content if inspected.content is None else inspected.content

    kept = CacheGuard(world.results, world.max_rounds, shown=shown, clock=lambda: 0.0)
    limits = Settings.model_validate({"guards": {"limits": case.get("limits", {})}})
    prices = priced(limits)
    counted = limits_guard(limits, registry, world.store, lambda: world.now)
    pipeline = Pipeline(
        (
            Watched(LoopGuard(**guards.get("loop", {}))),
            Watched(SchemaGuard()),
            Watched(PolicyGuard(engine)),
            *([Watched(counted, limits.guards.limits.mode)] if counted is not None else []),
            Watched(kept, on_error="allow"),
        ),
        sink,
        policy_revision=lambda: engine.revision,
        config_digest="test",
    )
    core = Core(
        upstream=upstream,
        pipeline=pipeline,
        store=world.store,
        sink=sink,
        registry=lambda: registry,
        gates=(
            *(results_gate, RequestGate(engine), ToolsGate(engine)),
            DefinitionsGate(sink, **case.get("definitions", {})),
        ),
        learners=(kept,),
        meter=meter(limits, prices, world.store, lambda: world.now),
        cost_usd=prices.cost_usd,
        status=case.get("status", False),
        approvals=Approvals(world.store, **world.approvals),
        caps=world.caps,
        max_rounds=world.max_rounds,
        clock=lambda: datetime(2026, 1, 1, tzinfo=UTC),
    )
    who = case.get("principal", {})
    principal = Principal(who.get("id", "ann"), tuple(who.get("roles", ())), who.get("tenant", ""))
    if body is None:
        said = HISTORIES[protocol](case["history"]) if "history" in case else {}
        body = spoken.request(case.get("request", {}), stream) | said
    raw = orjson.dumps(body)
    incoming = Incoming(raw, spoken.path, (), principal, "trace")
    await Exchange(core, spoken.codec, incoming, client).run()
    return Outcome(client, upstream, engine, sink.records)
