"""The composition root: settings in, a running Callgate out. The guards' order stands here, once."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from math import ceil
from pathlib import Path

from aiohttp import web
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

from proxy import __version__
from proxy.approvals import Approvals
from proxy.config import ConfigFault, Settings
from proxy.config.identities import Anonymous, ApiKeys, Header, Jwt, Passthrough, Recogniser
from proxy.config.sections import CallLimits, GuardSettings, RequestLimits
from proxy.config.upstreams import Upstream as UpstreamSettings
from proxy.config.values import SecretRef
from proxy.engines.patterns import LinearPatterns
from proxy.engines.policyset import PolicyFault, PolicySet
from proxy.engines.regorus import RegorusEngine
from proxy.exchange import Core
from proxy.gates.request import RequestGate
from proxy.gates.results import ResultsGate
from proxy.gates.routing import Guidance, GuidanceGate, Route, RoutingGate
from proxy.gates.tools import ToolsGate
from proxy.guards.base import Gate, Guard, Situation
from proxy.guards.cache import CacheGuard
from proxy.guards.limits import LimitsGuard
from proxy.guards.loop import LoopGuard
from proxy.guards.meter import LimitsMeter
from proxy.guards.policy import PolicyGuard
from proxy.guards.prices import Price, Prices
from proxy.guards.schema import SchemaGuard
from proxy.guards.windows import WINDOWS, Limit, Unit
from proxy.http import identity as identities
from proxy.http.admin import admin_app
from proxy.http.downstream import Proxy
from proxy.http.identity import Identity, IdentityFault
from proxy.http.upstream import Endpoint, HttpUpstream
from proxy.model import PastResult
from proxy.pipeline import Pipeline, Watched
from proxy.ports import Sink
from proxy.sinks import Tee
from proxy.sinks.jsonl import JsonlSink
from proxy.sinks.metrics import MetricsSink
from proxy.stores.memory import MemoryStore
from proxy.stores.redis import RedisStore
from proxy.tools import Registry, RegistryFault, ResultRule
from proxy.wire.chat import ChatCodec
from proxy.wire.codec import Caps
from proxy.wire.messages import MessagesCodec
from proxy.wire.responses import ResponsesCodec

log = logging.getLogger("callgate")

_CACHE_BYTES = 64 * 2**20

CODECS = {codec.protocol: codec for codec in (ChatCodec(), MessagesCodec(), ResponsesCodec())}


def guards(
    settings: Settings, engine: RegorusEngine, limits: LimitsGuard | None, cache: CacheGuard | None
) -> tuple[Watched, ...]:
    """The guards in the order in which they judge a call."""
    loop, schema, policy = settings.guards.loop, settings.guards.schema_, settings.guards.policy
    return (
        # Sees the call as the model wrote it: a call that never fits its schema goes in circles too.
        _watched(LoopGuard(loop.max_calls, loop.max_identical, loop.max_similar), loop),
        # Policy must judge arguments that parse and fit their schema.
        _watched(
            SchemaGuard(
                unregistered=settings.tools.unregistered,
                coerce=schema.coerce,
                unknown_parameters=schema.unknown_parameters,
            ),
            schema,
        ),
        # Who may do this, here, now.
        _watched(PolicyGuard(engine), policy),
        # What was refused uses nothing up; what the cache answers is a use.
        *([_watched(limits, settings.guards.limits)] if limits is not None else []),
        # Last: nothing is answered that was not allowed.
        *([_watched(cache, settings.guards.cache)] if cache is not None else []),
    )


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


def results_gate(
    settings: Settings, engine: RegorusEngine, patterns: LinearPatterns, sink: Sink
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


def gates(settings: Settings, engine: RegorusEngine, results: ResultsGate) -> tuple[Gate, ...]:
    """The gates in the order in which a request passes them."""
    return (
        # First: what policy says of results taints the conversation, which the others judge.
        results,
        # Whether it is sent at all, before anybody works on what it offers.
        RequestGate(engine),
        # What is left is what the model is shown.
        ToolsGate(engine),
        # Which model that is, once it is known what it may use.
        *([RoutingGate(_routes(settings))] if settings.routing else []),
        # Last: what this model is told.
        *([GuidanceGate(_guidance(settings))] if settings.guidance else []),
    )


def _routes(settings: Settings) -> list[Route]:
    return [Route(route.models, route.decide, route.answer) for route in settings.routing]


def _guidance(settings: Settings) -> list[Guidance]:
    return [Guidance(one.text, one.tools, one.models) for one in settings.guidance]


def _watched(guard: Guard, settings: GuardSettings) -> Watched:
    return Watched(guard, settings.mode, settings.on_error)


@dataclass(frozen=True)
class Worker:
    """One of several processes that serve the same port; the one that started them serves the admin port."""

    number: int
    """From 1."""
    admin_socket: Path
    """Where this process's own admin application listens."""

    def audit(self, folder: Path) -> Path:
        """The folder of this process's own log: a log has one writer."""
        return folder / f"worker-{self.number}"


