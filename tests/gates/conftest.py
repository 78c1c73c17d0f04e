"""Gates on an engine that counts what it is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest

from proxy.engines.patterns import LinearPatterns
from proxy.engines.regorus import RegorusEngine
from proxy.engines.sources.policyset import PolicySet
from proxy.gates.results import ResultsGate
from proxy.guards.base import Situation
from proxy.model import Principal, Request
from proxy.record import Record
from proxy.tools import Registry, ResultRule, ToolSpec
from proxy.wire.chat import ChatCodec
from tests.core.protocols import check_shared_tools
from tests.gates.histories import chat

Json = dict[str, Any]


class CountingEngine(RegorusEngine):
    """The embedded engine; ``asked`` has the packages in the order in which they were evaluated."""

    def __init__(self, modules: Mapping[str, str], data: Mapping[str, Any] | None = None) -> None:
        super().__init__(PolicySet.of(modules, data))
        self.asked: list[str] = []

    async def decide(self, package: str, input: Mapping[str, Any]) -> Any:
        self.asked.append(package)
        return await super().decide(package, input)


@dataclass
class Records:
    records: list[Record] = field(default_factory=list)

    def write(self, record: Record) -> None:
        self.records.append(record)


def request_of(steps: Sequence[Mapping[str, Any]] = (), tools: Sequence[str] = (), **more: Any) -> Request:
    """A Chat Completions request."""
    body: Json = {"model": "m", **chat([{"user": "hi"}, *steps]), **more}
    if tools:
        body["tools"] = [{"type": "function", "function": {"name": name}} for name in tools]
    return ChatCodec().read(orjson.dumps(body))


def situation_of(request: Request, registry: Registry | None = None, **principal: Any) -> Situation:
    who = Principal(**({"id": "ann", "roles": ("support",)} | principal))
    known = registry or Registry()
    return Situation(who, request, "trace", "conversation", "2026-01-01T12:00:00Z", registry=known.get)


def registry_of(*specs: Json) -> Registry:
    return Registry({spec["name"]: ToolSpec.model_validate(spec) for spec in specs})


@pytest.fixture(scope="module", autouse=True)
def shared_tools_stay_as_they_are() -> Iterator[None]:
    """Requests share the tools that came before: no gate may change them."""
    yield
    check_shared_tools()


@pytest.fixture
def results() -> Callable[..., tuple[ResultsGate, CountingEngine, Records]]:
    """Starts a results gate with this policy and these rules."""

    def started(policy: str = "", **rule: Any) -> tuple[ResultsGate, CountingEngine, Records]:
        modules = {"result.rego": f"package callgate.result\n\n{policy}\n"} if policy else {}
        engine, records = CountingEngine(modules), Records()
        given = ResultRule.model_validate({"max_bytes": 2**20, "shape_errors": True} | rule)
        return ResultsGate(engine, LinearPatterns(), records, given), engine, records

    return started
