"""The composition root: settings in, a running Callgate out. The order of guards and gates stands here."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from aiohttp import web
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

from proxy import __version__, parts
from proxy.approvals import Approvals
from proxy.config import ConfigFault, Settings
from proxy.config.sections import GuardSettings
from proxy.core import Core
from proxy.engines.following.watching import PolicyWatcher
from proxy.engines.patterns import LinearPatterns
from proxy.engines.sources.policyset import PolicyFault, PolicySet
from proxy.gates.request import RequestGate
from proxy.gates.results import ResultsGate
from proxy.gates.routing import GuidanceGate, RoutingGate
from proxy.gates.tools import ToolsGate
from proxy.guards.base import Gate, Guard
from proxy.guards.cache import CacheGuard
from proxy.guards.limits import LimitsGuard
from proxy.guards.loop import LoopGuard
from proxy.guards.policy import PolicyGuard
from proxy.guards.schema import SchemaGuard
from proxy.http.admin import admin_app
from proxy.http.doors import DoorTable
from proxy.http.downstream import Proxy
from proxy.http.identity import Identity, IdentityFault
from proxy.http.tasks import spawn
from proxy.http.upstream import Endpoint, HttpUpstream
from proxy.pipeline import Pipeline, Watched
from proxy.ports import PolicyEngine, Sink
from proxy.sinks import Tee
from proxy.sinks.jsonl import JsonlSink
from proxy.sinks.metrics import MetricsSink
from proxy.stores.memory import MemoryStore
from proxy.stores.redis import RedisStore
from proxy.tools import Registry, RegistryFault
from proxy.wire.chat import ChatCodec
from proxy.wire.codec import Caps
from proxy.wire.messages import MessagesCodec
from proxy.wire.responses import ResponsesCodec

log = logging.getLogger("callgate")

CODECS = {codec.protocol: codec for codec in (ChatCodec(), MessagesCodec(), ResponsesCodec())}


def guards(
    settings: Settings, engine: PolicyEngine, limits: LimitsGuard | None, cache: CacheGuard | None
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


def gates(settings: Settings, engine: PolicyEngine, results: ResultsGate, sink: Sink) -> tuple[Gate, ...]:
    """The gates in the order in which a request passes them."""
    return (
        # First: what policy says of results taints the conversation, which the others judge.
        results,
        # Whether it is sent at all, before anybody works on what it offers.
        RequestGate(engine),
        # What is left is what the model is shown.
        ToolsGate(engine),
        # Of what the model is shown: whether it is as it was pinned, and in whose words it is said.
        parts.definitions_gate(settings, sink),
        # Which model that is, once it is known what it may use.
        *([RoutingGate(parts.routes(settings))] if settings.routing else []),
        # Last: what this model is told.
        *([GuidanceGate(parts.guidance(settings))] if settings.guidance else []),
    )


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


class Follower(Protocol):
    """What keeps up with something outside while Callgate serves: policies, keys, an OPA server."""

    async def start(self) -> None:
        """Be ready to serve."""
        ...

    async def run(self, stop: asyncio.Event) -> None:
        """Keep up until ``stop``."""
        ...

    async def close(self) -> None:
        """Leave nothing open."""
        ...

    def missing(self) -> Sequence[str]:
        """What keeps Callgate from serving."""
        ...

    def notes(self) -> Sequence[str]:
        """What is wrong and does not keep Callgate from serving."""
        ...


@dataclass
class App:
    """Everything that runs, and in which order it starts and stops."""

    settings: Settings
    proxy: Proxy
    engine: parts.Engine
    upstream: HttpUpstream
    store: MemoryStore | RedisStore
    logs: Sequence[JsonlSink]
    sink: Sink
    metrics: CollectorRegistry
    registry: Registry
    guard_names: Sequence[str]
    approvals: Approvals
    followers: Sequence[Follower] = ()
    admin_token: str | None = field(default=None, repr=False)
    worker: Worker | None = None
    stopping: bool = False
    url: str = ""
    """Where clients connect, once started: the SDKs' base_url."""
    admin_url: str = ""

    async def start(self) -> None:
        """Open the log, then the pool, then the doors; raises ``ConfigFault`` where they stay shut."""
        for sink in self.logs:
            sink.start()
        await self.upstream.start()
        if isinstance(self.store, RedisStore):
            await self.store.start()
        self._unfollow = asyncio.Event()
        try:
            for follower in self.followers:
                await follower.start()
        except PolicyFault as exc:
            await self._close()
            raise ConfigFault(exc.faults) from None
        self._following = [spawn(follower.run(self._unfollow)) for follower in self.followers]
        settings = self.settings
        # aiohttp waits this long twice: before it stops reading what clients send, and before it cancels.
        patience_s = settings.limits.drain_s / 2 or 0.001
        self._runner = web.ServerRunner(self.proxy.server(), shutdown_timeout=patience_s)
        admin = admin_app(self.metrics, self.faults, self.approvals, self.admin_token, self.notes)
        self._admin = web.AppRunner(admin, access_log=None)
        if self.worker is not None:
            await self._admin.setup()
            await web.UnixSite(self._admin, str(self.worker.admin_socket)).start()
            self.admin_url = f"unix:{self.worker.admin_socket}"
        else:
            host, port = await listen(self._admin, settings.admin.host, settings.admin.port)
            self.admin_url = f"http://{_bracketed(host)}:{port}"
        shared = self.worker is not None
        at = settings.listen
        host, port = await listen(self._runner, at.host, at.port, shared, section="listen")
        self.url = f"http://{_bracketed(host)}:{port}/v1"

    async def stop(self) -> None:
        """Take no more requests, let those that run end, and close the log after the last record."""
        self.stopping = True
        await self._runner.cleanup()
        await self._admin.cleanup()
        self._unfollow.set()
        await asyncio.gather(*self._following)
        await self._close()

    async def _close(self) -> None:
        for follower in self.followers:
            await follower.close()
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

    async def read_policies(self) -> PolicySet | None:
        """All policies, fetched once and proven, without serving them; None where an OPA server has them.

        Raises ``PolicyFault``.
        """
        watchers = [follower for follower in self.followers if isinstance(follower, PolicyWatcher)]
        return await watchers[0].read_once() if watchers else None

    def notes(self) -> list[str]:
        """What is wrong and does not keep Callgate from serving."""
        return [note for follower in self.followers for note in follower.notes()]

    def faults(self) -> list[str]:
        """What keeps Callgate from serving."""
        wrong = ["audit log: records cannot be written" for sink in self.logs if not sink.healthy]
        for follower in self.followers:
            wrong += follower.missing()
        # Until it has answered once, its settings may be wrong. Later it may go: most requests do without.
        if isinstance(self.store, RedisStore) and not self.store.ready:
            wrong.append(f"store: {self.store.fault}")
        return ["stopping", *wrong] if self.stopping else wrong


