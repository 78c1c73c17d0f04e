"""What stands outside: providers, doors, the store."""

from __future__ import annotations

import ssl
from collections.abc import Mapping

from proxy.config import ConfigFault, Settings
from proxy.config.upstreams import Upstream as UpstreamSettings
from proxy.config.values import SecretRef
from proxy.gates.routing import Guidance, Route
from proxy.http.doors import DoorTable
from proxy.http.upstream import Endpoint
from proxy.parts.places import authorities
from proxy.stores.memory import MemoryStore
from proxy.stores.redis import RedisStore


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
    return authorities(upstream.ca_file)
