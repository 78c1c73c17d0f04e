"""What decides, and where its policies come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

from proxy.config import Settings
from proxy.engines.opa import OpaEngine
from proxy.engines.policyset import PolicySet
from proxy.engines.regorus import RegorusEngine
from proxy.engines.watching import PolicyWatcher
from proxy.ports import Sink, Unavailable
from proxy.record import PolicyRecord

Engine = RegorusEngine | OpaEngine


def engine(settings: Settings, environ: Mapping[str, str]) -> Engine:
    """What decides; raises ``PolicyFault`` or ``ConfigFault``."""
    if settings.policies.engine == "embedded":
        return RegorusEngine(load_policies(settings))
    opa = settings.policies.opa
    token = opa.token.resolve(environ) if opa.token is not None else None
    return OpaEngine(opa.url, token, min(opa.timeout_s, settings.guards.policy.timeout_s))


def policy_follower(settings: Settings, engine: Engine, sink: Sink) -> OpaEngine | PolicyWatcher:
    """What keeps the engine at what its policies say, and records which are in force."""
    if isinstance(engine, OpaEngine):
        return engine

    def note(event: str, revision: str, faults: Sequence[str]) -> None:
        time = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        with suppress(Unavailable):  # the log's own faults are told by readiness
            sink.write(PolicyRecord(time, event, revision, tuple(faults)))

    return PolicyWatcher(engine, lambda: load_policies(settings), policy_paths(settings), note=note)


def policy_paths(settings: Settings) -> tuple[Path, ...]:
    """The folders and files of the policies in force."""
    return settings.policies.paths or (packaged("policies"),)


def load_policies(settings: Settings) -> PolicySet:
    """The policies and data that the settings name; the starter policies where they name none."""
    return PolicySet.load(policy_paths(settings))


def packaged(name: str) -> Path:
    """A folder of defaults: beside the code in a checkout, inside the package where it is installed."""
    inside = Path(str(files("proxy"))) / "_defaults" / name
    return inside if inside.is_dir() else Path(__file__).parents[2] / name