async def listen(
    runner: web.BaseRunner, host: str, port: int, shared: bool = False, *, section: str = "admin"
) -> tuple[str, int]:
    """Listen, and say where; ``shared`` lets others listen there too. Raises ``ConfigFault``.

    ``section`` is that of the settings which names the place.
    """
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, reuse_port=shared or None).start()
    except OSError as exc:
        await runner.cleanup()
        raise cannot_listen(section, host, port, exc) from None
    address = runner.addresses[0]
    return str(address[0]), int(address[1])


def cannot_listen(section: str, host: str, port: int, exc: OSError) -> ConfigFault:
    """Why nobody can be let in at a place, and what to do about it."""
    # The text of asyncio's error repeats the place; that of the system says what is wrong.
    number = exc.errno or 0
    why = os.strerror(number) if number > 0 else exc.strerror or str(exc)
    cures = {
        errno.EADDRINUSE: f"end what listens there, or set another {section}.port",
        errno.EACCES: f"set another {section}.port, from 1024 on, or let Callgate use this one",
    }
    cure = cures.get(number, f"set {section}.host to an address of this machine")
    return ConfigFault([f"{section}: {_bracketed(host)}:{port} cannot be listened on: {why} ({cure})"])


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
    faults: list[str] = []
    engine = registry = who = store = None
    endpoints: list[Endpoint] = []
    with _collecting(faults):
        engine = parts.engine(settings, environ)
    with _collecting(faults):
        registry = parts.registry(settings)
    with _collecting(faults):
        who = Identity(parts.recognisers(settings))
    for upstream in settings.upstreams:
        with _collecting(faults):
            endpoints.append(parts.endpoint(upstream, environ))
    token = None
    with _collecting(faults):
        token = settings.admin.token.resolve(environ) if settings.admin.token else None
    with _collecting(faults):
        store = parts.store(settings, environ)
    doors = None
    with _collecting(faults):
        doors = parts.doors(settings)
    faults += parts.pattern_faults(settings, registry)
    if faults or engine is None or registry is None or who is None or store is None or doors is None:
        raise ConfigFault(parts.with_keys(faults, settings))
    return _assemble(settings, engine, registry, who, endpoints, token, store, doors, worker, environ)