@dataclass
class App:
    """Everything that runs, and in which order it starts and stops."""

    settings: Settings
    proxy: Proxy
    upstream: HttpUpstream
    store: MemoryStore | RedisStore
    logs: Sequence[JsonlSink]
    metrics: CollectorRegistry
    registry: Registry
    guard_names: Sequence[str]
    approvals: Approvals
    admin_token: str | None = field(default=None, repr=False)
    worker: Worker | None = None
    stopping: bool = False
    url: str = ""
    """Where clients connect, once started: the SDKs' base_url."""
    admin_url: str = ""

    async def start(self) -> None:
        """Open the log, then the pool, then the doors."""
        for sink in self.logs:
            sink.start()
        await self.upstream.start()
        if isinstance(self.store, RedisStore):
            await self.store.start()
        settings = self.settings
        # aiohttp waits this long twice: before it stops reading what clients send, and before it cancels.
        patience_s = settings.limits.drain_s / 2 or 0.001
        self._runner = web.ServerRunner(self.proxy.server(), shutdown_timeout=patience_s)
        admin = admin_app(self.metrics, self.faults, self.approvals, self.admin_token)
        self._admin = web.AppRunner(admin, access_log=None)
        if self.worker is not None:
            await self._admin.setup()
            await web.UnixSite(self._admin, str(self.worker.admin_socket)).start()
            self.admin_url = f"unix:{self.worker.admin_socket}"
        else:
            host, port = await listen(self._admin, settings.admin.host, settings.admin.port)
            self.admin_url = f"http://{_bracketed(host)}:{port}"
        shared = self.worker is not None
        host, port = await listen(self._runner, settings.listen.host, settings.listen.port, shared)
        self.url = f"http://{_bracketed(host)}:{port}/v1"

    async def stop(self) -> None:
        """Take no more requests, let those that run end, and close the log after the last record."""
        self.stopping = True
        await self._runner.cleanup()
        await self._admin.cleanup()
        await self.upstream.close()
        if isinstance(self.store, RedisStore):
            await self.store.close()
        for sink in self.logs:
            await asyncio.to_thread(sink.close)

    async def run(
        self, stop: asyncio.Event | None = None, started: Callable[[], None] = lambda: None
    ) -> None:
        """Serve until SIGTERM or SIGINT, or until ``stop`` is set; ``started`` is called when it serves."""
        stop = stop or asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await self.start()
        _settle_garbage()
        log.info("Callgate %s serves at %s (admin: %s)", __version__, self.url, self.admin_url)
        started()
        await stop.wait()
        log.info("stopping: open requests have %g s to end", self.settings.limits.drain_s)
        await self.stop()

    def faults(self) -> list[str]:
        """What keeps Callgate from serving."""
        wrong = ["audit log: records cannot be written" for sink in self.logs if not sink.healthy]
        # Until it has answered once, its settings may be wrong. Later it may go: most requests do without.
        if isinstance(self.store, RedisStore) and not self.store.ready:
            wrong.append(f"store: {self.store.fault}")
        return ["stopping", *wrong] if self.stopping else wrong


async def listen(runner: web.BaseRunner, host: str, port: int, shared: bool = False) -> tuple[str, int]:
    """Listen, and say where; ``shared`` lets others listen there too. Raises ``ConfigFault``."""
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, reuse_port=shared or None).start()
    except OSError as exc:
        await runner.cleanup()
        raise ConfigFault([f"{host}:{port} cannot be listened on: {exc.strerror or exc}"]) from None
    address = runner.addresses[0]
    return str(address[0]), int(address[1])


