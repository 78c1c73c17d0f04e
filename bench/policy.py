"""What one decision of the embedded engine costs, in the process, beside what the bare starter set costs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from bench import workload
from bench.callgate import policy_data
from bench.measure import Advance
from bench.processes import BenchFault
from proxy.engines.policyset import PolicySet
from proxy.engines.regorus import RegorusEngine
from proxy.model import dumps, loads
from proxy.parts import packaged

PACKAGE = "callgate.call"
_BATCHES = 9


def microseconds_per_decision(decisions: int, advance: Advance) -> dict[str, float]:
    """By case: an allowed call, one that names a value that does not exist, and one over little data."""
    full = policy_data()
    role = full["callgate"]["roles"][workload.ROLE]
    little = {
        "callgate": {"roles": {workload.ROLE: role}},
        "reference": {"customers": {"cus_04711": True}},
    }
    allowed = _input(workload.ARGUMENTS)
    unknown = _input(workload.ARGUMENTS.replace("cus_04711", "cus_99999"))
    cases = (
        ("allow", full, allowed, "allow"),
        ("unknown_value", full, unknown, "reask"),
        ("little_data", little, allowed, "allow"),
    )
    costs: dict[str, float] = {}
    for name, data, input, effect in cases:
        engine = _engine(data)
        decision = asyncio.run(engine.decide(PACKAGE, input))
        if decision["effect"] != effect:
            raise BenchFault(f"the starter policies should {effect}, and decided {decision}")
        costs[name] = _cost_us(engine, input, decisions // _BATCHES)
        advance()
    return costs


def _engine(data: Mapping[str, Any]) -> RegorusEngine:
    with TemporaryDirectory(prefix="callgate-bench-") as folder:
        (Path(folder) / "data.json").write_bytes(dumps(data))
        return RegorusEngine(PolicySet.load([packaged("policies"), Path(folder)]))


def _cost_us(engine: RegorusEngine, input: Mapping[str, Any], batch: int) -> float:
    async def decide() -> list[float]:
        took = []
        for _ in range(_BATCHES):
            began = perf_counter()
            for _ in range(batch):
                await engine.decide(PACKAGE, input)
            took.append((perf_counter() - began) / batch * 1e6)
        return took

    return median(asyncio.run(decide()))


def _input(arguments_json: str) -> dict[str, Any]:
    """The document that the policy guard hands over (schemas/policy-input.schema.json)."""
    call = {"id": "call_1", "name": workload.CALL, "arguments": loads(arguments_json)}
    return {
        "principal": {"id": "order-desk-bot", "roles": [workload.ROLE], "tenant": "shop", "claims": {}},
        "conversation": {"id": "c-1", "query": "Which of my orders are on their way?", "turn": 1},
        "model": "bench-body",
        "protocol": "chat",
        "batch": [call],
        "history": {"calls": [], "labels": [], "counts": {}},
        "approval": None,
        "time": "2026-01-01T00:00:00.000Z",
        "call": call,
        "tool": workload.registered(workload.CALL).as_policy_input(),
    }