def _assemble(
    settings: Settings,
    engine: parts.Engine,
    registry: Registry,
    who: Identity,
    endpoints: Sequence[Endpoint],
    token: str | None,
    store: MemoryStore | RedisStore,
    doors: DoorTable,
    worker: Worker | None,
    environ: Mapping[str, str],
) -> App:
    metrics = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=metrics)
    folders = [worker.audit(sink.path) if worker else sink.path for sink in settings.audit.sinks]
    logs = [JsonlSink(folder, max_queue=settings.audit.max_queue) for folder in folders]
    models = [glob for upstream in settings.upstreams for glob in upstream.models if "*" not in glob]
    sink = Tee(*logs, MetricsSink(metrics, tools=sorted(registry.specs), models=models))
    upstream = HttpUpstream(endpoints)
    parts.count_evaluations(engine, metrics)
    trial = parts.trial(settings, sink, logs, metrics)
    asked = trial.beside(engine) if trial is not None else engine
    core = _core(settings, asked, registry, store, upstream, sink)
    limits = settings.limits
    proxy = Proxy(
        core,
        upstream,
        who,
        CODECS,
        max_request_bytes=limits.max_request_bytes,
        max_request_values=limits.max_request_values,
        keepalive_s=limits.keepalive_s,
        body_timeout_s=limits.body_timeout_s,
        idle_connection_s=limits.idle_connection_s,
        stalled_client_s=limits.stalled_client_s,
        doors=doors,
    )
    return App(
        settings=settings,
        proxy=proxy,
        engine=engine,
        upstream=upstream,
        store=store,
        logs=logs,
        sink=sink,
        metrics=metrics,
        registry=registry,
        guard_names=core.pipeline.guard_names,
        approvals=core.approvals,
        followers=[
            parts.policy_follower(settings, engine, sink, environ),
            *parts.identity_followers(who.recognisers),
            *([trial.follower] if trial is not None else []),
        ],
        admin_token=token,
        worker=worker,
    )


def _core(
    settings: Settings,
    engine: PolicyEngine,
    registry: Registry,
    store: MemoryStore | RedisStore,
    upstream: HttpUpstream,
    sink: Sink,
) -> Core:
    """What all exchanges share."""
    limits, approvals, audit = settings.limits, settings.approvals, settings.audit
    results = parts.results_gate(settings, engine, LinearPatterns(), sink)
    cache = parts.cache_guard(settings, store, results)
    prices = parts.priced(settings)
    pipeline = Pipeline(
        guards(settings, engine, parts.limits_guard(settings, registry, store), cache),
        sink,
        policy_revision=lambda: engine.revision,
        config_digest=settings.digest,
        capture=audit.capture,
        on_audit_failure=audit.on_failure,
    )
    return Core(
        upstream=upstream,
        pipeline=pipeline,
        store=store,
        sink=sink,
        registry=lambda: registry,
        gates=gates(settings, engine, results, sink),
        learners=(cache,) if cache is not None else (),
        meter=parts.meter(settings, prices, store),
        cost_usd=prices.cost_usd,
        approvals=Approvals(store, approvals.accept, approvals.ttl_s, approvals.wait_s, asyncio.sleep),
        caps=Caps(limits.max_event_bytes, limits.max_held_bytes, limits.max_response_bytes),
        max_rounds=limits.max_rounds,
        settled_ttl_s=limits.settled_ttl_s,
        status=settings.status.enabled,
        capture=audit.capture,
    )


@contextlib.contextmanager
def _collecting(faults: list[str]) -> Iterator[None]:
    try:
        yield
    except (ConfigFault, PolicyFault, RegistryFault, IdentityFault) as exc:
        faults.extend(exc.faults)