def _settle_garbage() -> None:
    """Spare the collector what was loaded for good, and let it look less often at what dies by itself."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def build(settings: Settings, environ: Mapping[str, str] | None = None, worker: Worker | None = None) -> App:
    """Put Callgate together; raises ``ConfigFault`` with every fault of settings, policies and tools."""
    environ = os.environ if environ is None else environ
    faults: list[str] = _not_yet(settings)
    engine = registry = who = store = None
    endpoints: list[Endpoint] = []
    with _collecting(faults):
        engine = RegorusEngine(load_policies(settings))
    with _collecting(faults):
        registry = Registry.load(settings.tools.paths)
    with _collecting(faults):
        who = Identity([_recogniser(way) for way in settings.identity])
    for upstream in settings.upstreams:
        with _collecting(faults):
            endpoints.append(_endpoint(upstream, environ))
    token = None
    with _collecting(faults):
        token = settings.admin.token.resolve(environ) if settings.admin.token else None
    with _collecting(faults):
        store = _store(settings, environ)
    faults += _pattern_faults(settings, registry)
    if faults or engine is None or registry is None or who is None or store is None:
        raise ConfigFault(faults)
    return _assemble(settings, engine, registry, who, endpoints, token, store, worker)


def _assemble(
    settings: Settings,
    engine: RegorusEngine,
    registry: Registry,
    who: Identity,
    endpoints: Sequence[Endpoint],
    token: str | None,
    store: MemoryStore | RedisStore,
    worker: Worker | None,
) -> App:
    metrics = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=metrics)
    folders = [worker.audit(sink.path) if worker else sink.path for sink in settings.audit.sinks]
    logs = [JsonlSink(folder, max_queue=settings.audit.max_queue) for folder in folders]
    models = [glob for upstream in settings.upstreams for glob in upstream.models if "*" not in glob]
    sink = Tee(*logs, MetricsSink(metrics, tools=sorted(registry.specs), models=models))
    limits = settings.limits
    results = results_gate(settings, engine, LinearPatterns(), sink)
    cache = cache_guard(settings, store, results)
    prices = priced(settings)
    watched = guards(settings, engine, limits_guard(settings, registry, store), cache)
    core = Core(
        upstream=(upstream := HttpUpstream(endpoints)),
        pipeline=Pipeline(
            watched,
            sink,
            policy_revision=lambda: engine.revision,
            config_digest=settings.digest,
            capture=settings.audit.capture,
            on_audit_failure=settings.audit.on_failure,
        ),
        store=store,
        sink=sink,
        registry=lambda: registry,
        gates=gates(settings, engine, results),
        learners=(cache,) if cache is not None else (),
        meter=meter(settings, prices, store),
        cost_usd=prices.cost_usd,
        approvals=Approvals(
            store,
            settings.approvals.accept,
            settings.approvals.ttl_s,
            settings.approvals.wait_s,
            asyncio.sleep,
        ),
        caps=Caps(limits.max_event_bytes, limits.max_held_bytes, limits.max_response_bytes),
        max_rounds=limits.max_rounds,
        settled_ttl_s=limits.settled_ttl_s,
        status=settings.status.enabled,
        capture=settings.audit.capture,
    )
    proxy = Proxy(
        core,
        upstream,
        who,
        CODECS,
        max_request_bytes=limits.max_request_bytes,
        keepalive_s=limits.keepalive_s,
    )
    names = [w.guard.name if w.mode == "enforce" else f"{w.guard.name} (shadow)" for w in watched]
    return App(
        settings, proxy, upstream, store, logs, metrics, registry, names, core.approvals, token, worker
    )


def _store(settings: Settings, environ: Mapping[str, str]) -> MemoryStore | RedisStore:
    store = settings.store
    if store.kind == "memory":
        return MemoryStore(store.max_entries, store.max_bytes)
    try:
        return RedisStore(_resolved(store.url, environ), store.prefix, store.timeout_s)
    except ValueError as exc:
        raise ConfigFault([f"store.url: {exc}"]) from None


def _pattern_faults(settings: Settings, registry: Registry | None) -> list[str]:
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


@contextlib.contextmanager
def _collecting(faults: list[str]) -> Iterator[None]:
    try:
        yield
    except (ConfigFault, PolicyFault, RegistryFault, IdentityFault) as exc:
        faults.extend(exc.faults)


def _not_yet(settings: Settings) -> list[str]:
    """What the settings' contract has and this version does not: refused, never ignored."""
    faults = []
    if settings.policies.engine == "opa":
        faults.append("policies.engine: opa is not served by this version yet (use embedded)")
    return faults


def packaged(name: str) -> Path:
    """A folder of defaults: beside the code in a checkout, inside the package where it is installed."""
    inside = Path(str(files("proxy"))) / "_defaults" / name
    return inside if inside.is_dir() else Path(__file__).parent.parent / name


def load_policies(settings: Settings) -> PolicySet:
    """The policies and data that the settings name; the starter policies where they name none."""
    return PolicySet.load(settings.policies.paths or (packaged("policies"),))


def _recogniser(way: Recogniser) -> identities.Recogniser:
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


def _endpoint(upstream: UpstreamSettings, environ: Mapping[str, str]) -> Endpoint:
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
