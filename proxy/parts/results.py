"""What becomes of tool results: shown, shaped, kept."""

from __future__ import annotations

from proxy.config import Settings
from proxy.engines.patterns import LinearPatterns
from proxy.gates.results import ResultsGate
from proxy.guards.base import Situation
from proxy.guards.cache import CacheGuard
from proxy.model import PastResult
from proxy.ports import PolicyEngine, Sink
from proxy.stores.memory import MemoryStore
from proxy.stores.redis import RedisStore
from proxy.tools import Registry, ResultRule

_CACHE_BYTES = 64 * 2**20


def cache_guard(
    settings: Settings, store: MemoryStore | RedisStore, results: ResultsGate
) -> CacheGuard | None:
    """The cache, in memory of its own or where all state is shared; None where it may keep nothing."""
    max_entries = settings.guards.cache.max_entries
    if max_entries == 0:
        return None
    if settings.store.kind == "memory":
        store = MemoryStore(max_entries, _CACHE_BYTES)

    async def shown(result: PastResult, situation: Situation) -> str:
        inspected = await results.inspect(result, situation)
        return result.content if inspected.content is None else inspected.content

    return CacheGuard(store, settings.limits.max_rounds, shown=shown)


def results_gate(
    settings: Settings, engine: PolicyEngine, patterns: LinearPatterns, sink: Sink
) -> ResultsGate:
    """What decides which part of a result the model sees, whether it was sent or kept."""
    results = settings.results
    rule = ResultRule(
        max_bytes=results.max_bytes,
        shape_errors=results.shape_errors,
        redact=results.redact,
        patterns=results.patterns,
    )
    return ResultsGate(engine, patterns, sink, rule)


def pattern_faults(settings: Settings, registry: Registry | None) -> list[str]:
    """What is wrong with the regular expressions of settings and tools."""
    places = {"results.patterns": settings.results.patterns}
    for name, spec in (registry.specs if registry is not None else {}).items():
        places[f"tool {name!r}: results.patterns"] = spec.results.patterns if spec.results else ()
    checked = LinearPatterns()
    return [
        f"{place}[{index}]: {fault}"
        for place, expressions in places.items()
        for index, expression in enumerate(expressions)
        if (fault := checked.fault(expression))
    ]
