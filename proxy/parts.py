"""The parts of a Callgate, each made from its settings."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from math import ceil
from pathlib import Path

from proxy.config import ConfigFault, Settings
from proxy.config.identities import Anonymous, ApiKeys, Header, Jwt, Passthrough, Recogniser
from proxy.config.sections import CallLimits, RequestLimits
from proxy.config.upstreams import Upstream as UpstreamSettings
from proxy.config.values import SecretRef
from proxy.engines.opa import OpaEngine
from proxy.engines.patterns import LinearPatterns
from proxy.engines.policyset import PolicySet
from proxy.engines.regorus import RegorusEngine
from proxy.gates.results import ResultsGate
from proxy.gates.routing import Guidance, Route
from proxy.guards.base import Situation
from proxy.guards.cache import CacheGuard
from proxy.guards.limits import LimitsGuard
from proxy.guards.meter import LimitsMeter
from proxy.guards.prices import Price, Prices
from proxy.guards.windows import WINDOWS, Limit, Unit
from proxy.http import identity as identities
from proxy.http.doors import DoorTable
from proxy.http.upstream import Endpoint
from proxy.model import PastResult
from proxy.ports import Sink
from proxy.stores.memory import MemoryStore
from proxy.stores.redis import RedisStore
from proxy.tools import Registry, ResultRule

Engine = RegorusEngine | OpaEngine

_CACHE_BYTES = 64 * 2**20


def limits_guard(
    settings: Settings,
    registry: Registry,
    store: MemoryStore | RedisStore,
    clock: Callable[[], float] = time.time,
) -> LimitsGuard | None:
    """The limits on calls; None where there are none."""
    limits = settings.guards.limits
    tools = {glob: _limits(section, ("calls",)) for glob, section in limits.tools.items()}
    principal, tenant = _limits(limits, ("calls",)), _limits(limits.tenant, ("calls",))
    described = any(spec.limits is not None for spec in registry.specs.values())
    if not (principal or tenant or described or any(tools.values())):
        return None
    return LimitsGuard(store, principal, tenant, tools, clock)


def meter(
    settings: Settings,
    prices: Prices,
    store: MemoryStore | RedisStore,
    clock: Callable[[], float] = time.time,
) -> LimitsMeter | None:
    """The limits on requests; None where there are none."""
    limits = settings.guards.limits
    units: Sequence[Unit] = ("requests", "tokens", "micro_usd")
    models = {glob: _limits(section, units) for glob, section in limits.models.items()}
    principal, tenant = _limits(limits, units), _limits(limits.tenant, units)
    if not (principal or tenant or any(models.values())):
        return None
    return LimitsMeter(
        store,
        prices.cost_usd,
        principal=principal,
        tenant=tenant,
        models=models,
        output_tokens=limits.output_tokens,
        unknown_price=limits.unknown_price == "allow",
        enforce=limits.mode == "enforce",
        fail_open=limits.on_error == "allow",
        clock=clock,
    )


def priced(settings: Settings) -> Prices:
    """What tokens cost: the operator's prices before the providers' list prices."""
    return Prices(
        {
            glob: Price(price.input_usd_per_mtok, price.output_usd_per_mtok)
            for glob, price in settings.guards.limits.prices.items()
        }
    )


def _limits(section: CallLimits | RequestLimits, units: Sequence[Unit]) -> tuple[Limit, ...]:
    """What a section says of these units."""
    spelled = {"calls": "per", "requests": "requests_per", "tokens": "tokens_per", "micro_usd": "usd_per"}
    said = section.model_dump()
    found = []
    for unit in units:
        for window in WINDOWS:
            amount = said.get(f"{spelled[unit]}_{window}")
            if amount is not None:
                found.append(Limit(unit, ceil(amount * 1e6) if unit == "micro_usd" else amount, window))
    return tuple(found)


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


def results_gate(settings: Settings, engine: Engine, patterns: LinearPatterns, sink: Sink) -> ResultsGate:
    """What decides which part of a result the model sees, whether it was sent or kept."""
    results = settings.results
    rule = ResultRule(
        max_bytes=results.max_bytes,
        shape_errors=results.shape_errors,
        redact=results.redact,
        patterns=results.patterns,
    )
    return ResultsGate(engine, patterns, sink, rule)


def routes(settings: Settings) -> list[Route]:
    """Which model answers which turn."""
    return [Route(route.models, route.decide, route.answer) for route in settings.routing]


def guidance(settings: Settings) -> list[Guidance]:
    """What the operator tells which model."""
    return [Guidance(one.text, one.tools, one.models) for one in settings.guidance]


def doors(settings: Settings) -> DoorTable:
    """The routes that are open; raises ``ConfigFault``."""
    try:
        return DoorTable(passed=settings.doors.passed)
    except ValueError as exc:
        raise ConfigFault([f"doors.passed: {exc} (leave it out)"]) from None


def store(settings: Settings, environ: Mapping[str, str]) -> MemoryStore | RedisStore:
    """Where state is kept between requests."""
    kept = settings.store
    if kept.kind == "memory":
        return MemoryStore(kept.max_entries, kept.max_bytes)
    try:
        return RedisStore(_resolved(kept.url, environ), kept.prefix, kept.timeout_s)
    except ValueError as exc:
        raise ConfigFault([f"store.url: {exc}"]) from None


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


def packaged(name: str) -> Path:
    """A folder of defaults: beside the code in a checkout, inside the package where it is installed."""
    inside = Path(str(files("proxy"))) / "_defaults" / name
    return inside if inside.is_dir() else Path(__file__).parent.parent / name


def engine(settings: Settings, environ: Mapping[str, str]) -> Engine:
    """What decides; raises ``PolicyFault`` or ``ConfigFault``."""
    if settings.policies.engine == "embedded":
        return RegorusEngine(load_policies(settings))
    opa = settings.policies.opa
    token = opa.token.resolve(environ) if opa.token is not None else None
    return OpaEngine(opa.url, token, min(opa.timeout_s, settings.guards.policy.timeout_s))


def policy_paths(settings: Settings) -> tuple[Path, ...]:
    """The folders and files of the policies in force."""
    return settings.policies.paths or (packaged("policies"),)


def load_policies(settings: Settings) -> PolicySet:
    """The policies and data that the settings name; the starter policies where they name none."""
    return PolicySet.load(policy_paths(settings))


def recogniser(way: Recogniser) -> identities.Recogniser:
    """One way to tell who asks; raises ``IdentityFault``."""
    match way:
        case ApiKeys():
            return identities.ApiKeys(way.path)
        case Header():
            return identities.TrustedHeaders(way.id, way.roles, way.tenant, way.trusted)
        case Passthrough():
            return identities.Passthrough()
        case Anonymous():
            return identities.Anonymous(way.roles, way.tenant)
        case Jwt():
            identities.jwt()


def endpoint(upstream: UpstreamSettings, environ: Mapping[str, str]) -> Endpoint:
    """One provider; raises ``ConfigFault`` where a secret or a file is missing."""
    return Endpoint(
        name=upstream.name,
        base_url=upstream.versioned,
        models=upstream.models,
        key=None if upstream.auth == "passthrough" else upstream.auth.resolve(environ),
        headers={name: _resolved(value, environ) for name, value in upstream.headers.items()},
        connect_timeout_s=upstream.connect_timeout_s,
        first_byte_timeout_s=upstream.first_byte_timeout_s,
        idle_timeout_s=upstream.idle_timeout_s,
        tls=_tls(upstream),
    )


def _resolved(value: str | SecretRef, environ: Mapping[str, str]) -> str:
    return value if isinstance(value, str) else value.resolve(environ)


def _tls(upstream: UpstreamSettings) -> ssl.SSLContext | bool:
    if upstream.ca_file is None:
        return upstream.tls_verify
    try:
        return ssl.create_default_context(cafile=str(upstream.ca_file))
    except (OSError, ssl.SSLError) as exc:
        raise ConfigFault([f"upstreams.{upstream.name}.ca_file: {upstream.ca_file}: {exc}"]) from None
