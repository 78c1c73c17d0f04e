"""What one decision of the starter policies takes: of the embedded engine, and of an OPA server beside it."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from bench import workload
from bench.callgate import policy_data
from bench.measure import Advance
from bench.processes import ROOT, BenchFault, Server, free_port
from proxy.engines.opa import OpaEngine
from proxy.engines.regorus import RegorusEngine
from proxy.engines.sources.policyset import PolicySet
from proxy.model import dumps, loads
from proxy.parts import packaged
from proxy.ports import PolicyEngine

PACKAGE = "callgate.call"
GOAL_US = 50.0
"""One decision of the embedded engine over much data, at most."""
_BATCHES = 9
_OPA_SHARE = 4
"""An OPA server is asked a fraction of what the embedded engine is."""
_FIND_OPA_S = 600.0


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
        costs[name] = asyncio.run(_cost_us(data, input, effect, decisions // _BATCHES))
        advance()
    return costs


def opa_over_embedded(decisions: int, advance: Advance) -> tuple[float, float] | None:
    """Microseconds for one decision of an OPA server, and how many times the embedded engine's that is.

    Both decide the same call by the same policies and data, taking turns. What counts is the time that
    passes, of which the server's is spent in another process. None where no ``opa`` is found.
    """
    program = opa_binary()
    if program is None:
        return None
    with _policies(policy_data()) as folders, _opa_server(program, folders) as server:
        embedded = RegorusEngine(PolicySet.load(folders))
        costs = asyncio.run(_turns(embedded, server.port, decisions // _BATCHES))
    advance()
    ours, theirs = (median(batch) for batch in zip(*costs, strict=True))
    return theirs, theirs / ours


def opa_binary() -> str | None:
    """The path of an ``opa`` binary, as ``scripts/opa`` finds or builds it."""
    command = ["sh", str(ROOT / "scripts" / "opa")]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=_FIND_OPA_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip().splitlines()[-1] if found.returncode == 0 else None


def _opa_server(program: str, folders: list[Path]) -> Server:
    port = free_port()
    options = ["run", "--server", "--addr", f"127.0.0.1:{port}", "--log-level", "error"]
    # Callgate leaves the tests of policies alone; OPA would need what they refer to as well.
    options += ["--ignore", "*_test.rego", "--disable-telemetry"]
    return Server("opa", [*options, *map(str, folders)], port, program=program)


async def _turns(embedded: RegorusEngine, port: int, batch: int) -> list[tuple[float, float]]:
    """What a decision took in either engine, batch by batch."""
    server = OpaEngine(f"http://127.0.0.1:{port}", timeout_s=10.0)
    await server.start()
    try:
        input = _input(workload.ARGUMENTS)
        for engine in (embedded, server):
            await _must_decide(engine, input, "allow")
        return [
            (await _batch_us(embedded, input, batch), await _batch_us(server, input, batch // _OPA_SHARE))
            for _ in range(_BATCHES)
        ]
    finally:
        await server.close()


async def _must_decide(engine: PolicyEngine, input: Mapping[str, Any], effect: str) -> None:
    decision = await engine.decide(PACKAGE, input)
    if decision["effect"] != effect:
        raise BenchFault(f"the starter policies should {effect}, and decided {decision}")


@contextmanager
def _policies(data: Mapping[str, Any]) -> Iterator[list[Path]]:
    """The starter policies, and this data beside theirs."""
    with TemporaryDirectory(prefix="callgate-bench-") as folder:
        (Path(folder) / "data.json").write_bytes(dumps(data))
        yield [packaged("policies"), Path(folder)]


async def _cost_us(data: Mapping[str, Any], input: Mapping[str, Any], effect: str, batch: int) -> float:
    with _policies(data) as folders:
        engine = RegorusEngine(PolicySet.load(folders))
    await _must_decide(engine, input, effect)
    return median([await _batch_us(engine, input, batch) for _ in range(_BATCHES)])


async def _batch_us(engine: PolicyEngine, input: Mapping[str, Any], batch: int) -> float:
    began = perf_counter()
    for _ in range(batch):
        await engine.decide(PACKAGE, input)
    return (perf_counter() - began) / batch * 1e6


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
