"""What decides, and where its policies come from."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

from prometheus_client import CollectorRegistry

from proxy.config import ConfigFault, Settings
from proxy.engines.following.loading import loaded
from proxy.engines.following.waiting import WaitingEngine
from proxy.engines.following.watching import PolicyWatcher
from proxy.engines.opa import OpaEngine
from proxy.engines.regorus import RegorusEngine
from proxy.engines.sources.bundles import Archive
from proxy.engines.sources.fetching import fetched
from proxy.engines.sources.policyset import PolicyFault, PolicySet
from proxy.parts.bundles import local_bundles, remote_bundles
from proxy.parts.places import with_keys
from proxy.ports import Sink, Unavailable
from proxy.record import PolicyRecord
from proxy.sinks.counted import Counted

Engine = RegorusEngine | WaitingEngine | OpaEngine


def engine(settings: Settings, environ: Mapping[str, str]) -> Engine:
    """What decides; raises ``PolicyFault`` or ``ConfigFault``.

    Policies that are elsewhere come when the follower starts; what is here is read, and must be in order.
    """
    if settings.policies.engine == "embedded":
        here = load_policies(settings, environ)
        timeout_s = settings.guards.policy.timeout_s
        return (
            WaitingEngine(timeout_s) if remote_bundles(settings, environ) else RegorusEngine(here, timeout_s)
        )
    opa = settings.policies.opa
    token = opa.token.resolve(environ) if opa.token is not None else None
    return OpaEngine(opa.url, token, min(opa.timeout_s, settings.guards.policy.timeout_s))


def count_evaluations(engine: Engine, metrics: CollectorRegistry) -> None:
    """Show what was asked aside in the metrics."""
    if not isinstance(engine, OpaEngine):
        Counted(
            metrics,
            "callgate_policy_decisions_aside",
            "Decisions that were made in a process which is ended at the deadline.",
            ("package", "outcome"),
            lambda: engine.counts.outcomes,
        )


def policy_follower(
    settings: Settings, engine: Engine, sink: Sink, environ: Mapping[str, str] = os.environ
) -> OpaEngine | PolicyWatcher:
    """What keeps the engine at what its policies say, and records which are in force."""
    if isinstance(engine, OpaEngine):
        return engine

    def note(event: str, revision: str, faults: Sequence[str]) -> None:
        time = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        with suppress(Unavailable):  # the log's own faults are told by readiness
            sink.write(PolicyRecord(time, event, revision, tuple(faults)))

    remote = remote_bundles(settings, environ)
    local = _local(settings, environ)

    async def load() -> PolicySet:
        return await loaded([*local, *(archive for bundle in remote if (archive := bundle.archive()))])

    return PolicyWatcher(engine, load, watched_paths(settings), note=note, remote=remote)


def policy_paths(settings: Settings) -> tuple[Path, ...]:
    """The folders and files of the policies in force, but for bundles that have settings of their own."""
    policies = settings.policies
    return policies.paths if policies.paths or policies.bundles else (packaged("policies"),)


def watched_paths(settings: Settings) -> tuple[Path, ...]:
    """Every folder and file that policies come from."""
    bundles = tuple(bundle.path for bundle in settings.policies.bundles if bundle.path is not None)
    return policy_paths(settings) + bundles


def load_policies(settings: Settings, environ: Mapping[str, str] = os.environ) -> PolicySet:
    """The policies and data that the settings name, but for bundles at URLs.

    The starter policies where they name none. Raises ``PolicyFault`` or ``ConfigFault``.
    """
    return PolicySet.load(_local(settings, environ))


async def fetch_policies(
    settings: Settings, environ: Mapping[str, str] = os.environ, *, tests: bool = False
) -> PolicySet:
    """All policies and data that the settings name, with bundles at URLs asked for once.

    Raises ``PolicyFault`` or ``ConfigFault``.
    """
    try:
        sources = [*_local(settings, environ), *await fetched(remote_bundles(settings, environ))]
        return await asyncio.to_thread(PolicySet.load, sources, tests=tests)
    except PolicyFault as exc:
        raise PolicyFault(with_keys(exc.faults, settings)) from None
    except ConfigFault as exc:
        raise ConfigFault(with_keys(exc.faults, settings)) from None


def _local(settings: Settings, environ: Mapping[str, str]) -> list[Path | Archive]:
    return [*policy_paths(settings), *local_bundles(settings, environ)]


def packaged(name: str) -> Path:
    """A folder of defaults: beside the code in a checkout, inside the package where it is installed."""
    inside = Path(str(files("proxy"))) / "_defaults" / name
    return inside if inside.is_dir() else Path(__file__).parents[2] / name
