"""The systemd unit: what it starts, where its secret is, and how long it may take to stop."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.config import Settings, load

SYSTEMD = Path(__file__).parents[2] / "deploy" / "systemd"


def _service() -> dict[str, str]:
    lines = (SYSTEMD / "callgate.service").read_text().splitlines()
    pairs = [line.partition("=") for line in lines if "=" in line and not line.startswith("#")]
    return {key: value for key, _, value in pairs}


@pytest.fixture(scope="module")
def settings() -> Settings:
    return load(SYSTEMD / "callgate.yaml", {})


def test_it_checks_and_serves_the_same_file() -> None:
    unit = _service()
    assert unit["ExecStart"] == "/opt/callgate/bin/callgate serve --config /etc/callgate/callgate.yaml"
    assert unit["ExecStartPre"] == unit["ExecStart"].replace(" serve ", " check ")


def test_the_key_is_read_where_systemd_puts_it(settings: Settings) -> None:
    name, _, source = _service()["LoadCredential"].partition(":")
    (upstream,) = settings.upstreams
    assert str(upstream.model_dump()["auth"]["file"]) == f"/run/credentials/callgate.service/{name}"
    assert source.startswith("/etc/callgate/")


def test_streams_may_end_before_it_is_killed(settings: Settings) -> None:
    assert float(_service()["TimeoutStopSec"]) > settings.limits.drain_s


def test_the_audit_log_goes_to_the_one_writable_directory(settings: Settings) -> None:
    state = f"/var/lib/{_service()['StateDirectory']}"
    assert all(str(sink.path).startswith(f"{state}/") for sink in settings.audit.sinks)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("DynamicUser", "yes"),
        ("NoNewPrivileges", "yes"),
        ("CapabilityBoundingSet", ""),
        ("ProtectSystem", "strict"),
        ("ProtectHome", "yes"),
        ("MemoryDenyWriteExecute", "yes"),
        ("RestrictNamespaces", "yes"),
        ("SystemCallArchitectures", "native"),
    ],
)
def test_it_is_confined(setting: str, value: str) -> None:
    assert _service()[setting] == value
