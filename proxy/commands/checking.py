"""`callgate check`: what would be served, or every fault that keeps it from being served."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from proxy.app import App, build
from proxy.commands.terminal import ConfigFile, refuse, run, show
from proxy.config import ConfigFault, load
from proxy.config.policies import Candidate
from proxy.engines.following.waiting import WaitingEngine
from proxy.engines.regorus import RegorusEngine
from proxy.engines.sources.policyset import PolicyFault
from proxy.parts import proven


def check(config: ConfigFile = None) -> None:
    """Check config, policies and tools without serving; name every fault and exit 1 if there is one."""
    show("Callgate would serve", list(_lines(built_from(config))))


def built_from(config: Path | None) -> App:
    """What a file describes; names its faults and exits 1 where it cannot be built."""
    try:
        return build(load(config))
    except ConfigFault as exc:
        refuse("The configuration has faults", exc.faults)


def _lines(built: App) -> Iterator[tuple[str, str]]:
    settings = built.settings
    yield "listen", f"http://{settings.listen.host}:{settings.listen.port}/v1"
    yield "admin", f"http://{settings.admin.host}:{settings.admin.port}"
    for upstream in settings.upstreams:
        yield "upstream", f"{upstream.name}: {upstream.base_url} for {', '.join(upstream.models)}"
    yield "identity", " > ".join(way.kind for way in settings.identity)
    yield from _policies(built)
    yield "tools", _tools(built)
    yield "guards", " > ".join(built.guard_names)
    yield "config digest", settings.digest[:16]


def _policies(built: App) -> Iterator[tuple[str, str]]:
    try:
        read = run(built.read_policies())
    except PolicyFault as exc:
        refuse("The policies cannot be served", exc.faults)
    policies = built.settings.policies
    if policies.engine == "opa":
        yield "policies", f"those of the OPA server at {policies.opa.url}"
    else:
        sources = [*map(str, policies.paths), *(["the bundles below"] if policies.bundles else [])]
        where = ", ".join(sources) or "the starter policies"
        yield "policies", f"{where} (revision {built.engine.revision[:16]})"
    for label, revision in read.labels if read is not None else ():
        yield "bundle", f"{label}: {revision[:100] or 'without a revision of its own'}"
    if isinstance(built.engine, RegorusEngine | WaitingEngine):
        for package, why in sorted(built.engine.asked_aside.items()):
            yield "evaluated aside", f"{package}: {why}"
    if policies.candidate is not None:
        yield "candidate", _candidate(policies.candidate)


def _candidate(tried: Candidate) -> str:
    try:
        revision = run(proven(tried))
    except PolicyFault as exc:
        refuse("The candidate policies have faults", exc.faults)
    return f"{', '.join(map(str, tried.paths))} (revision {revision[:16]}), asked and never obeyed"


def _tools(built: App) -> str:
    tools, specs = built.settings.tools, built.registry.specs.values()
    shown = sum(tools.override if spec.override is None else spec.override for spec in specs)
    said = [f"{len(specs)} registered", f"others: {tools.unregistered}"]
    said += [f"{shown} shown in the registry's words"] if shown else []
    if tools.pin != "off":
        said.append(f"{sum(bool(spec.pin) for spec in specs)} pinned ({tools.pin})")
    return ", ".join(said)
